//! The stamped fork: quiesce → fork → thaw the mother; each daughter: stamp → confirm → thaw.
//!
//! ```text
//!  Machine ─ quiesce ─ fork(2) ─ thaw ─► Machine (the mother, her streams untouched)
//!                         └► Unstamped ─ stamp ─ confirm ─ thaw ─► Machine (a daughter)
//! ```
//!
//! Invariant: no workload instruction runs in a daughter before her identity is applied and confirmed: an
//! [`Unstamped`] has no method that runs a program, and one that does not confirm in time is killed.

use std::time::{Duration, Instant as Deadline};

use anyhow::Context;
use brood_agent_proto::exec::ExecSpec;
use brood_agent_proto::fork::SshHostKeys;
use brood_agent_proto::{Client, ConfirmReport, StampReport, StampSpec, StampTicket};
use brood_cell::protocol::{Checkpoint, Event, ForkTimes, Start};
use brood_cell::{Cell, CellError, WarmParts};
use brood_units::{Instant, MachineId};
use brood_vmm::now;

use crate::host::Host;
use crate::identity;
use crate::machine::{CALL_PATIENCE, Machine, connect};

/// How long the workload may take to freeze before the fork is refused.
const FREEZE_PATIENCE: Duration = Duration::from_secs(20);
/// How long one daughter may take to confirm; grows with how many share the host.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(60);
const CONFIRM_PATIENCE_EACH: Duration = Duration::from_secs(5);
/// How long all hooks of a stamp may run.
const HOOK_MILLIS: u32 = 10_000;

/// How long a daughter that failed may take to say that she ended.
const ENDING_PATIENCE: Duration = Duration::from_millis(500);
/// A wall clock this close to the host's, nanoseconds, is right.
const CLOCK_ERROR_NS: u64 = 1_000_000;
/// Readings of a wall clock of which the best counts, unless one is as good as needed.
const CLOCK_READINGS: u32 = 8;
/// How often a wall clock is moved and looked at again.
const CLOCK_STEPS: u32 = 4;

/// A daughter that exists but has no identity yet; her workload is frozen.
pub struct Unstamped {
    cell: Cell,
    ticket: StampTicket,
    mother: MachineId,
    generation: u32,
    index: u32,
    asked: Instant,
    born: Option<Instant>,
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
    /// Her wall clock's error against the host right after the stamp, nanoseconds, within ± `clock_round_trip`.
    pub clock_error_ns: i64,
    /// The measured round trip of the clock reading, nanoseconds.
    pub clock_round_trip_ns: u64,
}

/// A live fork as its caller sees it.
pub struct LiveFork {
    /// The daughters, or why one is missing.
    pub daughters: Vec<Result<Unstamped, CellError>>,
    /// The checkpoint, if one was kept.
    pub checkpoint: Option<Frozen>,
    /// From freeze sent to thaw done in the mother, microseconds.
    pub workload_frozen: f64,
    /// From the cell's reading of the request until the mother's vCPU entered the guest again, microseconds.
    pub mother_pause: f64,
    /// When the mother's stages ended.
    pub times: ForkTimes,
}

/// A checkpoint: a frozen point, forkable at any time.
pub struct Frozen {
    cell: Cell,
    ticket: StampTicket,
    mother: MachineId,
    generation: u32,
}

/// A template: sealed parts that warm daughters are made of.
pub struct Template {
    parts: WarmParts,
    ticket: StampTicket,
    id: MachineId,
    generation: u32,
    pub(crate) cell: Cell,
}

/// Forks a running machine into `daughters` from one point; the mother runs on.
///
/// # Errors
/// The workload does not freeze (it is thawed again, the blocking pid is named), or the point cannot be taken.
pub fn live(mother: &mut Machine, daughters: u32, keep: Checkpoint) -> anyhow::Result<LiveFork> {
    let token = identity::fork_token()?;
    let agent = mother
        .agent
        .take()
        .context("this machine has lost its agent")?;
    let freeze_sent = now();
    let quiesced = match agent.quiesce(token, FREEZE_PATIENCE) {
        Ok(quiesced) => quiesced,
        Err(error) => {
            // A refusal has thawed everything again; the next call finds a new connection.
            mother.agent = connect(&mut mother.cell, CALL_PATIENCE).ok();
            return Err(error)
                .context("the workload does not freeze, so the machine is not forked");
        }
    };
    let ticket = quiesced.ticket();
    let forked = mother.cell.fork(daughters, keep, Start::Run);
    let agent = quiesced.thaw()?;
    let workload_frozen = now().micros_since(freeze_sent);
    mother.agent = Some(agent);
    let fork = forked?;
    let mother_pause = mother.cell.stats()?.entered.micros_since(fork.times.asked);
    let born = |(index, cell): (u32, Result<Cell, CellError>)| {
        cell.map(|cell| Unstamped {
            cell,
            ticket: ticket.clone(),
            mother: mother.id,
            generation: mother.generation + 1,
            index,
            asked: fork.asked,
            born: None,
        })
    };
    let daughters = (0..).zip(fork.daughters).map(born).collect();
    let checkpoint = fork.checkpoint.transpose()?.map(|cell| Frozen {
        cell,
        ticket: ticket.clone(),
        mother: mother.id,
        generation: mother.generation,
    });
    Ok(LiveFork {
        daughters,
        checkpoint,
        workload_frozen,
        mother_pause,
        times: fork.times,
    })
}

