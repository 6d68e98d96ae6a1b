//! vCPU threads and how they are parked.
//!
//! ```text
//!        load, start      resume          thread        park, kick          state read by the thread
//!  (none) ──────────► Parked ──► Entering ──► Running ──► Parking ──► Parked
//!                        ▲          │            └──► Ended (triple fault, refused entry)
//!                        └── park ──┘
//! ```
//!
//! One word holds the phase and every arrow is one compare-and-swap, so a park that overtakes a resume is seen.
//! A vCPU parks only after `KVM_RUN` has returned `EINTR`: that re-entry completes the exit it was handling, so no
//! port or memory read is lost and no instruction runs twice. A parked thread waits on a futex, outside of the
//! allocator and of every lock, so that fork(2) copies nothing half done. Invariant: `inner` belongs to the cell's main
//! thread while Parked or Ended, and to the vCPU's thread otherwise. Unsafe: that hand-over, and the `kvm_run` page.

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use brood_units::Instant;
use kvm_bindings::kvm_run;
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};
use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::vcpu_state::{StateError, VcpuState};
use crate::{futex, thread};

const PARKED: u32 = 0;
const ENTERING: u32 = 1;
const RUNNING: u32 = 2;
const PARKING: u32 = 3;
const ENDED: u32 = 4;

/// Registers, special registers and events (KVM_SYNC_X86_VALID_FIELDS).
const SYNC_ALL: u64 =
    SyncReg::Register as u64 | SyncReg::SystemRegister as u64 | SyncReg::VcpuEvents as u64;

/// How long a vCPU may take to leave the guest before it is kicked again; only a safety net.
const KICK_AGAIN: Duration = Duration::from_millis(2);

/// What a vCPU does when the guest leaves it for the cell. Called on vCPU threads: bounded work, no waiting but
/// through [`IoWait`].
pub trait ExitHandler: Sync {
    /// IN from `port` (data holds every element of a string IN).
    fn port_read(&self, vcpu: IoWait<'_>, port: u16, data: &mut [u8]);
    /// OUT to `port`.
    fn port_write(&self, vcpu: IoWait<'_>, port: u16, data: &[u8]);
    /// A load from guest address `gpa`, which is not RAM.
    fn memory_read(&self, gpa: u64, data: &mut [u8]);
    /// A store to guest address `gpa`, which is not RAM.
    fn memory_write(&self, gpa: u64, data: &[u8]);
    /// The first exit since the vCPU was resumed: proof that the guest has run.
    fn first_exit(&self, vcpu: u32);
    /// The vCPU will not run again.
    fn ended(&self, vcpu: u32, end: VcpuEnd);
}

/// Why a vCPU stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VcpuEnd {
    /// The guest faulted while handling a double fault.
    TripleFault,
    /// The guest asked KVM for a power-off or reset.
    SystemEvent {
        /// KVM_SYSTEM_EVENT_*.
        kind: u32,
    },
    /// KVM could not enter or emulate the guest.
    Refused {
        /// Which exit and its numbers.
        reason: String,
    },
}

/// Why vCPUs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// No thread could be made.
    #[error("cannot start a vCPU thread")]
    Thread(#[source] io::Error),
    /// A vCPU refused its state.
    #[error("vCPU {index} refused its state")]
    State {
        /// Which vCPU.
        index: u32,
        /// What it refused.
        #[source]
        source: StateError,
    },
    /// A parked vCPU's state could not be read.
    #[error("the state of vCPU {index} cannot be read")]
    Save {
        /// Which vCPU.
        index: u32,
        /// What failed.
        #[source]
        source: StateError,
    },
    /// A vCPU has ended, so there is no machine to park or resume.
    #[error("vCPU {index} has ended")]
    Ended {
        /// Which vCPU.
        index: u32,
    },
}

/// When things last happened to a vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct VcpuTimes {
    /// It stood still.
    pub parked: Instant,
    /// Its state was read.
    pub saved: Instant,
    /// It was about to enter the guest after the last resume.
    pub entered: Instant,
    /// Its first exit after the last resume; zero until then.
    pub first_exit: Instant,
}

