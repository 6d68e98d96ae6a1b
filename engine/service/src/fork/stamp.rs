//! Daughters before and after their stamp.
//!
//! Invariant: an [`Unstamped`] has no method that runs a program, and one that does not confirm in time is killed and
//! reported, never handed out.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant as Deadline};

use brood_agent_proto::fork::{StampCommand, StampFile};
use brood_agent_proto::{ConfirmReport, ForkToken, StampReport, StampTicket};
use brood_cell::protocol::Event;
use brood_cell::{Cell, CellError, now};
use brood_units::{Instant, MachineId};

use super::introduction::{Introduced, Introduction};
use super::unconfirmed::{Ending, Failure, Unconfirmed};
use crate::machine::{Machine, connect};

/// How long one daughter may take to confirm; grows with how many share the host.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(60);
const CONFIRM_PATIENCE_EACH: Duration = Duration::from_secs(5);
/// How long a daughter that failed may take to say that she ended.
const ENDING_PATIENCE: Duration = Duration::from_millis(500);
/// Daughters stamped at once for each CPU. A stamp is work of her guest: more of them at once finish no sooner, and
/// each clock is read through the others' work.
const AT_ONCE: usize = 2;

/// Who a daughter shall be. It shows names of variables and not their values, some of which are secrets.
#[derive(Clone, Default)]
pub struct IdentitySpec {
    /// Her id; one that was never used if there is none.
    pub id: Option<MachineId>,
    /// Her host name.
    pub hostname: String,
    /// Variables of her later exec sessions, and of the programs that run during her stamp.
    pub env: Vec<(String, String)>,
    /// Files to write before her workload runs.
    pub files: Vec<StampFile>,
    /// Programs to run before her workload does, after the guest's own hooks. One that fails fails her stamp.
    pub commands: Vec<StampCommand>,
    /// Mixed into the randomness that she gets in any case.
    pub entropy: Vec<u8>,
    /// A file to read in her before her workload runs.
    pub read_frozen: Option<String>,
    /// What becomes of the keys that prove who she is to SSH clients.
    pub host_keys: HostKeys,
}

/// What becomes of SSH host keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeys {
    /// A daughter is somebody else than her mother.
    #[default]
    Anew,
    /// Who wakes is who she was.
    Kept,
}

impl fmt::Debug for IdentitySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("IdentitySpec")
            .field("id", &self.id)
            .field("hostname", &self.hostname)
            .field("env", &names)
            .field("files", &self.files)
            .field("commands", &self.commands)
            .finish_non_exhaustive()
    }
}

/// A daughter that exists but has no identity yet; her workload is frozen.
pub struct Unstamped {
    pub(super) cell: Cell,
    pub(super) ticket: StampTicket,
    pub(super) mother: MachineId,
    pub(super) generation: u32,
    pub(crate) index: u32,
    pub(super) asked: Instant,
}

/// What a stamped daughter brings along.
pub struct Daughter {
    /// The machine, running.
    pub machine: Machine,
    /// What the stamp applied.
    pub stamp: StampReport,
    /// What she says of herself.
    pub confirm: ConfirmReport,
    /// What a caller wanted to read of her before her workload ran.
    pub seen_frozen: Vec<u8>,
    /// From the fork call, microseconds.
    pub timing: Timing,
}

/// When a daughter got how far, microseconds from the fork call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Her guest first ran.
    pub first_instruction: f64,
    /// She was confirmed.
    pub confirmed: f64,
    /// She first answered a program's run.
    pub first_answer: f64,
    /// Her wall clock's error against the host in the exchange that confirmed her, nanoseconds, within ± half of
    /// `clock_round_trip_ns`.
    pub clock_error_ns: i64,
    /// How long that exchange took, nanoseconds.
    pub clock_round_trip_ns: u64,
}

/// How long a daughter may take to confirm where `sisters` share the host.
pub fn patience(sisters: usize) -> Duration {
    let crowd = u32::try_from(sisters).unwrap_or(u32::MAX);
    CONFIRM_PATIENCE.saturating_add(CONFIRM_PATIENCE_EACH.saturating_mul(crowd))
}

impl Unstamped {
    /// One whose cell was restored of a snapshot, and has not run yet.
    pub(crate) fn restored(
        cell: Cell,
        token: ForkToken,
        mother: MachineId,
        generation: u32,
    ) -> Self {
        Self {
            cell,
            ticket: StampTicket::from_token(token),
            mother,
            generation,
            index: 0,
            asked: now(),
        }
    }

