//! What KVM and memory of this host do in practice: speeds and times measured with a machine of a few pages.
//!
//! CPU flags and capabilities do not tell whether guest kernel mode runs on the CPU or is emulated, so it is timed.
//! Invariant: each probe ends in bounded time on any host, a KVM that never returns to its caller included: then its
//! thread is left behind. Meant for a program that examines the host and exits, not for a cell: it starts threads.

mod guest;
mod memory;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuExit;

use crate::host::KvmHost;
use crate::thread;
use guest::{Guest, PORT};
pub use memory::{fault_around_control, memfd_collapse};

/// Long enough to be measured beside a scheduler's time slice.
const ENOUGH: Duration = Duration::from_millis(20);
/// After this the guest is interrupted.
const LIMIT: Duration = Duration::from_millis(700);
/// How long an interrupted guest is waited for.
const GRACE: Duration = Duration::from_millis(200);
/// Between two interruptions: one that comes before KVM_RUN is entered is lost.
const KICK_AGAIN: Duration = Duration::from_millis(5);
/// First number of rounds: 4 ms where an instruction takes a microsecond.
const FIRST_ROUNDS: u32 = 2048;
/// Most rounds: half a second where each takes a cycle of 2 GHz.
const MOST_ROUNDS: u32 = 1 << 30;
/// Instructions of one round.
const ROUND: u64 = 2;

/// In which mode of the guest's CPU the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMode {
    /// Ring 0: what the kernel of a Linux guest runs in.
    Kernel,
    /// Ring 3: what programs in a guest and the bare guest run in.
    User,
}

impl GuestMode {
    const fn ring(self) -> u8 {
        match self {
            Self::Kernel => 0,
            Self::User => 3,
        }
    }
}

/// How fast a guest ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSpeed {
    /// Instructions the guest executed.
    pub instructions: u64,
    /// In this time.
    pub took: Duration,
}

impl GuestSpeed {
    /// Millions of instructions a second.
    pub fn mips(self) -> f64 {
        self.instructions as f64 / self.took.as_secs_f64().max(1e-9) / 1e6
    }
}

/// How long a memory slot takes to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotTimes {
    /// In a new machine.
    pub before_irqchip: Duration,
    /// Right after the interrupt controllers were made.
    pub after_irqchip: Duration,
}

/// Why a probe has no result.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A call failed.
    #[error("{operation} failed")]
    Call {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The guest did something its program does not do.
    #[error("the guest ended with {exit}")]
    Exit {
        /// KVM's exit reason and its numbers.
        exit: String,
    },
    /// The guest got nowhere.
    #[error("the guest did not come through {} instructions in {} ms", u64::from(FIRST_ROUNDS) * ROUND, LIMIT.as_millis())]
    TooSlow,
    /// `KVM_RUN` did not return although its thread was interrupted.
    #[error("KVM_RUN did not return for {} ms", (LIMIT + GRACE).as_millis())]
    Hung,
    /// The probe's own memory could not be made.
    #[error("no memory for the probe")]
    Memory(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How fast guest code runs in `mode`; takes at most a second.
///
/// # Errors
/// KVM refused the machine, or the guest got nowhere.
pub fn guest_speed(host: &KvmHost, mode: GuestMode) -> Result<GuestSpeed, ProbeError> {
    thread::install_kick_handler().map_err(|source| ProbeError::Call {
        operation: "sigaction",
        source,
    })?;
    let mut guest = Guest::new(host, mode)?;
    let tid = Arc::new(AtomicI32::new(0));
    let (send, receive) = channel();
    let runner = {
        let tid = Arc::clone(&tid);
        move || {
            tid.store(thread::current_tid(), Ordering::Release);
            // Nobody listens any more when the probe has given up.
            send.send(guest.measure()).ok();
        }
    };
    std::thread::Builder::new()
        .name("probe".to_owned())
        .spawn(runner)
        .map_err(|source| ProbeError::Call {
            operation: "starting a thread",
            source,
        })?;
    let start = Instant::now();
    let mut patience = LIMIT;
    loop {
        match receive.recv_timeout(patience) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(ProbeError::Hung),
            Err(RecvTimeoutError::Timeout) if start.elapsed() > LIMIT + GRACE => {
                return Err(ProbeError::Hung);
            }
            Err(RecvTimeoutError::Timeout) => {
                patience = KICK_AGAIN;
                match tid.load(Ordering::Acquire) {
                    0 => {}
                    tid => thread::kick(tid),
                }
            }
        }
    }
}

/// How long memory slots take to be set, before and after the interrupt controllers: the middle one of three machines.
///
/// # Errors
/// KVM refused a call.
pub fn slot_times(host: &KvmHost) -> Result<SlotTimes, ProbeError> {
    let memory = guest::memory()?;
    let (mut before, mut after) = ([Duration::ZERO; 3], [Duration::ZERO; 3]);
    for (before, after) in before.iter_mut().zip(&mut after) {
        // Dropped before the memory of its slots.
        let vm = host.kvm().create_vm().map_err(call("KVM_CREATE_VM"))?;
        *before = guest::set_slot(&vm, &memory, 0)?;
        vm.create_irq_chip().map_err(call("KVM_CREATE_IRQCHIP"))?;
        *after = guest::set_slot(&vm, &memory, 1)?;
    }
    before.sort_unstable();
    after.sort_unstable();
    Ok(SlotTimes {
        before_irqchip: before[1],
        after_irqchip: after[1],
    })
}

impl Guest {
    /// Runs ever more rounds until they take long enough.
    fn measure(&mut self) -> Result<GuestSpeed, ProbeError> {
        let start = Instant::now();
        let mut course = Course::default();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoIn(PORT, data)) => match course.asked(Instant::now(), start) {
                    Step::Done(speed) => return Ok(speed),
                    Step::Run(rounds) => {
                        for (to, from) in data.iter_mut().zip(rounds.to_ne_bytes()) {
                            *to = from;
                        }
                        course.begun = Some((rounds, Instant::now()));
                    }
                },
                Ok(VcpuExit::IrqWindowOpen | VcpuExit::Intr) => {}
                Ok(exit) => {
                    return Err(ProbeError::Exit {
                        exit: format!("{exit:?}"),
                    });
                }
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                    if start.elapsed() >= LIMIT {
                        return course.last.ok_or(ProbeError::TooSlow);
                    }
                }
                Err(error) => return Err(call("KVM_RUN")(error)),
            }
        }
    }
}

