//! The shipped program as a process of its own, serving on a port of this host.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use brood_crash_point::VARIABLE;
use brood_testkit::children_of;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// So long a test waits for an answer before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether there is `/dev/kvm`; says so where there is none and nobody insists.
pub(crate) fn kvm() -> bool {
    let is_there = Path::new("/dev/kvm").exists();
    assert!(is_there || std::env::var_os("CI").is_none(), "no /dev/kvm");
    if !is_there {
        println!("skipped: no /dev/kvm");
    }
    is_there
}

/// Where the shipped components are, if they were built.
pub(crate) fn built() -> PathBuf {
    std::env::var_os("BROOD_PLUGINS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"),
        PathBuf::from,
    )
}

/// The directory of the shipped components; none, with a printed reason, if they were not built.
pub(crate) fn components() -> Option<PathBuf> {
    let built = built();
    if built.join("quota.wasm").exists() {
        return Some(built);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no components in {}: run `cargo xtask plugins`",
        built.display()
    );
    println!("skipped: components are not built; `cargo xtask plugins` builds them");
    None
}

/// How it is started.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    pub(crate) state: &'a Path,
    pub(crate) components: &'a Path,
    /// The policy file; the one that ships if there is none.
    pub(crate) policy: Option<&'a Path>,
    /// What Linux machines start from.
    pub(crate) files: Option<&'a Path>,
    /// At which of its points it is killed.
    pub(crate) plan: Option<&'a str>,
}

impl<'a> Options<'a> {
    pub(crate) const fn new(state: &'a Path, components: &'a Path) -> Self {
        Self {
            state,
            components,
            policy: None,
            files: None,
            plan: None,
        }
    }
}

/// `brood up`.
pub(crate) struct Program {
    child: Child,
    address: Option<SocketAddr>,
    key: Option<String>,
}

impl Program {
    /// Starts it and waits until it serves or has ended.
    pub(crate) fn start(options: &Options<'_>) -> Self {
        // The lab says where the program is.
        let program =
            std::env::var_os("BROOD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_brood").into());
        let mut command = Command::new(program);
        command
            .args(["up", "--listen", "127.0.0.1:0", "--state"])
            .arg(options.state)
            .arg("--plugins")
            .arg(options.components)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(policy) = options.policy {
            command.arg("--policy").arg(policy);
        }
        if let Some(files) = options.files {
            command.arg("--files").arg(files);
        }
        if let Some(plan) = options.plan {
            command.env(VARIABLE, plan);
        }
        let mut child = command.spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        // All that it says is read, so that it never waits for room. Its supervisor says things there as well, so the end
        // of the pipe is not the end of the engine.
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                say.send(line).ok();
            }
        });
        let mut address = None;
        let mut words = String::new();
        while address.is_none() {
            match said.recv_timeout(Duration::from_millis(2)) {
                Ok(line) => {
                    let word = line.split_once("address=").map(|(_, rest)| rest);
                    address = word.and_then(|rest| rest.split(' ').next()?.parse().ok());
                    words = words + &line + "\n";
                }
                Err(_) if child.try_wait().expect("a child").is_some() => break,
                Err(_) => {}
            }
        }
        assert!(
            address.is_some() || options.plan.is_some(),
            "it does not serve: {words}"
        );
        // The key comes before it serves; of one that was killed all that it said is here.
        let mut program = Self {
            child,
            address,
            key: None,
        };
        program.key = program.first_line(stdout);
        program
    }

    fn first_line(&mut self, mut stdout: BufReader<std::process::ChildStdout>) -> Option<String> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_once = Timespec::default();
        let mut polled = [PollFd::new(stdout.get_ref(), PollFlags::IN)];
        if poll(&mut polled, Some(&at_once)) != Ok(1) {
            return None;
        }
        let mut line = String::new();
        stdout.read_line(&mut line).expect("text");
        let line = line.trim().to_owned();
        (!line.is_empty()).then_some(line)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.address.is_some()
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> brood_client::Address {
        let address = self.address.expect("it serves");
        format!("http://{address}").parse().expect("an address")
    }

    /// The key that it has shown.
    pub(crate) fn key(&self) -> Option<String> {
        self.key.clone()
    }

    /// The process that keeps its cells: its own child, or one of this process where an earlier engine has started it.
    pub(crate) fn supervisor(&self) -> Option<u32> {
        supervisor_of(self.child.id()).or_else(|| supervisor_of(std::process::id()))
    }

    /// The status and the body; none if it is gone. A policy that had no time on a busy host is asked again, as its answer
    /// says.
    pub(crate) fn ask(
        &self,
        key: &str,
        line: &str,
        idempotency: Option<&str>,
        body: &str,
    ) -> Option<(u16, Value)> {
        loop {
            let (status, answer) = self.ask_once(key, line, idempotency, body)?;
            let code = answer.pointer("/denial/code").and_then(Value::as_str);
            if code != Some("policy-unavailable") {
                return Some((status, answer));
            }
        }
    }

    fn ask_once(
        &self,
        key: &str,
        line: &str,
        idempotency: Option<&str>,
        body: &str,
    ) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(self.address?).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut request = format!(
            "{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n"
        );
        if let Some(key) = idempotency {
            request.push_str(&format!("Idempotency-Key: {key}\r\n"));
        }
        if !body.is_empty() {
            request.push_str("Content-Type: application/json\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// How it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("reaped")
    }

    /// Ends it and all its machines.
    pub(crate) fn interrupt(&mut self) {
        self.tell(Signal::INT);
        let ended = self.wait();
        assert!(ended.success(), "{ended}");
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.tell(Signal::KILL);
        self.wait();
    }

    /// Asks it to end; its machines go on.
    pub(crate) fn terminate(&self) {
        self.tell(Signal::TERM);
    }

    fn tell(&self, signal: Signal) {
        // A zombie takes signals as well.
        kill_process(Pid::from_child(&self.child), signal).expect("it is not reaped");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After a test that failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The child of `pid` that is a supervisor.
fn supervisor_of(pid: u32) -> Option<u32> {
    let is_supervisor = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| line.split('\0').nth(1) == Some("supervisor"))
    };
    children_of(pid).into_iter().find(is_supervisor)
}
