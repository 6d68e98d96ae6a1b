//! A machine from nothing: RAM, kernel or bare guest, vCPUs at their first instruction.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use brood_vmm::boot::{AcpiConfig, BootSpec, Cmdline, Kernel, RamLayout};
use brood_vmm::{GuestRam, KvmHost, Machine, VcpuState, Vcpus};

use super::hardware::Hardware;
use super::jail;
use super::microvm::Microvm;
use super::refusal::{because, refuse};
use super::shared::Shared;
use crate::protocol::{DiskSpec, GuestSpec, MachineSpec, OrphanPolicy, Refusal};

const BOOT: &str = "boot";
/// The most bytes of a kernel or initramfs that are read.
const MAX_FILE: usize = 1 << 30;

/// Makes the machine `spec` with `guest` in it; the cell is jailed when this returns, and no guest instruction ran.
pub(super) fn boot(
    spec: MachineSpec,
    guest: GuestSpec,
    fds: Vec<OwnedFd>,
) -> Result<Microvm, Refusal> {
    let mut fds = fds.into_iter();
    let mut next = |what: &str| {
        fds.next().ok_or_else(|| {
            refuse(
                BOOT,
                &format!("no descriptor for {what} came along"),
                "send it with Boot",
            )
        })
    };
    let host = KvmHost::new(next("/dev/kvm")?).map_err(because(
        BOOT,
        "run `brood doctor` to see what this host lacks",
    ))?;
    let base = match &spec.disk {
        Some(DiskSpec::Base) => Some(File::from(next("the base image")?)),
        _ => None,
    };
    let kernel = match &guest {
        GuestSpec::Linux { .. } => Some((next("the kernel")?, next("the initramfs")?)),
        GuestSpec::Bare => None,
    };
    jail::enter()?;
    let layout =
        RamLayout::new(spec.ram_bytes).map_err(because(BOOT, "ask for another amount of RAM"))?;
    let ram = GuestRam::new(&layout.regions()).map_err(because(BOOT, "ask for less RAM"))?;
    let (machine, vcpu_fds) = Machine::create(&host, &ram, spec.vcpus).map_err(because(
        BOOT,
        "ask for 1 to 8 vCPUs on a host whose KVM works (`brood doctor`)",
    ))?;
    let mut states =
        Machine::fresh_states(&host, &vcpu_fds).map_err(because(BOOT, "run `brood doctor`"))?;
    let hardware = Hardware::new(&spec, ram.memory().clone(), base)?;
    match (&guest, kernel) {
        (GuestSpec::Linux { command_line }, Some((kernel, initramfs))) => {
            let acpi = AcpiConfig::new(spec.vcpus as u8, hardware.slots())
                .map_err(because(BOOT, "ask for fewer devices or vCPUs"))?;
            linux(
                &ram,
                (layout, acpi),
                command_line,
                (kernel, initramfs),
                &mut states,
            )?;
        }
        _ => bare(&ram, &spec, &mut states)?,
    }
    hardware.attach(&machine)?;
    let shared = Shared::new(hardware)
        .map_err(because(BOOT, "raise the limit of open files (ulimit -n)"))?;
    let mut vcpus = Vcpus::new(vcpu_fds, states, shared)
        .map_err(because(BOOT, "raise the limit of threads (ulimit -u)"))?;
    vcpus.load().map_err(because(BOOT, "run `brood doctor`"))?;
    vcpus
        .start()
        .map_err(because(BOOT, "raise the limit of threads (ulimit -u)"))?;
    Ok(Microvm {
        spec,
        machine: Some(machine),
        vcpus,
        ram,
        host,
        shared,
        standing: None,
        filling: None,
        touched: None,
        children: None,
        orphan: OrphanPolicy::End,
        name: None,
        depth: 0,
    })
}

fn linux(
    ram: &GuestRam,
    (layout, acpi): (RamLayout, AcpiConfig),
    command_line: &str,
    files: (OwnedFd, OwnedFd),
    states: &mut [VcpuState],
) -> Result<(), Refusal> {
    let kernel = Kernel::parse(read(files.0, "the kernel")?).map_err(because(
        BOOT,
        "give the vmlinuz of a Debian kernel package, or a vmlinux",
    ))?;
    let initramfs = read(files.1, "the initramfs")?;
    let cmdline =
        Cmdline::new(command_line).map_err(because(BOOT, "shorten or correct the command line"))?;
    let boot = BootSpec {
        kernel: &kernel,
        cmdline: &cmdline,
        initramfs: &initramfs,
        layout,
        acpi,
    };
    let entry = brood_vmm::boot::load(ram.memory(), &boot).map_err(because(
        BOOT,
        "give the guest more RAM or a smaller initramfs",
    ))?;
    if let Some(first) = states.first_mut() {
        Machine::enter_at(first, |sregs, regs| entry.configure(sregs, regs));
    }
    Ok(())
}

fn bare(ram: &GuestRam, spec: &MachineSpec, states: &mut [VcpuState]) -> Result<(), Refusal> {
    let entries = brood_bare_guest::load(ram.memory(), spec.ram_bytes, spec.vcpus).map_err(
        because(BOOT, "give the bare guest RAM and vCPUs it can use"),
    )?;
    for (state, entry) in states.iter_mut().zip(entries) {
        Machine::enter_at(state, |sregs, regs| {
            entry.fill_sregs(sregs);
            entry.fill_regs(regs);
        });
    }
    Ok(())
}

/// Reads a whole file by offset: the descriptor's position is shared with every other cell that was handed it.
fn read(fd: OwnedFd, what: &str) -> Result<Vec<u8>, Refusal> {
    let file = File::from(fd);
    let read = file.metadata().and_then(|metadata| {
        let mut bytes = vec![
            0;
            usize::try_from(metadata.len())
                .unwrap_or(usize::MAX)
                .min(MAX_FILE)
        ];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    });
    read.map_err(|error| {
        refuse(
            BOOT,
            &format!("cannot read {what}: {error}"),
            "check the file and its disk",
        )
    })
}
