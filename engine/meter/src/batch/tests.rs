//! Batches of made-up machines.

use brood_units::{Instant, Timestamp};

use super::*;
use crate::{Cause, Last, Motion, Reading};

pub(crate) fn subject(machine: u8) -> Subject {
    Subject {
        machine: MachineId::from_bytes([machine; 16]),
        is_checkpoint: false,
        tenant: "acme".to_owned(),
        project: "web".to_owned(),
        lineage: MachineId::from_bytes([1; 16]),
        template: MachineId::from_bytes([9; 16]),
        vcpu_milli: 500,
        memory_mib: 256,
        disk_mib: 10,
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        born: Timestamp::from_millis(1000),
    }
}

fn life(born_ms: i64, steps: &[(u64, u64)]) -> Vec<Record> {
    let born = Instant::from_nanos(1_000_000_000);
    let mut last = Last::at_birth(Timestamp::from_millis(born_ms), born, Motion::Running);
    let mut records = Vec::new();
    for (millis, cpu_ns) in steps {
        let reading = Reading {
            at: Timestamp::from_millis(born_ms + millis.cast_signed()),
            instant: Some(Instant::from_nanos(born.as_nanos() + millis * 1_000_000)),
            cpu_ns: Some(*cpu_ns),
            private_kib: Some(1024),
        };
        let (record, next) = last.window(&reading, Cause::Tick).expect("later");
        records.push(record);
        last = next;
    }
    records
}

fn items<'a>(subject: &'a Subject, meter: i64, from: i64, records: &[Record]) -> Vec<Item<'a>> {
    let numbered = (from..).zip(records);
    let item = |(seq, record): (i64, &Record)| Item {
        seq,
        meter,
        subject,
        record: *record,
        stands: *record,
    };
    numbered.map(item).collect()
}

#[test]
fn consecutive_windows_are_one_sample_that_says_when_the_machine_was_born() {
    let subject = subject(1);
    let all = items(
        &subject,
        7,
        1,
        &life(1000, &[(60_000, 5), (120_000, 9), (120_010, 11)]),
    );
    let [draft] = drafts(all).try_into().expect("one tenant, one month");
    let (batch, origins) = draft.batch(3, &Before::default()).expect("it fits");
    let by = |dimension: Dimension| {
        let at = origins
            .iter()
            .position(|origin| origin.dimension == dimension);
        &batch.samples[at.expect("it is there")]
    };
    assert_eq!(by(Dimension::VcpuActiveNs).quantity, 11);
    assert_eq!(by(Dimension::VcpuNs).quantity, 60_005_000_000);
    assert_eq!(by(Dimension::MemoryMibMs).quantity, 120_010 * 256);
    assert_eq!(by(Dimension::MemoryPrivateMibMs).quantity, 120_010);
    assert_eq!(by(Dimension::Forks).quantity, 1);
    let sample = by(Dimension::Forks);
    assert_eq!(
        (sample.start_ms, sample.end_ms, sample.born_ms),
        (1000, 121_010, 1000)
    );
    assert!(batch.totals.is_empty(), "nothing was rated in the month");
}

#[test]
fn batches_that_are_made_again_are_the_same_and_none_spans_a_month() {
    let end: Period = "2026-11".parse().expect("a month");
    let subject = subject(1);
    let records = life(end.end_ms() - 90_000, &[(60_000, 5), (120_000, 9)]);
    let made = drafts(items(&subject, 7, 1, &records));
    assert_eq!(made, drafts(items(&subject, 7, 1, &records)));
    let periods: Vec<_> = made.iter().map(|draft| draft.period).collect();
    assert_eq!(periods, [end, end.next()]);
    let batches: Vec<_> = made
        .iter()
        .map(|draft| draft.batch(1, &Before::default()).expect("fits").0)
        .collect();
    let mut ids: Vec<_> = batches
        .iter()
        .flat_map(|batch| &batch.samples)
        .map(|sample| sample.id)
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "no two samples are one");
    for sample in &batches[1].samples {
        assert_eq!(sample.start_ms, end.end_ms().unsigned_abs());
        assert_eq!(sample.born_ms, end.end_ms().unsigned_abs() - 90_000);
    }
}

#[test]
fn a_correction_replaces_what_changed_and_takes_what_it_replaces_off_the_totals() {
    let subject = subject(1);
    let records = life(1000, &[(60_000, 5), (120_000, 9)]);
    let [was] = drafts(items(&subject, 7, 1, &records))
        .try_into()
        .expect("one");
    let mut right = records;
    right[1].cpu_ns = 100;
    let [is] = drafts(items(&subject, 7, 1, &right))
        .try_into()
        .expect("one");
    let corrected = was.corrected(&is, 12);
    assert_eq!(
        corrected.reversed(),
        BTreeSet::from([(7, Dimension::VcpuActiveNs)])
    );
    let before = Before {
        totals: BTreeMap::from([(Dimension::VcpuActiveNs, 1009), (Dimension::Forks, 1)]),
        balances: BTreeMap::new(),
    };
    let (batch, _) = corrected.batch(2, &before).expect("fits");
    let (first, _) = was.batch(1, &Before::default()).expect("fits");
    let [sample] = batch.samples.as_slice() else {
        unreachable!("only CPU time has changed")
    };
    assert_eq!(sample.quantity, 105);
    assert!(
        first
            .samples
            .iter()
            .any(|one| Some(one.id) == sample.corrects)
    );
    assert!(first.samples.iter().all(|one| one.id != sample.id));
    let totals: Vec<_> = batch.totals.iter().map(|total| total.quantity).collect();
    assert_eq!(totals, [1000, 1]);
    let none = Draft::empty("acme".to_owned(), was.period);
    assert_eq!(was.corrected(&was, 12), none);
    assert!(
        none.batch(1, &Before::default())
            .expect("fits")
            .0
            .samples
            .is_empty()
    );
}

