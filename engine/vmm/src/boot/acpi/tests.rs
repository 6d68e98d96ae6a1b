//! The tables, read back the way a guest does.

use super::*;

/// Reads the tables as they lie in guest memory.
struct Guest(Vec<u8>);

impl Guest {
    fn new(cpus: u8, virtio_devices: u8) -> Self {
        let config = AcpiConfig::new(cpus, virtio_devices).expect("a valid machine");
        Self(config.tables())
    }

    fn at(&self, address: u64) -> &[u8] {
        let offset = address.checked_sub(layout::ACPI_TABLES.0).expect("inside");
        self.0.get(offset as usize..).expect("inside the area")
    }

    /// The table at `address`, cut to its own length, its checksum checked.
    fn table(&self, address: u64, signature: &[u8; 4]) -> &[u8] {
        let bytes = self.at(address);
        assert_eq!(&bytes[..4], signature);
        let table = &bytes[..u32_at(bytes, 4) as usize];
        assert_eq!(sum(table), 0, "checksum of {signature:?}");
        assert_eq!(&table[10..16], b"BROOD ");
        table
    }

    fn xsdt(&self) -> Vec<u64> {
        let xsdt = self.table(u64_at(&self.0, 24), b"XSDT");
        let entries = xsdt[36..].chunks_exact(8);
        entries.map(|entry| u64_at(entry, 0)).collect()
    }

    fn fadt(&self) -> &[u8] {
        self.table(self.xsdt()[0], b"FACP")
    }

    fn madt(&self) -> &[u8] {
        self.table(self.xsdt()[1], b"APIC")
    }

