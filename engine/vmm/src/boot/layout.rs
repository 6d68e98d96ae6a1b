//! The guest physical map. Invariant: RAM, tables and device windows never overlap, and every address the guest is
//! told of is written down here once.
//!
//! ```text
//!  0x0000_0500  GDT                                  ┐
//!  0x0000_6000  PVH start info, module list          │
//!  0x0000_7000  zero page (64-bit boot protocol)     │ low memory, RAM in the memory map:
//!  0x0000_8000  PVH memory map                       │ the kernel reads it once and reuses it
//!  0x0000_9000  PML4, PDPT, 4 page directories       │
//!  0x0002_0000  command line                         ┘
//!  0x0009_fc00  EBDA (empty)                           reserved
//!  0x000a_0000  nothing (VGA on a PC)                  not in the memory map
//!  0x000d_f000  VMGenID, one page                      reserved
//!  0x000e_0000  RSDP, then the other ACPI tables       ACPI
//!  0x0010_0000  RAM: kernel at 16 MiB …                RAM
//!               … initramfs at the top of low RAM
//!  ≤0xc000_0000 end of low RAM, at most 3 GiB
//!  0xd000_0000  virtio-mmio windows, 4 KiB each      ┐
//!  0xfec0_0000  IOAPIC                               │ the hole between 3 and 4 GiB
//!  0xfee0_0000  local APICs                          ┘
//!  0x1_0000_0000  RAM beyond 3 GiB                     RAM
//! ```
//!
//! Interrupt lines (pins of the one IOAPIC, 24 in KVM): 4 COM1, 5–20 virtio slots, 21 VMGenID's event device.

use vm_memory::GuestAddress;

use crate::RamRegion;

/// The smallest guest, bytes. What a kernel needs is found when it is loaded; Debian's cloud kernels reach up to
/// 66 MiB before they look at their memory map.
pub const MIN_RAM: u64 = 64 << 20;
/// The largest guest, bytes. Together with the hole it stays below 40 physical address bits, the fewest of any host
/// that runs KVM at this size.
pub const MAX_RAM: u64 = 512 << 30;
/// RAM comes in units of one huge page, bytes.
pub const RAM_GRANULE: u64 = 2 << 20;
/// Where low RAM ends at the latest and the device hole begins.
pub const HOLE_START: GuestAddress = GuestAddress(0xc000_0000);
/// Where the device hole ends and high RAM begins.
pub const HOLE_END: GuestAddress = GuestAddress(0x1_0000_0000);

/// Global descriptor table of the boot CPU.
pub const GDT: GuestAddress = GuestAddress(0x500);
/// `hvm_start_info`, followed by the module list.
pub const START_INFO: GuestAddress = GuestAddress(0x6000);
/// The module list behind the start info.
pub const MODULE_LIST: GuestAddress = GuestAddress(0x6100);
/// `struct boot_params` of the 64-bit boot protocol.
pub const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// The PVH memory map.
pub const MEMORY_MAP: GuestAddress = GuestAddress(0x8000);
/// Identity page tables: PML4, PDPT and four page directories, 24 KiB.
pub const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
/// The kernel command line.
pub const CMDLINE_ADDRESS: GuestAddress = GuestAddress(0x2_0000);
/// The extended BIOS data area, up to 640 KiB.
pub const EBDA: GuestAddress = GuestAddress(0x9_fc00);
/// End of the memory below 640 KiB.
pub const LOW_MEMORY_END: GuestAddress = GuestAddress(0xa_0000);
/// The page that holds the VM generation id at its first byte.
pub const VMGENID: GuestAddress = GuestAddress(0xd_f000);
/// Bytes of the VMGenID page.
pub const VMGENID_BYTES: u64 = 0x1000;
/// The ACPI tables, RSDP first: where firmware of a PC keeps it (ACPI 6.5 §5.2.5.1).
pub const ACPI_TABLES: GuestAddress = GuestAddress(0xe_0000);
/// Bytes reserved for ACPI tables.
pub const ACPI_TABLES_BYTES: u64 = 0x2_0000;
/// Where RAM above the first MiB starts; no kernel may load below it.
pub const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);

/// The first virtio-mmio window.
pub const VIRTIO_MMIO: GuestAddress = GuestAddress(0xd000_0000);
/// Bytes of one virtio-mmio window.
pub const VIRTIO_MMIO_BYTES: u64 = 0x1000;
/// How many virtio devices a guest can have.
pub const VIRTIO_SLOTS: u8 = 16;
/// The IOAPIC of KVM's interrupt controller model.
pub const IOAPIC: GuestAddress = GuestAddress(0xfec0_0000);
/// The local APICs.
pub const LOCAL_APIC: GuestAddress = GuestAddress(0xfee0_0000);
/// First I/O port of the serial console, a 16550.
pub const COM1_PORT: u16 = 0x3f8;
/// Interrupt line of the serial console.
pub const COM1_GSI: u32 = 4;
/// Interrupt line of the first virtio slot.
pub const VIRTIO_GSI: u32 = 5;
/// Interrupt line that tells the guest its VM generation id changed.
pub const VMGENID_GSI: u32 = VIRTIO_GSI + VIRTIO_SLOTS as u32;