#[test]
fn a_sample_has_the_same_id_for_ever() {
    let subject = subject(1);
    let records = life(1000, &[(60_000, 5), (120_000, 9)]);
    let [was] = drafts(items(&subject, 7, 1, &records))
        .try_into()
        .expect("one");
    let mut right = records;
    right[0].age_us += 1;
    let [is] = drafts(items(&subject, 7, 1, &right))
        .try_into()
        .expect("one");
    let forks = |draft: &Draft| {
        let (batch, origins) = draft.batch(3, &Before::default()).expect("fits");
        let mut samples = batch.samples.into_iter().zip(origins);
        let found = samples.find(|(_, origin)| origin.dimension == Dimension::Forks);
        found.map(|(sample, _)| (sample.id.halves(), sample.corrects.map(|id| id.halves())))
    };
    let first = (0xccf3_35d8_01d5_fe3b, 0x46d9_080b_edcb_241a);
    assert_eq!(forks(&was), Some((first, None)));
    assert_eq!(forks(&is), None, "it was not the first after all");
    let back = is.corrected(&was, 12);
    let corrected = (0x3e85_a201_6465_d1b4, 0xc673_e63c_bc54_ede8);
    assert_eq!(forks(&back), Some((corrected, Some(first))));
}

#[test]
fn a_batch_says_who_pays_what_is_measured_and_of_whom_and_machines_of_one_kind_share_that() {
    let mut other = subject(3);
    other.labels = BTreeMap::from([("team".to_owned(), "b".to_owned())]);
    other.is_checkpoint = true;
    let (first, second) = (subject(1), subject(2));
    let records = life(1000, &[(60_000, 5)]);
    let mut all = items(&first, 7, 1, &records);
    all.extend(items(&other, 8, 2, &records));
    all.extend(items(&second, 9, 3, &records));
    let [draft] = drafts(all).try_into().expect("one tenant, one month");
    let before = Before {
        totals: BTreeMap::from([(Dimension::MemoryMibMs, 5)]),
        balances: BTreeMap::from([("EUR".to_owned(), (3, 4))]),
    };
    let (batch, origins) = draft.batch(11, &before).expect("it fits");
    assert_eq!((batch.sequence, batch.accounts.len()), (11, 1));
    assert_eq!(batch.accounts[0].tenant, "acme");
    let words = Dimension::ALL.map(Dimension::as_str);
    assert_eq!(batch.dimensions, words);
    assert_eq!(
        words,
        [
            "vcpu-ns",
            "vcpu-active-ns",
            "memory-mib-ms",
            "memory-private-mib-ms",
            "disk-mib-s",
            "forks"
        ]
    );
    let group_of = |meter| {
        let at = origins.iter().position(|origin| origin.meter == meter);
        batch.samples[at.expect("it is there")].group
    };
    assert_eq!((group_of(7), group_of(8), group_of(9)), (0, 1, 0));
    let label = |group: usize, key: &str| {
        let found = batch.groups[group].iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(batch.groups.len(), 2);
    assert_eq!(
        (
            label(0, "brood.kind"),
            label(0, "brood.project"),
            label(0, "team")
        ),
        (Some("machine"), Some("web"), Some("a"))
    );
    assert_eq!(
        (label(1, "brood.kind"), label(1, "team")),
        (Some("checkpoint"), Some("b"))
    );
    let total = &batch.totals[0];
    assert_eq!(
        (batch.totals.len(), total.dimension, total.quantity),
        (1, 2, 5)
    );
    let balance = &batch.balances[0];
    assert_eq!(
        (
            balance.currency.as_str(),
            balance.spent_nanos,
            balance.credit_nanos
        ),
        ("EUR", 3, 4)
    );
}

#[test]
fn a_quantity_that_no_sample_can_carry_is_told_by_name() {
    let subject = subject(1);
    let mut records = life(1000, &[(60_000, 5)]);
    records[0].cpu_ns = u64::MAX;
    let [draft] = drafts(items(&subject, 7, 1, &records))
        .try_into()
        .expect("one");
    let refused = draft.batch(1, &Before::default()).expect_err("too much");
    let words = format!(
        "vcpu-active-ns of machine {} in 1970-01 exceeds 64 bits: correct its usage records",
        subject.machine
    );
    assert_eq!(refused.to_string(), words);
}
