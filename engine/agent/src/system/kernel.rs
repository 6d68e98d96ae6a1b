//! The real kernel. Invariant: each method is the system calls its name says and nothing more.
//!
//! `unsafe` here: two ioctls of random(4), clock_adjtime(2) and kill(2), which no crate wraps as they are needed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use brood_agent_proto::stat::{Clocks, Power};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::RebootCommand;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::System;
use crate::options::Role;

/// include/uapi/linux/random.h: `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// What the kernel shows as this boot's id.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// `struct rand_pool_info` with room for one seed.
#[repr(C)]
struct RandPoolInfo {
    entropy_bits: i32,
    bytes: i32,
    seed: [u8; 64],
}

/// The kernel this agent runs on.
#[derive(Debug)]
pub struct Kernel {
    role: Role,
}

impl Kernel {
    /// The kernel, as the first process or a service sees it.
    pub fn new(role: Role) -> Self {
        Self { role }
    }
}

impl System for Kernel {
    fn add_entropy(&self, seed: &[u8; 64]) -> io::Result<()> {
        let random = OpenOptions::new().write(true).open("/dev/urandom")?;
        let info = RandPoolInfo {
            entropy_bits: 512,
            bytes: 64,
            seed: *seed,
        };
        // SAFETY: RNDADDENTROPY reads a rand_pool_info and the `bytes` bytes behind it, all inside `info`.
        let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) };
        if added < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: RNDRESEEDCRNG takes no argument.
        let reseeded = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) };
        if reseeded < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn set_realtime(&self, realtime_ns: u64) -> io::Result<()> {
        let time = Timespec {
            tv_sec: i64::try_from(realtime_ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(realtime_ns % 1_000_000_000).unwrap_or(0),
        };
        Ok(clock_settime(ClockId::Realtime, time)?)
    }

    fn step_realtime(&self, by_ns: i64) -> io::Result<()> {
        // SAFETY: a timex is plain numbers, for which zero is a value.
        let mut step: libc::timex = unsafe { std::mem::zeroed() };
        step.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
        // With ADJ_NANO `tv_usec` counts nanoseconds, and never below zero (man 2 clock_adjtime).
        step.time.tv_sec = by_ns.div_euclid(1_000_000_000);
        step.time.tv_usec = by_ns.rem_euclid(1_000_000_000);
        // SAFETY: `step` is a timex that lives through the call.
        let stepped = unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut step) };
        if stepped < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            realtime_ns: read(ClockId::Realtime),
            monotonic_ns: read(ClockId::Monotonic),
            boottime_ns: read(ClockId::Boottime),
        }
    }

    fn set_hostname(&self, hostname: &str) -> io::Result<()> {
        Ok(rustix::system::sethostname(hostname.as_bytes())?)
    }

    fn hostname(&self) -> String {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    }

    fn show_at(&self, file: &Path, target: &Path) -> io::Result<()> {
        let (ours, shown) = (fs::metadata(file)?, fs::metadata(target)?);
        if (ours.dev(), ours.ino()) == (shown.dev(), shown.ino()) {
            return Ok(());
        }
        let below = target.parent().unwrap_or(target);
        if fs::metadata(below)?.dev() != shown.dev() {
            // The file of an earlier stamp that was lost from under its mount.
            unmount(target, UnmountFlags::DETACH)?;
        }
        Ok(mount_bind(file, target)?)
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(fs::read_to_string(BOOT_ID)?.trim_end().to_owned())
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if filled != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    fn power(&self, power: Power) -> io::Result<()> {
        rustix::fs::sync();
        match (self.role, power) {
            (Role::Init, Power::Off) => rustix::system::reboot(RebootCommand::PowerOff)?,
            (Role::Init, Power::Reboot) => rustix::system::reboot(RebootCommand::Restart)?,
            // systemd's init takes these as "systemctl poweroff" and "reboot" (systemd(1), SIGRTMIN+4 and +5).
            (Role::Service, Power::Off) => signal_init(4)?,
            (Role::Service, Power::Reboot) => signal_init(5)?,
        }
        Ok(())
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn signal_init(above_minimum: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes no pointers.
    let sent = unsafe { libc::kill(1, libc::SIGRTMIN() + above_minimum) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
