//! Chunks from a server: it is believed as far as their BLAKE3 goes, and waited for as long as it was given.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use brood_bare_guest::mailbox::Command;
use brood_cell::protocol::{ChunkSource, Ending, Fetch};
use brood_cell::{Cell, CellError, pages};
use brood_snapshot::CHUNK;
use brood_testkit::{Host, Image, sealed};
use common::{ask, checkpoint_of, daughter_of, host, read, write};

const MIB: u64 = 1 << 20;
/// More than any of these tests takes.
const PATIENT: u32 = 300_000;

fn checksum(cell: &mut Cell) -> u64 {
    let (start, bytes) = (8 * MIB, 16 * MIB);
    ask(cell, Command::Checksum { start, bytes })
}

fn saved(host: &Host) -> (Image, u64) {
    let mut mother = host.bare(64, 1);
    let (start, bytes, seed) = (8 * MIB, 16 * MIB, 4);
    ask(&mut mother, Command::Fill { start, bytes, seed });
    write(&mut mother, 5);
    let sum = checksum(&mut mother);
    (Image::of(&mut checkpoint_of(&mut mother)), sum)
}

/// A cell whose chunks come from `server`, which has its end of the socket on a thread of its own.
fn restored_from<T: Send + 'static>(
    (host, image): (&Host, &Image),
    (patience_ms, fetch): (u32, Fetch),
    server: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (Result<Cell, CellError>, JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let served = std::thread::spawn(move || server(ours));
    let table = sealed(&image.table(&[]));
    let mut cell = host.spawn();
    let parts = image.parts(host.kvm(), &table, &theirs);
    let source = ChunkSource::Server { patience_ms };
    let ready = cell
        .restore(&parts, source, fetch)
        .and_then(|()| cell.resume());
    (ready.map(|()| cell), served)
}

/// What an honest server does with `chunk`.
fn honest(image: &Image) -> impl FnMut(u32, &mut [u8]) -> std::io::Result<()> + Send + 'static {
    let file = image.chunks.try_clone().expect("dup");
    move |chunk, bytes| file.read_exact_at(bytes, u64::from(chunk) * CHUNK as u64)
}

/// How a machine ended whose server is not what it should be, wherever it was at that moment.
#[expect(clippy::panic, reason = "a failed claim")]
fn reason(ready: Result<Cell, CellError>) -> String {
    let cause = match ready {
        Ok(cell) => cell.wait().expect("reaped"),
        Err(CellError::Ended(cause)) => cause,
        Err(other) => panic!("{other:?}"),
    };
    match cause.ending {
        Some(Ending::Unreadable { chunk, reason }) => {
            println!("chunk {chunk}: {reason}");
            reason
        }
        other => panic!("it ended otherwise: {other:?}"),
    }
}

#[test]
fn a_machine_of_a_page_server_has_all_of_its_memory_and_can_be_forked() {
    let Some(host) = host() else { return };
    let (image, sum) = saved(&host);
    for fetch in [Fetch::OnlyTouched, Fetch::Ahead, Fetch::AtOnce] {
        let read_chunk = honest(&image);
        let (cell, served) = restored_from((&host, &image), (PATIENT, fetch), |socket| {
            pages::serve(socket, read_chunk)
        });
        let mut cell = cell.expect("restored");
        assert_eq!(read(&mut cell), 5);
        let mut daughter = daughter_of(&mut cell);
        for cell in [&mut cell, &mut daughter] {
            assert_eq!((read(cell), checksum(cell)), (5, sum), "{fetch:?}");
        }
        // RAM is whole: nobody in the line holds the socket any more.
        served
            .join()
            .expect("the server ends")
            .expect("it was left between two asks");
    }
}

#[test]
fn a_server_that_goes_away_ends_the_machine_by_name() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    for chunks in [0, 40] {
        let mut read_chunk = honest(&image);
        let (cell, served) = restored_from(
            (&host, &image),
            (PATIENT, Fetch::Ahead),
            move |mut socket| {
                let mut reply = vec![0; pages::HEADER + CHUNK];
                for _ in 0..chunks {
                    socket.read_exact(&mut reply[..4]).expect("an ask");
                    let chunk = u32::from_le_bytes(reply[..4].try_into().expect("four"));
                    read_chunk(chunk, &mut reply[pages::HEADER..]).expect("read");
                    socket.write_all(&reply).expect("sent");
                }
                // In the middle of a reply.
                socket.read_exact(&mut reply[..4]).expect("an ask");
                socket.write_all(&reply[..1000]).expect("sent");
            },
        );
        assert!(reason(cell).contains("has gone"));
        served.join().expect("the server ended first");
    }
}

