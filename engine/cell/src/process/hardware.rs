//! The devices of one machine: which register belongs to whom, queue work in bounded rounds, and their part in a fork.
//!
//! Windows are taken in order: disk (if there is one), vsock, rng. Invariant: devices touch guest memory only while
//! the machine is not paused, so RAM and device state read under a pause belong together.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use brood_devices::GuestMemory;
use brood_devices::console::{self, Console};
use brood_devices::virtio::block::Block;
use brood_devices::virtio::rng::Rng;
use brood_devices::virtio::vsock::{Greeting, PollEntry, Vsock, VsockOptions};
use brood_devices::virtio::{Events, MmioDevice, VirtioDevice, VirtioMmio};
use brood_devices::vmgenid::VmGenId;
use brood_vmm::Machine;
use brood_vmm::boot::VirtioSlot;
use brood_vmm::boot::layout::{VMGENID, VMGENID_GSI};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::refusal::{because, refuse};
use crate::protocol::{DiskSpec, MachineSpec, Refusal};

mod poll;
mod state;

use poll::Source;
pub(super) use poll::Work;
pub(super) use state::HardwareState;

const DEVICES: &str = "devices";
const FILES: &str = "raise the limit of open files (ulimit -n)";
/// What the guest reads as the disk's serial number.
const DISK_ID: &[u8; 20] = b"brood-disk\0\0\0\0\0\0\0\0\0\0";
/// Offset of QueueNotify in a register window (virtio 1.3 §4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;
/// Bytes of console output in one answer.
const CONSOLE_CHUNK: usize = 8 << 10;

/// The devices of one machine.
pub(super) struct Hardware {
    memory: GuestMemory,
    disk: Option<VirtioMmio<Block>>,
    base: Option<File>,
    vsock: VirtioMmio<Vsock>,
    rng: VirtioMmio<Rng>,
    console: Console,
    generation: VmGenId,
    sources: Vec<Source>,
    streams: Vec<PollEntry>,
    layer_asked: bool,
}

impl Hardware {
    pub(super) fn new(
        spec: &MachineSpec,
        memory: GuestMemory,
        base: Option<File>,
    ) -> Result<Self, Refusal> {
        let kept = clone_file(base.as_ref())?;
        let wrong = because(
            DEVICES,
            "give a base image or capacity of whole 512-byte sectors",
        );
        let disk = match (&spec.disk, base) {
            (None, _) => None,
            (Some(DiskSpec::Base), Some(base)) => Some(Block::over(base, *DISK_ID).map_err(wrong)?),
            (Some(DiskSpec::Base), None) => {
                return Err(refuse(
                    DEVICES,
                    "no base image came along",
                    "send it with Boot",
                ));
            }
            (Some(DiskSpec::Blank { bytes }), _) => {
                Some(Block::blank(*bytes, *DISK_ID).map_err(wrong)?)
            }
        };
        Ok(Self {
            disk: disk.map(fresh).transpose()?,
            base: kept,
            vsock: fresh(Vsock::new(VsockOptions::default()))?,
            rng: fresh(Rng)?,
            console: Console::new(event()?),
            generation: VmGenId::new(VMGENID, event()?),
            memory,
            sources: Vec::new(),
            streams: Vec::new(),
            layer_asked: false,
        })
    }

    /// How many virtio windows are taken.
    pub(super) fn slots(&self) -> u8 {
        self.devices().count() as u8
    }

    pub(super) fn port_read(&mut self, port: u16, data: &mut [u8]) -> bool {
        match console_register(port) {
            // A failed interrupt is no error of the read.
            Some(register) => self.console.read(register, data).is_ok(),
            None => false,
        }
    }

    pub(super) fn port_write(&mut self, port: u16, data: &[u8]) {
        if let Some(register) = console_register(port) {
            // A byte that raises no interrupt is a byte less fast, not lost.
            self.console.write(register, data).ok();
        }
    }

