//! A hostile driver: seeded nonsense in everything that a guest may write to a device.
//!
//! Its queues lie in the scratch area or in free RAM, and so does every address it makes up that is in RAM at all: a
//! device that does as told overwrites the workload's memory, never this program. Each round ends with a reset, after
//! which an honest driver must find the device in order.

use super::device::BLOCK;
use super::device::Device;
use super::mmio::{Window, register, status};
use super::queue::SIZE;
use crate::layout::{FREE_RAM, HOLE_START, LEDGER, LEDGER_BYTES, SCRATCH, SCRATCH_BYTES};
use crate::mailbox::{Fault, Outcome};
use crate::memory::{clear, store};
use crate::pattern::mix;
use crate::{Machine, port};

const QUEUES: u64 = 4;
const QUEUE_AREA: u64 = 0x2000;
const _: () = assert!(QUEUES * QUEUE_AREA <= SCRATCH_BYTES);
/// Descriptor flag: the buffer is a table of descriptors.
const INDIRECT: u16 = 4;

/// Plays the rounds, with a tick each.
pub fn run(machine: Machine, slot: u64, seed: u64, rounds: u64) -> Outcome {
    let window = Window::new(slot)
        .filter(|window| window.present())
        .ok_or((Fault::NoDevice, 0))?;
    let device = Device::hold(window)?;
    if window.read(register::DEVICE_ID) == BLOCK {
        // From here on nobody knows what the disk holds.
        clear(LEDGER, LEDGER_BYTES);
    }
    for round in 0..rounds {
        let mut dice = Dice {
            state: mix(seed ^ mix(round)),
            ram_bytes: machine.ram_bytes,
        };
        device.reset()?;
        bring_up(window, &mut dice);
        for _ in 0..16 {
            scribble_rings(&mut dice);
            scribble_registers(window, &mut dice);
            window.write(register::QUEUE_NOTIFY, dice.below(QUEUES + 1) as u32);
        }
        port::tick(machine.vcpu);
    }
    device.reset()?;
    Ok(rounds)
}

/// Brings the device up as its queues' honest driver would, mostly: with everything refused it would see little.
fn bring_up(window: Window, dice: &mut Dice) {
    let state = status::ACKNOWLEDGE | status::DRIVER;
    window.write(register::STATUS, state);
    window.write(register::DRIVER_FEATURES_SEL, 0);
    window.write(
        register::DRIVER_FEATURES,
        if dice.one_in(4) {
            dice.word() as u32
        } else {
            0
        },
    );
    window.write(register::DRIVER_FEATURES_SEL, 1);
    window.write(register::DRIVER_FEATURES, 1);
    window.write(register::STATUS, state | status::FEATURES_OK);
    for queue in 0..QUEUES {
        let area = SCRATCH + queue * QUEUE_AREA;
        window.write(register::QUEUE_SEL, queue as u32);
        window.write(
            register::QUEUE_NUM,
            if dice.one_in(8) {
                dice.length()
            } else {
                SIZE.into()
            },
        );
        for (at, honest) in [
            (register::QUEUE_DESC, area),
            (register::QUEUE_DRIVER, area + 0x400),
            (register::QUEUE_DEVICE, area + 0x800),
        ] {
            let address = if dice.one_in(8) {
                dice.address()
            } else {
                honest
            };
            window.write_pair(at, address);
        }
        window.write(register::QUEUE_READY, 1);
    }
    window.write(
        register::STATUS,
        state | status::FEATURES_OK | status::DRIVER_OK,
    );
}

fn scribble_rings(dice: &mut Dice) {
    for queue in 0..QUEUES {
        let area = SCRATCH + queue * QUEUE_AREA;
        for index in 0..u64::from(SIZE) {
            let descriptor = area + index * 16;
            // Mostly the three flags that there are: next, write, indirect.
            let flags = if dice.one_in(8) {
                dice.word() as u16
            } else {
                dice.below(8) as u16
            };
            // A table that begins in the middle of a scratch descriptor would name addresses of this program.
            let address = if flags & INDIRECT == 0 {
                dice.address()
            } else {
                dice.address() & !15
            };
            store(descriptor, address);
            store(descriptor + 8, dice.length());
            store(descriptor + 12, flags);
            store(
                descriptor + 14,
                if dice.one_in(4) {
                    dice.word() as u16
                } else {
                    dice.below(SIZE.into()) as u16
                },
            );
            let head = if dice.one_in(8) {
                dice.word() as u16
            } else {
                dice.below(SIZE.into()) as u16
            };
            store(area + 0x404 + index * 2, head);
        }
        // What a device may read as a request's type, so that some requests are nearly right.
        store(area + 0x1000, dice.below(16) as u32);
        store(area + 0x1008, dice.below(1 << 20));
        store(
            area + 0x402,
            if dice.one_in(4) {
                dice.word() as u16
            } else {
                dice.below(SIZE.into()) as u16
            },
        );
    }
}

fn scribble_registers(window: Window, dice: &mut Dice) {
    for _ in 0..dice.below(8) {
        let offset = dice.below(0x200);
        // Status stays: a round that resets itself at once tests nothing.
        if offset & !3 == register::STATUS {
            continue;
        }
        // Queue addresses keep away from this program.
        if offset + 8 > register::QUEUE_DESC && offset < register::QUEUE_DEVICE + 8 {
            window.write_pair(offset & !7, dice.address());
            continue;
        }
        let value = dice.word();
        match dice.below(4) {
            0 => window.write_byte(offset, value as u8),
            1 => window.write_quad(offset, value),
            _ => window.write(offset & !3, value as u32),
        }
    }
    let selected = dice.below(QUEUES * 2) as u32;
    window.write(register::QUEUE_SEL, selected);
    window.write(register::QUEUE_READY, dice.below(3) as u32);
}

/// A seeded source of nonsense.
struct Dice {
    state: u64,
    ram_bytes: u64,
}

impl Dice {
    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(1);
        mix(self.state)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    /// An address in the scratch area, in RAM, at an edge, in the hole, or anywhere; never in this program.
    fn address(&mut self) -> u64 {
        let low_top = self.ram_bytes.min(HOLE_START);
        let address = match self.below(8) {
            0..3 => SCRATCH + self.below(SCRATCH_BYTES),
            3 => FREE_RAM + self.below(low_top - FREE_RAM),
            4 => low_top - self.below(16),
            5 => HOLE_START + self.below(1 << 30),
            6 => u64::MAX - self.below(4096),
            _ => self.word(),
        };
        if address < SCRATCH { SCRATCH } else { address }
    }

    fn length(&mut self) -> u32 {
        match self.below(8) {
            0 => 0,
            1 => 1,
            2 => u32::MAX,
            3 => self.word() as u32,
            _ => self.below(8192) as u32,
        }
    }
}