#[test]
fn a_server_that_takes_too_long_for_a_whole_chunk_ends_the_machine_by_name() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    for sends in [0, pages::HEADER + 100] {
        let (cell, served) =
            restored_from((&host, &image), (200, Fetch::Ahead), move |mut socket| {
                let mut reply = vec![0; sends.max(4)];
                socket.read_exact(&mut reply[..4]).expect("an ask");
                socket.write_all(&reply[..sends]).expect("sent");
                // Until the cell has gone.
                let mut rest = Vec::new();
                socket.read_to_end(&mut rest).ok();
            });
        assert!(reason(cell).contains("no whole chunk for 200ms"));
        served.join().expect("the server ends with the cell");
    }
}

#[test]
fn a_server_that_lies_or_refuses_ends_the_machine_by_name() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    type Lie = fn(&mut Vec<u8>);
    let lies: [(Lie, &str); 4] = [
        (|reply| reply[pages::HEADER + 5] ^= 1, "BLAKE3"),
        (|reply| reply[..4].fill(0xff), "nobody had asked for"),
        (
            |reply| {
                reply[4] = 1;
                reply.truncate(pages::HEADER);
            },
            "status 1",
        ),
        (|reply| reply[4..8].fill(0xff), "status 4294967295"),
    ];
    for (lie, words) in lies {
        let mut read_chunk = honest(&image);
        let (cell, served) = restored_from(
            (&host, &image),
            (PATIENT, Fetch::Ahead),
            move |mut socket| {
                let mut reply = vec![0; pages::HEADER + CHUNK];
                socket.read_exact(&mut reply[..4]).expect("an ask");
                let chunk = u32::from_le_bytes(reply[..4].try_into().expect("four"));
                read_chunk(chunk, &mut reply[pages::HEADER..]).expect("read");
                lie(&mut reply);
                // The cell may have gone before it has taken all of it.
                socket.write_all(&reply).ok();
                let mut rest = Vec::new();
                socket.read_to_end(&mut rest).ok();
            },
        );
        let reason = reason(cell);
        assert!(reason.contains(words), "{words}: {reason}");
        served.join().expect("the server ends with the cell");
    }
}

#[test]
fn a_server_that_cannot_read_a_chunk_says_so() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let (cell, served) = restored_from((&host, &image), (PATIENT, Fetch::Ahead), |socket| {
        pages::serve(socket, |_, _| Err(std::io::ErrorKind::NotFound.into()))
    });
    assert!(reason(cell).contains("status 1"));
    // Whether the end came between two asks or within one does not matter.
    served.join().expect("the server ends").ok();
}

#[test]
fn the_working_set_is_asked_for_first_and_in_its_order() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let mut read_chunk = honest(&image);
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        let served = pages::serve(ours, |chunk, bytes| {
            asked.push(chunk);
            read_chunk(chunk, bytes)
        });
        served.map(|()| asked)
    });
    let early = [300, 150, 383, 128];
    let table = sealed(&image.table(&early));
    let parts = image.parts(host.kvm(), &table, &theirs);
    let source = ChunkSource::Server {
        patience_ms: PATIENT,
    };
    let mut cell = host.spawn();
    cell.restore(&parts, source, Fetch::Ahead)
        .expect("restored");
    drop(theirs);
    cell.fill(Duration::from_secs(300)).expect("filled");
    let asked = server.join().expect("the server ends").expect("served");
    // Below are the rings that devices look at as they are restored.
    let of_pattern: Vec<_> = asked.iter().filter(|chunk| **chunk >= 128).collect();
    assert!(of_pattern.iter().copied().take(4).eq(&early), "{asked:?}");
    let mut sorted = asked.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, image.held(), "each chunk once");
}