impl Frozen {
    /// Forks the checkpoint: daughters of the past.
    ///
    /// # Errors
    /// The checkpoint is gone, or a daughter could not be made.
    pub fn fork(&mut self, daughters: u32) -> anyhow::Result<Vec<Unstamped>> {
        let fork = self.cell.fork(daughters, Checkpoint::Drop, Start::Run)?;
        let mut born = Vec::new();
        for (index, cell) in (0..).zip(fork.daughters) {
            born.push(Unstamped {
                cell: cell?,
                ticket: self.ticket.clone(),
                mother: self.mother,
                generation: self.generation + 1,
                index,
                asked: fork.asked,
                born: None,
            });
        }
        Ok(born)
    }

    /// The process that holds the point.
    pub fn pid(&self) -> u32 {
        self.cell.pid()
    }

    /// Lets go of the point.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn end(self) -> anyhow::Result<()> {
        self.cell.end()?;
        Ok(())
    }
}

impl Template {
    /// Turns a warmed machine into a template: quiesced, paused, sealed; it does not run again.
    ///
    /// # Errors
    /// The workload does not freeze, or the host is out of memory.
    pub fn seal(mut machine: Machine) -> anyhow::Result<Self> {
        let token = identity::fork_token()?;
        let agent = machine
            .agent
            .take()
            .context("this machine has lost its agent")?;
        let quiesced = agent.quiesce(token, FREEZE_PATIENCE)?;
        let ticket = quiesced.ticket();
        machine.cell.pause()?;
        let parts = machine.cell.template()?;
        Ok(Self {
            parts,
            ticket,
            id: machine.id,
            generation: machine.generation,
            cell: machine.cell,
        })
    }

    /// A warm daughter: mapped, split, state loaded, never yet in the guest.
    ///
    /// # Errors
    /// The host is out of memory or descriptors.
    pub fn warm(&self, host: &Host, index: u32) -> anyhow::Result<Warm> {
        use std::os::fd::AsFd;
        let mut cell = host.spawn()?;
        cell.load(host.kvm.as_fd(), &self.parts)?;
        Ok(Warm {
            unstamped: Unstamped {
                cell,
                ticket: self.ticket.clone(),
                mother: self.id,
                generation: self.generation + 1,
                index,
                asked: Instant::default(),
                born: None,
            },
        })
    }

    /// The template's identity.
    pub fn id(&self) -> MachineId {
        self.id
    }

    /// Lets go of the template; warm daughters live on.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn end(self) -> anyhow::Result<()> {
        self.cell.end()?;
        Ok(())
    }
}

/// A warm daughter in the pool.
pub struct Warm {
    unstamped: Unstamped,
}

impl Warm {
    /// Claims her with one message: from here on she runs towards her stamp.
    ///
    /// # Errors
    /// Her cell is gone.
    pub fn claim(mut self) -> anyhow::Result<Unstamped> {
        self.unstamped.asked = now();
        self.unstamped.cell.resume()?;
        Ok(self.unstamped)
    }
}

/// Who a daughter shall be.
#[derive(Clone, Debug)]
pub struct IdentitySpec {
    /// Her host name.
    pub hostname: String,
    /// Variables of her later exec sessions.
    pub env: Vec<(String, String)>,
    /// A file to read in her before her workload runs.
    pub read_frozen: Option<String>,
}

/// What became of an [`Unstamped`] inside of her.
struct Introduced {
    id: MachineId,
    agent: Client,
    stamp: StampReport,
    confirm: ConfirmReport,
    seen_frozen: Vec<u8>,
    timing: Timing,
}

impl Unstamped {
    /// Gives her an identity, has her confirm it and lets her workload run; kills her if any of it fails.
    ///
    /// # Errors
    /// She did not confirm in time, says something else than she was told, or ended meanwhile; she is gone then.
    pub fn stamp(mut self, identity: &IdentitySpec, sisters: usize) -> anyhow::Result<Daughter> {
        let Introduced {
            id,
            agent,
            stamp,
            confirm,
            seen_frozen,
            timing,
        } = match self.introduce(identity, sisters) {
            Ok(introduced) => introduced,
            Err(error) => return Err(self.with_ending(error)),
        };
        let machine = Machine {
            id,
            mother: Some(self.mother),
            generation: self.generation,
            hostname: identity.hostname.clone(),
            cell: self.cell,
            agent: Some(agent),
        };
        Ok(Daughter {
            machine,
            stamp,
            confirm,
            seen_frozen,
            timing,
        })
    }

