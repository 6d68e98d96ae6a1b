//! Usage on the disk: chained, small, and whole when something goes wrong.

use std::collections::BTreeMap;
use std::path::Path;

use brood_meter::{Break, Cause, Chain, Last, Motion, Reading, Record, Subject};
use brood_store::{Correction, Store, StoreError, StoreOptions, UsageRow};
use brood_units::{Instant, MachineId, Timestamp};

const BORN_MS: i64 = 1_795_745_045_678;
const BORN_NS: u64 = 8_000_000_000_000_000;

fn open(directory: &Path, most_pages: Option<u32>) -> Store {
    Store::open(directory, &StoreOptions { most_pages }).expect("opens")
}

fn subject(machine: u8) -> Subject {
    Subject {
        machine: MachineId::from_bytes([machine; 16]),
        is_checkpoint: false,
        tenant: "acme".to_owned(),
        project: "default".to_owned(),
        lineage: MachineId::from_bytes([machine; 16]),
        template: MachineId::from_bytes([0xff; 16]),
        vcpu_milli: 1000,
        memory_mib: 256,
        disk_mib: 0,
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        born: Timestamp::from_millis(BORN_MS),
    }
}

fn begin(store: &Store, machine: u8) {
    let last = Last::at_birth(
        Timestamp::from_millis(BORN_MS),
        Instant::from_nanos(BORN_NS),
        Motion::Running,
    );
    let written = store.write(move |write| write.open_meter(&subject(machine), &last));
    written.wait().expect("written");
}

/// Of an idle machine: a housekeeping millisecond a minute.
fn reading(seconds: u64) -> Reading {
    Reading {
        at: Timestamp::from_millis(BORN_MS + seconds.cast_signed() * 1000),
        instant: Some(Instant::from_nanos(BORN_NS + seconds * 1_000_000_123)),
        cpu_ns: Some(12_345_678 + seconds * 17_001),
        private_kib: Some(176 + seconds % 7),
    }
}

fn count(
    store: &Store,
    machine: u8,
    seconds: u64,
    cause: Cause,
) -> Result<Option<i64>, StoreError> {
    let id = MachineId::from_bytes([machine; 16]);
    store
        .write(move |write| write.count(id, &reading(seconds), cause))
        .wait()
}

fn all(store: &Store) -> Vec<UsageRow> {
    store.read(|read| read.usage(0, u32::MAX)).expect("read")
}

fn breaks(store: &Store) -> Vec<Break> {
    let mut chain = store.read(|read| read.anchor()).expect("read");
    let rows = all(store);
    let look = |row: &UsageRow| {
        chain
            .take(row.seq, &row.subject, &row.record, row.hash)
            .err()
    };
    rows.iter().filter_map(look).collect()
}

#[test]
fn an_idle_machine_costs_less_than_200_kib_a_day() {
    let directory = tempfile::tempdir().expect("a directory");
    let size = || {
        // Everything is in the file once nobody has it open.
        let file = directory.path().join("store.db");
        std::fs::metadata(file).expect("it is there").len()
    };
    let store = open(directory.path(), None);
    begin(&store, 1);
    drop(store);
    let before = size();
    let store = open(directory.path(), None);
    for minute in 1..=1440 {
        let id = MachineId::from_bytes([1; 16]);
        let counted = store
            .write_for_process(move |write| write.count(id, &reading(minute * 60), Cause::Tick));
        assert_eq!(counted.wait().expect("counted"), Some(minute.cast_signed()));
    }
    drop(store);
    let kib = (size() - before) / 1024;
    println!("1440 windows: {kib} KiB");
    assert!(kib < 200, "{kib} KiB");
    let store = open(directory.path(), None);
    assert_eq!(all(&store).len(), 1440);
}