/// The measurement so far.
#[derive(Default)]
struct Course {
    begun: Option<(u32, Instant)>,
    last: Option<GuestSpeed>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Run(u32),
    Done(GuestSpeed),
}

impl Course {
    /// The guest asks for rounds at `now`, having done those it was given.
    fn asked(&mut self, now: Instant, start: Instant) -> Step {
        let Some((rounds, begun)) = self.begun else {
            return Step::Run(FIRST_ROUNDS);
        };
        let took = now.duration_since(begun);
        let speed = GuestSpeed {
            instructions: u64::from(rounds) * ROUND,
            took,
        };
        self.last = Some(speed);
        if took >= ENOUGH || rounds >= MOST_ROUNDS || now.duration_since(start) >= LIMIT / 2 {
            return Step::Done(speed);
        }
        Step::Run(rounds.saturating_mul(4).min(MOST_ROUNDS))
    }
}

fn call(operation: &'static str) -> impl Fn(kvm_ioctls::Error) -> ProbeError {
    move |error| ProbeError::Call {
        operation,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_grow_until_they_take_long_enough() {
        let start = Instant::now();
        let mut course = Course::default();
        assert_eq!(course.asked(start, start), Step::Run(FIRST_ROUNDS));
        course.begun = Some((FIRST_ROUNDS, start));
        let soon = start + Duration::from_millis(3);
        assert_eq!(course.asked(soon, start), Step::Run(FIRST_ROUNDS * 4));
        course.begun = Some((FIRST_ROUNDS * 4, soon));
        let Step::Done(speed) = course.asked(soon + ENOUGH, start) else {
            unreachable!("20 ms are enough")
        };
        assert_eq!(speed.instructions, u64::from(FIRST_ROUNDS) * 4 * ROUND);
        assert_eq!(speed.took, ENOUGH);
    }

    #[test]
    fn rounds_stop_growing_where_the_clock_stands_still() {
        let now = Instant::now();
        let mut course = Course {
            begun: Some((MOST_ROUNDS, now)),
            last: None,
        };
        assert!(matches!(course.asked(now, now), Step::Done(_)));
    }

    #[test]
    fn speed_is_in_millions_a_second_and_finite() {
        let speed = GuestSpeed {
            instructions: 3_000_000,
            took: Duration::from_millis(500),
        };
        assert!((speed.mips() - 6.0).abs() < 1e-9);
        assert!(
            GuestSpeed {
                instructions: 1,
                took: Duration::ZERO
            }
            .mips()
            .is_finite()
        );
    }

    #[test]
    fn guest_runs_faster_in_user_mode_than_an_emulator_where_there_is_kvm() {
        let Ok(file) = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
        else {
            eprintln!("skipped: no /dev/kvm here");
            return;
        };
        let host = KvmHost::new(file.into()).expect("a KVM that can fork");
        let start = Instant::now();
        let user = guest_speed(&host, GuestMode::User).expect("user mode");
        let kernel = guest_speed(&host, GuestMode::Kernel).expect("kernel mode");
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(user.mips() > 1.0, "{user:?}");
        assert!(kernel.mips() > 0.01, "{kernel:?}");
    }
}
