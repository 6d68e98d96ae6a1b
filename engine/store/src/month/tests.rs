//! Months beside the records and lines that they are the sums of.

use std::collections::HashMap;
use std::path::Path;

use brood_meter::{Cause, Dimension, Last, Motion, Origin, PricedLine, Reading, Settlement};
use brood_units::{Instant, MachineId, Timestamp};
use rusqlite::StatementStatus;

use super::*;
use crate::schema::{STEPS, migrate};
use crate::{Correction, NewBatch, Settled, Store, StoreOptions};

const MINUTE: u64 = 60_000;

fn november() -> Period {
    "2026-11".parse().expect("a month")
}

fn open(directory: &Path) -> Store {
    Store::open(directory, &StoreOptions::default()).expect("opens")
}

fn machine(number: u8) -> MachineId {
    MachineId::from_bytes([number; 16])
}

fn born(write: &mut Write<'_>, number: u8, tenant: &str, at_ms: i64) -> Result<(), StoreError> {
    let subject = Subject {
        machine: machine(number),
        is_checkpoint: false,
        tenant: tenant.to_owned(),
        project: "p".to_owned(),
        lineage: machine(number),
        template: machine(0xff),
        vcpu_milli: 1500,
        memory_mib: 300,
        disk_mib: 7,
        labels: BTreeMap::new(),
        born: Timestamp::from_millis(at_ms),
    };
    let last = Last::at_birth(subject.born, instant(0), Motion::Running);
    write.open_meter(&subject, &last)
}

fn instant(age_ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + age_ms * 1_000_000)
}

/// The window of a machine that was born then up to an age.
fn counted(
    write: &mut Write<'_>,
    number: u8,
    born_ms: i64,
    age_ms: u64,
) -> Result<Option<i64>, StoreError> {
    let reading = Reading {
        at: Timestamp::from_millis(born_ms + age_ms.cast_signed()),
        instant: Some(instant(age_ms)),
        cpu_ns: Some(age_ms * 977),
        private_kib: Some(1000 + age_ms % 77),
    };
    write.count(machine(number), &reading, Cause::Tick)
}

type Sums = BTreeMap<(String, Period, MachineId), Quantities>;

/// What all records come to, one by one, each as it is corrected.
fn of_records(read: &Read<'_>) -> Sums {
    let rows = read.usage(0, u32::MAX).expect("records");
    let corrections: HashMap<_, _> = rows
        .iter()
        .filter_map(|row| Some((row.record.corrects?, row.record)))
        .collect();
    let mut sums = Sums::new();
    for row in rows.iter().filter(|row| row.record.corrects.is_none()) {
        let stands = corrections.get(&row.seq).unwrap_or(&row.record);
        for (period, quantities) in by_period(&row.subject, &row.record, stands) {
            let key = (row.subject.tenant.clone(), period, row.subject.machine);
            let sum = sums.entry(key).or_default();
            *sum = sum.plus(quantities);
        }
    }
    sums
}

/// What is kept of some months.
fn kept(read: &Read<'_>, periods: &[Period]) -> Sums {
    let mut sums = Sums::new();
    for period in periods {
        let each = |row: MonthRow| {
            let key = (row.subject.tenant, *period, row.subject.machine);
            assert_eq!(sums.insert(key, row.quantities), None, "one row");
        };
        read.each_month(None, *period, each).expect("months");
    }
    sums
}

fn around() -> [Period; 3] {
    [november(), november().next(), november().next().next()]
}

#[test]
fn a_month_is_the_sum_of_its_records_over_its_ends_and_through_corrections() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    // Two machines of one tenant and one of another, with windows over the end of November and one over all of December.
    let begin = november().end_ms() - 10 * MINUTE.cast_signed();
    let write = move |write: &mut Write<'_>| -> Result<(), crate::CorrectError> {
        for (number, tenant) in [(1, "acme"), (2, "acme"), (3, "other")] {
            born(write, number, tenant, begin)?;
            for age in [3, 8, 14, 27, 60 * 24 * 40] {
                counted(write, number, begin, age * MINUTE + u64::from(number))?;
            }
        }
        // The window over the end, twice, and one that becomes nothing.
        let to = |span_us, cpu_ns, private_kib| Correction {
            span_us,
            cpu_ns,
            private_kib,
        };
        write.correct(3, to(Some(1_234_567_891), None, Some(9)))?;
        write.correct(3, to(Some(77_777_777), Some(5), None))?;
        write.correct(7, to(Some(0), Some(0), Some(0)))?;
        Ok(())
    };
    store.write(write).wait().expect("written");
    let look = |read: &Read<'_>| -> Result<(), StoreError> {
        let sums = of_records(read);
        assert_eq!(sums.len(), 9, "three machines in three months");
        assert_eq!(kept(read, &around()), sums);
        let mut tenants = Vec::new();
        read.each_month(Some("acme"), november(), |row| {
            tenants.push((row.subject.tenant, row.records));
        })?;
        // Three windows of each have a part in November, and a correction: the second one of the same window begins later.
        assert_eq!(tenants, [("acme".to_owned(), 4), ("acme".to_owned(), 4)]);
        Ok(())
    };
    store.read(look).expect("looked");
    // What goes stays in the sum.
    let before = store.read(|read| Ok::<_, StoreError>(of_records(read)));
    let trim = store.write(|write| write.trim_usage(18, Timestamp::from_millis(0)));
    assert_eq!(trim.wait().expect("trimmed"), 18);
    let after = store.read(|read| Ok::<_, StoreError>(kept(read, &around())));
    assert_eq!(after.expect("looked"), before.expect("looked"));
}

