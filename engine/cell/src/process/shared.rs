//! What vCPU threads share with the main thread: device registers, mailboxes, notices.
//!
//! Invariant: every lock here is a leaf, held for lines and never while waiting; a parked vCPU holds none. Lock order:
//! none is taken while another is held.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use brood_bare_guest::VcpuMailbox;
use brood_units::Instant;
use brood_vmm::{Machine, VcpuEnd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::hardware::Hardware;

/// What a vCPU tells the main thread.
#[derive(Debug)]
pub(super) enum Notice {
    /// The guest ran.
    FirstInstruction(Instant),
    /// The bare guest answered.
    Reply { vcpu: u32, value: u64 },
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reboot,
    /// All of a restored machine's RAM is there.
    Whole,
    /// A vCPU stopped for good.
    Ended { vcpu: u32, end: VcpuEnd },
}

#[derive(Default)]
struct Notices {
    waiting: Vec<Notice>,
    bell: Option<EventFd>,
}

/// Shared by all threads of one cell; lives as long as the process.
pub(super) struct Shared {
    hardware: Mutex<Hardware>,
    notices: Mutex<Notices>,
    mailboxes: [Mutex<VcpuMailbox>; Machine::MAX_VCPUS as usize],
    replies_owed: [AtomicU32; Machine::MAX_VCPUS as usize],
    expects_first: AtomicBool,
}

impl Shared {
    pub(super) fn new(hardware: Hardware) -> std::io::Result<&'static Self> {
        let shared = Self {
            hardware: Mutex::new(hardware),
            notices: Mutex::default(),
            mailboxes: Default::default(),
            // A warm daughter may be in the middle of a command that her template was given.
            replies_owed: std::array::from_fn(|_| AtomicU32::new(1)),
            expects_first: AtomicBool::new(false),
        };
        shared.renew_bell()?;
        // One cell is one process: what its threads share is freed by its end.
        Ok(Box::leak(Box::new(shared)))
    }

    pub(super) fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mailbox(&self, vcpu: u32) -> Option<MutexGuard<'_, VcpuMailbox>> {
        let mailbox = self.mailboxes.get(vcpu as usize)?;
        Some(mailbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The guest has fetched a command.
    pub(super) fn owe_reply(&self, vcpu: u32) {
        if let Some(owed) = self.replies_owed.get(vcpu as usize) {
            owed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the guest owed the reply it gives; one that replies without end would else fill the engine's memory.
    pub(super) fn takes_reply(&self, vcpu: u32) -> bool {
        let one_less = |owed: u32| owed.checked_sub(1);
        self.replies_owed.get(vcpu as usize).is_some_and(|owed| {
            owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
                .is_ok()
        })
    }

    /// The next sign of life of the guest is its first after a resume.
    pub(super) fn expect_first(&self) {
        self.expects_first.store(true, Ordering::Release);
    }

    /// Whether this sign of life is the first; true once after each [`Shared::expect_first`].
    pub(super) fn saw_first(&self) -> bool {
        self.expects_first.swap(false, Ordering::AcqRel)
    }

    pub(super) fn notify(&self, notice: Notice) {
        let mut notices = self.notices();
        notices.waiting.push(notice);
        if let Some(bell) = &notices.bell {
            // A full counter means that the main thread is being woken already.
            bell.write(1).ok();
        }
    }

    pub(super) fn take_notices(&self) -> Vec<Notice> {
        let mut notices = self.notices();
        if let Some(bell) = &notices.bell {
            // Nothing to read means that somebody else has read it.
            bell.read().ok();
        }
        std::mem::take(&mut notices.waiting)
    }

    pub(super) fn bell(&self) -> std::os::fd::RawFd {
        self.notices()
            .bell
            .as_ref()
            .map_or(-1, std::os::fd::AsRawFd::as_raw_fd)
    }

    /// In a forked child: the mother's bell and what was said to her are not ours.
    pub(super) fn forget(&self) {
        let mut notices = self.notices();
        std::mem::forget(notices.bell.take());
        notices.waiting.clear();
    }

    pub(super) fn renew_bell(&self) -> std::io::Result<()> {
        self.notices().bell = Some(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        Ok(())
    }

    fn notices(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
