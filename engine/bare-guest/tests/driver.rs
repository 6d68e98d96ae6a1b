//! The guest's virtio drivers against device models of a few lines.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use brood_bare_guest::layout::FREE_RAM;
use brood_bare_guest::mailbox::{Command, Fault};
use brood_bare_guest::pattern::{Checksum, block_word, fill_word};

mod double;
mod harness;
use double::model::{Disk, Entropy, Inert, Packet, Socket, Step, Wire};
use double::{Double, Model};
use harness::{MIB, Machine, Vcpu, kvm_present};

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT_UPDATE: u16 = 6;

fn with<M: Model + 'static>(model: M) -> Result<Vcpu> {
    let machine = Machine::new(64 * MIB, 1)?;
    let mut vcpu = machine.vcpus()?.remove(0);
    vcpu.bus = Box::new(Double::new(&machine.memory, model));
    Ok(vcpu)
}

#[test]
fn random_bits_come_whole_and_the_device_is_not_reset_between_commands() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let mut vcpu = with(Entropy::default())?;
    assert_eq!(vcpu.command(Command::Rng {})?, 0x0807_0605_0403_0201);
    assert_eq!(vcpu.command(Command::Rng {})?, 0x100f_0e0d_0c0b_0a09);
    Ok(())
}

#[test]
fn dead_device_is_a_timeout_and_no_hang() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let mut vcpu = with(Inert)?;
    assert_eq!(vcpu.fault(Command::Rng {})?, Fault::Timeout);
    Ok(())
}

#[test]
fn nonsense_does_not_hurt_the_guest_that_makes_it() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let mut vcpu = with(Inert)?;
    assert_eq!(
        vcpu.command(Command::Nonsense {
            device: 0,
            seed: 3,
            rounds: 10
        })?,
        10
    );
    assert_eq!(
        vcpu.command(Command::Touch {
            start: FREE_RAM,
            bytes: MIB
        })?,
        256
    );
    Ok(())
}

#[test]
fn sectors_are_written_and_read_where_they_belong() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let bytes = Arc::new(Mutex::new(vec![0; MIB as usize]));
    let mut vcpu = with(Disk {
        bytes: bytes.clone(),
    })?;
    let (lba, seed) = (17, 5);
    assert_eq!(vcpu.command(Command::BlkWrite { lba, seed })?, 0);
    assert_eq!(vcpu.command(Command::BlkFlush {})?, 0);
    let words: Vec<u64> = (0..64)
        .map(|index| fill_word(seed, lba * 512 + index * 8))
        .collect();
    let sum = words
        .iter()
        .fold(Checksum::EMPTY, |sum, word| sum.add(*word))
        .finish();
    assert_eq!(vcpu.command(Command::BlkRead { lba })?, sum);
    let disk = bytes.lock().expect("no panic elsewhere");
    let written: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    assert_eq!(disk[17 * 512..18 * 512], written);
    assert!(
        disk[..17 * 512]
            .iter()
            .chain(&disk[18 * 512..])
            .all(|byte| *byte == 0)
    );
    Ok(())
}

#[test]
fn block_beyond_the_disk_is_the_devices_error() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let mut vcpu = with(Disk {
        bytes: Arc::new(Mutex::new(vec![0; 4096])),
    })?;
    assert_eq!(vcpu.fault(Command::BlkRead { lba: 8 })?, Fault::BlockStatus);
    Ok(())
}

#[test]
fn block_load_remembers_over_commands_and_seeds_and_finds_one_wrong_byte() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let bytes = Arc::new(Mutex::new(vec![0; MIB as usize]));
    let mut vcpu = with(Disk {
        bytes: bytes.clone(),
    })?;
    // An odd first sector, so that no record is aligned to 4 KiB.
    let load = |seed, count| Command::BlkLoad {
        lba: 3,
        records: 10,
        seed,
        count,
    };
    assert_eq!(vcpu.command(load(1, 200))?, 200);
    assert_eq!(vcpu.command(load(2, 1))?, 1);
    assert_eq!(vcpu.command(Command::BlkVerify {})?, 10);
    vcpu.start(load(2, 0), 5)?;
    assert!(vcpu.stop()? >= 5);
    {
        let mut disk = bytes.lock().expect("no panic elsewhere");
        let at = |sector: usize, index: usize| sector * 512 + index * 8;
        let word = |disk: &[u8], place: usize| {
            u64::from_le_bytes(disk[place..place + 8].try_into().expect("8 bytes"))
        };
        let (seed, sequence) = (word(&disk, at(3, 0)), word(&disk, at(3, 1)));
        assert_eq!(word(&disk, at(10, 63)), block_word(seed, sequence, 10, 63));
        disk[at(82, 63)] ^= 1;
    }
    assert_eq!(vcpu.fault(Command::BlkVerify {})?, Fault::BlockMismatch);
    Ok(())
}

