//! What the engine asks for, done.
//!
//! Invariant: a request that is refused has changed nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use brood_control::{Control, listener};
use brood_units::MachineId;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Supervisor;
use super::ward::Living;
use crate::protocol::{MAX_COMMAND, MAX_KEPT, Refusal, Reply, Request};

const FEW_DESCRIPTORS: &str =
    "raise the limit of open files of the engine (LimitNOFILE=, ulimit -n)";
const GREETED: &str = "greet once, with the first packet";

type Answer = Result<(Reply, Vec<OwnedFd>), Refusal>;

impl Supervisor {
    pub(super) fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        let done = || (Reply::Done, Vec::new());
        match request {
            Request::Hello { .. } => Err(Refusal::new("hello", "it was said before", GREETED)),
            Request::Start {
                id,
                program,
                arguments,
            } => self.start(id, &program, &arguments),
            Request::Keep { cells } => self.keep(&cells, fds).map(|()| done()),
            Request::List { after } => {
                let (entries, more) = self.wards.list(after);
                Ok((Reply::List { entries, more }, Vec::new()))
            }
            Request::Duplicate { id } => hand_out(self.living("duplicate", id)?),
            Request::Noted { ids } => self.wards.noted(&ids).map(|()| done()).map_err(|id| {
                let cause = format!("machine {id} lives");
                Refusal::new("noted", cause, "note ends that were told")
            }),
            Request::Kill { id } => {
                self.living("kill", id)?.kill();
                Ok(done())
            }
        }
    }

    fn start(&mut self, id: MachineId, program: &Path, arguments: &[String]) -> Answer {
        let operation = "start of a cell";
        self.check_new(operation, &id)?;
        let length = program.as_os_str().len() + arguments.iter().map(String::len).sum::<usize>();
        if length > MAX_COMMAND {
            let cause = format!("its command has {length} bytes");
            let remedy = format!("use at most {MAX_COMMAND}");
            return Err(Refusal::new(operation, cause, remedy));
        }
        let failed =
            |error: std::io::Error| Refusal::new(operation, error.to_string(), FEW_DESCRIPTORS);
        let (control, theirs) = Control::pair().map_err(|errno| failed(errno.into()))?;
        let (line, words) = listener().map_err(failed)?;
        self.lines
            .add(line, &mut self.watch)
            .map_err(|errno| failed(errno.into()))?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(words))
            .spawn()
            .map_err(|error| {
                let cause = format!("cannot start {}: {error}", program.display());
                Refusal::new(operation, cause, "name the engine's own program")
            })?;
        let pid = child.id();
        // If this fails the cell ends with its sockets, and is reaped as a stranger.
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|errno| failed(errno.into()))?;
        let living = Living {
            pid,
            control,
            pidfd,
        };
        let answer = hand_out(&living)?;
        self.wards
            .keep(id, living, &mut self.watch)
            .map_err(|errno| failed(errno.into()))?;
        Ok(answer)
    }

    fn keep(&mut self, cells: &[(MachineId, u32)], fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let operation = "keep";
        if cells.len() > MAX_KEPT || fds.len() != cells.len() * 2 {
            let cause = format!("{} descriptors came for {} cells", fds.len(), cells.len());
            let remedy = format!("send two for each, for at most {MAX_KEPT} cells at a time");
            return Err(Refusal::new(operation, cause, remedy));
        }
        for (at, (id, _)) in cells.iter().enumerate() {
            self.check_new(operation, id)?;
            if cells.iter().skip(at + 1).any(|(other, _)| other == id) {
                let cause = format!("machine {id} is named twice");
                return Err(Refusal::new(operation, cause, "name each once"));
            }
        }
        let mut fds = fds.into_iter();
        let mut kept = Vec::new();
        for (id, pid) in cells {
            let (Some(control), Some(pidfd)) = (fds.next(), fds.next()) else {
                continue;
            };
            let pid = *pid;
            let living = Living {
                pid,
                control,
                pidfd,
            };
            if let Err(errno) = self.wards.keep(*id, living, &mut self.watch) {
                kept.into_iter()
                    .for_each(|id| self.wards.forget(id, &mut self.watch));
                return Err(Refusal::new(
                    operation,
                    errno.to_string(),
                    "send a pidfd for each",
                ));
            }
            kept.push(id);
        }
        Ok(())
    }

    fn check_new(&self, operation: &str, id: &MachineId) -> Result<(), Refusal> {
        if self.wards.knows(id) {
            let cause = format!("machine {id} is known already");
            let remedy = "use a new id, or note the end of the earlier one";
            return Err(Refusal::new(operation, cause, remedy));
        }
        Ok(())
    }

    fn living(&self, operation: &str, id: MachineId) -> Result<&Living, Refusal> {
        self.wards.living(&id).ok_or_else(|| {
            let cause = if self.wards.knows(&id) {
                format!("machine {id} has ended")
            } else {
                format!("machine {id} is not known")
            };
            Refusal::new(operation, cause, "look at the list")
        })
    }
}

fn hand_out(living: &Living) -> Answer {
    let copies: Result<Vec<_>, _> = [&living.control, &living.pidfd]
        .map(|fd| fd.as_fd().try_clone_to_owned())
        .into_iter()
        .collect();
    let copies =
        copies.map_err(|error| Refusal::new("hand out", error.to_string(), FEW_DESCRIPTORS))?;
    Ok((Reply::Cell { pid: living.pid }, copies))
}