fn sku(name: &str) -> Sku {
    Sku {
        name: name.to_owned(),
        currency: "EUR".to_owned(),
        unit: "vcpu-ns".to_owned(),
        per: 1,
    }
}

fn line(meter: Option<i64>, name: &str, quantity: i64, amount_nanos: i64) -> PricedLine {
    let origin = meter.map(|meter| Origin {
        meter,
        dimension: Dimension::VcpuNs,
    });
    PricedLine {
        origin,
        sku: sku(name),
        quantity,
        unit_price_nanos: 1,
        amount_nanos,
    }
}

/// A batch without a record in it, with these lines, settled.
fn settled(
    write: &mut Write<'_>,
    tenant: &str,
    lines: Vec<PricedLine>,
) -> Result<bool, SettleFailure> {
    let new = NewBatch {
        tenant: tenant.to_owned(),
        period_ms: november().start_ms(),
        from_seq: 0,
        to_seq: 0,
        origin: None,
    };
    let at = Timestamp::from_millis(0);
    let sequence = write.add_batch(&new, at)?;
    let settled = Settled {
        sequence,
        settlement: Settlement {
            lines,
            ..Settlement::default()
        },
        reversed: Vec::new(),
        replaced: BTreeMap::new(),
        revision: "r".to_owned(),
        balances: BTreeMap::new(),
    };
    write.settle(&settled, at)
}

type Charged = Vec<(String, Option<MachineId>, String, i64, i64, i64)>;

fn charged(read: &Read<'_>, tenant: Option<&str>) -> Charged {
    let mut found = Vec::new();
    let each = |row: ChargeRow| {
        let machine = row.subject.map(|subject| subject.machine);
        let (quantity, amount, lines) = (row.quantity, row.amount_nanos, row.lines);
        found.push((row.tenant, machine, row.sku.name, quantity, amount, lines));
    };
    read.each_charge(tenant, november(), each).expect("charges");
    found
}

#[test]
fn a_charge_is_the_sum_of_the_lines_of_one_thing_of_one_machine_and_a_fee_is_nobodys() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let write = |write: &mut Write<'_>| -> Result<(), SettleFailure> {
        for (number, tenant) in [(1, "acme"), (2, "acme"), (3, "other")] {
            born(write, number, tenant, 0)?;
        }
        let first = vec![
            line(Some(1), "a", 5, 50),
            line(Some(1), "a", 7, 70),
            line(Some(1), "b", 1, 1),
            line(Some(2), "a", 2, -20),
            line(None, "fee", 1, 900),
        ];
        settled(write, "acme", first)?;
        let second = vec![line(Some(1), "a", -5, -50), line(None, "fee", 1, 900)];
        settled(write, "acme", second)?;
        settled(write, "other", vec![line(Some(3), "a", 3, 30)])?;
        Ok(())
    };
    store.write(write).wait().expect("settled");
    let of = |tenant: &str, number: Option<u8>, name: &str, quantity, amount, lines| {
        let (tenant, name) = (tenant.to_owned(), name.to_owned());
        (tenant, number.map(machine), name, quantity, amount, lines)
    };
    let acme = vec![
        of("acme", None, "fee", 2, 1800, 2),
        of("acme", Some(1), "a", 7, 70, 3),
        of("acme", Some(1), "b", 1, 1, 1),
        of("acme", Some(2), "a", 2, -20, 1),
    ];
    let all = [acme.clone(), vec![of("other", Some(3), "a", 3, 30, 1)]].concat();
    let found = |tenant| store.read(|read| Ok::<_, StoreError>(charged(read, tenant)));
    assert_eq!(found(Some("acme")).expect("looked"), acme);
    assert_eq!(found(None).expect("looked"), all);
    // A sum that cannot be kept keeps nothing of its batch.
    for (quantity, amount) in [(1, i64::MAX), (i64::MAX, 1)] {
        let more = vec![
            line(Some(1), "b", 1, 1),
            line(Some(1), "b", quantity, amount),
        ];
        let refused = store
            .write(move |write| settled(write, "acme", more))
            .wait();
        let words = refused.expect_err("too much").to_string();
        assert!(words.contains("exceeds 64 bits"), "{words}");
    }
    assert_eq!(found(None).expect("looked"), all);
}

/// Steps of SQLite's machine that a statement has taken (sqlite.org, `SQLITE_STMTSTATUS_VM_STEP`): some for each row.
fn steps(connection: &Connection, sql: &str) -> i32 {
    let statement = connection.prepare_cached(sql).expect("it is known");
    statement.get_status(StatementStatus::VmStep)
}