#[test]
fn whatever_is_changed_removed_or_swapped_is_found_where_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let tampered = |sql: &str| {
        let store = open(directory.path(), None);
        begin(&store, 1);
        begin(&store, 2);
        for step in 1..=6 {
            count(&store, 1 + u8::from(step % 2 == 0), step * 60, Cause::Tick).expect("counted");
        }
        assert_eq!(breaks(&store), []);
        drop(store);
        let database =
            rusqlite::Connection::open(directory.path().join("store.db")).expect("opens");
        database.execute_batch(sql).expect("done");
        database.close().expect("closes");
        let found = breaks(&open(directory.path(), None));
        std::fs::remove_file(directory.path().join("store.db")).expect("removed");
        found
    };
    let places = |found: &[Break]| -> Vec<i64> {
        let place = |one: &Break| match one {
            Break::Missing { from, .. } => *from,
            Break::Changed { seq, .. } => *seq,
        };
        found.iter().map(place).collect()
    };
    assert_eq!(
        places(&tampered(
            "UPDATE usage SET cpu_ns = cpu_ns - 1 WHERE seq = 3"
        )),
        [3]
    );
    assert_eq!(
        places(&tampered(
            "UPDATE usage SET hash = zeroblob(32) WHERE seq = 3"
        )),
        [3, 4]
    );
    assert_eq!(
        places(&tampered("DELETE FROM usage WHERE seq IN (3, 4)")),
        [3]
    );
    // Whose it is belongs to a record as what it says does: all of hers break.
    let moved = "UPDATE meters SET tenant = 'other' WHERE meter = 2";
    assert_eq!(places(&tampered(moved)), [2, 4, 6]);
    let swapped = "UPDATE usage SET seq = -1 WHERE seq = 2; UPDATE usage SET seq = 2 WHERE seq = 4; UPDATE usage SET seq = 4 WHERE seq = -1";
    assert_eq!(places(&tampered(swapped)), [2, 3, 4, 5]);
}

#[test]
fn records_that_are_no_longer_kept_leave_an_anchor_that_the_others_hang_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), None);
    begin(&store, 1);
    for step in 1..=5 {
        count(&store, 1, step * 60, Cause::Tick).expect("counted");
    }
    let third = all(&store)[2].hash;
    let now = Timestamp::from_millis(BORN_MS);
    let gone = store.write(move |write| write.trim_usage(3, now)).wait();
    assert_eq!(gone.expect("trimmed"), 3);
    let anchor = store.read(|read| read.anchor()).expect("read");
    assert_eq!(
        anchor,
        Chain {
            seq: 3,
            hash: third
        }
    );
    assert_eq!(breaks(&store), []);
    // The chain and the machine's own windows go on.
    let gone = store.write(move |write| write.trim_usage(5, now)).wait();
    assert_eq!(gone.expect("trimmed"), 2);
    assert_eq!(count(&store, 1, 600, Cause::End).expect("counted"), Some(6));
    let rows = all(&store);
    assert_eq!(rows[0].record.span_us, 300_000_037);
    assert_eq!(breaks(&store), []);
}

#[test]
fn a_full_disk_loses_no_usage_and_counts_none_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    begin(&open(directory.path(), None), 1);
    let pages = {
        let store = open(directory.path(), None);
        drop(store);
        let length = std::fs::metadata(directory.path().join("store.db"))
            .expect("there")
            .len();
        u32::try_from(length / 4096).expect("small") + 2
    };
    let store = open(directory.path(), Some(pages));
    let mut seconds = 0;
    let refused = loop {
        seconds += 60;
        if let Err(error) = count(&store, 1, seconds, Cause::Tick) {
            break error;
        }
    };
    assert!(matches!(refused, StoreError::Full), "{refused}");
    drop(store);
    let store = open(directory.path(), None);
    count(&store, 1, seconds + 60, Cause::End).expect("there is room again");
    let rows = all(&store);
    let spans: u64 = rows.iter().map(|row| row.record.span_us).sum();
    let last = rows.last().expect("some").record;
    assert_eq!(spans, last.age_us);
    // Ages are cut to microseconds, lengths are their differences.
    assert!(
        (120_000_014..=120_000_015).contains(&last.span_us),
        "the window that had no room is in the next: {last:?}"
    );
    assert_eq!(breaks(&store), []);
}