    fn dsdt(&self) -> &[u8] {
        self.table(u64_at(self.fadt(), 140), b"DSDT")
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    let windows = haystack.windows(needle.len());
    windows.filter(|window| *window == needle).count()
}

/// An extended interrupt descriptor (ACPI 6.5 §6.4.3.6): consumer, edge, active high, exclusive, one line.
fn edge_descriptor(gsi: u32) -> Vec<u8> {
    let mut bytes = vec![0x89, 6, 0, 0b0011, 1];
    bytes.extend(gsi.to_le_bytes());
    bytes
}

#[test]
fn rsdp_leads_to_every_table_with_right_checksums() {
    let guest = Guest::new(8, 16);
    assert_eq!(&guest.0[..8], b"RSD PTR ");
    assert_eq!(sum(&guest.0[..20]), 0);
    assert_eq!(sum(&guest.0[..36]), 0);
    assert_eq!(guest.0[15], 2, "revision");
    assert_eq!(guest.xsdt().len(), 2);
    guest.madt();
    guest.dsdt();
}

#[test]
fn largest_machine_fits_the_reserved_area() {
    let guest = Guest::new(MAX_CPUS, VIRTIO_SLOTS);
    assert!((guest.0.len() as u64) < layout::ACPI_TABLES_BYTES / 2);
}

#[test]
fn fadt_says_hw_reduced_with_reset_and_sleep_ports() {
    let guest = Guest::new(1, 0);
    let fadt = guest.fadt();
    let flags = u32_at(fadt, 112);
    assert_ne!(flags & 1 << 20, 0, "HW_REDUCED_ACPI");
    assert_ne!(flags & 1 << 10, 0, "RESET_REG_SUP");
    let register = |offset: usize| {
        let gas = &fadt[offset..offset + 12];
        assert_eq!((gas[0], gas[1]), (1, 8), "one byte of system I/O");
        u64_at(gas, 4)
    };
    assert_eq!(register(116), u64::from(power::RESET_PORT));
    assert_eq!(fadt[128], power::RESET_VALUE);
    assert_eq!(register(244), u64::from(power::SLEEP_CONTROL_PORT));
    assert_eq!(register(256), u64::from(power::SLEEP_STATUS_PORT));
}

#[test]
fn fadt_denies_keyboard_controller_vga_and_cmos_clock() {
    let guest = Guest::new(1, 0);
    let fadt = guest.fadt();
    let flags = u16::from_le_bytes([fadt[109], fadt[110]]);
    assert_eq!(flags & 1 << 1, 0, "no i8042");
    assert_ne!(flags & 1 << 2, 0, "no VGA");
    assert_ne!(flags & 1 << 5, 0, "no CMOS RTC");
}

#[test]
fn madt_lists_each_cpu_and_the_ioapic_at_gsi_zero() {
    for cpus in 1..=MAX_CPUS {
        let guest = Guest::new(cpus, 0);
        let madt = guest.madt();
        assert_eq!(u32_at(madt, 36), 0xfee0_0000);
        let mut rest = &madt[44..];
        for id in 0..cpus {
            assert_eq!(&rest[..8], &[0, 8, id, id, 1, 0, 0, 0]);
            rest = &rest[8..];
        }
        assert_eq!(&rest[..2], &[1, 12]);
        assert_eq!((u32_at(rest, 4), u32_at(rest, 8)), (0xfec0_0000, 0));
        assert_eq!(rest.len(), 12);
    }
}

#[test]
fn dsdt_has_one_device_for_each_virtio_slot_with_window_and_line() {
    for devices in [0, 1, VIRTIO_SLOTS] {
        let guest = Guest::new(1, devices);
        let dsdt = guest.dsdt();
        assert_eq!(count(dsdt, b"LNRO0005\0"), usize::from(devices));
        for slot in (0..devices).filter_map(VirtioSlot::new) {
            // Fixed 32-bit memory range, writable (ACPI 6.5 §6.4.3.4).
            let mut window = vec![0x86, 9, 0, 1];
            window.extend((slot.window().0 as u32).to_le_bytes());
            window.extend(0x1000_u32.to_le_bytes());
            window.extend(edge_descriptor(slot.gsi()));
            assert_eq!(count(dsdt, &window), 1, "slot {slot:?}");
        }
    }
}

#[test]
fn dsdt_names_generation_counter_and_its_address() {
    let guest = Guest::new(1, 0);
    let dsdt = guest.dsdt();
    assert_eq!(count(dsdt, b"_CID\x0dVM_Gen_Counter\0"), 1);
    assert_eq!(count(dsdt, b"_DDN\x0dVM_Gen_Counter\0"), 1);
    let mut address = b"ADDR\x12".to_vec();
    // Length 8, two elements: a double word and the constant zero.
    address.extend([8, 2, 0x0c]);
    address.extend((layout::VMGENID.0 as u32).to_le_bytes());
    address.push(0);
    assert_eq!(count(dsdt, &address), 1);
}

#[test]
fn event_device_notifies_the_counter_on_its_line_only() {
    let guest = Guest::new(1, 0);
    let dsdt = guest.dsdt();
    assert_eq!(count(dsdt, b"ACPI0013\0"), 1);
    assert_eq!(count(dsdt, &edge_descriptor(layout::VMGENID_GSI)), 1);
    // LEqual(Arg0, gsi) { Notify(\_SB.VGEN, 0x80) }
    let test = [0x93, 0x68, 0x0a, layout::VMGENID_GSI as u8];
    let notify = b"\x86\\\x2e_SB_VGEN\x0a\x80";
    assert_eq!(count(dsdt, &[&test[..], notify].concat()), 1);
}

#[test]
fn dsdt_offers_soft_off_with_the_sleep_type_we_decode() {
    let guest = Guest::new(1, 0);
    let s5 = b"\x08\\_S5_\x12\x07\x04\x0a\x05\x00\x00\x00";
    assert_eq!(count(guest.dsdt(), s5), 1);
    assert_eq!(power::S5_SLEEP_TYPE, 5);
}

#[test]
fn dsdt_has_a_processor_for_each_cpu() {
    let guest = Guest::new(3, 0);
    assert_eq!(count(guest.dsdt(), b"ACPI0007\0"), 3);
}

#[test]
fn impossible_machines_are_refused() {
    assert_eq!(AcpiConfig::new(0, 0), Err(AcpiError::Cpus { cpus: 0 }));
    assert_eq!(AcpiConfig::new(9, 0), Err(AcpiError::Cpus { cpus: 9 }));
    let refused = AcpiConfig::new(1, 17);
    assert_eq!(refused, Err(AcpiError::VirtioDevices { devices: 17 }));
}
