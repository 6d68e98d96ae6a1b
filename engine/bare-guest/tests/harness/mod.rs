//! The smallest VM that runs the bare guest: one KVM machine, vCPUs as values, port and MMIO exits answered in the caller's thread.
//!
//! Unsafe: one call, which gives the kernel memory that the machine keeps mapped. Memory slots come before the interrupt
//! controller, since a slot added after it waits for milliseconds.

#![allow(
    dead_code,
    reason = "each program uses its own part; an expectation would fail in the one that uses everything"
)]

use anyhow::{Context, Result, bail, ensure};
use brood_bare_guest::mailbox::{Command, Fault, outcome};
use brood_bare_guest::{Said, VcpuEntry, VcpuMailbox, layout, load};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Whether this machine has KVM: without it a test prints a skip, and fails in CI.
pub(crate) fn kvm_present() -> bool {
    let present = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !present {
        assert!(
            std::env::var_os("CI").is_none(),
            "no usable /dev/kvm on a CI machine"
        );
        eprintln!("skipped: no usable /dev/kvm");
    }
    present
}

/// How a run of a vCPU ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The reply of a command.
    Reply(u64),
    /// The vCPU asked for a command and there is none.
    Waiting,
    /// The number of ticks that the run was limited to.
    Ticks,
    /// A triple fault.
    Shutdown,
    /// A write to a port that is not the mailbox's: port, bytes.
    Port(u16, Vec<u8>),
}

/// A machine with its memory.
pub(crate) struct Machine {
    kvm: Kvm,
    vm: VmFd,
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) entries: Vec<VcpuEntry>,
}

impl Machine {
    /// A machine with the guest loaded.
    pub(crate) fn new(ram_bytes: u64, vcpus: u32) -> Result<Self> {
        let ranges = layout::ram_ranges(ram_bytes);
        let ranges: Vec<_> = ranges
            .into_iter()
            .filter(|(first, end)| first < end)
            .collect();
        let mapped: Vec<_> = ranges
            .iter()
            .map(|(first, end)| (GuestAddress(*first), (end - first) as usize))
            .collect();
        // vm-memory maps private, anonymous and MAP_NORESERVE.
        let memory = GuestMemoryMmap::from_ranges(&mapped).context("mapping guest memory")?;
        let entries = load(&memory, ram_bytes, vcpus)?;
        let kvm = Kvm::new().context("opening /dev/kvm")?;
        let vm = kvm.create_vm().context("creating a VM")?;
        for (slot, region) in (0..).zip(GuestMemoryBackend::iter(&memory)) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the region stays mapped as long as `memory`, of which every vCPU keeps a reference.
            unsafe { vm.set_user_memory_region(region) }.context("setting a memory slot")?;
        }
        vm.create_irq_chip()
            .context("creating the interrupt controller")?;
        Ok(Self {
            kvm,
            vm,
            memory,
            entries,
        })
    }

    /// All vCPUs, ready to run.
    pub(crate) fn vcpus(&self) -> Result<Vec<Vcpu>> {
        let cpuid = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("reading CPUID")?;
        self.entries
            .iter()
            .map(|entry| self.vcpu(entry, &cpuid))
            .collect()
    }

    fn vcpu(&self, entry: &VcpuEntry, cpuid: &CpuId) -> Result<Vcpu> {
        let fd = self
            .vm
            .create_vcpu(entry.index().into())
            .context("creating a vCPU")?;
        fd.set_cpuid2(cpuid).context("KVM_SET_CPUID2")?;
        let mut sregs = fd.get_sregs()?;
        entry.fill_sregs(&mut sregs);
        fd.set_sregs(&sregs).context("KVM_SET_SREGS")?;
        let mut regs = fd.get_regs()?;
        entry.fill_regs(&mut regs);
        fd.set_regs(&regs).context("KVM_SET_REGS")?;
        fd.set_mp_state(entry.mp_state())
            .context("KVM_SET_MP_STATE")?;
        Ok(Vcpu {
            fd,
            _memory: self.memory.clone(),
            mailbox: VcpuMailbox::default(),
            bus: Box::new(Nothing),
        })
    }
}

