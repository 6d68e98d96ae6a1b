//! Batches, what they come to and what tenants have paid in advance, on the disk.

use std::collections::BTreeMap;
use std::path::Path;

use brood_meter::{
    Action, Cause, Dimension, Last, Motion, Origin, Period, PricedLine, Reading, Settlement, Sku,
    Subject,
};
use brood_store::{
    BatchRow, BatchState, NewBatch, NewCredit, Posted, Read, SettleFailure, Settled, Store,
    StoreError, StoreOptions,
};
use brood_units::{Instant, MachineId, Timestamp};

const MINUTE: i64 = 60_000;

fn open(directory: &Path) -> Store {
    Store::open(directory, &StoreOptions::default()).expect("opens")
}

fn november() -> Period {
    "2026-11".parse().expect("a month")
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn looked<T>(store: &Store, look: impl FnOnce(&Read<'_>) -> Result<T, StoreError>) -> T {
    store.read(look).expect("looked")
}

fn machine(number: u8) -> MachineId {
    MachineId::from_bytes([number; 16])
}

/// A machine of a tenant with a record for each of its first minutes.
fn counted(store: &Store, number: u8, tenant: &'static str, minutes: i64) {
    let birth = november().start_ms();
    let instant = |minute: i64| {
        let nanos = (minute * MINUTE).unsigned_abs() * 1_000_000;
        Instant::from_nanos(5_000_000_000 + nanos)
    };
    let subject = Subject {
        machine: machine(number),
        is_checkpoint: false,
        tenant: tenant.to_owned(),
        project: String::new(),
        lineage: machine(number),
        template: machine(0xff),
        vcpu_milli: 1000,
        memory_mib: 1,
        disk_mib: 0,
        labels: BTreeMap::new(),
        born: at(birth),
    };
    let write = store.write(move |write| -> Result<(), StoreError> {
        let last = Last::at_birth(subject.born, instant(0), Motion::Running);
        write.open_meter(&subject, &last)?;
        for minute in 1..=minutes {
            let reading = Reading {
                at: at(birth + minute * MINUTE),
                instant: Some(instant(minute)),
                cpu_ns: Some(minute.unsigned_abs() * 7),
                private_kib: Some(1),
            };
            assert!(
                write
                    .count(machine(number), &reading, Cause::Tick)?
                    .is_some()
            );
        }
        Ok(())
    });
    write.wait().expect("written");
}

fn batch(tenant: &str, period: Period, (from_seq, to_seq): (i64, i64)) -> NewBatch {
    NewBatch {
        tenant: tenant.to_owned(),
        period_ms: period.start_ms(),
        from_seq,
        to_seq,
        origin: None,
    }
}

fn add(store: &Store, batch: NewBatch) -> i64 {
    let added = store.write(move |write| write.add_batch(&batch, at(1)));
    added.wait().expect("added")
}

fn sealed(store: &Store, batches: Vec<NewBatch>, to_seq: i64) {
    let seal =
        move |write: &mut brood_store::Write<'_>| write.seal(&batches, &[], (to_seq, "r"), at(1));
    store.write(seal).wait().expect("sealed");
}

fn numbers(rows: &[BatchRow]) -> Vec<i64> {
    rows.iter().map(|row| row.sequence).collect()
}

#[test]
fn batches_are_numbered_without_a_gap_and_found_by_tenant_month_and_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let next = november().next();
    let all = vec![
        batch("acme", november(), (0, 3)),
        batch("other", november(), (0, 3)),
        batch("acme", next, (0, 3)),
    ];
    sealed(&store, all, 3);
    assert_eq!(add(&store, batch("acme", november(), (3, 3))), 4);
    assert_eq!(add(&store, batch("acme", november(), (3, 3))), 5);
    let start = november().start_ms();
    let of = |tenant: Option<&str>, after, limit| {
        numbers(&looked(&store, |read| {
            read.batches_of(tenant, start, after, limit)
        }))
    };
    assert_eq!(of(Some("acme"), 0, 9), [1, 4, 5]);
    assert_eq!(of(Some("acme"), 1, 1), [4]);
    assert_eq!(of(None, 0, 9), [1, 2, 4, 5]);
    assert_eq!(of(None, 2, 1), [4]);
    let open = |state, limit| numbers(&looked(&store, |read| read.open_batches(state, limit)));
    assert_eq!(open(BatchState::Held, 9), [1, 2, 3, 4, 5]);
    assert_eq!(open(BatchState::Held, 2), [1, 2]);
    let seal = looked(&store, |read| read.sealed());
    assert_eq!(seal, (3, "r".to_owned()));
    // Whoever seals late takes nothing back.
    sealed(&store, Vec::new(), 2);
    assert_eq!(looked(&store, |read| read.sealed()).0, 3);

    let hold = store.write(|write| {
        write.hold_batch(2, "no price", at(77), BatchState::Held)?;
        write.hold_batch(2, "no price at all", at(88), BatchState::Dead)?;
        write.hold_batch(3, "no", at(99), BatchState::Dead)
    });
    hold.wait().expect("held");
    let second = looked(&store, |read| read.batch(2)).expect("it is there");
    assert_eq!(
        (second.attempts, second.due, second.state),
        (2, at(88), BatchState::Dead)
    );
    assert_eq!(second.trouble, "no price at all");
    assert_eq!(open(BatchState::Dead, 9), [2, 3]);
    assert_eq!(open(BatchState::Held, 9), [1, 4, 5]);
    let in_november = looked(&store, |read| read.open_in(None, november()));
    let both = [(BatchState::Held, 3), (BatchState::Dead, 1)];
    assert_eq!(in_november, both.into());
    let of_other = looked(&store, |read| read.open_in(Some("other"), november()));
    assert_eq!(of_other, [(BatchState::Dead, 1)].into());
    let back = |which| {
        let back = store.write(move |write| write.put_back(which, at(5)));
        back.wait().expect("put back")
    };
    assert_eq!((back(Some(1)), back(Some(2)), back(None)), (0, 1, 1));
    let second = looked(&store, |read| read.batch(2)).expect("it is there");
    assert_eq!(
        (second.attempts, second.due, second.state),
        (0, at(5), BatchState::Held)
    );
    assert_eq!(looked(&store, |read| read.batch(6)), None);
}

#[test]
fn a_record_is_in_the_batch_of_its_stretch_and_tenant_and_in_no_correction() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let next = november().next();
    let stretches = [
        batch("acme", november(), (0, 3)),
        batch("acme", next, (0, 3)),
        batch("other", november(), (3, 5)),
        batch("acme", november(), (5, 9)),
    ];
    for batch in stretches {
        add(&store, batch);
    }
    let correction = NewBatch {
        origin: Some(1),
        ..batch("acme", november(), (3, 9))
    };
    assert_eq!(add(&store, correction), 5);
    let with = |tenant: &str, seq| numbers(&looked(&store, |read| read.batches_with(tenant, seq)));
    assert_eq!(with("acme", 1), [1, 2]);
    assert_eq!(with("acme", 3), [1, 2]);
    assert_eq!(with("acme", 4), [0; 0], "another's");
    assert_eq!(with("other", 4), [3]);
    assert_eq!(with("acme", 6), [4]);
    assert_eq!(with("acme", 10), [0; 0], "it is in none");
}

