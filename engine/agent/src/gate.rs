//! Where the machine is in the fork protocol, as a value. Invariant: a step is allowed by this table or refused with
//! nothing changed; no time and no lost connection moves it. A mother whose engine died while it forked her runs on when
//! the next engine says so.
//!
//! The drawing is in `brood_agent_proto::fork`.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use brood_agent_proto::{AgentError, ForkRefusal, ForkToken};
use brood_units::MachineId;

use crate::agent::ConnectionId;
use crate::serial::enter;

/// Guards what may start in the workload and who may thaw it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    phase: Phase,
    /// Programs between clone and exec; freezing one there would block the thread that waits for it.
    spawning: u32,
    /// Time spent not running, up to the last thaw.
    stopped: Duration,
    /// Since when it has not been running.
    since: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    #[default]
    Running,
    Quiescing,
    Quiesced {
        token: ForkToken,
        by: ConnectionId,
        /// The connection that may thaw the mother has ended.
        abandoned: bool,
    },
    Stamping {
        token: ForkToken,
        quiesced_by: ConnectionId,
    },
    Stamped {
        token: ForkToken,
        quiesced_by: ConnectionId,
        by: ConnectionId,
        machine_id: MachineId,
        confirmed: Confirmed,
    },
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmed {
    No,
    Yes,
}

/// Leave to start one program; given back when dropped.
pub(crate) struct SpawnPermit<'gate>(&'gate Gate);

