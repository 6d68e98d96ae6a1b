//! Readings of machines, from the kernel's own accounts.
//!
//! Invariant: CPU time is that of the machine's whole process since it began, by its own clock while it lives and by whoever
//! took its status afterwards, so that one that is killed between two readings is counted to her last instruction. What could
//! not be read is none, never zero.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use brood_cell::EndCause;
use brood_meter::{Last, Motion, Reading, Subject};
use brood_store::{Born, MachineKind, MachineState};
use brood_supervisor::End;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::now;
use crate::process;

/// The process of a machine or checkpoint that is alive. Clones are the same one.
#[derive(Clone)]
pub(in crate::engine) struct Metered {
    /// What it is.
    pub(in crate::engine) kind: MachineKind,
    /// Its number.
    pub(in crate::engine) pid: u32,
    /// What becomes readable when it ends, where that can be had: without it nobody knows whose the number is.
    pub(in crate::engine) process: Option<Arc<OwnedFd>>,
}

impl Metered {
    /// Everything of a living process; none if it has ended, as its number may be another's by then.
    pub(super) fn read(&self) -> Option<Reading> {
        let process = self.process.as_ref()?;
        let reading = all(self.pid);
        let at_once = Timespec::default();
        let mut polled = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        let has_ended = poll(&mut polled, Some(&at_once)) != Ok(0);
        (!has_ended).then_some(reading)
    }
}

/// CPU time and private memory of a process that somebody holds.
pub(in crate::engine) fn all(pid: u32) -> Reading {
    Reading {
        private_kib: process::memory(pid).ok().map(|memory| memory.private_kib),
        ..cpu(pid)
    }
}

/// CPU time alone, which takes a microsecond, where memory takes as long as there are page tables to walk.
pub(in crate::engine) fn cpu(pid: u32) -> Reading {
    Reading {
        at: now(),
        instant: Some(brood_cell::now()),
        cpu_ns: brood_cell::cpu_ns(pid),
        private_kib: None,
    }
}

/// The last reading of one that has ended just now; `before` is what was read of her memory before that.
pub(in crate::engine) fn end(cause: Option<&EndCause>, before: Option<Reading>) -> Reading {
    Reading {
        at: now(),
        instant: Some(brood_cell::now()),
        cpu_ns: cause.and_then(|cause| cause.cpu_ns),
        private_kib: before.and_then(|reading| reading.private_kib),
    }
}

/// The last reading of one that ended while no engine was there.
pub(in crate::engine) fn end_by_supervisor(end: Option<&End>) -> Reading {
    Reading {
        at: end.map_or_else(now, |end| end.at),
        instant: end.map(|end| end.heard),
        cpu_ns: end.and_then(|end| end.cpu_ns),
        private_kib: None,
    }
}

/// Whose usage it is, and the reading that her first window begins with.
pub(in crate::engine) fn birth(born: &Born) -> (Subject, Last) {
    let subject = Subject {
        machine: born.id,
        is_checkpoint: born.kind == MachineKind::Checkpoint,
        tenant: born.tenant.clone(),
        project: born.project.clone(),
        lineage: born.lineage,
        template: born.template,
        vcpu_milli: born.shape.vcpu_milli,
        memory_mib: born.shape.memory_mib,
        disk_mib: born.shape.disk_mib,
        labels: born.labels.clone(),
        born: born.created,
    };
    let last = Last::at_birth(born.created, brood_cell::now(), motion(born.state));
    (subject, last)
}

fn motion(state: MachineState) -> Motion {
    match state {
        MachineState::Running => Motion::Running,
        MachineState::Paused => Motion::Paused,
        MachineState::Frozen | MachineState::Hibernated | MachineState::Ended => Motion::Frozen,
    }
}
