//! Hosts that lack something, and hosts that do not.

use super::*;

fn host() -> Host {
    let leaf = |function, index, [eax, ebx, ecx, edx]: [u32; 4]| Leaf {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
    };
    let cpu = Cpu::of_leaves([
        leaf(0, 0, [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        leaf(1, 0, [0x0008_06f8, 0, 1 << 27 | 1 << 28, 1]),
        leaf(4, 0, [7, 7, 7, 7]),
        leaf(7, 0, [0, 1 << 16 | 1 << 5, 1 << 4, 0]),
        leaf(0xd, 0, [0xe7, 0, 0, 0]),
        leaf(0x8000_0008, 0, [0x3034, 0, 0, 0]),
    ]);
    let kvm = KvmFacts {
        backend: "vmx".into(),
        kernel: "6.12.0".into(),
        tsc_khz: 2_000_000,
        tsc_scaling: false,
        xsave_bytes: 4096,
        msrs: vec![0x10, 0xc000_0080],
        capabilities: vec!["KVM_CAP_ADJUST_CLOCK".into()],
    };
    Host { cpu, kvm }
}

/// All that the machine lacks on a host that is like its own but for one change.
fn lacks(change: impl FnOnce(&mut Host)) -> Vec<String> {
    let mut other = host();
    change(&mut other);
    let lacks = host().lacking_on(&other);
    lacks.iter().map(ToString::to_string).collect()
}

fn leaf(host: &mut Host, function: u32) -> &mut Leaf {
    let leaves = &mut host.cpu.leaves;
    let found = leaves.iter_mut().find(|leaf| leaf.function == function);
    found.expect("kept")
}

#[test]
fn a_cpu_is_named_by_vendor_family_model_and_stepping() {
    let cpu = host().cpu;
    assert_eq!(cpu.vendor, "GenuineIntel");
    assert_eq!((cpu.family, cpu.model, cpu.stepping), (6, 0x8f, 8));
    assert_eq!(cpu.leaves.len(), 4, "a leaf of caches has no features");
}

#[test]
fn the_same_host_and_one_that_has_more_lack_nothing() {
    assert!(lacks(|_| {}).is_empty());
    let more = lacks(|host| {
        leaf(host, 7).ebx = u32::MAX;
        host.cpu.model = 0xcf;
        host.kvm.kernel = "7.0".into();
        host.kvm.xsave_bytes = 8192;
        host.kvm.msrs.push(0x48);
    });
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn what_a_host_lacks_is_named_with_register_and_bit() {
    type Change<'a> = &'a dyn Fn(&mut Host);
    let cases: [(Change<'_>, &str); 10] = [
        (
            &|host| leaf(host, 7).ebx = 1 << 5,
            "this host's CPU lacks avx512f (CPUID 7.0 EBX bit 16)",
        ),
        (
            &|host| leaf(host, 1).ecx = 1 << 27,
            "this host's CPU lacks avx (CPUID 1.0 ECX bit 28)",
        ),
        (
            &|host| leaf(host, 0xd).eax = 0x67,
            "this host's CPU lacks xstate-hi16-zmm (CPUID 0xd.0 EAX bit 7)",
        ),
        (
            &|host| host.cpu.vendor = "AuthenticAMD".into(),
            "the snapshot is of a GenuineIntel CPU, and this host's is AuthenticAMD",
        ),
        (
            &|host| leaf(host, 0x8000_0008).eax = 0x3027,
            "this host's CPU has 39 bits of physical address, and the snapshot's had 52",
        ),
        (
            &|host| host.kvm.tsc_khz = 2_000_501,
            "the guest's TSC runs at 2000000 kHz; this host's runs at 2000501 kHz, and it cannot scale it",
        ),
        (
            &|host| host.kvm.xsave_bytes = 2048,
            "the XSAVE state has 4096 bytes, and this host's KVM takes 2048",
        ),
        (
            &|host| host.kvm.msrs = vec![0x10],
            "this host's KVM lacks MSR 0xc0000080",
        ),
        (
            &|host| host.kvm.capabilities.clear(),
            "this host's KVM lacks KVM_CAP_ADJUST_CLOCK",
        ),
        (
            &|host| host.cpu.leaves.retain(|leaf| leaf.function != 0xd),
            "this host's CPU lacks xstate-x87 (CPUID 0xd.0 EAX bit 0)",
        ),
    ];
    for (change, words) in cases {
        let said = lacks(change);
        assert_eq!(said.first().map(String::as_str), Some(words), "{said:?}");
    }
}

#[test]
fn every_missing_bit_is_named_and_none_twice() {
    let said = lacks(|host| leaf(host, 7).ebx = 0);
    let expected = [
        "avx2 (CPUID 7.0 EBX bit 5)",
        "avx512f (CPUID 7.0 EBX bit 16)",
    ];
    assert_eq!(
        said,
        expected.map(|words| format!("this host's CPU lacks {words}"))
    );
}

#[test]
fn bits_that_follow_the_guest_s_own_registers_are_not_asked_for() {
    let said = lacks(|host| {
        leaf(host, 1).ecx &= !(1 << 27);
        leaf(host, 7).ecx &= !(1 << 4);
    });
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn a_tsc_within_the_tolerance_or_that_can_be_scaled_is_taken() {
    assert!(lacks(|host| host.kvm.tsc_khz = 2_000_500).is_empty());
    assert!(lacks(|host| host.kvm.tsc_khz = 0).is_empty(), "unknown");
    let scaled = lacks(|host| {
        host.kvm.tsc_khz = 3_000_000;
        host.kvm.tsc_scaling = true;
    });
    assert!(scaled.is_empty(), "{scaled:?}");
}

#[test]
fn this_host_s_cpu_can_be_read_and_lacks_nothing_of_itself() {
    let cpu = Cpu::of_this_host();
    assert_eq!(cpu.vendor.len(), 12, "{}", cpu.vendor);
    let flags = std::fs::read_to_string("/proc/cpuinfo").expect("a host of Linux");
    let family = format!("cpu family\t: {}\n", cpu.family);
    let model = format!("model\t\t: {}\n", cpu.model);
    assert!(
        flags.contains(&family) && flags.contains(&model),
        "{family}{model}"
    );
    let host = Host {
        cpu,
        kvm: KvmFacts::default(),
    };
    assert!(host.lacking_on(&host).is_empty());
}
