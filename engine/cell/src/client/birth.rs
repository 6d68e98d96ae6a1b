//! From the sockets of a fork to its cells: who was born, and why one was not.
//!
//! Invariant: the process that a [`Cell`] kills is the one that announced her birth, by the kernel's word and not by hers:
//! a cell that a guest has taken over cannot have another process killed, traced or reaped in her place.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::Pid;

use super::line::Kin;
use super::{Cell, CellError, PATIENCE};
use crate::protocol::Event;

/// Those at the other ends of `ours`, each once she has said that she lives. The last of them came of the process
/// `point`, which says whom else it forked.
pub(super) fn deliver(
    ours: Vec<OwnedFd>,
    kin: &Kin,
    point: Option<u32>,
) -> Vec<Result<Cell, CellError>> {
    let mut infants: Vec<_> = ours
        .into_iter()
        .map(|fd| Cell::over(fd, kin.clone(), 1))
        .collect();
    let cries: Vec<_> = (0..)
        .zip(&mut infants)
        .map(|(index, cell)| cell.as_mut().map_or(Ok(()), |cell| born(cell, index)))
        .collect();
    let mut pids = match infants.last() {
        Some(Ok(last)) if infants.len() > 1 => last.line.delivered(),
        _ => Vec::new(),
    };
    pids.resize(infants.len().saturating_sub(1), 0);
    pids.push(point.unwrap_or(0));
    (0..)
        .zip(infants)
        .zip(cries)
        .zip(pids)
        .map(|(((index, cell), cry), pid)| {
            let cell = cell?;
            cry.map_err(|error| explain(error, index, pid, kin))?;
            Ok(cell)
        })
        .collect()
}

/// Waits for the first cry; one that ended without any is [`CellError::Ended`] with no cause yet.
fn born(cell: &mut Cell, index: u32) -> Result<(), CellError> {
    let cry = |event: &Event| matches!(event, Event::Born { .. } | Event::Stillborn { .. });
    match cell.event(cry, PATIENCE)? {
        (Event::Born { times, .. }, fds) => {
            let sender = cell.line.inbox().announced_by;
            let (pid, pidfd) = proven(sender, fds).map_err(|reason| CellError::Stillborn {
                index,
                reason: reason.to_owned(),
            })?;
            cell.pid = pid;
            cell.birth = times;
            cell.pidfd = Some(pidfd);
            Ok(())
        }
        (Event::Stillborn { reason, .. }, _) => Err(CellError::Stillborn { index, reason }),
        (other, _) => Err(CellError::Confused(format!("{other:?}"))),
    }
}

/// The process that sent a birth and its pidfd, if that is the descriptor that came along.
fn proven(sender: Option<Pid>, fds: Vec<OwnedFd>) -> Result<(u32, OwnedFd), &'static str> {
    let sender = sender.ok_or("the kernel does not say who announced her")?;
    let [pidfd] = <[OwnedFd; 1]>::try_from(fds)
        .map_err(|_| "her birth came without her one pidfd; raise the limit of open files")?;
    match process_of(&pidfd) {
        Ok(Some(pid)) if pid == sender.as_raw_nonzero().get() || pid == ENDED => {
            Ok((sender.as_raw_nonzero().get().unsigned_abs(), pidfd))
        }
        _ => Err("she handed over another process's pidfd: do not trust her mother's guest"),
    }
}

/// What stands for a process that has ended and was reaped: its pidfd reaches nobody any more.
const ENDED: i32 = -1;

/// The process a pidfd is of (man 2 pidfd_open); none if it is no pidfd.
fn process_of(pidfd: &OwnedFd) -> io::Result<Option<i32>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    Ok(pid.and_then(|pid| pid.trim().parse().ok()))
}

/// Takes the status of one who was not born, so that no zombie stays, and says how she ended if she did not.
fn explain(error: CellError, index: u32, pid: u32, kin: &Kin) -> CellError {
    // 0: fork(2) failed, or nobody could say who she was.
    let cause = (pid != 0).then(|| kin.exits.of_silent(pid)).flatten();
    match (error, cause) {
        (CellError::Ended(_), Some(cause)) => CellError::Stillborn {
            index,
            reason: format!("ended while being born: {cause}"),
        },
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;
    use crate::client::LayerSource;
    use crate::client::exits::Exits;
    use crate::protocol::{BirthTimes, FromCell, VERSION};
    use brood_control::{ChildEnd, Control};

    /// A process that waits until its input ends; killed, it says so by its status.
    fn bystander() -> Child {
        let mut program = Command::new("cat");
        program.stdin(Stdio::piped()).stdout(Stdio::null());
        program.spawn().expect("cat starts")
    }

    fn pidfd_of(child: &Child) -> OwnedFd {
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd")
    }

    /// What the engine makes of a birth that this process announces with `fds`.
    fn announced(fds: &[OwnedFd]) -> Result<Cell, CellError> {
        let (ours, theirs) = Control::pair_that_names_senders().expect("socketpair");
        let event = Event::Born {
            version: VERSION,
            index: 0,
            times: BirthTimes::default(),
        };
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let theirs = Control::new(theirs);
        theirs.send(&FromCell::Event(event), &fds).expect("sent");
        let exits = Exits::default();
        // Where the process she sent is gone already, her parent has told how she ended.
        exits.tell(ChildEnd {
            pid: std::process::id(),
            code: Some(0),
            signal: None,
            cpu_ns: None,
        });
        let kin = Kin {
            layers: LayerSource::new("/nowhere"),
            exits: Arc::new(exits),
        };
        let mut born = deliver(vec![ours], &kin, None);
        born.pop().expect("one")
    }

    fn lives_on(mut child: Child) {
        drop(child.stdin.take());
        assert_eq!(child.wait().expect("reaped").code(), Some(0), "not killed");
    }

    #[test]
    fn a_cell_that_hands_over_another_process_is_not_born_and_that_process_lives_on() {
        let child = bystander();
        for fds in [
            vec![pidfd_of(&child)],
            vec![pidfd_of(&child), pidfd_of(&child)],
            vec![std::fs::File::open("/dev/null").expect("open").into()],
            vec![],
        ] {
            // Dropped at once, which kills whoever the engine takes her for.
            let refused = announced(&fds).expect_err("not born");
            assert!(
                matches!(refused, CellError::Stillborn { index: 0, .. }),
                "{refused}"
            );
        }
        lives_on(child);
    }

    #[test]
    fn whoever_sends_a_birth_may_be_gone_already() {
        let child = bystander();
        let pidfd = pidfd_of(&child);
        lives_on(child);
        let own = std::process::id();
        let cell = announced(&[pidfd]).expect("a process that has ended harms nobody");
        assert_eq!(cell.pid(), own);
    }
}