    pub(super) fn memory_read(&mut self, gpa: u64, data: &mut [u8]) -> bool {
        let Some((slot, offset)) = VirtioSlot::containing(GuestAddress(gpa)) else {
            return false;
        };
        match self.device_mut(usize::from(slot.index())) {
            Some(device) => device.read(offset, data),
            None => return false,
        }
        true
    }

    pub(super) fn memory_write(&mut self, gpa: u64, data: &[u8]) {
        let Some((slot, offset)) = VirtioSlot::containing(GuestAddress(gpa)) else {
            return;
        };
        if let Some(device) = self.device_mut(usize::from(slot.index())) {
            // The device has stopped and says so in its status register.
            device.write(offset, data).ok();
        }
    }

    /// Wires interrupts and kicks to `machine`.
    pub(super) fn attach(&self, machine: &Machine) -> Result<(), Refusal> {
        let failed = because(DEVICES, FILES);
        for (index, device) in self.devices().enumerate() {
            let slot = VirtioSlot::new(index as u8);
            let (Some(slot), Some(events)) = (slot, device.events()) else {
                continue;
            };
            machine
                .route_interrupt(events.interrupt(), slot.gsi())
                .map_err(&failed)?;
            let notify = slot.window().0 + QUEUE_NOTIFY;
            for (queue, kick) in (0..).zip(events.kicks()) {
                machine.route_store(kick, notify, queue).map_err(&failed)?;
            }
        }
        self.console
            .with_event(|event| machine.route_interrupt(event, console::IRQ))
            .transpose()
            .map_err(&failed)?;
        self.generation
            .event()
            .map(|event| machine.route_interrupt(event, VMGENID_GSI))
            .transpose()
            .map_err(&failed)?;
        Ok(())
    }

    /// In a forked child: lets go of the mother's events and streams without closing any.
    pub(super) fn forget_events(&mut self) {
        for index in 0..usize::from(self.slots()) {
            if let Some(device) = self.device_mut(index) {
                device.forget_events();
            }
        }
        self.console.forget_event();
        self.generation.forget_event();
    }

    /// In a daughter: events of her own.
    pub(super) fn renew_events(&mut self) -> Result<(), Refusal> {
        if let Some(disk) = &mut self.disk {
            renew(disk)?;
        }
        renew(&mut self.vsock)?;
        renew(&mut self.rng)?;
        self.console.attach(event()?);
        self.generation.attach(event()?);
        Ok(())
    }

    /// In a daughter, with events attached: queues are read again, streams are reset, she has a generation of her own.
    pub(super) fn become_daughter(&mut self) -> Result<(), Refusal> {
        let failed = because(DEVICES, "fork again");
        self.layer_asked = false;
        self.vsock.become_daughter(&self.memory).map_err(&failed)?;
        for index in 0..usize::from(self.slots()) {
            let memory = self.memory.clone();
            if let Some(device) = self.device_mut(index) {
                device.redeliver(&memory).map_err(&failed)?;
            }
        }
        self.console
            .redeliver()
            .map_err(because(DEVICES, "fork again"))?;
        let mut generation = [0; 16];
        rustix::rand::getrandom(&mut generation, rustix::rand::GetRandomFlags::empty())
            .map_err(because(DEVICES, "fork again"))?;
        self.generation
            .set(&self.memory, generation)
            .map_err(because(DEVICES, "fork again"))
    }

    pub(super) fn kept_fds(&self, fds: &mut Vec<RawFd>) {
        self.devices().for_each(|device| device.kept_fds(fds));
        fds.extend(self.base.as_ref().map(AsRawFd::as_raw_fd));
    }

