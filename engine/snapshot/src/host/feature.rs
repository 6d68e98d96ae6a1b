//! The feature bits of CPUID by name, as /proc/cpuinfo and Linux (arch/x86/include/asm/cpufeatures.h) call them.
//!
//! A bit without a name here is compared all the same.

use super::Register;

/// EAX bits 0 to 7: bits of a physical address.
pub(super) const ADDRESSES: u32 = 0x8000_0008;

/// A register whose bits are features.
pub(super) struct FeatureRegister {
    pub(super) function: u32,
    pub(super) index: u32,
    pub(super) register: Register,
    /// Bits that follow control registers of whoever asks, and so say nothing of the CPU.
    pub(super) dynamic: u32,
    /// Names of the bits from 0 on, between blanks; `-` where there is none.
    names: &'static str,
}

impl FeatureRegister {
    pub(super) fn name(&self, bit: u32) -> &'static str {
        let name = self.names.split_whitespace().nth(bit as usize);
        name.filter(|name| *name != "-")
            .unwrap_or("a feature without a name here")
    }
}

const fn of(function: u32, index: u32, register: Register, names: &'static str) -> FeatureRegister {
    FeatureRegister {
        function,
        index,
        register,
        dynamic: 0,
        names,
    }
}

const fn with_dynamic(dynamic: u32, register: FeatureRegister) -> FeatureRegister {
    FeatureRegister {
        dynamic,
        ..register
    }
}

/// CPUID 1 ECX bit 27, OSXSAVE, is CR4's.
const OSXSAVE: u32 = 1 << 27;
/// CPUID 7.0 ECX bit 4, OSPKE, is CR4's.
const OSPKE: u32 = 1 << 4;

/// Every register that is compared.
pub(super) const FEATURES: &[FeatureRegister] = &[
    of(
        1,
        0,
        Register::Edx,
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 \
         ss ht tm ia64 pbe",
    ),
    with_dynamic(
        OSXSAVE,
        of(
            1,
            0,
            Register::Ecx,
            "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 \
             sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor",
        ),
    ),
    of(
        7,
        0,
        Register::Ebx,
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a avx512f \
         avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl",
    ),
    with_dynamic(
        OSPKE,
        of(
            7,
            0,
            Register::Ecx,
            "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg \
             tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks",
        ),
    ),
    of(
        7,
        0,
        Register::Edx,
        "- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - \
         rtm_force_abort serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 \
         spec_ctrl intel_stibp flush_l1d arch_capabilities core_capabilities spec_ctrl_ssbd",
    ),
    of(
        7,
        1,
        Register::Eax,
        "sha512 sm3 sm4 - avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs fsrc - - - - fred lkgs wrmsrns - \
         amx_fp16 hreset avx_ifma - - lam",
    ),
    of(
        7,
        1,
        Register::Edx,
        "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchi - - - cet_sss avx10",
    ),
    of(
        7,
        2,
        Register::Edx,
        "psfd intel_ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no",
    ),
    // What XCR0 may have: each is a part of the XSAVE area.
    of(
        0xd,
        0,
        Register::Eax,
        "xstate-x87 xstate-sse xstate-avx xstate-bndregs xstate-bndcsr xstate-opmask xstate-zmm-hi256 xstate-hi16-zmm \
         xstate-pt xstate-pkru xstate-pasid xstate-cet-user xstate-cet-kernel xstate-hdc xstate-uintr xstate-lbr xstate-hwp \
         xstate-tilecfg xstate-tiledata xstate-apx",
    ),
    of(0xd, 1, Register::Eax, "xsaveopt xsavec xgetbv1 xsaves xfd"),
    of(
        0x8000_0001,
        0,
        Register::Edx,
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    of(
        0x8000_0001,
        0,
        Register::Ecx,
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - \
         nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx",
    ),
    of(
        0x8000_0007,
        0,
        Register::Edx,
        "- - - - - - - - invariant_tsc",
    ),
    of(
        0x8000_0008,
        0,
        Register::Ebx,
        "clzero irperf xsaveerptr invlpgb rdpru - mba - - wbnoinvd - - amd_ibpb wbinvd_int amd_ibrs amd_stibp \
         amd_ibrs_always_on amd_stibp_always_on ibrs_preferred ibrs_same_mode efer_lmsle_mba - - amd_ppin amd_ssbd virt_ssbd \
         amd_ssb_no cppc amd_psfd btc_no ibpb_ret brs",
    ),
    of(
        0x8000_0021,
        0,
        Register::Eax,
        "no_nested_data_bp - lfence_rdtsc smm_pgcfg_lock - - null_sel_clr_base - autoibrs no_smm_ctl_msr",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::Cpu;
    use super::*;

    /// A name in the wrong place would send an operator after the wrong feature.
    #[test]
    fn flags_that_the_kernel_shows_are_set_where_the_table_says() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("a host of Linux");
        let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"));
        let cpu = Cpu::of_this_host();
        let mut checked = 0;
        for flag in flags.expect("flags").split_whitespace() {
            for register in FEATURES {
                let mut bits = (0..u32::BITS).filter(|bit| register.name(*bit) == flag);
                let Some(bit) = bits.next() else { continue };
                let value = cpu.value(register.function, register.index, register.register);
                let place = (register.function, register.index, register.register, bit);
                assert!(value & 1 << bit != 0, "{flag} is not at {place:x?}");
                checked += 1;
            }
        }
        assert!(checked > 30, "{checked} flags of this CPU are in the table");
    }

    #[test]
    fn no_name_stands_for_two_bits() {
        let names = FEATURES
            .iter()
            .flat_map(|register| register.names.split_whitespace());
        let mut names: Vec<_> = names.filter(|name| *name != "-").collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
