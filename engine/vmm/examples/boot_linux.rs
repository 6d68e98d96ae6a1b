//! Boots a Linux kernel on one vCPU and says how long each part took: the proof that `brood_vmm::boot` is right.
//!
//! ```text
//! boot_linux KERNEL [--initramfs FILE] [--memory MIB] [--linux64] [--cmdline TEXT] [--virtio N] [--lines]
//! ```
//!
//! There are no devices but a serial console; the virtio windows answer "no device here". When the guest prints
//! `VMGENID-PLEASE` its generation id changes. The program ends with success when the guest powers itself off through
//! ACPI, and with failure in every other case. One thread; memory slots before the interrupt controllers, no PIT.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use brood_vmm::boot::power::PowerRequest;
use brood_vmm::boot::{
    AcpiConfig, BootSpec, CMDLINE_DEBUG, Cmdline, Kernel, RamLayout, VirtioSlot, layout, load,
};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// Asks for a new generation id.
const VMGENID_MARKER: &[u8] = b"VMGENID-PLEASE";

struct Arguments {
    kernel: PathBuf,
    initramfs: Option<PathBuf>,
    memory: u64,
    linux64: bool,
    cmdline: String,
    virtio: u8,
    lines: bool,
}

fn arguments() -> Result<Arguments> {
    let mut words = std::env::args().skip(1);
    let kernel = words.next().context("usage: boot_linux KERNEL [OPTIONS]")?;
    let mut arguments = Arguments {
        kernel: kernel.into(),
        initramfs: None,
        memory: 512,
        linux64: false,
        cmdline: CMDLINE_DEBUG.to_owned(),
        virtio: 4,
        lines: false,
    };
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--initramfs" => arguments.initramfs = Some(value()?.into()),
            "--memory" => arguments.memory = value()?.parse()?,
            "--cmdline" => arguments.cmdline = value()?,
            "--virtio" => arguments.virtio = value()?.parse()?,
            "--linux64" => arguments.linux64 = true,
            "--lines" => arguments.lines = true,
            _ => bail!("unknown option {word}"),
        }
    }
    Ok(arguments)
}

/// The serial console's output: printed, with the time since start before each line where asked for.
struct Console {
    start: Arc<Mutex<Instant>>,
    line: Vec<u8>,
    stamp_lines: bool,
    marker: Arc<AtomicBool>,
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if self.line.is_empty() && self.stamp_lines {
                let start = self.start.lock().map_err(|_| io::ErrorKind::Other)?;
                print!("{:8.3} ", start.elapsed().as_secs_f64());
            }
            self.line.push(*byte);
            io::stdout().write_all(&[*byte])?;
            if *byte == b'\n' {
                if self.line.starts_with(VMGENID_MARKER) {
                    self.marker.store(true, Ordering::Relaxed);
                }
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// An interrupt line.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let begin = Instant::now();
    let kernel = if arguments.linux64 {
        Kernel::parse_linux64(std::fs::read(&arguments.kernel)?)?
    } else {
        Kernel::open(&arguments.kernel)?
    };
    println!(
        "host: {:?}, kernel parsed and unpacked in {:?}",
        kernel.protocol(),
        begin.elapsed()
    );
    let initramfs = match &arguments.initramfs {
        Some(path) => std::fs::read(path)?,
        None => Vec::new(),
    };
    let ram = RamLayout::new(arguments.memory << 20)?;
    let regions: Vec<_> = ram
        .regions()
        .iter()
        .map(|region| (GuestAddress(region.gpa), region.bytes as usize))
        .collect();
    let memory = GuestMemoryMmap::<()>::from_ranges(&regions)?;
    let cmdline = Cmdline::new(arguments.cmdline.clone())?;
    let spec = BootSpec {
        kernel: &kernel,
        cmdline: &cmdline,
        initramfs: &initramfs,
        layout: ram,
        acpi: AcpiConfig::new(1, arguments.virtio)?,
    };
    let loading = Instant::now();
    let entry = load(&memory, &spec)?;
    println!("host: loaded in {:?}", loading.elapsed());
    drop(kernel);
    memory.write_slice(&[0x11; 16], layout::VMGENID)?;

    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    set_memory(&vm, &memory)?;
    vm.create_irq_chip()?;
    let mut vcpu = vm.create_vcpu(0)?;
    set_cpuid(&kvm, &vcpu)?;
    let mut sregs = vcpu.get_sregs()?;
    let mut regs = vcpu.get_regs()?;
    entry.configure(&mut sregs, &mut regs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;
    run(&vm, &mut vcpu, &memory, &arguments)
}

fn set_memory(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<()> {
    for (slot, region) in memory.iter().enumerate() {
        let host = memory.get_host_address(region.start_addr())?;
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the range is a live mapping of `memory`, which outlives the VM: it is borrowed by main until run()
        // has returned, and nothing else is mapped over it.
        unsafe { vm.set_user_memory_region(region) }?;
    }
    Ok(())
}

fn set_cpuid(kvm: &Kvm, vcpu: &VcpuFd) -> Result<()> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            // TSC deadline timer (with the in-kernel local APIC), hypervisor present; APIC id zero.
            1 => {
                entry.ecx |= 1 << 24 | 1 << 31;
                entry.ebx &= 0x00ff_ffff;
            }
            0xb | 0x1f => entry.edx = 0,
            _ => {}
        }
    }
    vcpu.set_cpuid2(&cpuid)?;
    Ok(())
}

