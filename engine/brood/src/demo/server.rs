//! `brood up`, a process of its own with a state directory of its own.
//!
//! Invariant: dropped before it has stopped, it is interrupted, so that no machine of it goes on.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::Instant as Stopwatch;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Sources;
use super::command::Command;

pub(super) struct Server {
    program: PathBuf,
    child: Child,
    url: String,
    key: String,
    log: PathBuf,
}

impl Server {
    /// Starts it, and waits until it serves.
    pub(super) fn start(sources: &Sources<'_>, state: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot tell which program this is")?;
        let log = state.with_extension("log");
        let watch = Stopwatch::now();
        let mut child = Process::new(&program)
            .args(["up", "--listen", "127.0.0.1:0", "--state"])
            .arg(state)
            .arg("--files")
            .arg(sources.files)
            .arg("--policy")
            .arg(sources.policy)
            .arg("--plugins")
            .arg(sources.plugins)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).context("making a file for its log")?)
            .spawn()
            .context("starting brood up")?;
        let stdout = child.stdout.take().context("no pipe")?;
        let mut server = Self {
            program,
            child,
            url: String::new(),
            key: String::new(),
            log,
        };
        // The key of a new state directory comes before it serves, and nothing else on standard output.
        BufReader::new(stdout).read_line(&mut server.key)?;
        server.key.truncate(server.key.trim_end().len());
        server.url = server.serves()?;
        println!(
            "  {} serves after {:.0} ms; policy: {}",
            server.url,
            watch.elapsed().as_secs_f64() * 1e3,
            sources.policy.display()
        );
        Ok(server)
    }

    /// Waits for the line that says where it serves.
    fn serves(&mut self) -> anyhow::Result<String> {
        loop {
            let words = self.words()?;
            let address = words.split_once("address=").map(|(_, rest)| rest);
            if let Some((address, _)) = address.and_then(|rest| rest.split_once(['\n', ' '])) {
                return Ok(format!("http://{address}"));
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("brood up ended ({status}) before it served:\n{words}");
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn words(&self) -> anyhow::Result<String> {
        let mut words = String::new();
        File::open(&self.log)?.read_to_string(&mut words)?;
        Ok(words)
    }

    /// The command line, with its address and its key.
    pub(super) fn command(&self) -> anyhow::Result<Command> {
        ensure!(!self.key.is_empty(), "brood up has shown no key");
        Ok(Command::new(&self.program, &self.url, &self.key))
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // One that has ended is not waited for yet, so it is no other process.
        pid.and_then(|pid| kill_process(pid, Signal::INT).ok());
    }

    /// Stops it, as Ctrl-C does.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.interrupt();
        let status = self.child.wait()?;
        ensure!(
            status.success(),
            "brood up ended with {status}:\n{}",
            self.words()?
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            if let Ok(words) = self.words() {
                eprintln!("{words}");
            }
            self.interrupt();
            drop(self.child.wait());
        }
    }
}