    /// How she ended says more than that the conversation broke off.
    fn with_ending(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self
            .cell
            .event(|event| matches!(event, Event::Ended(_)), ENDING_PATIENCE)
        {
            Ok((Event::Ended(ending), _)) => error.context(format!("she ended: {ending:?}")),
            _ => error,
        }
    }

    fn introduce(&mut self, identity: &IdentitySpec, sisters: usize) -> anyhow::Result<Introduced> {
        let crowd = u32::try_from(sisters).unwrap_or(u32::MAX);
        let patience = CONFIRM_PATIENCE + CONFIRM_PATIENCE_EACH * crowd;
        let deadline = Deadline::now() + patience;
        self.born = self.cell.first_instruction().ok();
        let client = connect(&mut self.cell, patience)?;
        let id = identity::machine_id()?;
        let mut spec = StampSpec {
            machine_id: id,
            mother: Some(self.mother),
            generation: self.generation,
            fork_index: self.index,
            hostname: identity.hostname.clone(),
            wall_clock_ns: 0,
            host_monotonic_ns: now().as_nanos(),
            seed: identity::seed()?,
            boot_id: identity::boot_id()?,
            env: Default::default(),
            files: Vec::new(),
            ssh_host_keys: SshHostKeys::Regenerate,
            commands: Vec::new(),
            hook_timeout_ms: HOOK_MILLIS,
        };
        for (name, value) in &identity.env {
            spec.env.insert(name, value)?;
        }
        spec.wall_clock_ns = wall_clock_ns();
        let mut stamped = client.stamp(&self.ticket, &spec)?;
        let stamp = stamped.report().clone();
        let seen_frozen = match &identity.read_frozen {
            Some(path) => stamped.client().read_file_to_vec(path, 1 << 20)?,
            None => Vec::new(),
        };
        set_clock_right(stamped.client())?;
        let before = wall_clock_ns();
        let confirmed = stamped.confirm()?;
        let after = wall_clock_ns();
        anyhow::ensure!(
            Deadline::now() < deadline,
            "she did not confirm within {patience:?}"
        );
        let confirm = confirmed.report().clone();
        let confirmed_at = now();
        let mut agent = confirmed.thaw()?;
        agent.run(&ExecSpec::new(["true"]), CALL_PATIENCE, 1)?;
        let answered = now();
        let middle = before / 2 + after / 2;
        let timing = Timing {
            first_instruction: self.born.map_or(0.0, |at| at.micros_since(self.asked)),
            confirmed: confirmed_at.micros_since(self.asked),
            first_answer: answered.micros_since(self.asked),
            clock_error_ns: confirm.realtime_ns.wrapping_sub(middle) as i64,
            clock_round_trip_ns: after.saturating_sub(before),
        };
        Ok(Introduced {
            id,
            agent,
            stamp,
            confirm,
            seen_frozen,
            timing,
        })
    }

    /// Her cell's process.
    pub fn pid(&self) -> u32 {
        self.cell.pid()
    }
}

/// Stamps many daughters at once, each as `identity` says for her index.
pub fn stamp_all(
    daughters: Vec<Unstamped>,
    identity: impl Fn(u32) -> IdentitySpec + Sync,
) -> Vec<anyhow::Result<Daughter>> {
    let count = daughters.len();
    let identity = &identity;
    std::thread::scope(|scope| {
        let stamping: Vec<_> = daughters
            .into_iter()
            .map(|daughter| {
                scope.spawn(move || {
                    let spec = identity(daughter.index);
                    daughter.stamp(&spec, count)
                })
            })
            .collect();
        stamping
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("the stamping thread panicked")))
            })
            .collect()
    })
}

/// The stamp's time was late by as long as it was under way, on a busy host tens of milliseconds: moves the daughter's
/// wall clock by the error that is left, and looks again.
fn set_clock_right(daughter: &mut Client) -> anyhow::Result<()> {
    for _ in 0..CLOCK_STEPS {
        let error = clock_error(daughter)?;
        if error.nanos.unsigned_abs() <= CLOCK_ERROR_NS + error.round_trip / 2 {
            return Ok(());
        }
        daughter.step_realtime(error.nanos.saturating_neg())?;
    }
    Ok(())
}

/// How wrong a wall clock is: within ± half a round trip.
struct ClockError {
    nanos: i64,
    round_trip: u64,
}

/// The best of a few readings: that with the shortest round trip.
fn clock_error(daughter: &mut Client) -> anyhow::Result<ClockError> {
    let mut best = None::<ClockError>;
    for _ in 0..CLOCK_READINGS {
        let before = wall_clock_ns();
        let reads = daughter.clocks()?.realtime_ns;
        let round_trip = wall_clock_ns().saturating_sub(before);
        if best
            .as_ref()
            .is_none_or(|best| round_trip < best.round_trip)
        {
            let nanos = reads.wrapping_sub(before + round_trip / 2) as i64;
            best = Some(ClockError { nanos, round_trip });
        }
        if round_trip <= 2 * CLOCK_ERROR_NS {
            break;
        }
    }
    best.context("the clock was not read")
}

/// The host's wall clock, nanoseconds since the epoch.
pub fn wall_clock_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
