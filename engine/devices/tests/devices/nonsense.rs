//! A driver that writes nonsense into every register and every field of every ring, with fixed seeds.
//!
//! The claim is the same for all devices: no panic, a bounded number of rounds, and after a reset the device works.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};

use brood_devices::virtio::block::Block;
use brood_devices::virtio::rng::Rng;
use brood_devices::virtio::vsock::{Greeting, RX, TX, Vsock, VsockOptions};
use brood_devices::virtio::{Progress, VirtioDevice};
use rustix::event::PollFlags;
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{Buf, Driver, RAM};

/// Attacks on each device. Each ends with a reset and a request that has to work.
const ATTACKS: u64 = 4000;
/// Nonsensical actions of one attack.
const ACTIONS: u64 = 24;
/// A ring holds 256 requests and a round serves 64 of them, or fewer if they are large.
const ROUNDS_MAX: usize = 300;

/// xorshift64*
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn address(&mut self) -> u64 {
        let ram = RAM as u64;
        let anywhere = self.roll();
        let inside = self.below(ram);
        self.of(&[
            0,
            1,
            0x1000,
            0x1_0000,
            ram - 1,
            ram - 16,
            ram,
            ram + 1,
            0xfee0_0000,
            1 << 32,
            1 << 63,
            u64::MAX,
            u64::MAX - 15,
            u64::MAX - 4095,
            anywhere,
            inside,
            inside,
            inside & !15,
            inside & !15,
            inside & !4095,
        ])
    }

    fn len(&mut self) -> u32 {
        let anything = self.roll() as u32;
        let small = self.below(9000) as u32;
        let ram = RAM as u32;
        self.of(&[
            0,
            1,
            15,
            16,
            17,
            44,
            45,
            511,
            512,
            513,
            4096,
            65536,
            ram,
            ram + 1,
            1 << 31,
            u32::MAX,
            anything,
            small,
            small,
            small,
            16,
            16,
            512,
            44,
        ])
    }

    fn word(&mut self) -> u32 {
        let anything = self.roll() as u32;
        let small = self.below(300) as u32;
        self.of(&[
            0,
            1,
            2,
            3,
            4,
            8,
            16,
            64,
            255,
            256,
            257,
            65535,
            65536,
            u32::MAX,
            anything,
            small,
        ])
    }
}

fn attack<D: VirtioDevice>(driver: &mut Driver<D>, dice: &mut Dice) {
    if dice.below(4) == 0 {
        hostile_initialisation(driver, dice);
    }
    for _ in 0..ACTIONS {
        match dice.below(10) {
            0 => {
                let offset = dice.of(&[0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70]);
                driver.write(offset, dice.word());
            }
            1 => any_access(driver, dice),
            2..=5 => hostile_descriptor(driver, dice),
            6 => hostile_available(driver, dice),
            7 | 8 => well_formed_chain(driver, dice),
            _ => run(driver),
        }
    }
    run(driver);
}

/// Sets queues up, with rings in impossible places and of impossible sizes.
fn hostile_initialisation<D: VirtioDevice>(driver: &mut Driver<D>, dice: &mut Dice) {
    for status in [0, 1, 3] {
        driver.write(0x70, status);
    }
    driver.write(0x24, 1);
    driver.write(0x20, 1);
    driver.write(0x24, 0);
    driver.write(0x20, dice.of(&[0, 1 << 28, 1 << 29, 3 << 28, u32::MAX]));
    driver.write(0x70, 0xb);
    for queue in 0..4 {
        driver.write(0x30, queue);
        if dice.below(2) == 0 {
            driver.write(0x38, dice.of(&[1, 2, 4, 16, 256, 3, 32768]));
        }
        for register in [0x80, 0x90, 0xa0] {
            let address = if dice.below(4) == 0 {
                dice.address()
            } else {
                dice.address() & !0xfff
            };
            driver.write(register, address as u32);
            driver.write(register + 4, (address >> 32) as u32);
        }
        driver.write(0x44, 1);
    }
    driver.write(0x70, 0xf);
}

fn any_access<D: VirtioDevice>(driver: &mut Driver<D>, dice: &mut Dice) {
    let offset = dice.of(&[
        0x100,
        0x104,
        0x13c,
        0xffc,
        0x1000,
        u64::MAX,
        u64::MAX - 3,
        0x45,
    ]);
    let offset = offset.wrapping_add(dice.below(0x20));
    let mut bytes = vec![dice.roll() as u8; dice.below(17) as usize];
    driver.dev.read(offset, &mut bytes);
    driver.dev.write(offset, &bytes).unwrap();
}

