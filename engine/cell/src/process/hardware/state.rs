//! The devices as values that another process can start from.
//!
//! Invariant: state and files belong together: base image, then layers, in the order in which they are written down.

use std::fs::File;
use std::os::fd::OwnedFd;

use brood_devices::GuestMemory;
use brood_devices::console::{Console, ConsoleState};
use brood_devices::virtio::block::{Block, BlockState};
use brood_devices::virtio::rng::Rng;
use brood_devices::virtio::vsock::{Vsock, VsockOptions, VsockState};
use brood_devices::virtio::{Events, TransportState, VirtioDevice, VirtioMmio};
use brood_devices::vmgenid::VmGenId;
use brood_vmm::boot::layout::VMGENID;
use serde::{Deserialize, Serialize};

use super::{DEVICES, FILES, Hardware, clone_file, event};
use crate::process::refusal::because;
use crate::protocol::Refusal;

/// Everything of the devices but files and guest memory.
#[derive(Serialize, Deserialize)]
pub(in crate::process) struct HardwareState {
    disk: Option<(BlockState, TransportState)>,
    has_base: bool,
    vsock: (VsockState, TransportState),
    rng: TransportState,
    console: ConsoleState,
}

impl Hardware {
    /// Everything but guest memory, with the files it goes with: base, then layers.
    pub(in crate::process) fn state(&mut self) -> Result<(HardwareState, Vec<OwnedFd>), Refusal> {
        let mut files = Vec::new();
        files.extend(clone_file(self.base.as_ref())?.map(OwnedFd::from));
        let disk = match &mut self.disk {
            None => None,
            Some(disk) => {
                let state = (disk.device_mut().freeze_state(), disk.state());
                for layer in disk.device().layer_files() {
                    files.extend(clone_file(Some(layer))?.map(OwnedFd::from));
                }
                Some(state)
            }
        };
        let state = HardwareState {
            disk,
            has_base: self.base.is_some(),
            vsock: (self.vsock.device().state(), self.vsock.state()),
            rng: self.rng.state(),
            console: self.console.state(),
        };
        Ok((state, files))
    }

    /// The devices in another process.
    pub(in crate::process) fn from_state(
        memory: GuestMemory,
        state: HardwareState,
        files: Vec<OwnedFd>,
    ) -> Result<Self, Refusal> {
        let mut files = files.into_iter().map(File::from);
        let base = if state.has_base { files.next() } else { None };
        let kept = clone_file(base.as_ref())?;
        let disk = match &state.disk {
            None => None,
            Some((block, transport)) => {
                let block = Block::from_state(block, base, files.collect())
                    .map_err(because(DEVICES, "make the template anew with this engine"))?;
                Some(restored(block, transport)?)
            }
        };
        let vsock = Vsock::from_state(VsockOptions::default(), state.vsock.0);
        Ok(Self {
            disk,
            base: kept,
            vsock: restored(vsock, &state.vsock.1)?,
            rng: restored(Rng, &state.rng)?,
            console: Console::from_state(state.console, event()?)
                .map_err(because(DEVICES, "make the template anew with this engine"))?,
            generation: VmGenId::new(VMGENID, event()?),
            memory,
            sources: Vec::new(),
            streams: Vec::new(),
            layer_asked: false,
        })
    }
}

fn restored<D: VirtioDevice>(device: D, state: &TransportState) -> Result<VirtioMmio<D>, Refusal> {
    let events = Events::new(device.queue_max_sizes().len()).map_err(because(DEVICES, FILES))?;
    VirtioMmio::from_state(device, state, events)
        .map_err(because(DEVICES, "make the template anew with this engine"))
}
