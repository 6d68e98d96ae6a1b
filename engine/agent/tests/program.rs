//! The agent as the program it is: started, asked, frozen around, measured.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use brood_agent_proto::exec::ExecSpec;
use brood_agent_proto::{Client, ForkToken};
use common::{OwnCgroup, TIMEOUT, has_event};

struct Program {
    child: Child,
    socket: std::path::PathBuf,
    cgroup: OwnCgroup,
    _directory: tempfile::TempDir,
}

impl Program {
    /// Starts it and waits for its "ready".
    fn start() -> Option<Self> {
        let cgroup = OwnCgroup::make()?;
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let mut child = Command::new(env!("CARGO_BIN_EXE_brood-agent"))
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .arg("--cgroup-root")
            .arg(&cgroup.0)
            .arg("--root-prefix")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "brood-agent ready\n");
        Some(Self {
            child,
            socket,
            cgroup,
            _directory: directory,
        })
    }

    fn client(&self) -> Client {
        Client::handshake(UnixStream::connect(&self.socket).unwrap(), TIMEOUT).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn it_lives_outside_the_workload_it_freezes_and_takes_strangers_out_of_its_cgroup() {
    let Some(program) = Program::start() else {
        return;
    };
    let own = program.cgroup.0.join("brood-agent");
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(own.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    let token = ForkToken([3; 16]);
    let quiesced = program.client().quiesce(token, TIMEOUT).unwrap();
    let left = std::fs::read_to_string(own.join("cgroup.procs")).unwrap();
    assert_eq!(left.trim(), program.child.id().to_string());
    assert!(has_event(&program.cgroup.0.join("workload"), "frozen 1"));
    quiesced.thaw().unwrap();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn it_stays_small() {
    let Some(program) = Program::start() else {
        return;
    };
    let mut clients: Vec<Client> = (0..16).map(|_| program.client()).collect();
    for client in &mut clients {
        let spec = ExecSpec::new(["head", "-c", "1000000", "/dev/zero"]);
        let ran = client.run(&spec, Duration::from_secs(20), 1 << 20).unwrap();
        assert_eq!(
            u64::try_from(ran.stdout.len()).unwrap() + ran.lost,
            1_000_000
        );
    }
    let rss = clients[0].stats().unwrap().agent_rss_kib;
    eprintln!("resident after 16 programs of 1 MB output: {rss} KiB");
    assert!(rss < 8 * 1024, "{rss} KiB");
}

#[test]
fn a_word_that_is_no_option_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_brood-agent"))
        .arg("--no-such")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--no-such"));
}