struct Inner {
    fd: Option<VcpuFd>,
    state: VcpuState,
    failure: Option<StateError>,
}

/// One vCPU: its descriptor and state, and the words it is steered by.
pub struct VcpuSlot {
    index: u32,
    phase: AtomicU32,
    bell: AtomicU32,
    tsc_shift: AtomicU64,
    /// Whether its thread reads the state when it parks.
    saves: AtomicBool,
    tid: AtomicI32,
    run_page: AtomicPtr<kvm_run>,
    parked: AtomicU64,
    saved: AtomicU64,
    entered: AtomicU64,
    first_exit: AtomicU64,
    handler: &'static dyn ExitHandler,
    inner: UnsafeCell<Inner>,
}

// SAFETY: everything but `inner` is atomic or immutable; `inner` is handed over by `phase` as the module says.
unsafe impl Sync for VcpuSlot {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for VcpuSlot {}

/// What a vCPU may wait on while it handles an exit.
#[derive(Clone, Copy)]
pub struct IoWait<'slot>(&'slot VcpuSlot);

impl IoWait<'_> {
    /// Which vCPU this is.
    pub fn index(self) -> u32 {
        self.0.index
    }

    /// Calls `look` until it has something, or gives up because the vCPU must park.
    pub fn until<T>(self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let heard = self.0.bell.load(Ordering::Acquire);
            if let Some(found) = look() {
                return Some(found);
            }
            if self.0.phase.load(Ordering::Acquire) != RUNNING {
                return None;
            }
            futex::wait(&self.0.bell, heard);
        }
    }
}

/// All vCPUs of one machine.
pub struct Vcpus {
    slots: Box<[VcpuSlot]>,
}

impl Vcpus {
    /// vCPUs that hold `fds` and start from `states`.
    ///
    /// # Errors
    /// The kick handler could not be installed.
    pub fn new(
        fds: Vec<VcpuFd>,
        states: Vec<VcpuState>,
        handler: &'static dyn ExitHandler,
    ) -> Result<Self, VcpuError> {
        let mut vcpus = Self::idle(states, handler)?;
        vcpus.give_fds(fds);
        Ok(vcpus)
    }