#[test]
fn after_her_end_nothing_is_counted_of_a_machine_whoever_comes_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), None);
    begin(&store, 1);
    assert_eq!(count(&store, 1, 60, Cause::End).expect("counted"), Some(1));
    assert_eq!(count(&store, 1, 61, Cause::Tick).expect("looked"), None);
    assert_eq!(count(&store, 1, 62, Cause::End).expect("looked"), None);
    assert_eq!(count(&store, 9, 62, Cause::Tick).expect("nobody"), None);
    assert_eq!(all(&store).len(), 1);
}

#[test]
fn whatever_a_record_says_comes_back_and_is_what_the_chain_has_hashed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), None);
    begin(&store, 1);
    let id = MachineId::from_bytes([1; 16]);
    let mut known = vec![(true, true), (true, false), (false, true), (false, false)];
    known.extend([(true, true), (true, false)]);
    let causes = [
        Cause::Tick,
        Cause::Fork,
        Cause::Pause,
        Cause::Tick,
        Cause::Resume,
        Cause::End,
    ];
    for ((cause, (cpu, memory)), minute) in causes.into_iter().zip(&known).zip(1..) {
        let whole = reading(minute * 60);
        let reading = Reading {
            cpu_ns: whole.cpu_ns.filter(|_| *cpu),
            private_kib: whole.private_kib.filter(|_| *memory),
            ..whole
        };
        let counted = store.write(move |write| write.count(id, &reading, cause));
        counted.wait().expect("counted").expect("it is later");
    }
    let rows = all(&store);
    let said: Vec<_> = rows
        .iter()
        .map(|row| (row.record.cause, row.record.motion))
        .collect();
    let running = [Cause::Tick, Cause::Fork, Cause::Pause].map(|cause| (cause, Motion::Running));
    let paused = [Cause::Tick, Cause::Resume].map(|cause| (cause, Motion::Paused));
    let last = [(Cause::End, Motion::Running)];
    assert_eq!(said, [running.as_slice(), &paused, &last].concat());
    let doubts: Vec<_> = rows
        .iter()
        .map(|row| (!row.record.doubt.cpu, !row.record.doubt.memory))
        .collect();
    assert_eq!(doubts, known);
    assert_eq!(breaks(&store), []);
}

#[test]
fn a_correction_is_the_record_with_what_is_put_right_and_no_correction_is_corrected() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), None);
    begin(&store, 1);
    for minute in 1..=2 {
        count(&store, 1, minute * 60, Cause::Tick).expect("counted");
    }
    let correct = |seq, correction| {
        let corrected = store.write(move |write| write.correct(seq, correction));
        corrected.wait()
    };
    let longer = Correction {
        span_us: Some(90_000_000),
        ..Correction::default()
    };
    assert_eq!(correct(1, longer).expect("corrected"), 3);
    let others = Correction {
        span_us: None,
        cpu_ns: Some(5),
        private_kib: Some(u64::MAX),
    };
    assert_eq!(correct(1, others).expect("corrected"), 4);
    assert_eq!(correct(2, longer).expect("corrected"), 5);
    let rows = all(&store);
    let [first, second, third, fourth, fifth] = [0, 1, 2, 3, 4].map(|at: usize| rows[at].record);
    assert_eq!(
        third,
        Record {
            cause: Cause::Correction,
            span_us: 90_000_000,
            age_us: 90_000_000,
            corrects: Some(1),
            ..first
        },
        "her first window, as before"
    );
    // What is put right twice is put right as it stands; a number is held to what is kept.
    assert_eq!(
        fourth,
        Record {
            cpu_ns: 5,
            private_kib: i64::MAX.cast_unsigned(),
            ..third
        }
    );
    let begun = second.age_us - second.span_us;
    assert_eq!(
        (fifth.age_us, fifth.is_first()),
        (begun + 90_000_000, false)
    );
    let words = |seq| {
        let refused = correct(seq, longer).expect_err("it cannot be");
        refused.to_string()
    };
    assert!(words(3).contains("correct record 1"), "{}", words(3));
    assert!(words(99).contains("no usage record 99"), "{}", words(99));
    assert_eq!(breaks(&store), []);
}
