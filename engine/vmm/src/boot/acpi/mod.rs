//! The ACPI tables: RSDP → XSDT → FADT → DSDT, and MADT. Invariant: all tables lie in the area that
//! [`layout`](super::layout) reserves, and every checksum is right.
//!
//! The FADT says HW_REDUCED_ACPI: the guest looks for no PIC, PIT, PM timer or SCI, and powers off and resets through
//! the ports of [`power`]. PCI is absent, so there is no MCFG. All lines are IOAPIC pins of the same number, active
//! high, as ACPI assumes where nothing else is said: the MADT needs no interrupt source overrides.

mod dsdt;
pub mod power;
#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::layout::{self, VIRTIO_SLOTS, VirtioSlot};

const OEM_ID: [u8; 6] = *b"BROOD ";
const OEM_TABLE_ID: [u8; 8] = *b"BROODVMM";
const OEM_REVISION: u32 = 1;

/// The most CPUs of a guest.
pub const MAX_CPUS: u8 = 8;

/// IA-PC boot flags (ACPI 6.5 table 5.11): no VGA, no MSI, no CMOS RTC. The bit for an i8042 is not set.
const BOOT_FLAGS: u16 = 1 << 2 | 1 << 3 | 1 << 5;

/// Why a machine cannot be described.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AcpiError {
    /// No CPU, or too many.
    #[error("a guest has 1 to {MAX_CPUS} CPUs, not {cpus}")]
    Cpus {
        /// CPUs asked for.
        cpus: u8,
    },
    /// More virtio devices than slots.
    #[error("a guest has at most {VIRTIO_SLOTS} virtio devices, not {devices}")]
    VirtioDevices {
        /// Devices asked for.
        devices: u8,
    },
}

/// What the tables describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcpiConfig {
    cpus: u8,
    virtio_devices: u8,
}

impl AcpiConfig {
    /// A guest with `cpus` CPUs, whose local APIC ids count from zero, and virtio devices in the first
    /// `virtio_devices` slots.
    ///
    /// # Errors
    /// No CPU or more than [`MAX_CPUS`]; more devices than [`VIRTIO_SLOTS`].
    pub const fn new(cpus: u8, virtio_devices: u8) -> Result<Self, AcpiError> {
        if cpus == 0 || cpus > MAX_CPUS {
            return Err(AcpiError::Cpus { cpus });
        }
        if virtio_devices > VIRTIO_SLOTS {
            return Err(AcpiError::VirtioDevices {
                devices: virtio_devices,
            });
        }
        Ok(Self {
            cpus,
            virtio_devices,
        })
    }

    /// The number of CPUs.
    pub const fn cpus(&self) -> u8 {
        self.cpus
    }

    /// The slots that hold a device.
    pub fn virtio_slots(&self) -> impl Iterator<Item = VirtioSlot> + use<> {
        (0..self.virtio_devices).filter_map(VirtioSlot::new)
    }

    /// All tables, to be written at [`layout::ACPI_TABLES`]; the RSDP comes first.
    pub(super) fn tables(&self) -> Vec<u8> {
        let mut area = Area::with_room_for_rsdp();
        let dsdt = area.append(&dsdt(self));
        let fadt = area.append(&fadt(dsdt));
        let madt = area.append(&madt(self.cpus));
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        xsdt.add_entry(fadt);
        xsdt.add_entry(madt);
        let xsdt = area.append(&bytes_of(&xsdt));
        area.finish(&Rsdp::new(OEM_ID, xsdt))
    }
}

/// The table area while it grows.
struct Area(Vec<u8>);

impl Area {
    /// Tables start on 64 bytes, a cache line.
    const ALIGNMENT: usize = 64;

    fn with_room_for_rsdp() -> Self {
        Self(vec![0; Rsdp::len()])
    }

    /// Adds a table and gives its guest physical address.
    fn append(&mut self, table: &[u8]) -> u64 {
        let offset = self.0.len().next_multiple_of(Self::ALIGNMENT);
        self.0.resize(offset, 0);
        self.0.extend_from_slice(table);
        layout::ACPI_TABLES.0 + offset as u64
    }

    fn finish(self, rsdp: &Rsdp) -> Vec<u8> {
        let mut bytes = bytes_of(rsdp);
        bytes.extend(self.0.into_iter().skip(Rsdp::len()));
        bytes
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn dsdt(config: &AcpiConfig) -> Vec<u8> {
    // Revision 2 makes AML integers 64 bits wide (ACPI 6.5 §5.2.11.1).
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&dsdt::body(config));
    table.as_slice().to_vec()
}

/// A one-byte register at an I/O port.
fn port_register(port: u16) -> GAS {
    let byte = AccessSize::ByteAccess;
    GAS::new(AddressSpace::SystemIo, 8, 0, byte, port.into())
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut builder = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::Wbinvd)
        // Set means: no power and no sleep button of the fixed hardware kind (ACPI 6.5 table 5.10).
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    builder.iapc_boot_arch = BOOT_FLAGS.into();
    builder.reset_reg = port_register(power::RESET_PORT);
    builder.reset_value = power::RESET_VALUE;
    builder.sleep_control_reg = port_register(power::SLEEP_CONTROL_PORT);
    builder.sleep_status_reg = port_register(power::SLEEP_STATUS_PORT);
    builder.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE_ID).into();
    let table: FADT = builder.finalize();
    bytes_of(&table)
}

fn madt(cpus: u8) -> Vec<u8> {
    // Both controllers lie below 4 GiB.
    let local_apic = LocalInterruptController::Address(layout::LOCAL_APIC.0 as u32);
    let mut table = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, local_apic);
    for cpu in 0..cpus {
        table.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, layout::IOAPIC.0 as u32, 0));
    bytes_of(&table)
}
