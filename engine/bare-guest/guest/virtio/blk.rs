//! Sectors of a block device (virtio 1.3 §5.2), and a load that knows at any time what every block must hold.
//!
//! ```text
//! ledger: 0x000 lba, records, writes made   0x040 per record: seed, write number (0 = never written)
//! ```

use super::device::{BLOCK, Device};
use super::queue::{Buffer, NEXT, WRITE};
use crate::layout::{LEDGER, LEDGER_BYTES};
use crate::mailbox::{Fault, Outcome};
use crate::memory::{clear, load as get, store as put};
use crate::pattern::{BLOCK_SECTORS, Checksum, SECTOR, block_word, fill_word, mix};
use crate::{Machine, port};

const READ: u32 = 0;
const WRITE_OUT: u32 = 1;
const FLUSH: u32 = 4;

const ENTRIES: u64 = LEDGER + 0x40;
const MAX_RECORDS: u64 = 4000;
const _: () = assert!(0x40 + MAX_RECORDS * 16 <= LEDGER_BYTES);

/// Arguments of a load.
pub struct Load {
    /// First sector.
    pub lba: u64,
    /// Number of records.
    pub records: u64,
    /// Names the data.
    pub seed: u64,
    /// Writes to make, 0 = until pending.
    pub count: u64,
}

/// Writes, reads back and verifies.
pub fn load(machine: Machine, load: &Load) -> Outcome {
    if load.records == 0 || load.records > MAX_RECORDS {
        return Err((Fault::BadRange, 0));
    }
    let disk = Disk::open()?;
    if get::<u64>(LEDGER) != load.lba || get::<u64>(LEDGER + 8) != load.records {
        clear(LEDGER, LEDGER_BYTES);
        put(LEDGER, load.lba);
        put(LEDGER + 8, load.records);
    }
    let mut writes = 0;
    while writes < load.count || (load.count == 0 && !port::pending()) {
        let sequence = get::<u64>(LEDGER + 16) + 1;
        put(LEDGER + 16, sequence);
        let record = mix(load.seed ^ mix(sequence)) % load.records;
        disk.verify_record(record)?;
        disk.write_record(record, load.seed, sequence)?;
        disk.verify_record(record)?;
        port::tick(machine.vcpu);
        writes += 1;
    }
    Ok(writes)
}

/// Reads back every record of the ledger. Replies how many have ever been written.
pub fn verify() -> Outcome {
    let disk = Disk::open()?;
    let mut known = 0;
    for record in 0..get::<u64>(LEDGER + 8).min(MAX_RECORDS) {
        known += disk.verify_record(record)?;
    }
    Ok(known)
}

/// Reads a sector to its checksum.
pub fn read_sector(lba: u64) -> Outcome {
    let disk = Disk::open()?;
    disk.transfer(READ, lba, SECTOR)?;
    let words = (0..SECTOR / 8).map(|index| get::<u64>(disk.data() + index * 8));
    Ok(words.fold(Checksum::EMPTY, Checksum::add).finish())
}

/// Writes a sector of the fill pattern.
pub fn write_sector(lba: u64, seed: u64) -> Outcome {
    let disk = Disk::open()?;
    for offset in (0..SECTOR).step_by(8) {
        put(
            disk.data() + offset,
            fill_word(seed, lba.wrapping_mul(SECTOR).wrapping_add(offset)),
        );
    }
    disk.transfer(WRITE_OUT, lba, SECTOR)
}

/// Flushes.
pub fn flush() -> Outcome {
    Disk::open()?.transfer(FLUSH, 0, 0)
}

/// The block device: a header, a status byte and a record's data in its arena, one request at a time.
struct Disk {
    device: Device,
}

impl Disk {
    fn open() -> Result<Self, (Fault, u32)> {
        Ok(Self {
            device: Device::open(BLOCK, 1)?.0,
        })
    }

    fn data(&self) -> u64 {
        self.device.buffers() + 0x1000
    }

    /// One request (§5.2.6): header, data, status.
    fn transfer(&self, kind: u32, lba: u64, bytes: u64) -> Outcome {
        let header = self.device.buffers();
        let result = header + 16;
        put(header, kind);
        put(header + 4, 0_u32);
        put(header + 8, lba);
        put(result, 0xff_u8);
        let queue = self.device.queue(0);
        queue.describe(
            0,
            &Buffer {
                address: header,
                bytes: 16,
                flags: NEXT,
            },
        );
        let mut last = 1;
        if bytes > 0 {
            let direction = if kind == READ { WRITE } else { 0 };
            queue.describe(
                1,
                &Buffer {
                    address: self.data(),
                    bytes: bytes as u32,
                    flags: direction | NEXT,
                },
            );
            last = 2;
        }
        queue.describe(
            last,
            &Buffer {
                address: result,
                bytes: 1,
                flags: WRITE,
            },
        );
        queue.offer(0);
        queue.notify();
        self.device.wait(queue, 0)?;
        match get::<u8>(result) {
            0 => Ok(0),
            status => Err((Fault::BlockStatus, status.into())),
        }
    }

    fn write_record(&self, record: u64, seed: u64, sequence: u64) -> Outcome {
        for (address, lba, index) in self.words(record) {
            put(address, block_word(seed, sequence, lba, index));
        }
        self.transfer(WRITE_OUT, first_sector(record), BLOCK_SECTORS * SECTOR)?;
        put(ENTRIES + record * 16, seed);
        put(ENTRIES + record * 16 + 8, sequence);
        Ok(0)
    }

    /// Reads a record back and compares. Returns 1, or 0 if it has never been written.
    fn verify_record(&self, record: u64) -> Outcome {
        let seed = get(ENTRIES + record * 16);
        let sequence = get(ENTRIES + record * 16 + 8);
        if sequence == 0 {
            return Ok(0);
        }
        clear(self.data(), BLOCK_SECTORS * SECTOR);
        self.transfer(READ, first_sector(record), BLOCK_SECTORS * SECTOR)?;
        let good = self.words(record).all(|(address, lba, index)| {
            get::<u64>(address) == block_word(seed, sequence, lba, index)
        });
        if good {
            Ok(1)
        } else {
            Err((Fault::BlockMismatch, record as u32))
        }
    }

    /// Every word of a record: its address in the data buffer, its sector and its index there.
    fn words(&self, record: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let (data, first) = (self.data(), first_sector(record));
        (0..BLOCK_SECTORS * SECTOR / 8)
            .map(move |place| (data + place * 8, first + place / 64, place % 64))
    }
}

fn first_sector(record: u64) -> u64 {
    get::<u64>(LEDGER).wrapping_add(record * BLOCK_SECTORS)
}
