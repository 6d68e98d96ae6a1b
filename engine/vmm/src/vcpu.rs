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
//! allocator and of every lock, so that fork(2) copies nothing half done. Invariant: the cell's main thread touches a
//! vCPU's state only while that is Parked or Ended (`slot.rs`). Unsafe: the start of its thread.

use std::sync::atomic::Ordering;

use brood_units::Instant;
use kvm_ioctls::{SyncReg, VcpuFd};

use crate::vcpu_state::VcpuState;
use crate::{futex, thread};

mod error;
mod slot;

pub use error::{VcpuEnd, VcpuError};
pub use slot::VcpuSlot;
use slot::vcpu_main;

const PARKED: u32 = 0;
const ENTERING: u32 = 1;
const RUNNING: u32 = 2;
const PARKING: u32 = 3;
const ENDED: u32 = 4;

/// Registers, special registers and events (KVM_SYNC_X86_VALID_FIELDS).
const SYNC_ALL: u64 =
    SyncReg::Register as u64 | SyncReg::SystemRegister as u64 | SyncReg::VcpuEvents as u64;

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
