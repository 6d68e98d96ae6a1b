//! A guest made of one cgroup and one directory of this machine. Invariant: the machine itself (clock, hostname, random
//! numbers, `/etc`) stays as it is, and nothing outside the guest's cgroup is ever frozen.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test program uses its own part of this module, and a helper that fails is a test that fails"
)]

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brood_agent::listener::Listener;
use brood_agent::options::{Listen, Options, Role};
use brood_agent::system::{Kernel, System};
use brood_agent::{Agent, serve};
use brood_agent_proto::Client;
use brood_agent_proto::stat::{Clocks, Power};

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A cgroup of this test's own, removed with all that is in it.
pub struct OwnCgroup(pub PathBuf);

impl OwnCgroup {
    /// None, having said so, on a machine without a cgroup2 that we may write to. CI must have one.
    pub fn make() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("brood-test-{}-{number}", std::process::id());
        let made = root.map(|root| root.join(name));
        match made {
            Some(path) if fs::create_dir(&path).is_ok() => Some(Self(path)),
            _ => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "CI needs a writable cgroup2"
                );
                eprintln!("skipped: no writable cgroup2 here");
                None
            }
        }
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        fs::write(self.0.join("cgroup.kill"), "1").unwrap();
        wait_for_event(&self.0, "populated 0");
        remove_tree(&self.0);
    }
}

fn remove_tree(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            remove_tree(&entry.path());
        }
    }
    // The agent removes empty ones, too.
    if let Err(error) = fs::remove_dir(cgroup) {
        assert_eq!(
            error.kind(),
            io::ErrorKind::NotFound,
            "{}",
            cgroup.display()
        );
    }
}

/// Waits until the cgroup's events have this line.
pub fn wait_for_event(cgroup: &Path, line: &str) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::unix::fs::FileExt;
    let Ok(events) = fs::File::open(cgroup.join("cgroup.events")) else {
        return;
    };
    loop {
        let mut text = [0; 256];
        let Ok(read) = events.read_at(&mut text, 0) else {
            return;
        };
        if String::from_utf8_lossy(&text[..read])
            .lines()
            .any(|found| found == line)
        {
            return;
        }
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        let limit = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert_ne!(
            poll(&mut fds, Some(&limit)).unwrap(),
            0,
            "{line} in {}",
            cgroup.display()
        );
    }
}

pub fn has_event(cgroup: &Path, line: &str) -> bool {
    fs::read_to_string(cgroup.join("cgroup.events"))
        .unwrap()
        .lines()
        .any(|found| found == line)
}

/// What a stamp would have done to the kernel.
#[derive(Default)]
pub struct Recorded {
    pub calls: Vec<String>,
    pub hostname: String,
    pub realtime_ns: Option<u64>,
    pub boot_id_file: Option<PathBuf>,
    pub seeds: Vec<[u8; 64]>,
    /// The call of this name fails with EPERM.
    pub refuse: Option<&'static str>,
}

#[derive(Clone, Default)]
pub struct Recorder(pub Arc<Mutex<Recorded>>);

impl Recorder {
    fn record(&self, call: &'static str) -> io::Result<std::sync::MutexGuard<'_, Recorded>> {
        let mut recorded = self.0.lock().unwrap();
        recorded.calls.push(call.to_owned());
        if recorded.refuse == Some(call) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(recorded)
    }
}

impl System for Recorder {
    fn add_entropy(&self, seed: &[u8; 64]) -> io::Result<()> {
        self.record("add_entropy")?.seeds.push(*seed);
        Ok(())
    }

    fn set_realtime(&self, realtime_ns: u64) -> io::Result<()> {
        self.record("set_realtime")?.realtime_ns = Some(realtime_ns);
        Ok(())
    }

    fn step_realtime(&self, by_ns: i64) -> io::Result<()> {
        let now = self.clocks().realtime_ns;
        self.record("step_realtime")?.realtime_ns = now.checked_add_signed(by_ns);
        Ok(())
    }

    fn clocks(&self) -> Clocks {
        let mut clocks = Kernel::new(Role::Service).clocks();
        if let Some(set) = self.0.lock().unwrap().realtime_ns {
            clocks.realtime_ns = set;
        }
        clocks
    }

    fn set_hostname(&self, hostname: &str) -> io::Result<()> {
        hostname.clone_into(&mut self.record("set_hostname")?.hostname);
        Ok(())
    }

    fn hostname(&self) -> String {
        self.0.lock().unwrap().hostname.clone()
    }

    fn show_at(&self, file: &Path, target: &Path) -> io::Result<()> {
        assert!(target.ends_with("proc/sys/kernel/random/boot_id"));
        self.record("show_at")?.boot_id_file = Some(file.to_owned());
        Ok(())
    }

    fn boot_id(&self) -> io::Result<String> {
        let file = self.0.lock().unwrap().boot_id_file.clone();
        let text = fs::read_to_string(file.ok_or(io::ErrorKind::NotFound)?)?;
        Ok(text.trim_end().to_owned())
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        Kernel::new(Role::Service).random()
    }

    fn power(&self, power: Power) -> io::Result<()> {
        self.record("power")?.calls.push(format!("{power:?}"));
        Ok(())
    }
}

/// An agent in this process, its workload in a cgroup of its own.
pub struct Guest {
    pub system: Recorder,
    socket: PathBuf,
    /// Dropped before the directory.
    pub cgroup: OwnCgroup,
    pub directory: tempfile::TempDir,
}

impl Guest {
    /// None, having said so, where there is no cgroup2.
    pub fn start() -> Option<Self> {
        let cgroup = OwnCgroup::make()?;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        for file in ["passwd", "group"] {
            fs::copy(Path::new("/etc").join(file), root.join("etc").join(file)).unwrap();
        }
        let socket = directory.path().join("agent.sock");
        let options = Options {
            listen: Listen::Unix(socket.clone()),
            role: Role::Service,
            cgroup_root: cgroup.0.clone(),
            root_prefix: root,
        };
        let system = Recorder::default();
        let listener = Listener::bind(&options.listen).unwrap();
        let agent = Agent::new(options, Box::new(system.clone())).unwrap();
        std::thread::spawn(move || serve(&agent, &listener));
        Some(Self {
            system,
            socket,
            cgroup,
            directory,
        })
    }

    pub fn stream(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    pub fn client(&self) -> Client {
        Client::handshake(self.stream(), TIMEOUT).unwrap()
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path.trim_start_matches('/'))).unwrap()
    }
}
