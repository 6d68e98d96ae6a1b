//! A block driver's requests, and what the tests need around them.

use std::fs::File;
use std::io::Write;

use brood_devices::virtio::block::Block;
use brood_devices::virtio::block::BlockState;

use crate::driver::Buf;
use crate::driver::Driver;

pub(crate) const ID: [u8; 20] = *b"disk-of-a-daughter\0\0";
pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;

pub(crate) fn layer() -> File {
    tempfile::tempfile().unwrap()
}

/// A base image whose every 512-byte sector holds its own number.
pub(crate) fn base(sectors: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..sectors {
        file.write_all(&sector_bytes(sector, 0)).unwrap();
    }
    file
}

/// What sector `sector` holds after generation `generation` wrote it; the base is generation 0.
pub(crate) fn sector_bytes(sector: u64, generation: u64) -> Vec<u8> {
    [sector.to_le_bytes(), generation.to_le_bytes()]
        .concat()
        .repeat(32)
}

pub(crate) fn over_base(sectors: u64) -> Driver<Block> {
    Driver::start(Block::over(base(sectors), ID).unwrap())
}

/// Sends a request with `data` readable and `room` bytes writable; status, and the bytes that came back, when it is
/// answered.
pub(crate) struct Pending {
    pub(crate) head: u16,
    pub(crate) data: u64,
    pub(crate) room: usize,
    pub(crate) status: u64,
}

pub(crate) fn submit(
    driver: &mut Driver<Block>,
    kind: u32,
    sector: u64,
    data: &[u8],
    room: usize,
) -> Pending {
    let header = driver.alloc(16);
    driver.put(header, &kind.to_le_bytes());
    driver.put(header + 8, &sector.to_le_bytes());
    let len = data.len().max(room);
    let buffer = driver.alloc(len as u64 + 1);
    driver.put(buffer, data);
    let status = driver.alloc(1);
    driver.put(status, &[0xee]);
    let mut bufs = vec![Buf::Out(header, 16)];
    if !data.is_empty() {
        if data.len() > 512 {
            // Two segments that split a sector, to be hard on the copying.
            let first = data.len() / 2 + 100;
            let second = data.len() - first;
            bufs.push(Buf::Out(buffer, first as u32));
            bufs.push(Buf::Out(buffer + first as u64, second as u32));
        } else {
            bufs.push(Buf::Out(buffer, data.len() as u32));
        }
    }
    if room > 0 {
        bufs.push(Buf::In(buffer, room as u32));
    }
    bufs.push(Buf::In(status, 1));
    let head = driver.add(0, &bufs);
    driver.kick(0);
    Pending {
        head,
        data: buffer,
        room,
        status,
    }
}

pub(crate) fn finish(driver: &mut Driver<Block>, pending: &Pending) -> Option<(u8, Vec<u8>)> {
    let (head, _) = driver.used(0)?;
    assert_eq!(head, pending.head);
    let status = driver.bytes(pending.status, 1)[0];
    Some((status, driver.bytes(pending.data, pending.room)))
}

pub(crate) fn request(
    driver: &mut Driver<Block>,
    kind: u32,
    sector: u64,
    data: &[u8],
    room: usize,
) -> (u8, Vec<u8>) {
    let pending = submit(driver, kind, sector, data, room);
    if driver.dev.device().wants_layer() {
        driver.dev.device_mut().give_layer(layer()).unwrap();
        driver.process(0);
    }
    finish(driver, &pending).expect("request was not answered")
}

pub(crate) fn write(driver: &mut Driver<Block>, sector: u64, sectors: u64, generation: u64) {
    let data: Vec<u8> = (sector..sector + sectors)
        .flat_map(|s| sector_bytes(s, generation))
        .collect();
    assert_eq!(request(driver, 1, sector, &data, 0).0, OK);
}

pub(crate) fn read(driver: &mut Driver<Block>, sector: u64) -> (u64, u64) {
    let (status, data) = request(driver, 0, sector, &[], 512);
    assert_eq!(status, OK);
    let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
    assert_eq!(
        data,
        [word(0).to_le_bytes(), word(8).to_le_bytes()]
            .concat()
            .repeat(32)
    );
    (word(0), word(8))
}

/// Saves the disk, copies its descriptors as fork does, and makes the daughter's device.
pub(crate) fn fork(mother: &mut Driver<Block>, base: Option<&File>) -> Driver<Block> {
    mother.dev.device_mut().freeze_layer();
    let state: BlockState = mother.dev.device_mut().freeze_state();
    let state = postcard::from_bytes(&postcard::to_stdvec(&state).unwrap()).unwrap();
    let layers = mother
        .dev
        .device()
        .layer_files()
        .map(|file| file.try_clone().unwrap());
    let layers = layers.collect();
    let base = base.map(|base| base.try_clone().unwrap());
    let disk = Block::from_state(&state, base, layers).unwrap();
    mother.daughter(disk, &mother.dev.state())
}

pub(crate) fn whole(driver: &Driver<Block>) -> Vec<u8> {
    let disk = driver.dev.device();
    let mut bytes = vec![0; disk.capacity() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

pub(crate) fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

pub(crate) fn submit_status(driver: &mut Driver<Block>, kind: u32, data: &[u8]) -> u8 {
    let pending = submit(driver, kind, 0, data, 0);
    finish(driver, &pending).expect("parked").0
}
