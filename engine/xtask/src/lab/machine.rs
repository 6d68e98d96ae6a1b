//! One lab machine, from `vng` started to `vng` ended.
//!
//! Invariant: all that the command wrote is handed on before the machine powers off. QEMU drops what its serial ports
//! still hold at that moment, so the script in the lab waits until both outputs have shown their end marker here.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::Options;
use super::script;
use super::stream::{Marker, Relay};
use crate::packages::LabTools;
use crate::process::{Leash, say, wait_on_leash};

/// What a lab runs.
pub(super) const SCRIPT: &str = "run.sh";
/// What a lab's kernel says.
pub(super) const CONSOLE: &str = "console.log";

/// How long a lab may take to come up.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a lab may take to power off, behind the command's limit.
const GRACE: Duration = Duration::from_secs(90);

/// How a lab ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With the command's status.
    Status(u8),
    /// With the command ended at its limit.
    TimedOut,
    /// Before the command was started.
    NeverUp,
    /// While the command ran.
    Died,
    /// Killed, since it did not even end the command at its limit.
    Overdue,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "the command ended with status {status}"),
            Self::TimedOut => formatter.write_str("the command did not end in time"),
            Self::NeverUp => formatter.write_str("the lab did not come up"),
            Self::Died => formatter.write_str(
                "the lab died under the command, or stood still and its watchdog ended it",
            ),
            Self::Overdue => formatter.write_str("the lab hung and was killed"),
        }
    }
}

/// A lab that was started, and the threads that hand on what it says.
pub(super) struct Machine {
    vng: Child,
    leash: (Sender<Leash>, Receiver<Leash>),
    stdout: JoinHandle<io::Result<Seen>>,
    stderr: JoinHandle<io::Result<Seen>>,
    release: JoinHandle<io::Result<()>>,
}

impl Machine {
    /// Boots a lab that runs [`SCRIPT`] of the directory and writes [`CONSOLE`] there.
    pub(super) fn start(tools: &LabTools, options: &Options, scratch: &Path) -> Result<Self> {
        let Options { cpus, memory, .. } = options;
        say(&format!(
            "lab: starting Linux {} on {cpus} emulated CPUs with {memory}",
            tools.release
        ));
        let start = Instant::now();
        let mut vng = command(tools, options, scratch)?
            .spawn()
            .context("starting virtme-ng")?;
        let stdin = vng.stdin.take().context("the lab's standard input")?;
        let stdout = vng.stdout.take().context("the lab's standard output")?;
        let stderr = vng.stderr.take().context("the lab's standard error")?;

        let (leash, orders) = channel();
        let longer = leash.clone();
        let limit = Duration::from_secs(options.timeout).saturating_add(GRACE);
        let up = move || {
            say(&format!(
                "lab: up after {:.1} s",
                start.elapsed().as_secs_f64()
            ));
            // Nobody holds the other end of a lab that is gone.
            longer.send(Leash::Within(limit)).ok();
        };
        let (handed_on, both) = channel();
        Ok(Self {
            vng,
            leash: (leash, orders),
            stdout: relay(stdout, io::stdout(), handed_on.clone(), up),
            stderr: relay(stderr, io::stderr(), handed_on, || ()),
            release: thread::spawn(move || release(stdin, &both)),
        })
    }

    /// Waits for the end; a lab that does not come up, or hangs behind the command's limit, is killed.
    pub(super) fn wait(self, timeout: Duration) -> Result<End> {
        let (leash, orders) = self.leash;
        let status = wait_on_leash(self.vng, BOOT_LIMIT, leash, orders)?;
        joined(self.stderr, "handing on the lab's standard error")?;
        let seen = joined(self.stdout, "handing on the lab's standard output")?;
        let released = joined(self.release, "releasing the lab");
        let end = seen.end(status.is_none(), timeout);
        if matches!(end, End::Status(_)) {
            released?;
        }
        Ok(end)
    }
}

