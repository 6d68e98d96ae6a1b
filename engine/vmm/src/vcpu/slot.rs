//! One vCPU: the words it is steered by, and the life of its thread.
//!
//! Invariant: `inner` belongs to the cell's main thread while Parked or Ended, and to the vCPU's thread otherwise; the
//! phases are drawn one level up. Unsafe: that hand-over, and the `kvm_run` page.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use kvm_bindings::kvm_run;
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::error::VcpuEnd;
use super::{ENDED, ENTERING, ExitHandler, IoWait, PARKED, PARKING, RUNNING};
use crate::clock::now;
use crate::vcpu_state::{StateError, VcpuState};
use crate::{futex, thread};

/// How long a vCPU may take to leave the guest before it is kicked again; only a safety net.
const KICK_AGAIN: Duration = Duration::from_millis(2);

pub(super) struct Inner {
    pub(super) fd: Option<VcpuFd>,
    pub(super) state: VcpuState,
    pub(super) failure: Option<StateError>,
}

/// One vCPU: its descriptor and state, and the words it is steered by.
pub struct VcpuSlot {
    pub(super) index: u32,
    pub(super) phase: AtomicU32,
    pub(super) bell: AtomicU32,
    pub(super) tsc_shift: AtomicU64,
    /// Whether its thread reads the state when it parks.
    pub(super) saves: AtomicBool,
    tid: AtomicI32,
    pub(super) run_page: AtomicPtr<kvm_run>,
    pub(super) parked: AtomicU64,
    pub(super) saved: AtomicU64,
    pub(super) entered: AtomicU64,
    pub(super) first_exit: AtomicU64,
    handler: &'static dyn ExitHandler,
    inner: UnsafeCell<Inner>,
}

// SAFETY: everything but `inner` is atomic or immutable; `inner` is handed over by `phase` as the module says.
unsafe impl Sync for VcpuSlot {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for VcpuSlot {}

impl VcpuSlot {
    pub(super) fn new(index: u32, state: VcpuState, handler: &'static dyn ExitHandler) -> Self {
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
    pub(super) fn idle_inner(&self) -> Option<&mut Inner> {
        let phase = self.phase.load(Ordering::Acquire);
        // SAFETY: the vCPU's thread touches `inner` only in the other phases.
        (phase == PARKED || phase == ENDED).then(|| unsafe { &mut *self.inner.get() })
    }

    pub(super) fn adopt(&self, mut fd: VcpuFd) {
        let page = std::ptr::from_mut(fd.get_kvm_run());
        self.run_page.store(page, Ordering::Release);
        if let Some(inner) = self.idle_inner() {
            inner.fd = Some(fd);
        }
    }

    /// The next `KVM_RUN`, or the one under way, returns at once and leaves registers of these `kinds` in the shared page.
    pub(super) fn hurry(&self, kinds: u64) {
        self.steer(kinds, 1);
    }

    /// `KVM_RUN` runs the guest again and leaves nothing.
    pub(super) fn let_run(&self) {
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

    pub(super) fn ring(&self) {
        self.bell.fetch_add(1, Ordering::AcqRel);
        futex::wake(&self.bell);
    }

    pub(super) fn kick(&self) {
        let tid = self.tid.load(Ordering::Acquire);
        if tid != 0 {
            thread::kick(tid);
        }
    }

    /// Moves from one phase to the next; false if it was in another.
    pub(super) fn passes(&self, from: u32, to: u32) -> bool {
        self.phase
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Waits until the vCPU stands still, parked or ended.
    pub(super) fn settled(&self) -> u32 {
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
    pub(super) fn load(&mut self) -> Result<(), StateError> {
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

pub(super) extern "C" fn vcpu_main(argument: *mut libc::c_void) -> *mut libc::c_void {
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