    /// Before a fork: what was written so far belongs to everybody and is written no more.
    pub(super) fn freeze_disk(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.device_mut().freeze_layer();
        }
    }

    pub(super) fn kernel_panic(&self) -> Option<String> {
        self.console.kernel_panic()
    }

    /// Lost bytes, next offset, output from `offset` on.
    pub(super) fn console(&self, offset: u64) -> (u64, u64, Vec<u8>) {
        let chunk = self.console.output(offset, CONSOLE_CHUNK);
        (
            chunk.lost,
            chunk.start + chunk.bytes.len() as u64,
            chunk.bytes,
        )
    }

    pub(super) fn connect(&mut self, port: u32, stream: OwnedFd) -> Result<(), Refusal> {
        self.vsock
            .open(
                port,
                UnixStream::from(stream),
                Greeting::Silent,
                &self.memory,
            )
            .map(|_| ())
            .map_err(because(
                "vsock connect",
                "wait until the guest's driver is up, or close connections",
            ))
    }

    pub(super) fn listen(&mut self, socket: OwnedFd) -> Result<(), Refusal> {
        self.vsock
            .device_mut()
            .set_listener(UnixListener::from(socket))
            .map_err(because(
                "vsock listen",
                "send a listening Unix stream socket",
            ))
    }

    /// Lets the guest connect to this host port.
    pub(super) fn serve_port(&mut self, port: u32) {
        self.vsock.device_mut().listen(port);
    }

    pub(super) fn give_layer(&mut self, file: OwnedFd) -> Result<(), Refusal> {
        self.layer_asked = false;
        let Some(disk) = &mut self.disk else {
            return Err(refuse(
                "layer",
                "this machine has no disk",
                "give layers to machines with disks",
            ));
        };
        disk.device_mut()
            .give_layer(File::from(file))
            .map_err(because("layer", "fork less often or let layers merge"))?;
        disk.process(0, &self.memory)
            .map(|_| ())
            .map_err(because("layer", "fork again"))
    }

    /// Asks again at the next look at the disk, whoever was asked before.
    pub(super) fn ask_again_for_layer(&mut self) -> bool {
        self.layer_asked = self
            .disk
            .as_ref()
            .is_some_and(|disk| disk.device().wants_layer());
        self.layer_asked
    }

    /// Disk layers, each an open file.
    pub(super) fn layers(&self) -> u32 {
        self.disk
            .as_ref()
            .map_or(0, |disk| disk.device().layer_count() as u32)
    }

    fn devices(&self) -> impl Iterator<Item = &dyn MmioDevice> {
        let disk = self.disk.as_ref().map(|disk| disk as &dyn MmioDevice);
        disk.into_iter()
            .chain([&self.vsock as &dyn MmioDevice, &self.rng])
    }

    fn device_mut(&mut self, index: usize) -> Option<&mut dyn MmioDevice> {
        let disk = self.disk.as_mut().map(|disk| disk as &mut dyn MmioDevice);
        disk.into_iter()
            .chain([&mut self.vsock as &mut dyn MmioDevice, &mut self.rng])
            .nth(index)
    }
}

fn console_register(port: u16) -> Option<u16> {
    port.checked_sub(console::PORT)
        .filter(|register| *register < console::PORTS)
}

fn fresh<D: VirtioDevice>(device: D) -> Result<VirtioMmio<D>, Refusal> {
    let events = Events::new(device.queue_max_sizes().len()).map_err(because(DEVICES, FILES))?;
    VirtioMmio::new(device, events).map_err(because(DEVICES, "report this"))
}

fn renew<D: VirtioDevice>(device: &mut VirtioMmio<D>) -> Result<(), Refusal> {
    let queues = device.device().queue_max_sizes().len();
    let events = Events::new(queues).map_err(because(DEVICES, FILES))?;
    device
        .attach(events)
        .map_err(because(DEVICES, "report this"))
}

fn event() -> Result<EventFd, Refusal> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(because(DEVICES, FILES))
}

fn clone_file(file: Option<&File>) -> Result<Option<File>, Refusal> {
    let cloned: io::Result<Option<File>> = file.map(File::try_clone).transpose();
    cloned.map_err(because(DEVICES, FILES))
}