#[test]
fn only_what_is_old_and_rated_with_its_corrections_may_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    counted(&store, 1, "acme", 10);
    let end = |minute: i64| at(november().start_ms() + minute * MINUTE);
    let upto = |before| looked(&store, |read| read.trimmable(before));
    assert_eq!(upto(end(100)), 0, "nothing is in a batch");
    sealed(&store, vec![batch("acme", november(), (0, 4))], 4);
    assert_eq!(upto(end(100)), 0, "the batch is not rated");
    settle(&store, settled(1, Vec::new())).expect("settled");
    assert_eq!(upto(end(100)), 4);
    assert_eq!((upto(end(2)), upto(end(1)), upto(end(0))), (2, 1, 0));
    sealed(&store, vec![batch("acme", november(), (4, 9))], 9);
    assert_eq!(upto(end(100)), 4, "up to the batch that waits");
    settle(&store, settled(2, Vec::new())).expect("settled");
    assert_eq!(upto(end(100)), 9, "the tenth is in no batch");
    let correction = NewBatch {
        origin: Some(1),
        ..batch("acme", november(), (9, 10))
    };
    sealed(&store, vec![correction], 10);
    assert_eq!(
        upto(end(100)),
        0,
        "it wants the records of what it corrects"
    );
    settle(&store, settled(3, Vec::new())).expect("settled");
    assert_eq!(upto(end(100)), 10);
}

