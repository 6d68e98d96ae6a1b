//! Snapshots' rows, and machines that sleep in them.

use brood_meter::{Cause, Last, Motion, Reading, Subject};
use brood_store::{
    Born, GivenRow, GivenTarget, HoldRow, IntentRow, MachineKind, MachineState, Page, ShapeRow,
    SnapshotRow, Store, StoreError, StoreOptions,
};
use brood_units::{Instant, IntentId, MachineId, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn id(n: u8) -> MachineId {
    MachineId::from_bytes([n; 16])
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path(), &StoreOptions::default()).expect("a store");
    (directory, store)
}

fn row(n: u8, name: Option<&str>) -> SnapshotRow {
    SnapshotRow {
        seq: 0,
        id: id(n),
        tenant: "acme".to_owned(),
        name: name.map(str::to_owned),
        machine: id(1),
        sleeper: None,
        template: id(0),
        lineage: id(1),
        generation: 3,
        guest: "linux".to_owned(),
        shape: ShapeRow {
            vcpu_milli: 2000,
            memory_mib: 256,
            disk_mib: 7,
        },
        labels: [("team".to_owned(), "a".to_owned())].into(),
        carried: "\"bare\"".to_owned(),
        bytes: 1 << 33,
        created: NOW,
    }
}

fn intent(n: u8) -> IntentRow {
    IntentRow {
        id: IntentId::from_bytes([n; 16]),
        tenant: "acme".to_owned(),
        operation: "fork".to_owned(),
        subject: id(1),
        body: "{}".to_owned(),
        holds: vec![HoldRow {
            plugin: "quota".to_owned(),
            key: "live".to_owned(),
            per_request: 0,
            per_daughter: 1,
            until: None,
        }],
        units: 1,
        created: NOW,
        closed: Some(NOW),
        outcome: Some("done".to_owned()),
    }
}

fn born(n: u8, of: IntentId) -> Born {
    Born {
        id: id(n),
        tenant: "acme".to_owned(),
        project: String::new(),
        name: Some("one".to_owned()),
        kind: MachineKind::Machine,
        mother: None,
        lineage: id(n),
        template: id(0),
        generation: 0,
        state: MachineState::Running,
        shape: ShapeRow {
            vcpu_milli: 1000,
            memory_mib: 64,
            disk_mib: 0,
        },
        labels: Default::default(),
        intent: of,
        created: NOW,
        expires: None,
        granted: None,
        idle_ms: None,
        carried: "{\"cell\":null}".to_owned(),
    }
}

fn write<T: Send + 'static>(
    store: &Store,
    job: impl FnOnce(&mut brood_store::Write<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    store.write(job).wait()
}

#[test]
fn a_snapshot_comes_back_as_it_was_written_to_its_tenant_alone() {
    let (_directory, store) = store();
    let (kept, other) = (row(2, Some("kept")), row(3, None));
    let rows = [kept.clone(), other];
    let added = write(&store, move |write| {
        rows.iter().try_for_each(|row| write.add_snapshot(row))
    });
    added.expect("written");
    let found = store.read(|read| -> Result<_, StoreError> {
        Ok((
            read.snapshot("acme", id(2))?,
            read.snapshot_by_name("acme", "kept")?,
            read.snapshot("other", id(2))?,
            read.snapshot_by_name("other", "kept")?,
        ))
    });
    let as_written = Some(SnapshotRow { seq: 1, ..kept });
    let nothing = None;
    assert_eq!(
        found.expect("read"),
        (as_written.clone(), as_written, nothing.clone(), nothing)
    );
    let page = |after, limit| {
        let page = store.read(|read| read.snapshots("acme", Page { after, limit }));
        let page: Vec<_> = page.expect("read");
        page.into_iter().map(|row| row.seq).collect::<Vec<_>>()
    };
    assert_eq!(
        (page(0, 1), page(1, 9), page(2, 9)),
        (vec![1], vec![2], vec![])
    );
    let twice = row(4, Some("kept"));
    let twice = write(&store, move |write| write.add_snapshot(&twice));
    assert!(matches!(twice, Err(StoreError::Exists(_))), "{twice:?}");
    let census = store.read(|read| read.snapshot_census()).expect("read");
    assert_eq!((census[0].count, census[0].bytes), (2, 1 << 34));
    assert_eq!(
        store.read(|read| read.snapshot_keys()).expect("read"),
        [2, 3].map(|n| ("acme".to_owned(), id(n)))
    );
}