/// The place of one virtio device: a window and an interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtioSlot(u8);

impl VirtioSlot {
    /// Slot `index`, or nothing from [`VIRTIO_SLOTS`] on.
    pub const fn new(index: u8) -> Option<Self> {
        if index < VIRTIO_SLOTS {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The number of the slot, from zero.
    pub const fn index(self) -> u8 {
        self.0
    }

    /// First address of the window of [`VIRTIO_MMIO_BYTES`].
    pub const fn window(self) -> GuestAddress {
        GuestAddress(VIRTIO_MMIO.0 + self.0 as u64 * VIRTIO_MMIO_BYTES)
    }

    /// The interrupt line, edge-triggered.
    pub const fn gsi(self) -> u32 {
        VIRTIO_GSI + self.0 as u32
    }

    /// Which slot's window `address` lies in, with the offset into it.
    pub const fn containing(address: GuestAddress) -> Option<(Self, u64)> {
        let Some(distance) = address.0.checked_sub(VIRTIO_MMIO.0) else {
            return None;
        };
        if distance >= VIRTIO_SLOTS as u64 * VIRTIO_MMIO_BYTES {
            return None;
        }
        let slot = Self((distance / VIRTIO_MMIO_BYTES) as u8);
        Some((slot, distance % VIRTIO_MMIO_BYTES))
    }
}

/// Why an amount of RAM is refused.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// Below [`MIN_RAM`].
    #[error("{bytes} bytes of guest RAM are too few: give at least {} MiB", MIN_RAM >> 20)]
    TooSmall {
        /// What was asked for.
        bytes: u64,
    },
    /// Above [`MAX_RAM`].
    #[error("{bytes} bytes of guest RAM are too many: give at most {} GiB", MAX_RAM >> 30)]
    TooBig {
        /// What was asked for.
        bytes: u64,
    },
    /// Not a multiple of [`RAM_GRANULE`].
    #[error(
        "{bytes} bytes of guest RAM are not a multiple of 2 MiB: the next fitting amounts are {} and {}",
        bytes - bytes % RAM_GRANULE,
        bytes - bytes % RAM_GRANULE + RAM_GRANULE
    )]
    NotAMultiple {
        /// What was asked for.
        bytes: u64,
    },
}

/// What a range of the memory map is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapKind {
    /// Free for use.
    Ram,
    /// Not for use.
    Reserved,
    /// ACPI tables.
    Acpi,
}

impl MapKind {
    /// The type number, the same in e820 (ACPI 6.5 table 15.4) and in the PVH memory map (Xen's start_info.h).
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::Acpi => 3,
        }
    }
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) kind: MapKind,
}

/// Where the RAM of a guest lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamLayout {
    bytes: u64,
}

impl RamLayout {
    /// The layout of `bytes` of RAM.
    ///
    /// # Errors
    /// Less than [`MIN_RAM`], more than [`MAX_RAM`], or not a multiple of [`RAM_GRANULE`].
    pub const fn new(bytes: u64) -> Result<Self, LayoutError> {
        if bytes < MIN_RAM {
            return Err(LayoutError::TooSmall { bytes });
        }
        if bytes > MAX_RAM {
            return Err(LayoutError::TooBig { bytes });
        }
        if !bytes.is_multiple_of(RAM_GRANULE) {
            return Err(LayoutError::NotAMultiple { bytes });
        }
        Ok(Self { bytes })
    }

    /// All RAM, bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// End of the RAM below the hole.
    pub const fn low_end(self) -> GuestAddress {
        if self.bytes < HOLE_START.0 {
            GuestAddress(self.bytes)
        } else {
            HOLE_START
        }
    }

    /// The RAM above the hole, bytes; zero for guests of up to 3 GiB.
    pub const fn high_bytes(self) -> u64 {
        self.bytes - self.low_end().0
    }

    /// The regions in guest physical order: one, or two beyond 3 GiB.
    pub fn regions(self) -> Vec<RamRegion> {
        let mut regions = vec![RamRegion {
            gpa: 0,
            bytes: self.low_end().0,
        }];
        if self.high_bytes() > 0 {
            regions.push(RamRegion {
                gpa: HOLE_END.0,
                bytes: self.high_bytes(),
            });
        }
        regions
    }

