//! What this host's KVM can do.

use std::fs::{self, File};

/// What `/dev/kvm` of this host is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kvm {
    /// Hardware virtualisation: Linux guests run here.
    RunsLinux,
    /// No SVM or VMX: guest kernel mode is emulated, so Linux does not boot; it needs the lab.
    NeedsLab,
}

/// Decides from the CPU's flags and from whether `/dev/kvm` opens.
pub(crate) fn kvm() -> Kvm {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let opens = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if opens && has_virtualisation(&cpuinfo) {
        Kvm::RunsLinux
    } else {
        Kvm::NeedsLab
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.any(|line| {
        line.split_whitespace()
            .any(|flag| flag == "svm" || flag == "vmx")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_flag_counts_as_hardware_virtualisation() {
        assert!(has_virtualisation(
            "model name : x\nflags\t\t: fpu svm sse\n"
        ));
        assert!(has_virtualisation("flags : vmx"));
        assert!(!has_virtualisation(
            "flags : fpu svm_lock\nvmx flags\t: vnmi svm\nmodel name: svm vmx"
        ));
    }
}