fn socket(script: impl IntoIterator<Item = (usize, Step)>) -> Result<(Vcpu, Arc<Mutex<Wire>>)> {
    let socket = Socket::default();
    let wire = socket.wire.clone();
    wire.lock()
        .expect("no panic elsewhere")
        .script
        .extend(script);
    Ok((with(socket)?, wire))
}

fn send(operation: u16, flags: u32, credit: (u32, u32), payload: &[u8]) -> Step {
    Step::Send(Packet {
        operation,
        flags,
        credit,
        payload: payload.to_vec(),
    })
}

/// Operation, flags and payload bytes of what the guest has said.
fn said(wire: &Mutex<Wire>) -> Vec<(u16, u32, usize)> {
    let wire = wire.lock().expect("no panic elsewhere");
    wire.from_guest
        .iter()
        .map(|packet| (packet.operation, packet.flags, packet.payload.len()))
        .collect()
}

#[test]
fn echo_keeps_to_the_hosts_credit_and_answers_everything_before_it_closes() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let text: Vec<u8> = (0..100).collect();
    let (mut vcpu, wire) = socket([
        (0, send(REQUEST, 0, (64, 0), b"")),
        (1, send(DATA, 0, (64, 0), &text)),
        // The host sends no more, but has not read everything yet.
        (2, send(SHUTDOWN, 2, (64, 0), b"")),
        (2, send(CREDIT_UPDATE, 0, (64, 64), b"")),
        (4, send(RESET, 0, (64, 64), b"")),
    ])?;
    assert_eq!(vcpu.command(Command::VsockEcho { port: 5 })?, 100);
    assert_eq!(
        said(&wire),
        [
            (RESPONSE, 0, 0),
            (DATA, 0, 64),
            (DATA, 0, 36),
            (SHUTDOWN, 3, 0)
        ]
    );
    let wire = wire.lock().expect("no panic elsewhere");
    assert_eq!(
        wire.from_guest
            .iter()
            .flat_map(|packet| packet.payload.clone())
            .collect::<Vec<_>>(),
        text
    );
    // Forwarded bytes are those echoed, no sooner.
    assert_eq!(
        wire.from_guest
            .iter()
            .map(|packet| packet.credit.1)
            .collect::<Vec<_>>(),
        [0, 64, 100, 100]
    );
    Ok(())
}

#[test]
fn transport_reset_drops_the_connection_and_the_guest_accepts_anew() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (mut vcpu, wire) = socket([
        (0, send(REQUEST, 0, (64, 0), b"")),
        (1, send(DATA, 0, (64, 0), b"before")),
        (2, Step::Reset),
        (2, send(REQUEST, 0, (64, 0), b"")),
        (3, send(DATA, 0, (64, 0), b"and after")),
        (4, send(RESET, 0, (64, 9), b"")),
    ])?;
    assert_eq!(vcpu.command(Command::VsockEcho { port: 5 })?, 9);
    assert_eq!(
        said(&wire),
        [
            (RESPONSE, 0, 0),
            (DATA, 0, 6),
            (RESPONSE, 0, 0),
            (DATA, 0, 9)
        ]
    );
    Ok(())
}

#[test]
fn count_sends_every_number_once_within_the_credit_and_says_how_many() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let credit = |number: u32| {
        (
            number as usize + 1,
            send(CREDIT_UPDATE, 0, (64, 64 * number), b""),
        )
    };
    let (mut vcpu, wire) = socket(
        [(0, send(REQUEST, 0, (64, 0), b""))]
            .into_iter()
            .chain((1..3).map(credit)),
    )?;
    vcpu.start(Command::VsockCount { port: 5 }, 3)?;
    assert_eq!(vcpu.stop()?, 24);
    assert_eq!(
        said(&wire),
        [
            (RESPONSE, 0, 0),
            (DATA, 0, 64),
            (DATA, 0, 64),
            (DATA, 0, 64),
            (RESET, 0, 0)
        ]
    );
    let wire = wire.lock().expect("no panic elsewhere");
    let bytes: Vec<u8> = wire
        .from_guest
        .iter()
        .flat_map(|packet| packet.payload.clone())
        .collect();
    assert_eq!(
        bytes,
        (0..24_u64).flat_map(u64::to_le_bytes).collect::<Vec<_>>()
    );
    Ok(())
}

#[test]
fn packets_for_nobody_are_refused() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (mut vcpu, wire) = socket([
        (0, send(DATA, 0, (64, 0), b"stray")),
        (1, send(REQUEST, 0, (64, 0), b"")),
        (2, send(RESET, 0, (64, 0), b"")),
    ])?;
    assert_eq!(vcpu.command(Command::VsockEcho { port: 5 })?, 0);
    assert_eq!(said(&wire), [(RESET, 0, 0), (RESPONSE, 0, 0)]);
    Ok(())
}
