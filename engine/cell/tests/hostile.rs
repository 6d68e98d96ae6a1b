//! A guest that plays foul, and streams that must survive: the devices work afterwards, and so does the fork.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use brood_bare_guest::mailbox::{Command, Fault, Width};
use brood_cell::Cell;
use brood_cell::protocol::Event;
use common::{ask, daughters_of, host, read, stop, write};

/// Register windows of a machine with a disk: disk, socket device, entropy, then one that is empty.
const WINDOWS: u64 = 4;
/// Rounds of one command, so that it ends in time on a slow host, and commands for a device.
const ROUNDS: u64 = 64;
const COMMANDS: u64 = 12;
const PORT: u32 = 77;
/// How long a stream may be silent; emulated hosts are slow.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn nonsense_on_every_device_leaves_devices_mother_and_daughters_whole() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    for window in 0..WINDOWS {
        for seed in 0..COMMANDS {
            let nonsense = Command::Nonsense {
                device: window,
                seed,
                rounds: ROUNDS,
            };
            match mother
                .command(0, nonsense)
                .expect("the guest still answers")
            {
                Ok(rounds) => assert_eq!(rounds, ROUNDS),
                Err(fault) => assert_eq!((fault, window), ((Fault::NoDevice, 0), WINDOWS - 1)),
            }
        }
    }
    honest_work(&mut mother);
    for mut daughter in daughters_of(&mut mother, 2) {
        honest_work(&mut daughter);
    }
    honest_work(&mut mother);
}

#[test]
fn a_fork_in_the_middle_of_nonsense_leaves_both_sides_able_to_work() {
    let Some(host) = host() else { return };
    for window in 0..WINDOWS - 1 {
        let mut mother = host.bare(64, 1);
        let nonsense = Command::Nonsense {
            device: window,
            seed: 5,
            rounds: ROUNDS,
        };
        mother.begin_command(0, nonsense).expect("given");
        mother.first_instruction().expect("it runs");
        let mut cells = daughters_of(&mut mother, 3);
        cells.push(mother);
        for cell in &mut cells {
            assert_eq!(cell.outcome(0).expect("answer"), Ok(ROUNDS));
            honest_work(cell);
        }
    }
}

#[test]
fn words_to_ports_nobody_asked_for_neither_reach_the_engine_nor_harm_the_guest() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    write(&mut cell, 3);
    let forged = u64::from(u32::MAX) << 32;
    for port in [0xb008, 0xb00c] {
        for width in [Width::Long, Width::Word, Width::Byte] {
            for _ in 0..50 {
                cell.begin_command(
                    0,
                    Command::PortOut {
                        port,
                        value: u32::MAX,
                        width,
                    },
                )
                .expect("given");
                // The guest's own answer, or the forged one in its place: never more than one for a command.
                let answer = cell.outcome(0).expect("answer").expect("no fault");
                assert!(answer == 0 || answer & forged == forged, "{answer:#x}");
            }
        }
    }
    cell.stats().expect("stats");
    let mut more = 0;
    while cell
        .event(
            |event| matches!(event, Event::MailboxReply { .. }),
            Duration::ZERO,
        )
        .is_ok()
    {
        more += 1;
    }
    assert!(more <= 1, "{more} answers to nothing");
}

#[test]
fn a_stream_survives_the_forks_of_its_machine_with_every_byte_in_order() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 2);
    let load = Command::BlkLoad {
        lba: 1,
        records: 64,
        seed: 1,
        count: 0,
    };
    mother.begin_command(0, load).expect("disk load");
    mother
        .begin_command(1, Command::VsockCount { port: PORT })
        .expect("counts");
    let mut stream = connect(&mut mother);
    let mut next = 0;
    expect_numbers(&mut stream, &mut next, 1000);
    for _ in 0..4 {
        let daughters = daughters_of(&mut mother, 2);
        expect_numbers(&mut stream, &mut next, 5000);
        for mut daughter in daughters {
            // Her inherited stream is reset, so hers is a new one that begins at the beginning.
            let (mut own, mut first) = (connect(&mut daughter), 0);
            expect_numbers(&mut own, &mut first, 2000);
            drop(own);
            stop(&mut daughter, 0);
            ask(&mut daughter, Command::BlkVerify {});
        }
    }
    expect_numbers(&mut stream, &mut next, 5000);
    stop(&mut mother, 0);
    ask(&mut mother, Command::BlkVerify {});
}

#[test]
fn an_echo_forked_at_any_byte_gives_the_mother_everything_back() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    mother
        .begin_command(0, Command::VsockEcho { port: PORT })
        .expect("echo");
    let mut stream = connect(&mut mother);
    let block: Vec<u8> = (0..60_000_u32).flat_map(u32::to_le_bytes).collect();
    for _ in 0..4 {
        let mut writer = stream.try_clone().expect("dup");
        let back = std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&block).expect("the guest takes it"));
            let daughters = daughters_of(&mut mother, 1);
            let mut back = vec![0; block.len()];
            stream.read_exact(&mut back).expect("the echo comes");
            drop(daughters);
            back
        });
        assert!(back == block, "the echo is the block");
    }
    let echoed = 4 * block.len() as u64;
    drop(stream);
    assert_eq!(mother.outcome(0).expect("answer"), Ok(echoed));
}

/// A stream to the guest; while its driver or listener is not up yet it is refused or closed at once.
fn connect(cell: &mut Cell) -> UnixStream {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Ok(stream) = cell.connect(PORT) {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
            return stream;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the guest never listens"
        );
        std::thread::yield_now();
    }
}

fn expect_numbers(stream: &mut UnixStream, next: &mut u64, count: u64) {
    let mut word = [0; 8];
    for _ in 0..count {
        stream.read_exact(&mut word).expect("the stream goes on");
        assert_eq!(u64::from_le_bytes(word), *next);
        *next += 1;
    }
}

/// Disk, entropy and socket device do what they should.
fn honest_work(cell: &mut Cell) {
    ask(
        cell,
        Command::BlkLoad {
            lba: 1,
            records: 32,
            seed: 2,
            count: 60,
        },
    );
    ask(cell, Command::BlkVerify {});
    ask(cell, Command::Rng {});
    cell.begin_command(0, Command::VsockCount { port: PORT })
        .expect("count");
    let (mut stream, mut next) = (connect(cell), 0);
    expect_numbers(&mut stream, &mut next, 500);
    drop(stream);
    stop(cell, 0);
    write(cell, 9);
    assert_eq!(read(cell), 9);
}
