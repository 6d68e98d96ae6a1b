//! The lab: a QEMU/TCG machine with SVM, whose KVM runs Linux guests where the host's does not.
//!
//! `virtme-ng` boots Debian's generic kernel on the host's file system (read-only, over 9p) and runs one command.
//! Invariant: the command's status is ours, and a lab that did not come up or died is an error, never a status.
//! On a host whose KVM runs Linux the command simply runs here.

mod machine;
mod script;
mod steady;
mod stream;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::host::{Kvm, kvm};
use crate::packages::{self, Need};
use crate::place::{Place, Profile};
use crate::process::{say, wait_at_most};
use machine::{End, Machine};
use script::Script;
pub(crate) use steady::stay;

/// A lab that does not come up has not run the command, so it may be started again.
const BOOT_ATTEMPTS: u32 = 2;

/// One emulated CPU. With two, QEMU runs them in parallel, and under nested SVM its kernel died of breakpoints it had
/// taken back, a corrupted stack and triple faults of guests, none of which one CPU has shown.
const CPUS: u32 = 1;

/// Lines of the kernel's console that are shown for a lab that failed.
const CONSOLE_LINES: usize = 40;

/// The size and the limits of a lab.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Options {
    /// Memory, as QEMU writes it.
    #[arg(long, default_value = "4G")]
    pub(crate) memory: String,
    /// CPUs; each is a thread of QEMU.
    #[arg(long, default_value_t = CPUS)]
    pub(crate) cpus: u32,
    /// Seconds that the command may take once the lab is up.
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: "4G".to_owned(),
            cpus: CPUS,
            timeout: 1800,
        }
    }
}

/// `cargo xtask lab [OPTIONS] -- CMD…`
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// The command and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

/// What runs in the lab.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) cwd: &'a Path,
    pub(crate) command: &'a [OsString],
    /// Variables on top of those that are always handed on.
    pub(crate) environment: &'a [(OsString, OsString)],
}

/// Runs the command where Linux guests run, and returns its status.
pub(crate) fn run_command(place: &Place, arguments: &Arguments) -> Result<u8> {
    if kvm() == Kvm::NeedsLab {
        packages::ensure(place, &[Need::Lab])?;
    }
    run(
        place,
        &arguments.options,
        Job {
            cwd: &place.cwd,
            command: &arguments.command,
            environment: &[],
        },
    )
}

/// Like [`run_command`], for commands that have installed [`Need::Lab`] already.
pub(crate) fn run(place: &Place, options: &Options, job: Job<'_>) -> Result<u8> {
    match kvm() {
        Kvm::RunsLinux => run_here(options, job),
        Kvm::NeedsLab => run_there(place, options, job),
    }
}

fn run_here(options: &Options, job: Job<'_>) -> Result<u8> {
    say("lab: this host's KVM runs Linux guests, so the command runs here");
    let (program, arguments) = job.command.split_first().context("no command")?;
    let child = Command::new(program)
        .args(arguments)
        .envs(job.environment.iter().cloned())
        .current_dir(job.cwd)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let status = wait_at_most(child, Duration::from_secs(options.timeout))?;
    status.with_context(|| format!("no end after {} s", options.timeout))
}

fn run_there(place: &Place, options: &Options, job: Job<'_>) -> Result<u8> {
    let tools = packages::lab_tools(place)?;
    let scratch = Scratch::new(place)?;
    for path in [scratch.directory.as_path(), job.cwd] {
        refuse_hidden(path)?;
    }
    let environment = [&place.handed_on, job.environment].concat();
    // Not `current_exe`: building the workspace may have replaced the file this process runs.
    let keeper = place.program(Profile::Dev, "brood-xtask");
    let script = Script {
        keeper: &keeper,
        cwd: job.cwd,
        environment: &environment,
        timeout: options.timeout,
        command: job.command,
    };
    let file = scratch.directory.join(machine::SCRIPT);
    fs::write(&file, script.text()?).with_context(|| format!("writing {}", file.display()))?;

    let timeout = Duration::from_secs(options.timeout);
    let mut end = End::NeverUp;
    for _ in 0..BOOT_ATTEMPTS {
        end = Machine::start(&tools, options, &scratch.directory)?.wait(timeout)?;
        match end {
            End::Status(status) => return Ok(status),
            End::TimedOut => bail!("no end after {} s in the lab", options.timeout),
            End::NeverUp | End::Died | End::Overdue => scratch.show_console(),
        }
        if end != End::NeverUp {
            break;
        }
    }
    Err(Lost(end).into())
}

/// A lab that came to no status. What it would have run may be run again in a new one.
#[derive(Debug)]
pub(crate) struct Lost(End);

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Lost {}

/// A directory for one run, removed at its end.
struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    fn new(place: &Place) -> Result<Self> {
        let labs = place.cache.join("lab");
        remove_abandoned(&labs);
        let directory = labs.join(std::process::id().to_string());
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Shows the last that the lab's kernel said.
    fn show_console(&self) {
        let console = fs::read(self.directory.join(machine::CONSOLE)).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        say("lab: it failed; its kernel's last words:");
        for line in lines.iter().skip(lines.len().saturating_sub(CONSOLE_LINES)) {
            eprintln!("    {}", line.trim_end());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("    {} stays behind: {error}", self.directory.display());
        }
    }
}

/// Removes the directories of labs whose process was interrupted and is gone. What cannot be removed costs only space.
fn remove_abandoned(labs: &Path) {
    for entry in fs::read_dir(labs).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// virtme-ng mounts fresh file systems over these directories, so nothing of the host is seen below them.
fn refuse_hidden(path: &Path) -> Result<()> {
    const HIDDEN: [&str; 8] = [
        "/dev",
        "/proc",
        "/run",
        "/sys",
        "/var/cache",
        "/var/log",
        "/var/tmp",
        "/var/lib/apt",
    ];
    match HIDDEN.iter().find(|hidden| path.starts_with(hidden)) {
        Some(hidden) => bail!(
            "{} cannot be seen in the lab, which has a {hidden} of its own",
            path.display()
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_of_a_dead_process_is_removed_and_of_a_living_one_kept() {
        let labs = tempfile::tempdir().unwrap();
        let living = labs.path().join(std::process::id().to_string());
        // No process has an id beyond 2²², the limit of man 5 proc_sys_kernel's pid_max.
        let dead = labs.path().join("4194305");
        for directory in [&living, &dead] {
            fs::create_dir(directory).unwrap();
        }
        remove_abandoned(labs.path());
        assert!(living.exists() && !dead.exists());
    }

    #[test]
    fn directory_that_the_lab_hides_is_refused_by_component_and_not_by_prefix() {
        assert!(refuse_hidden(Path::new("/run/user/0/brood")).is_err());
        assert!(refuse_hidden(Path::new("/var/cache")).is_err());
        assert!(refuse_hidden(Path::new("/runner/work")).is_ok());
        assert!(refuse_hidden(Path::new("/var/lib/ci")).is_ok());
    }
}
