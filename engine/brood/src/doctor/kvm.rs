//! What KVM offers and how fast it is. Invariant: as soon as one step shows that there is no usable KVM, the later ones
//! are not taken, and the measurements say why.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use brood_vmm::{GuestMode, KvmHost, guest_speed, slot_times};

use super::check::{Check, Question, chain};
use super::verdict::{BARE_MIPS, LINUX_MIPS, Measurements, SpeedResult, rate};

const DEVICE: Question = Question {
    name: "kvm device",
    why: "each guest is a KVM machine; without the device there is none",
};
const FEATURES: Question = Question {
    name: "kvm features",
    why: "a fork reads and writes interrupt controllers, clock and vCPUs, and interrupts a running guest",
};
const CPU: Question = Question {
    name: "cpu flags",
    why: "with svm or vmx a guest's kernel runs on the CPU itself; the measured speed decides, not the flag",
};
const KERNEL: Question = Question {
    name: "guest kernel speed",
    why: "Linux spends its boot, every system call and every interrupt in guest kernel mode",
};
const USER: Question = Question {
    name: "guest user speed",
    why: "programs in a guest, and the bare guest altogether, run in guest user mode",
};
const SLOT: Question = Question {
    name: "memory slots",
    why: "a slot set after the interrupt controllers waits for a grace period of the kernel",
};

/// A slot change that takes longer waited for the grace period (4 to 8 ms); without it it takes 0.1 to 0.3 ms.
const SLOW_SLOT_MS: f64 = 2.0;
const HARDWARE: &str = "use a machine with AMD-V or VT-x enabled in its firmware, or a virtual one with nested \
                        virtualization; meanwhile use `cargo xtask lab`";

const REFUSED: &str = "raise the limit or free the memory that the error names; if it names neither, update the host's kernel, \
                       and use `cargo xtask lab` meanwhile";

/// Looks at the device `path`.
pub(super) fn examine(path: &Path) -> (Vec<Check>, Measurements) {
    let mut checks = Vec::new();
    let host = open(path, &mut checks);
    checks.push(cpu_flags(
        &fs::read_to_string("/proc/cpuinfo").unwrap_or_default(),
    ));
    let measurements = match host {
        Ok(host) => measure(&host, &mut checks),
        Err(reason) => Measurements {
            no_kvm: Some(reason),
            kernel: SpeedResult::Unknown,
            user: SpeedResult::Unknown,
        },
    };
    (checks, measurements)
}

fn open(path: &Path, checks: &mut Vec<Check>) -> Result<KvmHost, String> {
    let name = path.display();
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) => {
            let (found, remedy) = closed(path, &error);
            checks.push(DEVICE.fail(found.clone(), remedy));
            return Err(found);
        }
    };
    checks.push(DEVICE.ok(format!("{name} opens")));
    match KvmHost::new(file.into()) {
        Ok(host) => {
            let vcpus = host.max_vcpus();
            checks.push(FEATURES.ok(format!(
                "API version 12, all capabilities, up to {vcpus} vCPUs a machine"
            )));
            Ok(host)
        }
        Err(error) => {
            let found = chain(&error);
            checks.push(FEATURES.fail(
                found.clone(),
                format!("check that {name} is the KVM device (`ls -l` shows c, 10, 232) of Linux 6.1 or newer"),
            ));
            Err(format!("{name} is of no use: {found}"))
        }
    }
}

/// Why the device does not open, and what to do.
fn closed(path: &Path, error: &io::Error) -> (String, String) {
    let name = path.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => (
            format!("there is no {name}"),
            "load the module (`modprobe kvm_amd` or `modprobe kvm_intel`); if it refuses, switch on AMD-V or VT-x in \
             the firmware, or nested virtualization for this machine; in a container, pass the device in \
             (`--device /dev/kvm`)"
                .to_owned(),
        ),
        Some(libc::EACCES) => (
            format!("{name} may not be opened by this user"),
            "join the group that owns it (`usermod -aG kvm USER`, then log in anew), or run as root".to_owned(),
        ),
        Some(libc::EPERM) => (
            format!("{name} is there and this process may not open devices"),
            "this is a container or a service with a device filter: pass the device in (`--device /dev/kvm`, \
             `DeviceAllow=/dev/kvm rw`)"
                .to_owned(),
        ),
        Some(libc::ENODEV | libc::ENXIO) => (
            format!("{name} is there and no module stands behind it"),
            "load it: `modprobe kvm_amd` or `modprobe kvm_intel`".to_owned(),
        ),
        Some(libc::EBUSY) => (
            format!("another hypervisor holds the CPU's virtualization ({name} is busy)"),
            "stop the other hypervisor and unload its module".to_owned(),
        ),
        _ => (
            format!("{name} does not open: {error}"),
            format!("check that {name} is the KVM device (`ls -l` shows c, 10, 232)"),
        ),
    }
}