fn sku(currency: &str) -> Sku {
    Sku {
        name: "vcpu".to_owned(),
        currency: currency.to_owned(),
        unit: "vcpu-ns".to_owned(),
        per: 3,
    }
}

fn line(origin: Option<Origin>, currency: &str, quantity: i64, amount_nanos: i64) -> PricedLine {
    PricedLine {
        origin,
        sku: sku(currency),
        quantity,
        unit_price_nanos: 1,
        amount_nanos,
    }
}

const VCPU: Origin = Origin {
    meter: 1,
    dimension: Dimension::VcpuNs,
};
const ACTIVE: Origin = Origin {
    meter: 1,
    dimension: Dimension::VcpuActiveNs,
};

/// What a batch comes to: these lines, what they spend, and a total of 10.
fn settled(sequence: i64, lines: Vec<PricedLine>) -> Settled {
    let mut spent = BTreeMap::new();
    for line in &lines {
        *spent.entry(line.sku.currency.clone()).or_insert(0) += line.amount_nanos;
    }
    Settled {
        sequence,
        settlement: Settlement {
            lines,
            totals: BTreeMap::from([(Dimension::VcpuNs, 10)]),
            spent,
            budget: None,
        },
        reversed: Vec::new(),
        replaced: BTreeMap::new(),
        revision: "r".to_owned(),
        balances: BTreeMap::from([("EUR".to_owned(), (1, 2))]),
    }
}

fn settle(store: &Store, settled: Settled) -> Result<bool, SettleFailure> {
    store
        .write(move |write| write.settle(&settled, at(9)))
        .wait()
}

/// Quantity and amount of each line of a batch, and which batch's it takes back.
fn lines(store: &Store, sequence: i64) -> Vec<(i64, i64, Option<i64>)> {
    let lines = looked(store, |read| read.lines(sequence, 0, u32::MAX));
    assert!(
        lines
            .iter()
            .zip(1..)
            .all(|(line, number)| line.line == number)
    );
    let each = lines.into_iter();
    each.map(|line| {
        (
            line.priced.quantity,
            line.priced.amount_nanos,
            line.reverses,
        )
    })
    .collect()
}

fn total(store: &Store) -> i64 {
    let totals = looked(store, |read| read.totals("acme", november().start_ms()));
    totals[&Dimension::VcpuNs]
}

fn spent(store: &Store, currency: &str) -> i64 {
    let balances = looked(store, |read| read.balances("acme", november().start_ms()));
    balances[currency].0
}