    /// Has one that has not run yet run towards her stamp.
    ///
    /// # Errors
    /// Her cell is gone.
    pub(crate) fn go(mut self) -> Result<Self, CellError> {
        self.asked = now();
        self.cell.resume()?;
        Ok(self)
    }

    /// Gives her an identity, has her confirm it and lets her workload run; kills her if that fails or is not done
    /// within `patience`.
    ///
    /// # Errors
    /// [`Unconfirmed`]: she did not confirm in time, says something else than she was told, or ended meanwhile; she is
    /// gone then.
    pub fn stamp(
        mut self,
        identity: &IdentitySpec,
        patience: Duration,
    ) -> anyhow::Result<Daughter> {
        let begun = Deadline::now();
        let deadline = begun.checked_add(patience).unwrap_or(begun);
        let ran = |event: &Event| matches!(event, Event::FirstInstruction { .. });
        let born = match self.cell.event(ran, patience) {
            Ok((Event::FirstInstruction { at }, _)) => Some(at),
            // What is the matter with her shows when she is talked to.
            _ => None,
        };
        let introduction = Introduction {
            identity,
            ticket: &self.ticket,
            mother: self.mother,
            generation: self.generation,
            index: self.index,
            deadline,
        };
        let cell = &mut self.cell;
        match introduction.hold(|left| connect(cell, left)) {
            Ok(introduced) => Ok(self.introduced(identity, born, introduced)),
            Err(failure) => Err(self.killed(failure).into()),
        }
    }

    fn introduced(
        self,
        identity: &IdentitySpec,
        born: Option<Instant>,
        introduced: Introduced,
    ) -> Daughter {
        let Introduced {
            id,
            agent,
            stamp,
            confirm,
            seen_frozen,
            confirmed,
            answered,
            clock,
        } = introduced;
        let timing = Timing {
            first_instruction: born.map_or(0.0, |at| at.micros_since(self.asked)),
            confirmed: confirmed.micros_since(self.asked),
            first_answer: answered.micros_since(self.asked),
            clock_error_ns: clock.error(),
            clock_round_trip_ns: clock.round_trip(),
        };
        let machine = Machine {
            id,
            mother: Some(self.mother),
            generation: self.generation,
            hostname: identity.hostname.clone(),
            cell: self.cell,
            agent: Some(agent),
        };
        Daughter {
            machine,
            stamp,
            confirm,
            seen_frozen,
            timing,
        }
    }

    /// How she ended says more than that the conversation broke off. If she did not, she ends with this value.
    fn killed(mut self, failure: Failure) -> Unconfirmed {
        let Failure { step, source } = failure;
        let ended = |event: &Event| matches!(event, Event::Ended(_));
        let ending = match self.cell.event(ended, ENDING_PATIENCE) {
            Ok((Event::Ended(ending), _)) => Some(ending),
            _ => None,
        };
        Unconfirmed {
            index: self.index,
            step,
            ending: Ending(ending),
            source,
        }
    }

    /// Her cell's process.
    pub fn pid(&self) -> u32 {
        self.cell.pid()
    }
}

/// Stamps many daughters, each as `identity` says for her index, a few at once: their order is kept.
pub fn stamp_all(
    daughters: Vec<Unstamped>,
    identity: impl Fn(u32) -> IdentitySpec + Sync,
) -> Vec<anyhow::Result<Daughter>> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = cpus.saturating_mul(AT_ONCE).min(daughters.len());
    let patience = patience(at_once);
    let queue = Mutex::new(daughters.into_iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        while let Some((place, daughter)) = next(&queue) {
            let identity = identity(daughter.index);
            done.push((place, daughter.stamp(&identity, patience)));
        }
        done
    };
    let mut stamped: Vec<_> = std::thread::scope(|scope| {
        let stamping: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        stamping
            .into_iter()
            .flat_map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    stamped.sort_by_key(|(place, _)| *place);
    stamped.into_iter().map(|(_, daughter)| daughter).collect()
}

/// Never locked while a daughter is stamped.
fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_daughters_share_the_host_the_longer_each_may_take() {
        assert_eq!(patience(0), CONFIRM_PATIENCE);
        assert_eq!(patience(2), CONFIRM_PATIENCE + 2 * CONFIRM_PATIENCE_EACH);
        assert!(patience(usize::MAX) > patience(2));
    }

    #[test]
    fn a_queue_gives_each_of_its_items_once_and_then_none() {
        let queue = Mutex::new(1..3);
        let given = [next(&queue), next(&queue), next(&queue)];
        assert_eq!(given, [Some(1), Some(2), None]);
    }
}