fn joined<T>(thread: JoinHandle<io::Result<T>>, what: &'static str) -> Result<T> {
    let result = thread.join().map_err(|_| anyhow!("{what}: a panic"))?;
    result.context(what)
}

/// What an output's markers told, and when.
#[derive(Clone, Copy, Default)]
struct Seen {
    up: Option<Instant>,
    end: Option<(u8, Instant)>,
}

impl Seen {
    fn end(self, killed: bool, timeout: Duration) -> End {
        match (self.up, self.end) {
            (None, _) => End::NeverUp,
            (Some(_), None) if killed => End::Overdue,
            (Some(_), None) => End::Died,
            // The lab's clock runs a little differently.
            (Some(up), Some((status, end))) => {
                let late = end.duration_since(up) + Duration::from_secs(1) >= timeout;
                if late && script::TIMED_OUT.contains(&status) {
                    End::TimedOut
                } else {
                    End::Status(status)
                }
            }
        }
    }
}

/// The lab's command line. QEMU opens its outputs through /proc/self/fd, which truncates a file and fails on a socket,
/// so they are pipes, whatever ours are.
fn command(tools: &LabTools, options: &Options, scratch: &Path) -> Result<Command> {
    let path = env::join_paths([&tools.programs].into_iter().chain(&tools.path))
        .context("PATH for virtme-ng")?;
    let mut command = Command::new(tools.programs.join("vng"));
    command
        .args(["--disable-kvm", "--force-9p", "--user", "root"])
        .args([
            "--cpus",
            &options.cpus.to_string(),
            "--memory",
            &options.memory,
        ])
        // Kernel warnings count, the rest of the boot does not; the first serial port is the kernel's console.
        .args(["--append", "loglevel=5"])
        .arg("-r")
        .arg(&tools.vmlinuz)
        .arg(format!(
            "--qemu-opts=-cpu max,+svm -set chardev.console.path={CONSOLE}"
        ))
        .arg("--exec")
        .arg(script::shell_words([
            OsStr::new("sh"),
            scratch.join(SCRIPT).as_os_str(),
        ]))
        .env("PATH", path)
        .env("TMPDIR", scratch)
        .current_dir(scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Hands one output on; says so over the channel when its end marker was seen.
fn relay(
    source: impl Read + Send + 'static,
    sink: impl Write + Send + 'static,
    handed_on: Sender<()>,
    mut up: impl FnMut() + Send + 'static,
) -> JoinHandle<io::Result<Seen>> {
    thread::spawn(move || {
        let mut seen = Seen::default();
        let relay = Relay::new(sink, |marker| match marker {
            Marker::Up => {
                seen.up = Some(Instant::now());
                up();
            }
            Marker::End(status) => {
                seen.end = Some((status, Instant::now()));
                // Nobody holds the other end of a lab that is gone.
                handed_on.send(()).ok();
            }
        });
        relay.copy(source)?;
        Ok(seen)
    })
}

/// Lets the lab power off once both outputs are complete. A lab that dies takes both senders with it.
fn release(mut stdin: ChildStdin, both: &Receiver<()>) -> io::Result<()> {
    if both.recv().is_ok() && both.recv().is_ok() {
        stdin.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_counts_only_from_a_lab_that_came_up_and_a_command_that_ended() {
        let (up, timeout) = (Instant::now(), Duration::from_secs(100));
        let seen = |end| Seen { up: Some(up), end };
        let after = |status, seconds| Some((status, up + Duration::from_secs(seconds)));
        assert_eq!(Seen::default().end(true, timeout), End::NeverUp);
        assert_eq!(seen(None).end(false, timeout), End::Died);
        assert_eq!(seen(None).end(true, timeout), End::Overdue);
        assert_eq!(seen(after(0, 5)).end(false, timeout), End::Status(0));
        assert_eq!(seen(after(124, 5)).end(false, timeout), End::Status(124));
        assert_eq!(seen(after(124, 100)).end(false, timeout), End::TimedOut);
        assert_eq!(seen(after(3, 100)).end(false, timeout), End::Status(3));
    }
}