fn hostile_descriptor<D: VirtioDevice>(driver: &Driver<D>, dice: &mut Dice) {
    let ring = &driver.rings[dice.below(driver.rings.len() as u64) as usize];
    let mut bytes = Vec::new();
    bytes.extend(dice.address().to_le_bytes());
    bytes.extend(dice.len().to_le_bytes());
    bytes.extend((dice.word() as u16 & dice.of(&[7, 3, 3, 3, u16::MAX])).to_le_bytes());
    bytes.extend((dice.word() as u16).to_le_bytes());
    // Few of them, so that chains meet.
    let index = dice.of(&[8, 32, 256]);
    let at = ring.desc + 16 * dice.below(index);
    driver.mem.write_slice(&bytes, GuestAddress(at)).unwrap();
}

fn hostile_available<D: VirtioDevice>(driver: &Driver<D>, dice: &mut Dice) {
    let ring = &driver.rings[dice.below(driver.rings.len() as u64) as usize];
    let size = u64::from(ring.size);
    let entry = ring.avail + 4 + 2 * dice.below(size + 1);
    driver
        .mem
        .write_obj(dice.word() as u16, GuestAddress(entry))
        .unwrap();
    let index = GuestAddress(ring.avail + 2);
    let before: u16 = driver.mem.read_obj(index).unwrap();
    let step = dice.of(&[0, 1, 1, 1, 2, 5, 16, 256, 257, 40000]);
    driver
        .mem
        .write_obj(before.wrapping_add(step), index)
        .unwrap();
    driver
        .mem
        .write_obj(dice.word() as u16, GuestAddress(ring.avail))
        .unwrap();
}

/// A chain in RAM whose contents, lengths and directions are random but plausible.
fn well_formed_chain<D: VirtioDevice>(driver: &Driver<D>, dice: &mut Dice) {
    let ring = &driver.rings[dice.below(driver.rings.len() as u64) as usize];
    let buffer = 0x20_0000 + dice.below(8 << 20);
    let mut header = Vec::new();
    // A block header, then what a vsock header has in these places.
    header.extend(dice.of(&[0u32, 1, 4, 8, 11, 13, 3, 99]).to_le_bytes());
    header.extend([0; 4]);
    header.extend(dice.of(&[2u64, 0, 1, 100, u64::MAX, 1 << 55]).to_le_bytes());
    for _ in 0..8 {
        header.extend(dice.word().to_le_bytes());
    }
    if dice.below(2) == 0 {
        header[..8].copy_from_slice(&3u64.to_le_bytes());
        header[8..16].copy_from_slice(&2u64.to_le_bytes());
        header[16..20].copy_from_slice(&(dice.below(4) as u32).to_le_bytes());
        let host_port = dice.of(&[80, 81, 1 << 30, (1 << 30) + 1]);
        header[20..24].copy_from_slice(&u32::to_le_bytes(host_port));
        header[24..28].copy_from_slice(&dice.of(&[0u32, 1, 100, 9000]).to_le_bytes());
        header[28..30].copy_from_slice(&[1, 0]);
        header[30..32].copy_from_slice(&(dice.below(9) as u16).to_le_bytes());
    }
    driver
        .mem
        .write_slice(&header, GuestAddress(buffer))
        .unwrap();
    let first = dice.of(&[16u32, 44, 44, 144, 48]);
    let shapes: [&[Buf]; 5] = [
        &[Buf::Out(buffer, first)],
        &[Buf::In(buffer, 4096)],
        &[Buf::Out(buffer, first), Buf::In(buffer + 8192, 1)],
        &[
            Buf::Out(buffer, 16),
            Buf::In(buffer + 8192, 1024),
            Buf::In(buffer, 1),
        ],
        &[
            Buf::Out(buffer, 16),
            Buf::Out(buffer, 1024),
            Buf::In(buffer + 8192, 1),
        ],
    ];
    let shape = dice.of(&shapes);
    let base = dice.below(200) as u16;
    for (nth, buf) in (0u16..).zip(shape) {
        let last = usize::from(nth) + 1 == shape.len();
        let next = (!last).then_some(base + nth + 1);
        let bytes = crate::driver::descriptor(*buf, next);
        let at = GuestAddress(ring.desc + 16 * u64::from(base + nth));
        driver.mem.write_slice(&bytes, at).unwrap();
    }
    let at = GuestAddress(ring.avail + 2);
    let index: u16 = driver.mem.read_obj(at).unwrap();
    let entry = ring.avail + 4 + 2 * u64::from(index % ring.size);
    driver.mem.write_obj(base, GuestAddress(entry)).unwrap();
    driver.mem.write_obj(index.wrapping_add(1), at).unwrap();
}

