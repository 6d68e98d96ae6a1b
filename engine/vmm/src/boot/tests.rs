//! A machine's first memory, read back the way its kernel does.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::kernel::Compression;
use super::testkernel::{self, DATA, DATA_MEMORY, INIT_SIZE, PVH_ENTRY, TEXT};
use super::*;

const GIB: u64 = 1 << 30;

struct Machine {
    memory: GuestMemoryMmap,
    layout: RamLayout,
}

impl Machine {
    fn new(ram: u64) -> Self {
        let layout = RamLayout::new(ram).expect("a valid size");
        let ranges = layout.regions().into_iter();
        let ranges = ranges.map(|it| (GuestAddress(it.gpa), it.bytes as usize));
        let memory = GuestMemoryMmap::from_ranges(&ranges.collect::<Vec<_>>());
        Self {
            memory: memory.expect("address space"),
            layout,
        }
    }

    fn load(&self, kernel: &Kernel, initramfs: &[u8]) -> Result<Entry, LoadError> {
        let cmdline = Cmdline::new("console=ttyS0 test").expect("valid");
        let spec = BootSpec {
            kernel,
            cmdline: &cmdline,
            initramfs,
            layout: self.layout,
            acpi: AcpiConfig::new(2, 3).expect("valid"),
        };
        load(&self.memory, &spec)
    }

    fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let read = self.memory.read_slice(&mut bytes, GuestAddress(address));
        read.expect("inside RAM");
        bytes
    }

    fn u8(&self, address: u64) -> u8 {
        self.read::<1>(address)[0]
    }

    fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.read(address))
    }

    fn u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address))
    }
}

fn pvh_kernel() -> Kernel {
    Kernel::parse(testkernel::vmlinux(Some(PVH_ENTRY))).expect("a kernel")
}

fn linux64_kernel() -> Kernel {
    let payload = testkernel::compress(&testkernel::vmlinux(None), Compression::Zstd);
    Kernel::parse(testkernel::bzimage(&payload)).expect("a kernel")
}

#[test]
fn pvh_kernel_lands_at_its_physical_addresses_with_a_zero_tail() {
    let machine = Machine::new(64 << 20);
    let entry = machine.load(&pvh_kernel(), b"").expect("loads");
    assert_eq!(entry.rip(), u64::from(PVH_ENTRY));
    assert_eq!(machine.read(TEXT + 5), [0xe8, 1, 0, 0, 0]);
    assert_eq!(&machine.read::<18>(DATA), b"data of the kernel");
    assert_eq!(machine.read(DATA + DATA_MEMORY - 8), [0; 8]);
}

#[test]
fn start_info_leads_to_cmdline_tables_initramfs_and_memory_map() {
    let machine = Machine::new(64 << 20);
    machine.load(&pvh_kernel(), b"archive").expect("loads");
    let info = layout::START_INFO.0;
    assert_eq!((machine.u32(info), machine.u32(info + 4)), (0x336e_c578, 1));
    assert_eq!(machine.u32(info + 12), 1, "one module");
    let module = machine.u64(info + 16);
    let (start, bytes) = (machine.u64(module), machine.u64(module + 8));
    assert_eq!((start % 4096, bytes), (0, 7));
    assert_eq!(&machine.read::<7>(start), b"archive");
    let cmdline = machine.u64(info + 24);
    assert_eq!(&machine.read::<19>(cmdline), b"console=ttyS0 test\0");
    assert_eq!(&machine.read::<8>(machine.u64(info + 32)), b"RSD PTR ");
    let (map, entries) = (machine.u64(info + 40), machine.u32(info + 48));
    let ram: u64 = (0..u64::from(entries))
        .map(|index| map + index * 24)
        .filter(|entry| machine.u32(entry + 16) == 1)
        .map(|entry| machine.u64(entry + 8))
        .sum();
    assert_eq!(ram, (64 << 20) - 0x10_0000 + layout::EBDA.0);
}

#[test]
fn no_initramfs_is_no_module() {
    let machine = Machine::new(64 << 20);
    machine.load(&pvh_kernel(), b"").expect("loads");
    let info = layout::START_INFO.0;
    assert_eq!((machine.u32(info + 12), machine.u64(info + 16)), (0, 0));
}