impl Gate {
    /// Leave to start a program in the workload.
    pub(crate) fn spawn_permit(&self) -> Result<SpawnPermit<'_>, AgentError> {
        let mut inner = enter(&self.inner);
        match inner.phase {
            Phase::Running => {
                inner.spawning = inner.spawning.saturating_add(1);
                Ok(SpawnPermit(self))
            }
            _ => Err(AgentError::WorkloadQuiesced),
        }
    }

    /// Closes the gate for new programs and waits for those on their way until `deadline`. Returns whether none is
    /// left; the gate is closed in any case, to be opened by [`Self::running`].
    pub(crate) fn begin_quiesce(&self, deadline: Instant) -> Result<Spawning, ForkRefusal> {
        let mut inner = enter(&self.inner);
        match inner.phase {
            Phase::Running => {}
            Phase::Failed => return Err(ForkRefusal::StampFailed),
            _ => return Err(ForkRefusal::AlreadyQuiesced),
        }
        inner.phase = Phase::Quiescing;
        inner.since = Some(Instant::now());
        while inner.spawning > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Spawning::Some);
            }
            let (entered, _) = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            inner = entered;
        }
        Ok(Spawning::None)
    }

    /// The workload is frozen.
    pub(crate) fn quiesced(&self, token: ForkToken, by: ConnectionId) {
        enter(&self.inner).phase = Phase::Quiesced {
            token,
            by,
            abandoned: false,
        };
    }

    /// The workload runs.
    pub(crate) fn running(&self) {
        let mut inner = enter(&self.inner);
        inner.phase = Phase::Running;
        if let Some(since) = inner.since.take() {
            inner.stopped = inner.stopped.saturating_add(since.elapsed());
        }
        self.changed.notify_all();
    }

    /// May this connection thaw the mother?
    pub(crate) fn check_thaw(
        &self,
        token: ForkToken,
        from: ConnectionId,
    ) -> Result<(), ForkRefusal> {
        match enter(&self.inner).phase {
            Phase::Quiesced { by, .. } if by != from => Err(ForkRefusal::WrongConnection),
            Phase::Quiesced { token: ours, .. } if ours != token => Err(ForkRefusal::WrongToken),
            Phase::Quiesced { .. } => Ok(()),
            Phase::Running | Phase::Quiescing => Err(ForkRefusal::NotQuiesced),
            Phase::Stamping { .. } | Phase::Stamped { .. } => Err(ForkRefusal::AlreadyStamped),
            Phase::Failed => Err(ForkRefusal::StampFailed),
        }
    }

    /// A connection has ended.
    pub(crate) fn ended(&self, connection: ConnectionId) {
        if let Phase::Quiesced { by, abandoned, .. } = &mut enter(&self.inner).phase
            && *by == connection
        {
            *abandoned = true;
        }
    }

    /// May another connection thaw the mother because hers has ended?
    pub(crate) fn check_release(&self) -> Result<(), ForkRefusal> {
        match enter(&self.inner).phase {
            Phase::Quiesced {
                abandoned: false, ..
            } => Err(ForkRefusal::WrongConnection),
            Phase::Quiesced { .. } => Ok(()),
            Phase::Running | Phase::Quiescing => Err(ForkRefusal::NotQuiesced),
            Phase::Stamping { .. } | Phase::Stamped { .. } => Err(ForkRefusal::AlreadyStamped),
            Phase::Failed => Err(ForkRefusal::StampFailed),
        }
    }

    /// Begins a stamp, if this connection may; from here on the mother's thaw is refused.
    pub(crate) fn begin_stamp(
        &self,
        token: ForkToken,
        from: ConnectionId,
    ) -> Result<(), ForkRefusal> {
        let mut inner = enter(&self.inner);
        let (ours, quiesced_by) = match inner.phase {
            Phase::Quiesced { token, by, .. } => (token, by),
            // A stamped machine that was forked again before its thaw.
            Phase::Stamped {
                token,
                quiesced_by,
                by,
                ..
            } if by != from => (token, quiesced_by),
            Phase::Stamped { .. } => return Err(ForkRefusal::AlreadyStamped),
            Phase::Running | Phase::Quiescing | Phase::Stamping { .. } => {
                return Err(ForkRefusal::NotQuiesced);
            }
            Phase::Failed => return Err(ForkRefusal::StampFailed),
        };
        if ours != token {
            return Err(ForkRefusal::WrongToken);
        }
        if quiesced_by == from {
            return Err(ForkRefusal::WrongConnection);
        }
        inner.phase = Phase::Stamping { token, quiesced_by };
        Ok(())
    }

    /// The stamp that was begun is done.
    pub(crate) fn stamped(&self, machine_id: MachineId, by: ConnectionId) {
        let mut inner = enter(&self.inner);
        if let Phase::Stamping { token, quiesced_by } = inner.phase {
            inner.phase = Phase::Stamped {
                token,
                quiesced_by,
                by,
                machine_id,
                confirmed: Confirmed::No,
            };
        }
    }

    /// The stamp that was begun failed: nothing thaws this machine any more.
    pub(crate) fn stamp_failed(&self) {
        enter(&self.inner).phase = Phase::Failed;
    }

    /// May this connection ask who this machine is?
    pub(crate) fn check_confirm(&self, from: ConnectionId) -> Result<(), ForkRefusal> {
        match enter(&self.inner).phase {
            Phase::Stamped { by, .. } if by == from => Ok(()),
            Phase::Stamped { .. } => Err(ForkRefusal::WrongConnection),
            Phase::Failed => Err(ForkRefusal::StampFailed),
            _ => Err(ForkRefusal::NotStamped),
        }
    }

    /// The stamp is confirmed: who this machine is was read back.
    pub(crate) fn confirmed(&self) {
        if let Phase::Stamped { confirmed, .. } = &mut enter(&self.inner).phase {
            *confirmed = Confirmed::Yes;
        }
    }

    /// May this connection thaw the daughter?
    pub(crate) fn check_thaw_stamped(
        &self,
        named: MachineId,
        from: ConnectionId,
    ) -> Result<(), ForkRefusal> {
        match enter(&self.inner).phase {
            Phase::Stamped { by, .. } if by != from => Err(ForkRefusal::WrongConnection),
            Phase::Stamped { machine_id, .. } if machine_id != named => {
                Err(ForkRefusal::WrongMachine)
            }
            Phase::Stamped {
                confirmed: Confirmed::No,
                ..
            } => Err(ForkRefusal::NotConfirmed),
            Phase::Stamped { .. } => Ok(()),
            Phase::Failed => Err(ForkRefusal::StampFailed),
            _ => Err(ForkRefusal::NotStamped),
        }
    }

    /// Time spent not running so far; while it is not running, this call waits for it to run.
    pub(crate) fn stopped_until_running(&self) -> Duration {
        let mut inner = enter(&self.inner);
        while inner.since.is_some() {
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        inner.stopped
    }

    /// Time spent not running, up to the last thaw.
    pub(crate) fn stopped(&self) -> Duration {
        enter(&self.inner).stopped
    }
}

/// Whether programs were between clone and exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spawning {
    None,
    Some,
}

