//! What KVM and memory of this host do in practice: speeds and times measured with a machine of a few pages.
//!
//! ```text
//!  start: in eax, dx      exit to the host, which answers with a number of rounds
//!         mov ecx, eax
//!  loop:  dec ecx
//!         jnz loop
//!         jmp start
//! ```
//!
//! CPU flags and capabilities do not tell whether guest kernel mode runs on the CPU or is emulated, so it is timed.
//! Invariant: each probe ends in bounded time on any host, a KVM that never returns to its caller included: then its
//! thread is left behind. Meant for a program that examines the host and exits, not for a cell: it starts threads.
//! Unsafe: one memory slot.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::fault_around::NoFaultAround;
use crate::host::KvmHost;
use crate::ram::{GuestRam, HUGE_PAGE, RamRegion};
use crate::{seal::SealReport, thread};

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

const CODE: [u8; 9] = [0xed, 0x89, 0xc1, 0xff, 0xc9, 0x75, 0xfc, 0xeb, 0xf7];
const PORT: u16 = 0x80;

const RAM_BYTES: usize = 2 << 20;
const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PAGE_DIRECTORY: u64 = 0x4000;
const TSS: u64 = 0x5000;
const PROGRAM: u64 = 0x8000;
/// Fixed part of a 64-bit TSS (SDM 3A §8.7), and an I/O bitmap for 256 ports: PVM-based KVM forgets the I/O privilege
/// level of ring 3.
const TSS_FIXED: u64 = 104;
const IO_BITMAP: u64 = 32;
const TSS_LIMIT: u64 = TSS_FIXED + IO_BITMAP;

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
    /// The image of guest memory could not be made.
    #[error("guest memory cannot be sealed")]
    Memory(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How fast guest code runs in `mode`; takes at most a second.
///
/// # Errors
/// KVM refused the machine, or the guest got nowhere.
pub fn guest_speed(host: &KvmHost, mode: GuestMode) -> Result<GuestSpeed, ProbeError> {
    thread::install_kick_handler().map_err(|source| ProbeError::Call { operation: "sigaction", source })?;
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
        .map_err(|source| ProbeError::Call { operation: "starting a thread", source })?;
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

/// How long memory slots take to be set, before and after the interrupt controllers.
///
/// # Errors
/// KVM refused a call.
pub fn slot_times(host: &KvmHost) -> Result<SlotTimes, ProbeError> {
    let memory = memory()?;
    let vm = host.kvm().create_vm().map_err(call("KVM_CREATE_VM"))?;
    let before_irqchip = set_slot(&vm, &memory, 0)?;
    vm.create_irq_chip().map_err(call("KVM_CREATE_IRQCHIP"))?;
    let after_irqchip = set_slot(&vm, &memory, 1)?;
    // A machine must not outlive the memory of its slots.
    drop(vm);
    Ok(SlotTimes { before_irqchip, after_irqchip })
}

/// Seals 2 MiB of guest memory as a template is sealed.
///
/// # Errors
/// No memory, or no memfd.
pub fn sealing() -> Result<SealReport, ProbeError> {
    sealed_ram().map(|(_, report)| report)
}

/// Whether reads of sealed memory can be kept from mapping its neighbours, which needs userfaultfd.
///
/// # Errors
/// The kernel's refusal.
pub fn fault_around_control() -> Result<(), ProbeError> {
    let (ram, _) = sealed_ram()?;
    let guard = NoFaultAround::new()
        .map_err(|source| ProbeError::Call { operation: "userfaultfd(UFFD_USER_MODE_ONLY)", source })?;
    guard
        .cover(ram.base() as u64, ram.bytes())
        .map_err(|source| ProbeError::Call { operation: "UFFDIO_REGISTER for write protection", source })
}

fn sealed_ram() -> Result<(GuestRam, SealReport), ProbeError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| ProbeError::Memory(error);
    let region = RamRegion { gpa: 0, bytes: HUGE_PAGE };
    let mut ram = GuestRam::new(&[region]).map_err(|error| failed(error.into()))?;
    ram.memory().write_obj(1_u64, GuestAddress(0)).map_err(|error| failed(error.into()))?;
    let report = ram.seal().map_err(|error| failed(error.into()))?;
    Ok((ram, report))
}

/// A machine with one vCPU. The order of the fields is the order in which they go: memory last.
struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemoryMmap,
}

impl Guest {
    fn new(host: &KvmHost, mode: GuestMode) -> Result<Self, ProbeError> {
        let memory = memory()?;
        fill(&memory).map_err(|error| ProbeError::Memory(error.into()))?;
        let vm = host.kvm().create_vm().map_err(call("KVM_CREATE_VM"))?;
        set_slot(&vm, &memory, 0)?;
        let vcpu = vm.create_vcpu(0).map_err(call("KVM_CREATE_VCPU"))?;
        let khz = vcpu.get_tsc_khz().unwrap_or(0);
        let cpuid = host
            .cpuid(0, 1, khz)
            .map_err(|error| ProbeError::Call { operation: "making CPUID", source: io::Error::other(error) })?;
        vcpu.set_cpuid2(&cpuid).map_err(call("KVM_SET_CPUID2"))?;
        let mut sregs = vcpu.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        enter_long_mode(&mut sregs, mode);
        vcpu.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))?;
        let regs = kvm_regs { rip: PROGRAM, rdx: u64::from(PORT), rflags: 2, ..kvm_regs::default() };
        vcpu.set_regs(&regs).map_err(call("KVM_SET_REGS"))?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

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
                Ok(exit) => return Err(ProbeError::Exit { exit: format!("{exit:?}") }),
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
        let Some((rounds, begun)) = self.begun else { return Step::Run(FIRST_ROUNDS) };
        let took = now.duration_since(begun);
        let speed = GuestSpeed { instructions: u64::from(rounds) * ROUND, took };
        self.last = Some(speed);
        if took >= ENOUGH || rounds >= MOST_ROUNDS || now.duration_since(start) >= LIMIT / 2 {
            return Step::Done(speed);
        }
        Step::Run(rounds.saturating_mul(4).min(MOST_ROUNDS))
    }
}

