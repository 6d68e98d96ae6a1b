//! From the sockets of a fork to its cells: who was born, and why one was not.

use std::os::fd::OwnedFd;

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
        (Event::Born { pid, times, .. }, mut fds) => {
            cell.pid = pid;
            cell.birth = times;
            cell.pidfd = fds.pop();
            Ok(())
        }
        (Event::Stillborn { reason, .. }, _) => Err(CellError::Stillborn { index, reason }),
        (other, _) => Err(CellError::Confused(format!("{other:?}"))),
    }
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
