//! The devices of one machine, their registers, and their part in a fork.

use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};

use brood_devices::GuestMemory;
use brood_vmm::Machine;

use super::refusal::refuse;
use crate::protocol::{MachineSpec, Refusal};

/// What a round of device work found.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// More is to be done without waiting.
    pub(super) more: bool,
    /// A queue was kicked: the guest ran.
    pub(super) guest_ran: bool,
    /// The disk waits for a layer and has not said so yet.
    pub(super) wants_layer: bool,
    /// Streams the guest opened to the host.
    pub(super) connects: Vec<(u32, OwnedFd)>,
}

/// The devices.
pub(super) struct Hardware {
    memory: GuestMemory,
}

impl Hardware {
    pub(super) fn new(_spec: &MachineSpec, memory: GuestMemory, _base: Option<File>) -> Result<Self, Refusal> {
        Ok(Self { memory })
    }
    pub(super) fn slots(&self) -> u8 { 0 }
    pub(super) fn port_read(&mut self, _port: u16, _data: &mut [u8]) -> bool { false }
    pub(super) fn port_write(&mut self, _port: u16, _data: &[u8]) {}
    pub(super) fn memory_read(&mut self, _gpa: u64, _data: &mut [u8]) -> bool { false }
    pub(super) fn memory_write(&mut self, _gpa: u64, _data: &[u8]) {}
    pub(super) fn attach(&self, _machine: &Machine) -> Result<(), Refusal> { Ok(()) }
    pub(super) fn renew_events(&mut self) -> Result<(), Refusal> { Ok(()) }
    pub(super) fn become_daughter(&mut self) -> Result<(), Refusal> { let _m = &self.memory; Ok(()) }
    pub(super) fn forget_events(&mut self) {}
    pub(super) fn kept_fds(&self, _fds: &mut Vec<RawFd>) {}
    pub(super) fn freeze_disk(&mut self) {}
    pub(super) fn interests(&self, _fds: &mut Vec<libc::pollfd>) {}
    pub(super) fn serve(&mut self, _ready: &[libc::pollfd]) -> Work { Work::default() }
    pub(super) fn kernel_panic(&self) -> Option<String> { None }
    pub(super) fn console(&self, offset: u64) -> (u64, u64, Vec<u8>) { (0, offset, Vec::new()) }
    pub(super) fn connect(&mut self, _port: u32, _stream: OwnedFd) -> Result<(), Refusal> { Err(refuse("", "", "")) }
    pub(super) fn listen(&mut self, _socket: OwnedFd) -> Result<(), Refusal> { Err(refuse("", "", "")) }
    pub(super) fn give_layer(&mut self, _file: OwnedFd) -> Result<(), Refusal> { Err(refuse("", "", "")) }
    pub(super) fn layers(&self) -> u32 { 0 }
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct HardwareState {}
impl Hardware {
    pub(super) fn state(&self) -> Result<(HardwareState, Vec<OwnedFd>), Refusal> { Ok((HardwareState {}, Vec::new())) }
    pub(super) fn from_state(spec: &MachineSpec, memory: GuestMemory, _state: HardwareState, _disk: Vec<OwnedFd>) -> Result<Self, Refusal> { Self::new(spec, memory, None) }
}