fn memory() -> Result<GuestMemoryMmap, ProbeError> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)])
        .map_err(|error| ProbeError::Memory(error.into()))
}

/// Sets slot `index` to all of `memory`, as many 2 MiB units up; how long that took.
fn set_slot(vm: &VmFd, memory: &GuestMemoryMmap, index: u32) -> Result<Duration, ProbeError> {
    let address = memory
        .get_host_address(GuestAddress(0))
        .map_err(|error| ProbeError::Memory(error.into()))?;
    let region = kvm_userspace_memory_region {
        slot: index,
        flags: 0,
        guest_phys_addr: u64::from(index) * RAM_BYTES as u64,
        memory_size: RAM_BYTES as u64,
        userspace_addr: address as u64,
    };
    let start = Instant::now();
    // SAFETY: the span is `memory`, which every caller drops after the machine and its vCPU.
    unsafe { vm.set_user_memory_region(region) }.map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
    Ok(start.elapsed())
}

/// Writes the program and its tables: one 2 MiB page, mapped one to one for both rings.
fn fill(memory: &GuestMemoryMmap) -> Result<(), vm_memory::GuestMemoryError> {
    memory.write_slice(&CODE, GuestAddress(PROGRAM))?;
    for (index, descriptor) in (0..).zip(descriptors()) {
        memory.write_obj(descriptor, GuestAddress(GDT + index * 8))?;
    }
    // Present, writable, user; the page also accessed, dirty and of 2 MiB (SDM 3A §4.5).
    memory.write_obj(PDPT | 0x7, GuestAddress(PML4))?;
    memory.write_obj(PAGE_DIRECTORY | 0x7, GuestAddress(PDPT))?;
    memory.write_obj(0xe7_u64, GuestAddress(PAGE_DIRECTORY))?;
    // The bitmap's place in bytes 102 and 103, zeroes that allow, and the byte of ones that ends it.
    memory.write_obj(TSS_FIXED as u16, GuestAddress(TSS + 102))?;
    memory.write_obj(0xff_u8, GuestAddress(TSS + TSS_LIMIT))
}

/// Null, code and data of ring 0, data and code of ring 3, and a busy TSS (SDM 3A §3.4.5, §8.2.3).
const fn descriptors() -> [u64; 7] {
    [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x0000_8b00_0000_0000 | TSS << 16 | TSS_LIMIT,
        0,
    ]
}

fn enter_long_mode(sregs: &mut kvm_sregs, mode: GuestMode) {
    let (code, data) = match mode {
        GuestMode::Kernel => (0x8, 0x10),
        GuestMode::User => (0x20, 0x18),
    };
    let ring = mode.ring();
    let flat = |selector: u16, type_| kvm_segment {
        limit: u32::MAX,
        selector: selector | u16::from(ring),
        type_,
        present: 1,
        dpl: ring,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = kvm_segment { l: 1, db: 0, ..flat(code, 11) };
    let data = flat(data, 3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: TSS_LIMIT as u32,
        selector: 0x28,
        type_: 11,
        present: 1,
        ..kvm_segment::default()
    };
    sregs.ldt = kvm_segment { unusable: 1, type_: 2, ..kvm_segment::default() };
    sregs.gdt = kvm_dtable { base: GDT, limit: 7 * 8 - 1, padding: [0; 3] };
    // Any fault is a triple fault, which is seen at once.
    sregs.idt = kvm_dtable::default();
    // PE, MP, ET, NE, WP, PG; PAE; long mode enabled and active.
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8001_0033, PML4, 0x20, 0x500);
}

fn call(operation: &'static str) -> impl Fn(kvm_ioctls::Error) -> ProbeError {
    move |error| ProbeError::Call { operation, source: error.into() }
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
        let mut course = Course { begun: Some((MOST_ROUNDS, now)), last: None };
        assert!(matches!(course.asked(now, now), Step::Done(_)));
    }

    #[test]
    fn speed_is_in_millions_a_second_and_finite() {
        let speed = GuestSpeed { instructions: 3_000_000, took: Duration::from_millis(500) };
        assert!((speed.mips() - 6.0).abs() < 1e-9);
        assert!(GuestSpeed { instructions: 1, took: Duration::ZERO }.mips().is_finite());
    }

    #[test]
    fn guest_runs_faster_in_user_mode_than_an_emulator_where_there_is_kvm() {
        let Ok(file) = std::fs::File::options().read(true).write(true).open("/dev/kvm") else {
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

    #[test]
    fn memory_of_this_host_can_be_sealed() {
        assert_eq!(sealing().expect("memfd").image_bytes, HUGE_PAGE);
    }
}