/// One vCPU with its mailbox.
pub(crate) struct Vcpu {
    fd: VcpuFd,
    /// Keeps the memory mapped while the vCPU may run.
    _memory: GuestMemoryMmap,
    pub(crate) mailbox: VcpuMailbox,
    /// What answers in the MMIO hole.
    pub(crate) bus: Box<dyn Bus>,
}

/// What answers in the MMIO hole.
pub(crate) trait Bus: Send {
    fn read(&mut self, address: u64, data: &mut [u8]);
    fn write(&mut self, address: u64, data: &[u8]);
    /// The guest has looked at its mailbox: a moment for the device to do something of its own accord.
    fn turn(&mut self) {}
}

/// Nothing there: reads float, writes vanish.
struct Nothing;

impl Bus for Nothing {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, _: u64, _: &[u8]) {}
}

impl Vcpu {
    /// Runs until something ends the run, at the latest after `ticks` ticks.
    pub(crate) fn run(&mut self, ticks: u64) -> Result<End> {
        let limit = self.mailbox.ticks() + ticks;
        loop {
            let exit = self.fd.run().context("KVM_RUN")?;
            let said = match exit {
                VcpuExit::IoOut(port, data) if VcpuMailbox::has_port(port) => {
                    let value = u32::from_le_bytes(
                        data.try_into()
                            .context("a mailbox access that is not 32 bits")?,
                    );
                    self.mailbox.write(port, value)
                }
                VcpuExit::IoIn(port, data) if VcpuMailbox::has_port(port) => {
                    let waiting =
                        port == brood_bare_guest::mailbox::NEXT && !self.mailbox.is_pending();
                    data.copy_from_slice(&self.mailbox.read(port).to_le_bytes());
                    self.bus.turn();
                    if waiting {
                        return Ok(End::Waiting);
                    }
                    Said::Nothing
                }
                VcpuExit::IoOut(port, data) => return Ok(End::Port(port, data.to_vec())),
                VcpuExit::MmioRead(address, data) => {
                    self.bus.read(address, data);
                    Said::Nothing
                }
                VcpuExit::MmioWrite(address, data) => {
                    self.bus.write(address, data);
                    Said::Nothing
                }
                VcpuExit::Shutdown => return Ok(End::Shutdown),
                other => bail!("unexpected exit: {other:?}"),
            };
            match said {
                Said::Reply(word) => return Ok(End::Reply(word)),
                Said::Tick if self.mailbox.ticks() >= limit => return Ok(End::Ticks),
                Said::Tick | Said::Nothing => {}
            }
        }
    }

    /// Gives a command that ends otherwise than by a reply, and returns how.
    pub(crate) fn end(&mut self, command: Command) -> Result<End> {
        self.mailbox.give(command);
        loop {
            match self.run(u64::MAX - self.mailbox.ticks())? {
                End::Waiting => {}
                end => return Ok(end),
            }
        }
    }

    /// Gives a command and runs to its reply.
    pub(crate) fn command(&mut self, command: Command) -> Result<u64> {
        self.word(command).and_then(|word| {
            outcome(word).map_err(|(fault, detail)| {
                anyhow::anyhow!("{command:?} failed: {fault:?} {detail}")
            })
        })
    }

    /// Gives a command that fails, and returns why.
    pub(crate) fn fault(&mut self, command: Command) -> Result<Fault> {
        match outcome(self.word(command)?) {
            Ok(value) => bail!("{command:?} replied {value}"),
            Err((fault, _)) => Ok(fault),
        }
    }

    /// Starts a command that runs until pending, and leaves it after some ticks.
    pub(crate) fn start(&mut self, command: Command, ticks: u64) -> Result<()> {
        self.mailbox.give(command);
        loop {
            match self.run(ticks)? {
                End::Waiting => {}
                End::Ticks => return Ok(()),
                other => bail!("{command:?} ended: {other:?}"),
            }
        }
    }

    /// Ends a command that runs until pending. Returns its reply.
    pub(crate) fn stop(&mut self) -> Result<u64> {
        let reply = self.command(Command::Idle {})?;
        let idle = self.run(u64::MAX - self.mailbox.ticks())?;
        ensure!(idle == End::Reply(0), "the idle command ended: {idle:?}");
        Ok(reply)
    }

    fn word(&mut self, command: Command) -> Result<u64> {
        match self.end(command)? {
            End::Reply(word) => Ok(word),
            other => bail!("{command:?} ended: {other:?}"),
        }
    }
}