#[test]
fn what_a_batch_comes_to_is_kept_once_and_a_correction_takes_the_last_lines_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    counted(&store, 1, "acme", 1);
    assert!(
        !settle(&store, settled(1, Vec::new())).expect("looked"),
        "there is none"
    );
    add(&store, batch("acme", november(), (0, 1)));
    let first = vec![
        line(Some(VCPU), "EUR", 5, 50),
        line(Some(VCPU), "EUR", 6, 60),
        line(Some(ACTIVE), "EUR", 2, 3),
        line(None, "credit", 1, -7),
    ];
    assert!(settle(&store, settled(1, first.clone())).expect("settled"));
    assert!(
        !settle(&store, settled(1, first)).expect("looked"),
        "it is done"
    );
    let row = looked(&store, |read| read.batch(1)).expect("it is there");
    assert_eq!(
        (row.state, row.done, row.place, row.revision.as_str()),
        (BatchState::Done, Some(at(9)), Some(1), "r")
    );
    assert_eq!(row.balances["EUR"], (1, 2));
    assert_eq!((total(&store), spent(&store, "EUR")), (10, 113));
    let kept = looked(&store, |read| read.lines(1, 0, u32::MAX));
    assert_eq!(
        (kept[2].priced.origin, kept[3].priced.origin),
        (Some(ACTIVE), None)
    );
    assert_eq!(kept[0].priced.sku, sku("EUR"));
    assert_eq!(looked(&store, |read| read.lines(1, 3, 9)).len(), 1);

    // Twice put right: each takes back what stands then, of the sample that is put right alone.
    for (sequence, back, anew, stands) in [
        (2, vec![(-5, -50, Some(1)), (-6, -60, Some(1))], 8, 83),
        (3, vec![(-8, -80, Some(2))], 4, 43),
    ] {
        let origin = NewBatch {
            origin: Some(1),
            ..batch("acme", november(), (1, 1))
        };
        assert_eq!(add(&store, origin), sequence);
        let correction = Settled {
            reversed: vec![VCPU],
            replaced: BTreeMap::from([(Dimension::VcpuNs, 10)]),
            revision: format!("r{sequence}"),
            ..settled(sequence, vec![line(Some(VCPU), "EUR", anew, anew * 10)])
        };
        assert!(settle(&store, correction).expect("settled"));
        let all = [back, vec![(anew, anew * 10, None)]].concat();
        assert_eq!(lines(&store, sequence), all);
        assert_eq!((total(&store), spent(&store, "EUR")), (10, stands));
        let rated = looked(&store, |read| read.lines(sequence, 0, 9));
        assert!(rated.iter().all(|line| line.rated == 1));
    }
    assert_eq!(spent(&store, "credit"), -7);
    let revisions = [1, 2, 3].map(|sequence| {
        let row = looked(&store, |read| read.batch(sequence)).expect("it is there");
        row.revision
    });
    assert_eq!(revisions, ["r", "r2", "r3"]);
}

#[test]
fn a_sum_that_cannot_be_kept_keeps_nothing_and_says_which() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    counted(&store, 1, "acme", 1);
    add(&store, batch("acme", november(), (0, 1)));
    let most = vec![
        line(Some(VCPU), "EUR", i64::MIN, 5),
        line(Some(ACTIVE), "EUR", 5, i64::MAX - 5),
    ];
    assert!(settle(&store, settled(1, most)).expect("settled"));
    let origin = NewBatch {
        origin: Some(1),
        ..batch("acme", november(), (1, 1))
    };
    add(&store, origin);
    add(&store, batch("acme", november(), (1, 1)));
    let before = (total(&store), spent(&store, "EUR"));
    let one = |sequence| settled(sequence, vec![line(None, "EUR", 1, 1)]);
    let quantity = Settled {
        reversed: vec![VCPU],
        ..settled(2, Vec::new())
    };
    let mut all = one(3);
    all.settlement.totals = BTreeMap::from([(Dimension::VcpuNs, i64::MAX - 9)]);
    let mut least = settled(3, Vec::new());
    least.settlement.totals = BTreeMap::from([(Dimension::VcpuNs, -20)]);
    least.replaced = BTreeMap::from([(Dimension::VcpuNs, i64::MAX)]);
    let mut negated = settled(3, Vec::new());
    negated.replaced = BTreeMap::from([(Dimension::VcpuNs, i64::MIN)]);
    for (wrong, words) in [
        (quantity, "the sum of quantities of"),
        (one(3), "the sum of amounts of"),
        (all, "the sum of vcpu-ns of"),
        (least, "the sum of vcpu-ns of"),
        (negated, "the sum of vcpu-ns of"),
    ] {
        let sequence = wrong.sequence;
        let refused = settle(&store, wrong).expect_err("too much").to_string();
        assert!(refused.starts_with(words), "{refused}");
        assert_eq!((total(&store), spent(&store, "EUR")), before);
        assert_eq!(lines(&store, sequence), []);
        let row = looked(&store, |read| read.batch(sequence)).expect("there");
        assert_eq!(row.state, BatchState::Held);
    }
}

