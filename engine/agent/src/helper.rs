//! Programs the agent runs for itself during a stamp: hooks, commands, `ssh-keygen`. Invariant: each runs in a cgroup of
//! the stamp, ends by its deadline or is killed with all it started, and leaves at most [`TAIL`] bytes of output.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use brood_agent_proto::AgentError;
use brood_agent_proto::blob::EnvMap;
use brood_agent_proto::exec::{ExecSpec, ExecState, ProgramDefaults};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cgroup;
use crate::exec::Command;
use crate::exec::spawn::{self, Child, Terminal};
use crate::fail;
use crate::freezer::timespec;
use crate::init::reap;

/// The last bytes of a program's output that are kept for an error.
pub(crate) const TAIL: usize = 1024;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) state: ExecState,
    /// The end of what it printed.
    pub(crate) tail: String,
}

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.state == (ExecState::Exited { code: 0 })
    }
}

/// Runs `argv` in `cgroup` until `deadline`.
pub(crate) fn run(
    argv: &[String],
    env: &EnvMap,
    cgroup: &Path,
    deadline: Instant,
) -> Result<Ended, AgentError> {
    // The agent's own programs run as root whatever the image says of those in it.
    let defaults = ProgramDefaults::default();
    let spec = ExecSpec::new(argv.to_vec());
    let command = Command::prepare(&spec, &defaults, env, Path::new("/"))?;
    let failed = |error: io::Error| fail::os("preparing a program", &error);
    let directory = cgroup::open(cgroup).map_err(failed)?;
    let null = std::fs::File::open("/dev/null").map_err(failed)?;
    let (output, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let stdio = [
        OwnedFd::from(null),
        theirs.try_clone().map_err(failed)?,
        theirs,
    ];
    let child = spawn::spawn(&command, &stdio, Terminal::None, directory.as_fd())?;
    drop(stdio);
    let tail = watch(&child, &output, deadline);
    let late = tail.is_none();
    if late {
        cgroup::kill(cgroup).map_err(|error| fail::os("killing a late program", &error))?;
    }
    let state = reap::wait(&child).map_err(|error| fail::os("waiting for a program", &error))?;
    Ok(Ended {
        state: if late { ExecState::TimedOut } else { state },
        tail: tail.unwrap_or_default(),
    })
}

/// Takes output until the program ends; none if the deadline comes first. What it leaves running may keep the pipe.
fn watch(child: &Child, output: &OwnedFd, deadline: Instant) -> Option<String> {
    let mut tail = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::new(&child.pidfd, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return None,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        let hit = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let (ended, readable) = (hit(0), hit(1));
        if readable {
            let mut buffer = [0; 4096];
            match rustix::io::read(output, &mut buffer) {
                Ok(read) if read > 0 => {
                    tail.extend_from_slice(buffer.get(..read).unwrap_or_default());
                    tail.drain(..tail.len().saturating_sub(TAIL));
                }
                _ => open = false,
            }
        } else if ended {
            return Some(String::from_utf8_lossy(&tail).into_owned());
        }
        if left.is_zero() {
            return None;
        }
    }
}