    /// What the guest is told of its memory, in order and without overlap.
    pub(super) fn memory_map(self) -> Vec<MapEntry> {
        let range = |start: GuestAddress, end: u64, kind| MapEntry {
            start: start.0,
            bytes: end - start.0,
            kind,
        };
        let tables_end = ACPI_TABLES.0 + ACPI_TABLES_BYTES;
        let mut map = vec![
            range(GuestAddress(0), EBDA.0, MapKind::Ram),
            range(EBDA, LOW_MEMORY_END.0, MapKind::Reserved),
            range(VMGENID, VMGENID.0 + VMGENID_BYTES, MapKind::Reserved),
            range(ACPI_TABLES, tables_end, MapKind::Acpi),
            range(HIGH_MEMORY, self.low_end().0, MapKind::Ram),
        ];
        if self.high_bytes() > 0 {
            let end = HOLE_END.0 + self.high_bytes();
            map.push(range(HOLE_END, end, MapKind::Ram));
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn layout(bytes: u64) -> RamLayout {
        RamLayout::new(bytes).expect("a valid size")
    }

    #[test]
    fn ram_up_to_three_gib_is_one_region() {
        for bytes in [MIN_RAM, 256 << 20, 3 * GIB] {
            let regions = layout(bytes).regions();
            assert_eq!(regions, [RamRegion { gpa: 0, bytes }]);
        }
    }

    #[test]
    fn ram_beyond_three_gib_continues_at_four_gib() {
        let regions = layout(5 * GIB).regions();
        let low = RamRegion {
            gpa: 0,
            bytes: 3 * GIB,
        };
        let high = RamRegion {
            gpa: 4 * GIB,
            bytes: 2 * GIB,
        };
        assert_eq!(regions, [low, high]);
    }

    #[test]
    fn odd_sizes_are_refused_not_rounded() {
        let new = RamLayout::new;
        assert_eq!(new(0), Err(LayoutError::TooSmall { bytes: 0 }));
        let bytes = MIN_RAM - RAM_GRANULE;
        assert_eq!(new(bytes), Err(LayoutError::TooSmall { bytes }));
        let bytes = MIN_RAM + 4096;
        assert_eq!(new(bytes), Err(LayoutError::NotAMultiple { bytes }));
        for bytes in [MAX_RAM + RAM_GRANULE, u64::MAX] {
            assert_eq!(new(bytes), Err(LayoutError::TooBig { bytes }));
        }
    }

    #[test]
    fn refusals_say_what_would_fit() {
        let text = LayoutError::NotAMultiple {
            bytes: MIN_RAM + 4096,
        }
        .to_string();
        assert!(text.contains("67108864"), "{text}");
        assert!(text.contains("69206016"), "{text}");
    }

    #[test]
    fn memory_map_is_ordered_inside_ram_and_without_overlap() {
        for bytes in [MIN_RAM, 3 * GIB, 3 * GIB + RAM_GRANULE, MAX_RAM] {
            let layout = layout(bytes);
            let map = layout.memory_map();
            for pair in map.windows(2) {
                assert!(pair[0].start + pair[0].bytes <= pair[1].start, "{pair:?}");
            }
            for entry in &map {
                let inside = layout.regions().iter().any(|region| {
                    entry.start >= region.gpa
                        && entry.start + entry.bytes <= region.gpa + region.bytes
                });
                assert!(inside, "{entry:?}");
            }
        }
    }

    #[test]
    fn boot_structures_lie_in_usable_low_memory_without_overlap() {
        let ranges = [
            (GDT.0, 0x100),
            (START_INFO.0, 0x100),
            (MODULE_LIST.0, 0x100),
            (ZERO_PAGE.0, 0x1000),
            (MEMORY_MAP.0, 0x1000),
            (PAGE_TABLES.0, 0x6000),
            (CMDLINE_ADDRESS.0, 0x1_0000),
        ];
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        const { assert!(CMDLINE_ADDRESS.0 + 0x1_0000 <= EBDA.0) };
    }

    #[test]
    fn virtio_slots_have_distinct_windows_and_lines_below_the_ioapic() {
        let slots: Vec<_> = (0..=u8::MAX).filter_map(VirtioSlot::new).collect();
        assert_eq!(slots.len(), usize::from(VIRTIO_SLOTS));
        for slot in &slots {
            assert!(slot.window().0 + VIRTIO_MMIO_BYTES <= IOAPIC.0);
            assert!(slot.window() >= HOLE_START);
            assert!(slot.gsi() > COM1_GSI && slot.gsi() < VMGENID_GSI);
            let inside = GuestAddress(slot.window().0 + 0x70);
            assert_eq!(VirtioSlot::containing(inside), Some((*slot, 0x70)));
        }
        const { assert!(VMGENID_GSI < 24, "KVM's IOAPIC has 24 pins") };
    }

    #[test]
    fn addresses_outside_the_windows_belong_to_no_slot() {
        let end = VIRTIO_MMIO.0 + u64::from(VIRTIO_SLOTS) * VIRTIO_MMIO_BYTES;
        for address in [0, VIRTIO_MMIO.0 - 1, end, u64::MAX] {
            assert_eq!(VirtioSlot::containing(GuestAddress(address)), None);
        }
    }
}