fn credit(key: &str, nanos: i64, period: Period) -> NewCredit {
    NewCredit {
        tenant: "acme".to_owned(),
        key: key.to_owned(),
        currency: "EUR".to_owned(),
        nanos,
        note: "n".to_owned(),
        period_ms: period.start_ms(),
    }
}

#[test]
fn a_credit_is_posted_once_under_its_key_and_what_is_left_of_all_is_told_month_by_month() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let post = |credit: NewCredit| {
        let post = store.write(move |write| write.post_credit(&credit, at(4)));
        post.wait().expect("posted")
    };
    let next = november().next();
    let Posted::New(first) = post(credit("a", 100, november())) else {
        unreachable!("it is the first")
    };
    assert_eq!((first.seq, first.at), (1, at(4)));
    assert_eq!(
        post(credit("a", 100, november())),
        Posted::Known(first.clone())
    );
    // The month is when it was posted, and is not the caller's to change.
    assert_eq!(post(credit("a", 100, next)), Posted::Known(first.clone()));
    assert_eq!(
        post(credit("a", 101, november())),
        Posted::Mismatch(first.clone())
    );
    let Posted::New(second) = post(credit("b", 50, next)) else {
        unreachable!("it has another key")
    };
    let credits = |after, limit| looked(&store, |read| read.credits("acme", after, limit));
    assert_eq!(credits(0, 9), [first.clone(), second.clone()]);
    assert_eq!((credits(0, 1), credits(1, 9)), (vec![first], vec![second]));
    assert_eq!(looked(&store, |read| read.credits("other", 0, 9)), []);

    let balance =
        |period: Period| looked(&store, |read| read.balances("acme", period.start_ms()))["EUR"];
    assert_eq!((balance(november()), balance(next)), ((0, 100), (0, 150)));
    add(&store, batch("acme", november(), (0, 0)));
    add(&store, batch("acme", next, (0, 0)));
    for (sequence, amount) in [(1, 30), (2, 5)] {
        let lines = vec![line(None, "EUR", 1, amount)];
        assert!(settle(&store, settled(sequence, lines)).expect("settled"));
    }
    assert_eq!((balance(november()), balance(next)), ((30, 100), (5, 120)));
    assert_eq!(
        balance(next.next()),
        (0, 115),
        "a month of which nothing is known"
    );
}

#[test]
fn the_last_verdict_is_the_one_that_stands() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let budget = |tenant: &'static str| looked(&store, |read| read.budget(tenant));
    assert_eq!(budget("acme"), None);
    for (sequence, left, action) in [(1, 20, Action::None), (2, -3, Action::Stop)] {
        assert_eq!(add(&store, batch("acme", november(), (0, 0))), sequence);
        let mut verdict = settled(sequence, Vec::new());
        let word = brood_meter::action_word(&action).to_owned();
        verdict.settlement.budget = Some((left, action, "words".to_owned()));
        assert!(settle(&store, verdict).expect("settled"));
        let told = budget("acme").expect("it is kept");
        assert_eq!((told.left_nanos, told.action), (left, word));
        assert_eq!(
            (told.batch, told.at, told.message.as_str()),
            (sequence, at(9), "words")
        );
    }
    assert_eq!(budget("other"), None);
}