impl Drop for SpawnPermit<'_> {
    fn drop(&mut self) {
        let mut inner = enter(&self.0.inner);
        inner.spawning = inner.spawning.saturating_sub(1);
        drop(inner);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: ForkToken = ForkToken([1; 16]);
    const MOTHER: ConnectionId = ConnectionId(1);
    const DAUGHTER: ConnectionId = ConnectionId(2);
    const ME: MachineId = MachineId::from_bytes([7; 16]);

    fn quiesced() -> Gate {
        let gate = Gate::default();
        gate.begin_quiesce(Instant::now()).unwrap();
        gate.quiesced(TOKEN, MOTHER);
        gate
    }

    #[test]
    fn thaw_needs_the_quiescing_connection_and_its_token() {
        let gate = quiesced();
        assert_eq!(
            gate.check_thaw(TOKEN, DAUGHTER),
            Err(ForkRefusal::WrongConnection)
        );
        assert_eq!(
            gate.check_thaw(ForkToken([2; 16]), MOTHER),
            Err(ForkRefusal::WrongToken)
        );
        assert_eq!(gate.check_thaw(TOKEN, MOTHER), Ok(()));
    }

    #[test]
    fn stamp_needs_another_connection_and_the_same_token() {
        let gate = quiesced();
        assert_eq!(
            gate.begin_stamp(TOKEN, MOTHER),
            Err(ForkRefusal::WrongConnection)
        );
        assert_eq!(
            gate.begin_stamp(ForkToken([2; 16]), DAUGHTER),
            Err(ForkRefusal::WrongToken)
        );
        assert_eq!(gate.begin_stamp(TOKEN, DAUGHTER), Ok(()));
        assert_eq!(
            gate.check_thaw(TOKEN, MOTHER),
            Err(ForkRefusal::AlreadyStamped)
        );
    }

    #[test]
    fn a_mother_is_released_by_another_connection_once_hers_has_ended_and_not_before() {
        let gate = Gate::default();
        assert_eq!(gate.check_release(), Err(ForkRefusal::NotQuiesced));
        gate.quiesced(TOKEN, MOTHER);
        gate.ended(DAUGHTER);
        assert_eq!(gate.check_release(), Err(ForkRefusal::WrongConnection));
        gate.ended(MOTHER);
        assert_eq!(gate.check_release(), Ok(()));
        gate.begin_stamp(TOKEN, DAUGHTER).expect("she may");
        assert_eq!(gate.check_release(), Err(ForkRefusal::AlreadyStamped));
    }

    #[test]
    fn a_daughter_thaws_after_stamp_and_confirm_of_exactly_her_id() {
        let gate = quiesced();
        assert_eq!(gate.check_confirm(DAUGHTER), Err(ForkRefusal::NotStamped));
        gate.begin_stamp(TOKEN, DAUGHTER).unwrap();
        gate.stamped(ME, DAUGHTER);
        assert_eq!(
            gate.check_thaw_stamped(ME, DAUGHTER),
            Err(ForkRefusal::NotConfirmed)
        );
        assert_eq!(
            gate.check_confirm(MOTHER),
            Err(ForkRefusal::WrongConnection)
        );
        gate.check_confirm(DAUGHTER).unwrap();
        gate.confirmed();
        let other = MachineId::from_bytes([8; 16]);
        assert_eq!(
            gate.check_thaw_stamped(other, DAUGHTER),
            Err(ForkRefusal::WrongMachine)
        );
        assert_eq!(
            gate.check_thaw_stamped(ME, MOTHER),
            Err(ForkRefusal::WrongConnection)
        );
        assert_eq!(gate.check_thaw_stamped(ME, DAUGHTER), Ok(()));
    }

    #[test]
    fn a_stamped_machine_forked_before_its_thaw_is_stamped_again_but_not_by_its_mothers_thaw() {
        let gate = quiesced();
        gate.begin_stamp(TOKEN, DAUGHTER).unwrap();
        gate.stamped(ME, DAUGHTER);
        gate.check_confirm(DAUGHTER).unwrap();
        gate.confirmed();
        let granddaughter = ConnectionId(3);
        gate.begin_stamp(TOKEN, granddaughter).unwrap();
        gate.stamped(MachineId::from_bytes([9; 16]), granddaughter);
        assert_eq!(
            gate.check_thaw_stamped(ME, DAUGHTER),
            Err(ForkRefusal::WrongConnection)
        );
        assert_eq!(gate.check_confirm(granddaughter), Ok(()));
    }

    #[test]
    fn a_failed_stamp_is_final() {
        let gate = quiesced();
        gate.begin_stamp(TOKEN, DAUGHTER).unwrap();
        gate.stamp_failed();
        assert_eq!(
            gate.begin_stamp(TOKEN, ConnectionId(3)),
            Err(ForkRefusal::StampFailed)
        );
        assert_eq!(
            gate.check_thaw(TOKEN, MOTHER),
            Err(ForkRefusal::StampFailed)
        );
        assert_eq!(
            gate.begin_quiesce(Instant::now()),
            Err(ForkRefusal::StampFailed),
            "not that it is quiesced, which a caller would wait out"
        );
        assert!(gate.spawn_permit().is_err());
    }

    #[test]
    fn the_connection_that_stamped_does_not_stamp_again() {
        let gate = quiesced();
        gate.begin_stamp(TOKEN, DAUGHTER).unwrap();
        gate.stamped(ME, DAUGHTER);
        assert_eq!(
            gate.begin_stamp(TOKEN, DAUGHTER),
            Err(ForkRefusal::AlreadyStamped)
        );
        assert_eq!(
            gate.check_thaw_stamped(ME, DAUGHTER),
            Err(ForkRefusal::NotConfirmed),
            "and the first stamp stands"
        );
    }

    #[test]
    fn nothing_starts_while_quiesced_and_quiesce_waits_for_what_is_starting() {
        let gate = Gate::default();
        let permit = gate.spawn_permit().unwrap();
        assert_eq!(gate.begin_quiesce(Instant::now()), Ok(Spawning::Some));
        assert!(gate.spawn_permit().is_err());
        gate.running();
        drop(permit);
        assert_eq!(gate.begin_quiesce(Instant::now()), Ok(Spawning::None));
    }
}