fn run(vm: &VmFd, vcpu: &mut VcpuFd, memory: &GuestMemoryMmap, options: &Arguments) -> Result<()> {
    let line = EventFd::new(libc::EFD_NONBLOCK)?;
    vm.register_irqfd(&line, layout::COM1_GSI)?;
    let vmgenid = EventFd::new(libc::EFD_NONBLOCK)?;
    vm.register_irqfd(&vmgenid, layout::VMGENID_GSI)?;
    let start = Arc::new(Mutex::new(Instant::now()));
    let marker = Arc::new(AtomicBool::new(false));
    let console = Console {
        start: Arc::clone(&start),
        line: Vec::new(),
        stamp_lines: options.lines,
        marker: Arc::clone(&marker),
    };
    let mut serial = Serial::<Line, NoEvents, Console>::new(Line(line), console);
    let begin = Instant::now();
    let mut exits = 0_u64;
    loop {
        exits += 1;
        match vcpu.run()? {
            VcpuExit::IoOut(port, data) => {
                let value = data.first().copied().unwrap_or_default();
                match PowerRequest::decode(port, value) {
                    Some(PowerRequest::Off) => break,
                    Some(PowerRequest::Reset) => bail!("the guest reset itself"),
                    None => {}
                }
                if let Some(register) = serial_register(port)
                    && serial.write(register, value).is_err()
                {
                    bail!("the console is gone");
                }
            }
            VcpuExit::IoIn(port, data) => {
                data.fill(0xff);
                if let (Some(register), Some(byte)) = (serial_register(port), data.first_mut()) {
                    *byte = serial.read(register);
                }
                if port == brood_vmm::boot::power::SLEEP_STATUS_PORT {
                    data.fill(0);
                }
            }
            VcpuExit::MmioRead(address, data) => empty_slot(address, data),
            VcpuExit::MmioWrite(..) => {}
            exit => bail!("unexpected exit {exit:?}"),
        }
        if marker.swap(false, Ordering::Relaxed) {
            memory.write_slice(&[0x22; 16], layout::VMGENID)?;
            vmgenid.write(1)?;
        }
    }
    let elapsed = begin.elapsed();
    println!("\nhost: power-off through ACPI S5 after {elapsed:?} and {exits} exits");
    Ok(())
}

fn serial_register(port: u16) -> Option<u8> {
    let register = port.checked_sub(layout::COM1_PORT)?;
    u8::try_from(register).ok().filter(|it| *it < 8)
}

/// Registers of a virtio-mmio window without a device (virtio 1.3 §4.2.2: device id zero).
fn empty_slot(address: u64, data: &mut [u8]) {
    data.fill(0);
    let value = match VirtioSlot::containing(GuestAddress(address)) {
        Some((_, 0)) => 0x7472_6976_u32,
        Some((_, 4)) => 2,
        _ => 0,
    };
    for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
        *to = from;
    }
}