/// Notifies every queue, and some that do not exist.
fn run<D: VirtioDevice>(driver: &mut Driver<D>) {
    for queue in [0, 1, 2, 3, usize::MAX] {
        let mut rounds = 0;
        while driver.dev.notified(queue, &driver.mem).unwrap() == Progress::More {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "queue {queue} never finishes");
        }
    }
}

fn survives<D: VirtioDevice>(
    mut driver: Driver<D>,
    seed: u64,
    mut works: impl FnMut(&mut Driver<D>),
) {
    let mut dice = Dice(seed);
    let mut faults = 0;
    works(&mut driver);
    for _ in 0..ATTACKS {
        attack(&mut driver, &mut dice);
        faults += u64::from(driver.dev.fault().is_some());
        driver.initialise(u64::MAX);
        works(&mut driver);
    }
    // Both kinds of attack have to be there for the test to mean anything.
    assert!(
        (ATTACKS / 20..ATTACKS * 19 / 20).contains(&faults),
        "{faults} faults"
    );
}

#[test]
fn entropy_survives_nonsense() {
    survives(Driver::start(Rng), 0x5eed_0001, |driver| {
        driver.add(0, &[Buf::In(0x18_0000, 16)]);
        driver.kick(0);
        assert_eq!(driver.used(0).map(|(_, len)| len), Some(16));
    });
}

fn block_survives(seed: u64, disk: Block) {
    survives(Driver::start(disk), seed, |driver| {
        driver.put(0x18_0000, &[0; 16]);
        driver.add(
            0,
            &[
                Buf::Out(0x18_0000, 16),
                Buf::In(0x18_1000, 512),
                Buf::In(0x18_2000, 1),
            ],
        );
        driver.kick(0);
        assert_eq!(driver.used(0).map(|(_, len)| len), Some(513));
        assert_eq!(driver.bytes(0x18_2000, 1), [0]);
    });
}

#[test]
fn block_with_base_and_layer_survives_nonsense() {
    let mut base = tempfile::tempfile().unwrap();
    base.write_all(&vec![7; 1 << 20]).unwrap();
    let mut disk = Block::over(base, [0; 20]).unwrap();
    disk.give_layer(tempfile::tempfile().unwrap()).unwrap();
    block_survives(0x5eed_0002, disk);
}

#[test]
fn block_without_a_layer_survives_nonsense() {
    block_survives(0x5eed_0003, Block::blank(1 << 30, [0; 20]).unwrap());
}

#[test]
fn vsock_with_listener_and_streams_survives_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vsock");
    let mut device = Vsock::new(VsockOptions::default());
    device
        .set_listener(UnixListener::bind(&path).unwrap())
        .unwrap();
    device.listen(80);
    let mut dice = Dice(0x5eed_0004);
    let mut streams = Vec::new();
    survives(Driver::start(device), 0x5eed_0005, |driver| {
        // The recovered device tells a guest that there is no such connection.
        driver.add(RX, &[Buf::In(0x18_1000, 4096)]);
        let mut header = [0; 44];
        header[..8].copy_from_slice(&3u64.to_le_bytes());
        header[8..16].copy_from_slice(&2u64.to_le_bytes());
        header[28] = 1;
        header[30] = 5;
        driver.put(0x18_0000, &header);
        driver.add(TX, &[Buf::Out(0x18_0000, 44)]);
        driver.kick(TX);
        assert_eq!(driver.used(RX).map(|(_, len)| len), Some(44));
        assert_eq!(driver.bytes(0x18_101e, 2), [3, 0]);
        // And for the next attack there are host sockets in every state, of which any may be called ready.
        streams.clear();
        for port in 0..3 {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            driver
                .dev
                .open(port, theirs, Greeting::OkLine, &driver.mem)
                .unwrap();
            ours.write_all(b"unasked").unwrap();
            streams.push(ours);
        }
        let mut client = UnixStream::connect(&path).unwrap();
        client
            .write_all(dice.of(&[&b"CONNECT 1\n"[..], b"CONN", b"\n"]))
            .unwrap();
        streams.push(client);
        if dice.below(2) == 0 {
            streams.remove(0);
        }
        let mut entries = Vec::new();
        driver.dev.device().poll_fds(&mut entries);
        for entry in entries {
            let ready = dice.of(&[
                PollFlags::IN,
                PollFlags::OUT,
                PollFlags::HUP,
                PollFlags::ERR,
            ]);
            driver
                .dev
                .host_ready(entry.token, ready, &driver.mem)
                .unwrap();
        }
        while driver.dev.device_mut().take_guest_connect().is_some() {}
    });
}