    /// vCPUs that hold states and no descriptors yet; [`Vcpus::give_fds`] comes before [`Vcpus::start`].
    ///
    /// # Errors
    /// The kick handler could not be installed.
    pub fn idle(
        states: Vec<VcpuState>,
        handler: &'static dyn ExitHandler,
    ) -> Result<Self, VcpuError> {
        thread::share_one_heap();
        thread::install_kick_handler().map_err(VcpuError::Thread)?;
        let slots = (0..)
            .zip(states)
            .map(|(index, state)| VcpuSlot::new(index, state, handler))
            .collect();
        Ok(Self { slots })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Writes each vCPU's state into its descriptor; before [`Vcpus::start`].
    ///
    /// # Errors
    /// A refused state.
    pub fn load(&mut self) -> Result<(), VcpuError> {
        for slot in &self.slots {
            let index = slot.index;
            slot.idle_inner()
                .map_or(Ok(()), |inner| inner.load())
                .map_err(|source| VcpuError::State { index, source })?;
        }
        Ok(())
    }

    /// Starts a thread for each vCPU; they stay parked until [`Vcpus::resume`].
    ///
    /// # Errors
    /// No thread.
    pub fn start(&mut self) -> Result<(), VcpuError> {
        for slot in &self.slots {
            let argument = std::ptr::from_ref(slot).cast_mut().cast();
            // SAFETY: slots live in a box that is never moved or freed before the process ends.
            unsafe { thread::spawn(vcpu_main, argument) }.map_err(VcpuError::Thread)?;
        }
        Ok(())
    }

    /// Lets every parked vCPU enter the guest.
    ///
    /// # Errors
    /// One has ended.
    pub fn resume(&self) -> Result<(), VcpuError> {
        self.resume_shifted(0)
    }

    /// As [`Vcpus::resume`], for vCPUs that were loaded and never run: their TSC is first turned back by `shift`
    /// cycles ([`crate::MachineState::tsc_shift`]); zero leaves it alone.
    ///
    /// # Errors
    /// One has ended.
    pub fn resume_shifted(&self, shift: u64) -> Result<(), VcpuError> {
        self.refuse_ended()?;
        for slot in &self.slots {
            slot.tsc_shift.fetch_add(shift, Ordering::Relaxed);
            slot.first_exit.store(0, Ordering::Relaxed);
            slot.entered.store(0, Ordering::Relaxed);
            slot.let_run();
            if slot.passes(PARKED, ENTERING) {
                futex::wake(&slot.phase);
            }
        }
        Ok(())
    }

    /// Stops every vCPU between two instructions and reads its state.
    ///
    /// # Errors
    /// One has ended (the others are parked), or its state cannot be read.
    pub fn park(&mut self) -> Result<(), VcpuError> {
        self.stop(true);
        for slot in &self.slots {
            let index = slot.index;
            if let Some(source) = slot.idle_inner().and_then(|inner| inner.failure.take()) {
                return Err(VcpuError::Save { index, source });
            }
        }
        self.refuse_ended()
    }

    /// Does `work` while every vCPU stands still, and lets those that ran run on. Their state is not read.
    ///
    /// # Errors
    /// One has ended, before or after `work`.
    pub fn while_stopped<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, VcpuError> {
        self.refuse_ended()?;
        if self.are_parked() {
            return Ok(work());
        }
        self.stop(false);
        let done = work();
        self.resume()?;
        Ok(done)
    }

    /// Stops every vCPU between two instructions; each reads its state first if it is to.
    fn stop(&self, saves: bool) {
        for slot in &self.slots {
            slot.saves.store(saves, Ordering::Release);
            if !slot.passes(ENTERING, PARKED) && slot.passes(RUNNING, PARKING) {
                slot.hurry(if saves { SYNC_ALL } else { 0 });
                slot.ring();
                slot.kick();
            }
        }
        for slot in &self.slots {
            slot.settled();
        }
    }

    /// Whether every vCPU stands still.
    pub fn are_parked(&self) -> bool {
        self.slots
            .iter()
            .all(|slot| matches!(slot.phase.load(Ordering::Acquire), PARKED | ENDED))
    }

    /// Wakes a vCPU that waits in [`IoWait::until`].
    pub fn ring(&self, vcpu: u32) {
        if let Some(slot) = self.slots.get(vcpu as usize) {
            slot.ring();
        }
    }

    /// When things last happened to each vCPU.
    pub fn times(&self) -> impl Iterator<Item = VcpuTimes> + '_ {
        self.slots.iter().map(|slot| VcpuTimes {
            parked: Instant::from_nanos(slot.parked.load(Ordering::Acquire)),
            saved: Instant::from_nanos(slot.saved.load(Ordering::Acquire)),
            entered: Instant::from_nanos(slot.entered.load(Ordering::Acquire)),
            first_exit: Instant::from_nanos(slot.first_exit.load(Ordering::Acquire)),
        })
    }

    /// The states as last read, or none while a vCPU runs.
    pub fn states(&mut self) -> Option<Vec<VcpuState>> {
        self.slots
            .iter()
            .map(|slot| slot.idle_inner().map(|inner| inner.state.clone()))
            .collect()
    }