#[test]
fn who_sleeps_holds_nothing_uses_nothing_and_is_there() {
    let (_directory, store) = store();
    let (first, second) = (intent(1), intent(2));
    let (of, then) = (first.id, second.id);
    write(&store, move |write| {
        write.add_intent(&first)?;
        write.add_intent(&second)?;
        write.add_machine(&born(1, of))?;
        let given = GivenRow {
            target: GivenTarget::Env,
            place: "TOKEN".to_owned(),
            name: "token".to_owned(),
            version: 1,
        };
        write.add_given(id(1), &[given])?;
        write.pass_given_on(id(1), id(9))?;
        let bed = SnapshotRow {
            sleeper: Some(id(1)),
            ..row(9, None)
        };
        write.add_snapshot(&bed)?;
        assert!(write.hibernate_machine(id(1))?);
        assert!(!write.hibernate_machine(id(1))?, "she sleeps already");
        Ok(())
    })
    .expect("written");
    let look = |read: &brood_store::Read<'_>| -> Result<_, StoreError> {
        Ok((
            read.living("acme")?,
            read.holding_intents(NOW)?.len(),
            read.alive()?.len(),
            read.given(id(9))?.len(),
        ))
    };
    assert_eq!(store.read(look).expect("read"), ((0, 0), 0, 1, 1));
    let named = store.read(|read| read.machine_by_name("acme", "one"));
    let named = named.expect("read").expect("her name is hers");
    assert_eq!(named.born.state, MachineState::Hibernated);
    write(&store, move |write| {
        assert!(write.wake_machine(id(1), then, "{}")?);
        assert!(!write.wake_machine(id(1), then, "{}")?, "she is awake");
        assert!(write.remove_snapshot(id(9))?);
        assert!(!write.remove_snapshot(id(9))?);
        Ok(())
    })
    .expect("written");
    let holding = store.read(|read| read.holding_intents(NOW)).expect("read");
    let holding: Vec<_> = holding.into_iter().map(|row| row.id).collect();
    assert_eq!(holding, [then], "by what admitted her to wake");
    assert_eq!(store.read(look).expect("read"), ((1, 64), 1, 1, 0));
}

#[test]
fn nothing_is_counted_of_who_sleeps_and_her_meter_goes_on_as_she_wakes() {
    let (_directory, store) = store();
    let subject = Subject {
        machine: id(1),
        is_checkpoint: false,
        tenant: "acme".to_owned(),
        project: String::new(),
        lineage: id(1),
        template: id(0),
        vcpu_milli: 1000,
        memory_mib: 64,
        disk_mib: 0,
        labels: Default::default(),
        born: NOW,
    };
    let at = |seconds: u64| Reading {
        at: Timestamp::from_millis(1000 + (seconds * 1000).cast_signed()),
        instant: Some(Instant::from_nanos(seconds * 1_000_000_000)),
        cpu_ns: Some(seconds * 10),
        private_kib: Some(8),
    };
    let records = write(&store, move |write| {
        let last = Last::at_birth(NOW, Instant::from_nanos(0), Motion::Running);
        write.open_meter(&subject, &last)?;
        write.count(id(1), &at(5), Cause::Hibernate)?;
        assert_eq!(write.count(id(1), &at(6), Cause::Tick)?, None);
        write.wake_meter(id(1), at(100).at, Instant::from_nanos(100_000_000_000))?;
        let new_process = Reading {
            cpu_ns: Some(3),
            ..at(102)
        };
        write.count(id(1), &new_process, Cause::End)?;
        assert_eq!(write.count(id(1), &at(103), Cause::Tick)?, None);
        // Who has not slept is not woken.
        write.usage(0, 10)
    });
    let records: Vec<_> = records
        .expect("written")
        .iter()
        .map(|row| row.record)
        .map(|one| (one.span_us, one.age_us, one.cpu_ns))
        .collect();
    assert_eq!(
        records,
        [(5_000_000, 5_000_000, 50), (2_000_000, 7_000_000, 3)]
    );
}