#[test]
fn linux64_kernel_lands_at_its_preferred_address_with_zero_page_and_e820() {
    let machine = Machine::new(64 << 20);
    let entry = machine.load(&linux64_kernel(), b"archive").expect("loads");
    assert_eq!(entry.protocol(), BootProtocol::Linux64);
    assert_eq!(entry.rip(), TEXT + 0x200);
    assert_eq!(&machine.read::<5>(entry.rip()), b"entry");
    let page = layout::ZERO_PAGE.0;
    assert_eq!(&machine.read::<4>(page + 0x202), b"HdrS");
    assert_eq!(machine.u8(page + 0x210), 0xff, "type_of_loader");
    assert_eq!(machine.u8(page + 0x1ef), 0, "sentinel");
    let initramfs = u64::from(machine.u32(page + 0x218));
    assert_eq!(machine.u32(page + 0x21c), 7);
    assert_eq!(&machine.read::<7>(initramfs), b"archive");
    let cmdline = u64::from(machine.u32(page + 0x228));
    assert_eq!(&machine.read::<7>(cmdline), b"console");
    assert_eq!(&machine.read::<8>(machine.u64(page + 0x70)), b"RSD PTR ");
    assert_eq!(machine.u8(page + 0x1e8), 5, "e820 entries");
    let last = page + 0x2d0 + 4 * 20;
    assert_eq!(machine.u64(last), 0x10_0000);
    assert_eq!(machine.u64(last + 8), (64 << 20) - 0x10_0000);
    assert_eq!(machine.u32(last + 16), 1);
}

#[test]
fn initramfs_stays_below_the_hole_and_high_ram_is_in_the_map() {
    let machine = Machine::new(4 * GIB);
    machine.load(&linux64_kernel(), b"archive").expect("loads");
    let page = layout::ZERO_PAGE.0;
    let initramfs = u64::from(machine.u32(page + 0x218));
    assert!(initramfs > 2 * GIB && initramfs + 7 <= layout::HOLE_START.0);
    let last = page + 0x2d0 + 5 * 20;
    assert_eq!(machine.u64(last), layout::HOLE_END.0);
    assert_eq!(machine.u64(last + 8), GIB);
}

#[test]
fn initramfs_that_does_not_fit_is_refused_with_the_memory_it_takes() {
    let machine = Machine::new(64 << 20);
    let initramfs = vec![0; 60 << 20];
    let kernel = pvh_kernel();
    let error = machine.load(&kernel, &initramfs).expect_err("too big");
    let LoadError::DoesNotFit { needed, .. } = error else {
        panic!("unexpected {error:?}");
    };
    assert!(error.to_string().contains("at least 80 MiB"), "{error}");
    let enough = Machine::new(needed);
    enough.load(&kernel, &initramfs).expect("fits as told");
}

#[test]
fn kernel_that_asks_for_more_than_low_ram_is_refused() {
    let mut image = testkernel::bzimage(b"");
    image[0x258..0x260].copy_from_slice(&(u64::MAX - 5).to_le_bytes());
    let kernel = Kernel::parse_linux64(image).expect("a kernel");
    let machine = Machine::new(64 << 20);
    let error = machine.load(&kernel, b"").expect_err("cannot fit");
    assert!(matches!(error, LoadError::DoesNotFit { .. }));
    let end = TEXT + u64::from(INIT_SIZE);
    assert!(Machine::new(64 << 20).layout.low_end().0 > end);
}

#[test]
fn memory_of_another_layout_is_an_error_that_names_what_was_written() {
    let mut machine = Machine::new(64 << 20);
    machine.layout = RamLayout::new(128 << 20).expect("valid");
    let error = machine.load(&pvh_kernel(), b"archive").expect_err("no RAM");
    assert!(error.to_string().contains("the initramfs"), "{error}");
}

#[test]
fn both_protocols_leave_the_generation_id_page_untouched() {
    for kernel in [pvh_kernel(), linux64_kernel()] {
        let machine = Machine::new(64 << 20);
        machine.load(&kernel, b"archive").expect("loads");
        assert_eq!(machine.read(layout::VMGENID.0), [0; 4096]);
    }
}
