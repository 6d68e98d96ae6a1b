//! Keeps the lab's kernel from patching itself while machines run, and tells the lab's watchdog that it runs.
//!
//! KVM has jump labels that it switches with the first and the last vCPU whose local APIC is disabled
//! (`apic_hw_disabled`, `apic_sw_disabled` in arch/x86/kvm/lapic.c), and every new vCPU is one for a moment. Switching
//! rewrites code that the other CPU runs, and the emulator sometimes executes the breakpoint that stands there in
//! between after the kernel has forgotten it: the lab's kernel dies of `int3` in `kvm_arch_vcpu_ioctl_run`. One machine
//! that stays, with its local APIC disabled, keeps the labels as they are. Real CPUs do not need it.
//!
//! Now and then a lab stands still, its CPU busy and its kernel silent. The emulated watchdog, fed from here, then
//! resets it, which ends it, so that whoever waits learns of it. Unsafe: ioctls of KVM and of the watchdog.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Written once the machine stands; the lab's script waits for it.
pub(super) const STANDS: &str = "/run/lab-steady";

// Documentation/virt/kvm/api.rst; _IO(KVMIO, …) and struct kvm_sregs of 312 bytes.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_CREATE_IRQCHIP: libc::c_ulong = 0xae60;
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;
const KVM_GET_SREGS: libc::c_ulong = 0x8138_ae83;
const KVM_SET_SREGS: libc::c_ulong = 0x4138_ae84;
const SREGS_WORDS: usize = 39;
/// Word of `apic_base`: eight segments of 24 bytes, two tables of 16, CR0 CR2 CR3 CR4 CR8 EFER.
const APIC_BASE: usize = 34;
/// IA32_APIC_BASE: the local APIC is globally enabled (SDM 3A §12.4.4).
const APIC_ENABLED: u64 = 1 << 11;

/// Documentation/watchdog/watchdog-api.rst; _IOWR('W', 6, int).
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;
/// How long a lab may show no life, in seconds.
const STILL_LIMIT: libc::c_int = 120;
/// How often it shows some.
const FEED: Duration = Duration::from_secs(5);

/// Makes the machine, feeds the watchdog and stays until killed.
pub(crate) fn stay() -> Result<u8> {
    let kvm = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .context("/dev/kvm")?;
    let vm = descriptor(call(kvm.as_raw_fd(), KVM_CREATE_VM, 0)?);
    call(vm.as_raw_fd(), KVM_CREATE_IRQCHIP, 0)?;
    let vcpu = descriptor(call(vm.as_raw_fd(), KVM_CREATE_VCPU, 0)?);
    let mut sregs = [0_u64; SREGS_WORDS];
    call(
        vcpu.as_raw_fd(),
        KVM_GET_SREGS,
        sregs.as_mut_ptr() as libc::c_ulong,
    )?;
    let apic_base = sregs
        .get_mut(APIC_BASE)
        .context("struct kvm_sregs is shorter")?;
    ensure!(
        *apic_base & APIC_ENABLED != 0,
        "apic_base is not where it should be: {apic_base:#x}"
    );
    *apic_base &= !APIC_ENABLED;
    call(
        vcpu.as_raw_fd(),
        KVM_SET_SREGS,
        sregs.as_mut_ptr() as libc::c_ulong,
    )?;
    let mut watchdog = File::options()
        .write(true)
        .open("/dev/watchdog")
        .context("/dev/watchdog")?;
    let mut limit = STILL_LIMIT;
    call(
        watchdog.as_raw_fd(),
        WDIOC_SETTIMEOUT,
        (&raw mut limit) as libc::c_ulong,
    )?;
    fs::write(STANDS, "").context(STANDS)?;
    loop {
        // Any byte but 'V' (watchdog-api.rst, "Magic Close").
        watchdog.write_all(b"\0").context("/dev/watchdog")?;
        std::thread::sleep(FEED);
    }
}

fn call(fd: i32, request: libc::c_ulong, argument: libc::c_ulong) -> Result<i32> {
    // SAFETY: the argument is a number, or the address of a live kvm_sregs or int where the request takes one.
    let result = unsafe { libc::ioctl(fd, request, argument) };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("ioctl {request:#x}"));
    }
    Ok(result)
}

fn descriptor(raw: i32) -> OwnedFd {
    // SAFETY: a descriptor just returned by KVM and owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