    /// In a forked child, where no vCPU thread exists: lets go of the mother's descriptors without closing them.
    pub fn forget_fds(&mut self) {
        for slot in &self.slots {
            slot.phase.store(PARKED, Ordering::Relaxed);
            std::mem::forget(slot.idle_inner().and_then(|inner| inner.fd.take()));
            slot.run_page.store(std::ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Gives each vCPU the descriptor of a new machine; its state stays.
    pub fn give_fds(&mut self, fds: Vec<VcpuFd>) {
        for (slot, fd) in self.slots.iter().zip(fds) {
            slot.adopt(fd);
        }
    }

    fn refuse_ended(&self) -> Result<(), VcpuError> {
        match self
            .slots
            .iter()
            .find(|slot| slot.phase.load(Ordering::Acquire) == ENDED)
        {
            Some(slot) => Err(VcpuError::Ended { index: slot.index }),
            None => Ok(()),
        }
    }
}

impl VcpuSlot {
    fn new(index: u32, state: VcpuState, handler: &'static dyn ExitHandler) -> Self {
        Self {
            index,
            phase: AtomicU32::new(PARKED),
            bell: AtomicU32::new(0),
            tsc_shift: AtomicU64::new(0),
            saves: AtomicBool::new(true),
            tid: AtomicI32::new(0),
            run_page: AtomicPtr::new(std::ptr::null_mut()),
            parked: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            first_exit: AtomicU64::new(0),
            handler,
            inner: UnsafeCell::new(Inner {
                fd: None,
                state,
                failure: None,
            }),
        }
    }

    /// `inner`, while no thread runs with it.
    ///
    /// Only `Vcpus` calls this, through `&mut self` or before the slot is shared, so there is one caller at a time.
    #[expect(clippy::mut_from_ref, reason = "the phase word is the lock")]
    fn idle_inner(&self) -> Option<&mut Inner> {
        let phase = self.phase.load(Ordering::Acquire);
        // SAFETY: the vCPU's thread touches `inner` only in the other phases.
        (phase == PARKED || phase == ENDED).then(|| unsafe { &mut *self.inner.get() })
    }

    fn adopt(&self, mut fd: VcpuFd) {
        let page = std::ptr::from_mut(fd.get_kvm_run());
        self.run_page.store(page, Ordering::Release);
        if let Some(inner) = self.idle_inner() {
            inner.fd = Some(fd);
        }
    }

    /// The next `KVM_RUN`, or the one under way, returns at once and leaves registers of these `kinds` in the shared page.
    fn hurry(&self, kinds: u64) {
        self.steer(kinds, 1);
    }

    /// `KVM_RUN` runs the guest again and leaves nothing.
    fn let_run(&self) {
        self.steer(0, 0);
    }

    fn steer(&self, kinds: u64, immediate_exit: u8) {
        let page = self.run_page.load(Ordering::Acquire);
        if page.is_null() {
            return;
        }
        // SAFETY: the page stays mapped while the descriptor lives in `inner`.
        let valid_regs = unsafe { std::ptr::addr_of_mut!((*page).kvm_valid_regs) };
        // SAFETY: a word of a mapped page that the kernel reads at any time (KVM API 5, kvm_valid_regs).
        unsafe { valid_regs.write_volatile(kinds) };
        // SAFETY: as above.
        let exit = unsafe { std::ptr::addr_of_mut!((*page).immediate_exit) };
        // SAFETY: a byte of a mapped page that the kernel reads at any time (KVM API 5, immediate_exit).
        unsafe { exit.write_volatile(immediate_exit) };
    }

    fn ring(&self) {
        self.bell.fetch_add(1, Ordering::AcqRel);
        futex::wake(&self.bell);
    }

    fn kick(&self) {
        let tid = self.tid.load(Ordering::Acquire);
        if tid != 0 {
            thread::kick(tid);
        }
    }

    /// Moves from one phase to the next; false if it was in another.
    fn passes(&self, from: u32, to: u32) -> bool {
        self.phase
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Waits until the vCPU stands still, parked or ended.
    fn settled(&self) -> u32 {
        loop {
            let phase = self.phase.load(Ordering::Acquire);
            if matches!(phase, PARKED | ENDED) {
                return phase;
            }
            futex::wait_for(&self.phase, phase, Some(KICK_AGAIN));
            if phase == PARKING {
                self.kick();
            }
        }
    }

    fn enter_phase(&self, phase: u32) {
        self.phase.store(phase, Ordering::Release);
        futex::wake(&self.phase);
    }

    fn wait_to_run(&self) {
        while !self.passes(ENTERING, RUNNING) {
            futex::wait(&self.phase, PARKED);
        }
    }

    fn saw_exit(&self) {
        if self.first_exit.load(Ordering::Relaxed) == 0 {
            self.first_exit.store(now().as_nanos(), Ordering::Release);
            self.handler.first_exit(self.index);
        }
    }

    fn handle(&self, exit: &mut VcpuExit<'_>) -> Option<VcpuEnd> {
        match exit {
            VcpuExit::IoIn(port, data) => self.handler.port_read(IoWait(self), *port, data),
            VcpuExit::IoOut(port, data) => self.handler.port_write(IoWait(self), *port, data),
            VcpuExit::MmioRead(gpa, data) => self.handler.memory_read(*gpa, data),
            VcpuExit::MmioWrite(gpa, data) => self.handler.memory_write(*gpa, data),
            VcpuExit::Shutdown => return Some(VcpuEnd::TripleFault),
            VcpuExit::SystemEvent(kind, _) => return Some(VcpuEnd::SystemEvent { kind: *kind }),
            VcpuExit::IrqWindowOpen | VcpuExit::Intr | VcpuExit::Hlt => {}
            other => {
                return Some(VcpuEnd::Refused {
                    reason: format!("{other:?}"),
                });
            }
        }
        None
    }

    /// `inner`, on the vCPU's own thread while it is neither Parked nor Ended.
    #[expect(clippy::mut_from_ref, reason = "the phase word is the lock")]
    fn own_inner(&self) -> &mut Inner {
        // SAFETY: called on this vCPU's thread only, never while Parked or Ended, and never held across either.
        unsafe { &mut *self.inner.get() }
    }

    /// The life of one vCPU thread, until the vCPU ends.
    fn live(&self) -> VcpuEnd {
        loop {
            self.wait_to_run();
            let shift = self.tsc_shift.swap(0, Ordering::AcqRel);
            if let Err(error) = self.own_inner().shift_tsc(shift) {
                return VcpuEnd::Refused {
                    reason: error.to_string(),
                };
            }
            self.entered.store(now().as_nanos(), Ordering::Release);
            if let Some(end) = self.run_until_parked() {
                return end;
            }
            self.parked.store(now().as_nanos(), Ordering::Release);
            if self.saves.load(Ordering::Acquire) {
                let inner = self.own_inner();
                inner.failure = inner.save().err();
            }
            self.saved.store(now().as_nanos(), Ordering::Release);
            self.enter_phase(PARKED);
        }
    }

    /// Runs the guest until the vCPU must park, which is only where `KVM_RUN` says `EINTR`.
    fn run_until_parked(&self) -> Option<VcpuEnd> {
        let Some(fd) = &mut self.own_inner().fd else {
            return Some(VcpuEnd::Refused {
                reason: "no vCPU descriptor".to_owned(),
            });
        };
        loop {
            match fd.run() {
                Ok(mut exit) => {
                    self.saw_exit();
                    if let Some(end) = self.handle(&mut exit) {
                        return Some(end);
                    }
                }
                Err(error) if error.errno() == libc::EINTR => {
                    if self.phase.load(Ordering::Acquire) == PARKING {
                        return None;
                    }
                }
                Err(error) if error.errno() == libc::EAGAIN => {}
                Err(error) => {
                    return Some(VcpuEnd::Refused {
                        reason: format!("KVM_RUN failed: {error}"),
                    });
                }
            }
        }
    }
}

impl Inner {
    fn load(&mut self) -> Result<(), StateError> {
        self.fd.as_ref().map_or(Ok(()), |fd| self.state.load(fd))
    }

    fn shift_tsc(&self, shift: u64) -> Result<(), StateError> {
        match &self.fd {
            Some(fd) if shift != 0 => self.state.shift_tsc(fd, shift),
            _ => Ok(()),
        }
    }

    fn save(&mut self) -> Result<(), StateError> {
        self.fd.as_ref().map_or(Ok(()), |fd| self.state.save(fd))
    }
}

extern "C" fn vcpu_main(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `Vcpus::start` passes a slot that lives as long as the process.
    let slot: &VcpuSlot = unsafe { &*argument.cast::<VcpuSlot>() };
    thread::allocate_uncached();
    thread::yield_to_wakers();
    slot.tid.store(thread::current_tid(), Ordering::Release);
    let end = slot.live();
    slot.enter_phase(ENDED);
    slot.handler.ended(slot.index, end);
    std::ptr::null_mut()
}
