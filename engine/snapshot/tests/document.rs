//! `engine/docs/snapshot-format.md` against the code: its numbers and the bytes of its examples.

use std::collections::BTreeMap;

use brood_snapshot::host::{Cpu, Host, KvmFacts, Leaf};
use brood_snapshot::manifest::{self, FileRecord, Manifest, Meta, Record};
use brood_snapshot::pack::PackId;
use brood_snapshot::table::{Builder, Entry, Table};
use brood_snapshot::{CHUNK, ChunkName, PAGE, RAM_MAX, pack, stream, table};
use brood_units::{SnapshotId, Timestamp};

const DOCUMENT: &str = include_str!("../../docs/snapshot-format.md");

/// The bytes of the block that is fenced as `hex NAME`: `..N` repeats the byte before it to N bytes, `..` fills a page.
fn example(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}\n");
    let (_, behind) = DOCUMENT.split_once(&fence).expect(name);
    let (block, _) = behind.split_once("```").expect("an end");
    let mut bytes = Vec::new();
    for word in block.split_whitespace() {
        match word.strip_prefix("..") {
            Some("") => bytes.extend([0; PAGE - 1]),
            Some(count) => {
                let count: usize = count.parse().expect("a count");
                let byte = *bytes.last().expect("a byte before");
                bytes.extend(std::iter::repeat_n(byte, count - 1));
            }
            None => bytes.push(u8::from_str_radix(word, 16).expect("a byte")),
        }
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let line: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        line.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn numbers_of_the_document_are_those_of_the_code() {
    let numbers: BTreeMap<&str, u64> = [
        ("CHUNK", CHUNK as u64),
        ("PAGE", PAGE as u64),
        ("RAM_MAX", RAM_MAX),
        ("stream::HEADER", stream::HEADER as u64),
        ("stream::PIECE_MAX", stream::PIECE_MAX as u64),
        ("table::HEADER", table::HEADER as u64),
        ("table::ENTRY", table::ENTRY as u64),
        ("pack::HEADER", pack::HEADER as u64),
        ("pack::NAME", pack::NAME as u64),
        ("pack::SALT", pack::SALT as u64),
        ("pack::TRAILER", pack::TRAILER as u64),
        ("manifest::HEADER", manifest::HEADER as u64),
        ("manifest::CHECKSUM", manifest::CHECKSUM as u64),
        ("manifest::RECORD_MAX", manifest::RECORD_MAX as u64),
        ("manifest::STATE_MAX", manifest::STATE_MAX),
    ]
    .into();
    let (_, section) = DOCUMENT.split_once("## Numbers").expect("numbers");
    let (section, _) = section.split_once("\n## ").expect("an end");
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`');
        Some((name, cells.next()?.trim().parse().expect(name)))
    });
    let said: BTreeMap<&str, u64> = rows.collect();
    assert_eq!(said, numbers);
}

#[test]
fn the_stream_of_the_document_is_what_is_written() {
    let mut ram = vec![0; 2 * PAGE];
    ram[PAGE] = 1;
    let mut writer = stream::Writer::new(Vec::new(), ram.len() as u64);
    writer.write(0, &ram).expect("written");
    let written = writer.finish().expect("ended");
    assert!(written == example("stream"));
    let mut reader = stream::Reader::new(&written[..], 2 * PAGE as u64).expect("RAM");
    let piece = reader.next_piece().expect("a piece").expect("one");
    assert_eq!((piece.offset, piece.bytes), (4096, &ram[PAGE..]));
}

fn the_table() -> Vec<u8> {
    let mut builder = Builder::new(2 * CHUNK as u64, 1).expect("RAM");
    let entry = Entry::Stored {
        file: 0,
        offset: pack::offset_of(0),
        name: ChunkName::from_bytes([7; 32]),
        working_set: false,
    };
    builder.set(1, entry).expect("set");
    builder.working_set(1).expect("set");
    builder.finish()
}

#[test]
fn the_table_of_the_document_is_what_is_written() {
    let written = the_table();
    assert_eq!(hex(&example("table")), hex(&written));
    Table::parse(written).expect("a table");
}

fn the_manifest() -> Manifest {
    let leaf = Leaf {
        function: 7,
        ebx: 0x20,
        ..Leaf::default()
    };
    let cpu = Cpu {
        vendor: "GenuineIntel".into(),
        family: 6,
        model: 143,
        stepping: 8,
        leaves: vec![leaf],
    };
    let kvm = KvmFacts {
        backend: "vmx".into(),
        kernel: "6.12.0".into(),
        tsc_khz: 2_000_000,
        tsc_scaling: true,
        xsave_bytes: 4096,
        msrs: vec![16],
        capabilities: vec!["KVM_CAP_ADJUST_CLOCK".into()],
    };
    let meta = Meta {
        engine: "0.1.0".into(),
        taken: Timestamp::from_millis(1_790_000_000_000),
        vcpus: 2,
        state_version: 1,
        host: Host { cpu, kvm },
        parent: Some(SnapshotId::from_bytes([3; 16])),
        labels: [("lineage".into(), "a".into())].into(),
    };
    let file = |label: &str, bytes| FileRecord {
        label: label.into(),
        bytes,
        digest: [9; 32],
    };
    Manifest {
        id: SnapshotId::from_bytes([2; 16]),
        record: Record {
            meta,
            state: file("state", 300),
            disks: vec![file("layer", 4096)],
        },
        packs: vec![PackId::from_bytes([5; 32])],
        table: Table::parse(the_table()).expect("a table"),
    }
}

#[test]
fn the_manifest_of_the_document_is_what_is_written_and_read() {
    let manifest = the_manifest();
    let written = manifest.to_bytes().expect("bytes");
    assert_eq!(
        hex(&example("manifest")),
        hex(&written),
        "\n{}\n",
        hex(&written)
    );
    let read = Manifest::parse(&example("manifest")).expect("a manifest");
    assert_eq!(read.record, manifest.record);
    assert_eq!(read.packs, manifest.packs);
}