#[test]
fn a_month_of_a_hundred_thousand_records_and_lines_is_looked_at_in_a_few_rows() {
    const ROUNDS: u64 = 200;
    const EACH: u64 = 250;
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let begin = november().start_ms();
    let birth = store.write(move |write| {
        born(write, 1, "acme", begin)?;
        born(write, 2, "other", begin)
    });
    birth.wait().expect("born");
    for round in 0..ROUNDS {
        let job = move |write: &mut Write<'_>| -> Result<(), SettleFailure> {
            for (number, tenant) in [(1, "acme"), (2, "other")] {
                for step in 1..=EACH {
                    counted(write, number, begin, (round * EACH + step) * 50)?;
                }
                let new = |_| line(Some(number.into()), "a", 1, 1);
                settled(write, tenant, (0..EACH).map(new).collect())?;
            }
            Ok(())
        };
        store.write_for_process(job).wait().expect("written");
    }
    let connection = Connection::open(directory.path().join("store.db")).expect("opens");
    let read = Read {
        connection: &connection,
    };
    assert_eq!(read.chain_end().expect("read").seq, 100_000);
    for tenant in [Some("acme"), None] {
        let tenants = tenant.map_or(2, |_| 1);
        let mut records = Vec::new();
        read.each_month(tenant, november(), |row| records.push(row.records))
            .expect("months");
        assert_eq!(records, vec![50_000; tenants]);
        let lines: Vec<_> = charged(&read, tenant).iter().map(|one| one.5).collect();
        assert_eq!(lines, vec![50_000; tenants]);
        assert!(read.open_in(tenant, november()).expect("read").is_empty());
        for (sql, table) in [(MONTHS, "months"), (CHARGES, "charges")] {
            let steps = steps(&connection, &of(sql, table, tenant));
            assert!((1..500).contains(&steps), "{steps}: {sql}");
        }
        let steps = steps(&connection, &format!("{OPEN}{AND}"));
        assert!((1..500).contains(&steps), "{steps}: {OPEN}");
    }
}

#[test]
fn a_database_of_before_gets_the_sums_of_what_is_in_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    let (mut old, mut new) = (
        Connection::open(&path).expect("opens"),
        Connection::open_in_memory().expect("opens"),
    );
    migrate(&mut old, STEPS.get(..5).expect("five steps")).expect("version 5");
    migrate(&mut new, STEPS).expect("the newest");
    let begin = november().end_ms() - 10 * MINUTE.cast_signed();
    new.execute_batch("BEGIN").expect("begins");
    let mut no_event = 0;
    let mut write = Write {
        read: Read { connection: &new },
        last_event: &mut no_event,
    };
    born(&mut write, 1, "acme", begin).expect("born");
    for age in [3, 8, 14, 27] {
        counted(&mut write, 1, begin, age * MINUTE).expect("counted");
    }
    let correction = Correction {
        span_us: Some(5_000_000),
        ..Correction::default()
    };
    write.correct(3, correction).expect("corrected");
    write.correct(3, Correction::default()).expect("corrected");
    let lines = vec![
        line(Some(1), "a", 5, 50),
        line(Some(1), "a", 7, 70),
        line(None, "fee", 1, 9),
    ];
    assert!(settled(&mut write, "acme", lines).expect("settled"));
    write
        .execute("UPDATE rating SET sealed = 3", ())
        .expect("written");
    new.execute_batch("COMMIT").expect("commits");

    // The same rows in the tables of before.
    new.execute("ATTACH ?1 AS old", [path.to_str().expect("text")])
        .expect("attached");
    for (table, columns) in [
        ("meters", "*"),
        ("usage", "*, 0"),
        (
            "batches",
            "sequence, tenant, period_ms, from_seq, to_seq, origin, state, attempts, due_ms, trouble, 'r', balances, done_ms, place",
        ),
        ("skus", "*"),
        ("lines", "*"),
    ] {
        let copy = format!("INSERT INTO old.{table} SELECT {columns} FROM main.{table}");
        new.execute_batch(&copy).expect("copied");
    }
    new.execute_batch("UPDATE old.rating SET sealed = 3; DETACH old")
        .expect("copied");
    migrate(&mut old, STEPS).expect("the newest");
    let [old, new] = [&old, &new].map(|connection| Read { connection });
    assert_eq!(kept(&old, &around()), kept(&new, &around()));
    assert_eq!(kept(&old, &around()), of_records(&old));
    assert_eq!(charged(&old, None), charged(&new, None));
    assert_eq!(charged(&old, None).len(), 2);
    let [was, is] = [&new, &old].map(|read| read.batch(1).expect("read"));
    assert_eq!(is, was);
    assert_eq!(is.expect("it is there").revision, "r");
    let sealed = |period| old.sealed_in(Some("acme"), period).expect("read");
    // Two before the end of November, and one over it.
    assert_eq!((sealed(november()), sealed(november().next())), (3, 1));
    let others = old.sealed_in(Some("other"), november());
    assert_eq!(others.expect("read"), 0);
}
