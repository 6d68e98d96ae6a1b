//! The stream against what it was made of, and against whoever writes nonsense.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn page(byte: u8) -> Vec<u8> {
    vec![byte; PAGE]
}

/// What a reader makes of the stream: offset and bytes of each piece.
fn pieces(stream: &[u8], ram_bytes: u64) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let mut reader = Reader::new(stream, ram_bytes)?;
    let mut found = Vec::new();
    while let Some(piece) = reader.next_piece()? {
        found.push((piece.offset, piece.bytes.to_vec()));
    }
    assert!(reader.next_piece().expect("still at its end").is_none());
    Ok(found)
}

fn raw(pieces: &[(u64, u32, usize)]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (offset, length, sent) in pieces {
        stream.extend(header(*offset, *length));
        stream.extend(std::iter::repeat_n(1, *sent));
    }
    stream
}

#[test]
fn zero_pages_end_a_piece_and_are_not_sent() {
    let mut writer = Writer::new(Vec::new(), 8 * PAGE as u64);
    let ram = [page(0), page(1), page(2), page(0), page(0), page(3)].concat();
    writer.write(0, &ram).expect("written");
    let stream = writer.finish().expect("ended");
    let found = pieces(&stream, 8 * PAGE as u64).expect("a stream");
    let expected = [(4096, [page(1), page(2)].concat()), (5 * 4096, page(3))];
    assert_eq!(found, expected);
    assert_eq!(
        stream.len(),
        3 * HEADER + 3 * PAGE,
        "two pieces and the end"
    );
}

#[test]
fn a_long_run_is_cut_into_pieces_of_a_mebibyte() {
    let ram = vec![7; 2 * PIECE_MAX + PAGE];
    let mut writer = Writer::new(Vec::new(), 4 * MIB);
    writer.write(MIB, &ram).expect("written");
    let stream = writer.finish().expect("ended");
    let lengths: Vec<_> = pieces(&stream, 4 * MIB).expect("a stream");
    let lengths: Vec<_> = lengths
        .iter()
        .map(|(at, bytes)| (*at, bytes.len()))
        .collect();
    assert_eq!(
        lengths,
        [(MIB, PIECE_MAX), (2 * MIB, PIECE_MAX), (3 * MIB, PAGE)]
    );
}

#[test]
fn a_writer_refuses_ranges_that_are_no_pages_not_in_ram_or_passed() {
    let mut writer = Writer::new(Vec::new(), MIB);
    writer.write(4096, &page(1)).expect("written");
    for (offset, length) in [
        (4096, PAGE),
        (0, PAGE),
        (8192, 1),
        (8193, PAGE),
        (MIB - 4096, 2 * PAGE),
        (MIB, PAGE),
        (u64::MAX - 4095, 2 * PAGE),
    ] {
        let refused = writer
            .write(offset, &vec![1; length])
            .expect_err("no range");
        assert!(matches!(refused, WriteError::Range { .. }), "{refused:?}");
    }
    let stream = writer.finish().expect("nothing of it was sent");
    assert_eq!(pieces(&stream, MIB).expect("a stream"), [(4096, page(1))]);
}

/// One that takes a few bytes at a time.
struct Narrow(Vec<u8>);

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(5);
        self.0.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_pipe_that_takes_little_at_once_gets_all_of_it() {
    let mut writer = Writer::new(Narrow(Vec::new()), MIB);
    writer.write(0, &page(9)).expect("written");
    let stream = writer.finish().expect("ended").0;
    assert_eq!(pieces(&stream, MIB).expect("a stream"), [(0, page(9))]);
}

#[test]
fn each_rule_that_is_broken_is_named() {
    let said = |stream: &[(u64, u32, usize)]| {
        let refused = pieces(&raw(stream), MIB).expect_err("no stream");
        refused.to_string()
    };
    let (p, max) = (4096, PIECE_MAX as u32);
    for (stream, words) in [
        (vec![(1, p, 4096)], "is not whole pages"),
        (vec![(0, 100, 100)], "is not whole pages"),
        (vec![(0, max + p, 0)], "more than 1048576"),
        (vec![(0, u32::MAX - 4095, 0)], "more than 1048576"),
        (
            vec![(0, 2 * p, 8192), (4096, p, 4096)],
            "begins before 8192",
        ),
        (vec![(4096, p, 4096), (4096, p, 4096)], "begins before 8192"),
        (vec![(MIB, p, 4096)], "reaches beyond 1048576 bytes"),
        (
            vec![(u64::MAX - 4095, p, 4096)],
            "reaches beyond 1048576 bytes",
        ),
        (
            vec![(0, 0, 0)],
            "ends at 0 bytes of RAM, and there are 1048576",
        ),
        (vec![(2 * MIB, 0, 0)], "ends at 2097152 bytes of RAM"),
        (vec![(0, p, 4095)], "broke off behind byte 0"),
        (vec![(0, p, 4096)], "broke off behind byte 4096"),
        (vec![], "broke off behind byte 0"),
    ] {
        let said = said(&stream);
        assert!(said.contains(words), "{stream:?}: {said}");
    }
}

#[test]
fn a_size_that_is_no_ram_is_refused_before_anything_is_read() {
    for size in [1, 4097, RAM_MAX + 4096, u64::MAX] {
        let refused = Reader::new(io::empty(), size).expect_err("no RAM");
        assert!(matches!(refused, ReadError::Ram(_)), "{refused:?}");
    }
}

proptest! {
    /// Whatever pages a machine has, they come out as they are, and zeros do not come at all.
    #[test]
    fn ram_comes_out_as_it_went_in(
        pages in prop::collection::btree_map(0_u64..600, 0_u8..4, 0..80),
    ) {
        let ram_bytes = 600 * PAGE as u64;
        let mut writer = Writer::new(Vec::new(), ram_bytes);
        for (number, byte) in &pages {
            writer.write(number * PAGE as u64, &page(*byte)).expect("written");
        }
        let stream = writer.finish().expect("ended");
        let mut found = BTreeMap::new();
        for (offset, bytes) in pieces(&stream, ram_bytes).expect("a stream") {
            for (at, page) in bytes.chunks(PAGE).enumerate() {
                found.insert(offset / PAGE as u64 + at as u64, page[0]);
            }
        }
        let expected: BTreeMap<_, _> = pages.into_iter().filter(|(_, byte)| *byte != 0).collect();
        prop_assert_eq!(found, expected);
    }

    /// Bytes of anyone: pieces stay in RAM and in order, and it comes to an end.
    #[test]
    fn nonsense_is_refused_or_stays_in_ram(
        headers in prop::collection::vec(
            (prop_oneof![any::<u64>(), (0_u64..300).prop_map(|page| page * 4096)],
             prop_oneof![any::<u32>(), (0_u32..300).prop_map(|page| page * 4096)]),
            0..6,
        ),
        cut in 0_usize..200_000,
    ) {
        let sent: Vec<_> = headers.iter().map(|(at, length)| (*at, *length, *length as usize % 65536)).collect();
        let mut stream = raw(&sent);
        stream.truncate(cut);
        let mut reader = Reader::new(&stream[..], MIB).expect("RAM");
        let mut after = 0;
        while let Ok(Some(piece)) = reader.next_piece() {
            let end = piece.offset + piece.bytes.len() as u64;
            prop_assert!(piece.offset >= after && end <= MIB && piece.bytes.len() <= PIECE_MAX);
            prop_assert!(piece.offset % 4096 == 0 && piece.bytes.len() % 4096 == 0 && !piece.bytes.is_empty());
            after = end;
        }
    }
}