fn measure(host: &KvmHost, checks: &mut Vec<Check>) -> Measurements {
    let speed = |mode| match guest_speed(host, mode) {
        Ok(speed) => SpeedResult::Mips(speed.mips()),
        Err(error) => SpeedResult::Failed(chain(&error)),
    };
    let (kernel, user) = (speed(GuestMode::Kernel), speed(GuestMode::User));
    checks.push(speed_check(KERNEL, &kernel, LINUX_MIPS));
    checks.push(speed_check(USER, &user, BARE_MIPS));
    checks.push(match slot_times(host) {
        Ok(times) => slot_check(
            times.before_irqchip.as_secs_f64() * 1e3,
            times.after_irqchip.as_secs_f64() * 1e3,
        ),
        Err(error) => SLOT.fail(chain(&error), "update the host's kernel"),
    });
    Measurements {
        no_kvm: None,
        kernel,
        user,
    }
}

fn speed_check(question: Question, speed: &SpeedResult, least: f64) -> Check {
    match speed {
        SpeedResult::Mips(mips) if *mips >= least => {
            question.ok(format!("{} instructions a second", rate(*mips)))
        }
        SpeedResult::Mips(mips) => question.fail(
            format!("{} instructions a second: emulated", rate(*mips)),
            HARDWARE,
        ),
        SpeedResult::Failed(why) => question.fail(why.clone(), REFUSED),
        SpeedResult::Unknown => question.fail("not measured", HARDWARE),
    }
}

fn slot_check(before_ms: f64, after_ms: f64) -> Check {
    let found = format!(
        "{before_ms:.2} ms in a new machine, {after_ms:.2} ms after its interrupt controllers"
    );
    if before_ms > SLOW_SLOT_MS {
        SLOT.warn(
            found,
            "measure again on an idle host; if it stays, making a machine takes that long",
        )
    } else if after_ms > SLOW_SLOT_MS {
        SLOT.warn(
            format!("{found} (kernel waits)"),
            "nothing: machines here set their slots first and a fork sets none after; do not add memory to running guests",
        )
    } else {
        SLOT.ok(found)
    }
}

fn cpu_flags(cpuinfo: &str) -> Check {
    let mut flags = cpuinfo
        .lines()
        .filter(|line| {
            line.split(':')
                .next()
                .is_some_and(|key| key.trim_end() == "flags")
        })
        .flat_map(|line| line.split_whitespace());
    match flags.find(|flag| matches!(*flag, "svm" | "vmx")) {
        Some(flag) => CPU.ok(flag),
        None => CPU.warn("neither svm nor vmx", HARDWARE),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Status;
    use super::*;

    #[test]
    fn each_way_a_device_stays_closed_has_its_own_remedy() {
        let path = Path::new("/dev/kvm");
        let table = [
            (libc::ENOENT, "there is no /dev/kvm", "modprobe"),
            (libc::EACCES, "by this user", "usermod -aG kvm"),
            (libc::EPERM, "may not open devices", "--device /dev/kvm"),
            (libc::ENODEV, "no module", "modprobe"),
            (libc::EBUSY, "another hypervisor", "unload"),
            (libc::EISDIR, "does not open", "KVM device"),
        ];
        for (errno, says, advises) in table {
            let (found, remedy) = closed(path, &io::Error::from_raw_os_error(errno));
            assert!(found.contains(says), "{found}");
            assert!(remedy.contains(advises), "{remedy}");
        }
    }

    #[test]
    fn only_a_whole_flag_counts() {
        assert_eq!(cpu_flags("flags\t\t: fpu svm\n").status, Status::Ok);
        assert_eq!(cpu_flags("flags : vmx fpu\n").found, "vmx");
        assert_eq!(
            cpu_flags("flags : svm_lock\nvmx flags : svm\nmodel : svm\n").status,
            Status::Warn
        );
        assert_eq!(cpu_flags("").status, Status::Warn);
    }

    #[test]
    fn slow_slots_are_told_from_fast_ones() {
        assert_eq!(slot_check(0.1, 0.01).status, Status::Ok);
        assert_eq!(slot_check(0.1, 7.7).status, Status::Warn);
        assert_eq!(slot_check(5.0, 0.1).status, Status::Warn);
    }
}
