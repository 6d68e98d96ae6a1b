//! The DSDT: the devices of the guest. Invariant: one device here for each device the machine has, at the address
//! and on the line that [`layout`] gives it.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Arg, Device, EISAName, Equal, IO, If, Interrupt, Memory32Fixed, Method, Name, Notify, Package,
    Path, ResourceTemplate, Scope,
};

use super::{AcpiConfig, power};
use crate::boot::layout::{self, VirtioSlot};

/// `_HID` of a virtio-mmio device (virtio leaves it open; Linux's driver and firmware agree on this one).
const VIRTIO_MMIO_HID: &str = "LNRO0005";
/// `_HID` of a generic event device (ACPI 6.5 §5.6.9).
const GED_HID: &str = "ACPI0013";
/// `_HID` of a processor device (ACPI 6.5 §8.4).
const PROCESSOR_HID: &str = "ACPI0007";
/// Our own `_HID` of the generation counter; drivers bind to the `_CID`.
const VMGENID_HID: &str = "BROD0001";
/// `_CID` and `_DDN` of the generation counter ("Virtual Machine Generation ID", Microsoft, 2012).
const VMGENID_CID: &str = "VM_Gen_Counter";
/// Path of the generation counter.
const VMGENID_PATH: &str = "\\_SB_.VGEN";
/// Notification value: the generation counter changed.
const VMGENID_CHANGED: u8 = 0x80;

/// The body of the DSDT, without its table header.
pub(super) fn body(config: &AcpiConfig) -> Vec<u8> {
    let mut devices = Vec::new();
    for uid in 0..config.cpus() {
        processor(uid, &mut devices);
    }
    serial_console(&mut devices);
    for slot in config.virtio_slots() {
        virtio_device(slot, &mut devices);
    }
    generation_counter(&mut devices);
    event_device(&mut devices);
    let mut body = Scope::raw(Path::new("\\_SB_"), devices);
    let sleep_type = power::S5_SLEEP_TYPE;
    let s5 = Package::new(vec![&sleep_type, &0u8, &0u8, &0u8]);
    Name::new(Path::new("\\_S5_"), &s5).to_aml_bytes(&mut body);
    body
}

/// One line, edge-triggered and active high: the interrupt of an event descriptor.
fn edge_line(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

fn processor(uid: u8, out: &mut Vec<u8>) {
    let path = Path::new(&format!("CP{uid:02X}"));
    let hid = Name::new(Path::new("_HID"), &PROCESSOR_HID);
    let uid = Name::new(Path::new("_UID"), &uid);
    Device::new(path, vec![&hid, &uid]).to_aml_bytes(out);
}

fn serial_console(out: &mut Vec<u8>) {
    let ports = IO::new(layout::COM1_PORT, layout::COM1_PORT, 1, 8);
    let line = edge_line(layout::COM1_GSI);
    let resources = ResourceTemplate::new(vec![&ports, &line]);
    let hid = Name::new(Path::new("_HID"), &EISAName::new("PNP0501"));
    let uid = Name::new(Path::new("_UID"), &0u8);
    let crs = Name::new(Path::new("_CRS"), &resources);
    Device::new(Path::new("COM1"), vec![&hid, &uid, &crs]).to_aml_bytes(out);
}

fn virtio_device(slot: VirtioSlot, out: &mut Vec<u8>) {
    let path = Path::new(&format!("VR{:02X}", slot.index()));
    // The hole between 3 and 4 GiB has 32-bit addresses.
    let window = Memory32Fixed::new(
        true,
        slot.window().0 as u32,
        layout::VIRTIO_MMIO_BYTES as u32,
    );
    let line = edge_line(slot.gsi());
    let resources = ResourceTemplate::new(vec![&window, &line]);
    let hid = Name::new(Path::new("_HID"), &VIRTIO_MMIO_HID);
    let uid = Name::new(Path::new("_UID"), &slot.index());
    // Cache-coherent DMA (ACPI 6.5 §6.2.17).
    let coherent = Name::new(Path::new("_CCA"), &1u8);
    let crs = Name::new(Path::new("_CRS"), &resources);
    Device::new(path, vec![&hid, &uid, &coherent, &crs]).to_aml_bytes(out);
}

fn generation_counter(out: &mut Vec<u8>) {
    let address = layout::VMGENID.0;
    let low = address as u32;
    let high = (address >> 32) as u32;
    let halves = Package::new(vec![&low, &high]);
    let hid = Name::new(Path::new("_HID"), &VMGENID_HID);
    let cid = Name::new(Path::new("_CID"), &VMGENID_CID);
    let ddn = Name::new(Path::new("_DDN"), &VMGENID_CID);
    let addr = Name::new(Path::new("ADDR"), &halves);
    Device::new(Path::new("VGEN"), vec![&hid, &cid, &ddn, &addr]).to_aml_bytes(out);
}

/// Turns the interrupt line of the generation counter into its notification.
fn event_device(out: &mut Vec<u8>) {
    let line = edge_line(layout::VMGENID_GSI);
    let resources = ResourceTemplate::new(vec![&line]);
    let counter = Path::new(VMGENID_PATH);
    let notify = Notify::new(&counter, &VMGENID_CHANGED);
    let argument = Arg(0);
    let is_ours = Equal::new(&argument, &layout::VMGENID_GSI);
    let branch = If::new(&is_ours, vec![&notify]);
    let event = Method::new(Path::new("_EVT"), 1, true, vec![&branch]);
    let hid = Name::new(Path::new("_HID"), &GED_HID);
    let uid = Name::new(Path::new("_UID"), &0u8);
    let crs = Name::new(Path::new("_CRS"), &resources);
    Device::new(Path::new("GED_"), vec![&hid, &uid, &crs, &event]).to_aml_bytes(out);
}
