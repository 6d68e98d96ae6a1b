//! What is written is there, what failed is not, and lists show what they say.

use brood_store::{
    Born, Claim, ExecRow, ExecState, GivenRow, GivenTarget, HoldRow, IdempotencyRow, IntentRow,
    KeyRow, Life, MachineKind, MachineQuery, MachineState, NewEvent, Page, PluginEntry,
    PluginValue, ShapeRow, Store, StoreError, StoreOptions, TemplateRow, Visibility,
};
use brood_units::{IntentId, KeyId, MachineId, Timestamp};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    (directory, store)
}

fn open(directory: &TempDir) -> Store {
    Store::open(directory.path(), &StoreOptions::default()).expect("a store")
}

fn machine_id(n: u32) -> MachineId {
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    MachineId::from_bytes(bytes)
}

const INTENT: IntentId = IntentId::from_bytes([7; 16]);

fn intent(id: IntentId) -> IntentRow {
    IntentRow {
        id,
        tenant: "acme".to_owned(),
        operation: "fork".to_owned(),
        subject: machine_id(1),
        body: "{}".to_owned(),
        holds: Vec::new(),
        units: 1,
        created: NOW,
        closed: None,
        outcome: None,
    }
}

fn born(n: u32, label: &str) -> Born {
    Born {
        id: machine_id(n),
        tenant: "acme".to_owned(),
        project: String::new(),
        name: None,
        kind: MachineKind::Machine,
        mother: None,
        lineage: machine_id(1),
        template: machine_id(0),
        generation: 0,
        state: MachineState::Running,
        shape: ShapeRow {
            vcpu_milli: 1000,
            memory_mib: 64,
            disk_mib: 0,
        },
        labels: [("job".to_owned(), label.to_owned())].into(),
        intent: INTENT,
        created: NOW,
        expires: Some(NOW.after(5)),
        granted: None,
        idle_ms: None,
        carried: "{\"cell\":null}".to_owned(),
    }
}

fn query(label: Option<&str>, ended: bool) -> MachineQuery {
    MachineQuery {
        tenant: "acme".to_owned(),
        kind: MachineKind::Machine,
        label: label.map(|value| ("job".to_owned(), value.to_owned())),
        ended,
    }
}

/// Machines 1 to `count`, the even ones with the label `even`.
fn with_machines(store: &Store, count: u32) {
    let written = store.write(move |write| {
        write.add_intent(&intent(INTENT))?;
        (1..=count)
            .try_for_each(|n| write.add_machine(&born(n, if n % 2 == 0 { "even" } else { "odd" })))
    });
    written.wait().expect("written");
}

fn ids(store: &Store, query: &MachineQuery, page: Page) -> Vec<MachineId> {
    let rows = store.read(|read| read.machines(query, page));
    let rows: Vec<_> = rows.expect("a list");
    rows.into_iter().map(|row| row.born.id).collect()
}

const ALL: Page = Page {
    after: 0,
    limit: 1000,
};

#[test]
fn a_job_that_fails_is_undone_and_those_that_share_its_commit_are_kept() {
    let (_directory, store) = store();
    with_machines(&store, 1);
    let name = |n, name: &str| Born {
        name: Some(name.to_owned()),
        ..born(n, "x")
    };
    let (first, second, third) = (name(2, "a"), name(3, "a"), name(4, "b"));
    // Sent at once, so that they come into one turn or into several: the answers are the same.
    let pending = [first, second, third].map(|one| {
        store.write(move |write| {
            write.report(&NewEvent {
                tenant: "acme".to_owned(),
                kind: "machine.created".to_owned(),
                subject: one.id,
                at: NOW,
                data: "{}".to_owned(),
            })?;
            write.add_machine(&one)
        })
    });
    let [first, second, third] = pending.map(|one| one.wait());
    assert!(matches!(second, Err(StoreError::Exists(_))), "{second:?}");
    assert!(first.is_ok() && third.is_ok());
    let found = ids(&store, &query(None, false), ALL);
    assert_eq!(found, [machine_id(1), machine_id(2), machine_id(4)]);
    let page = store.read(|read| read.events("acme", 0, 10));
    let page: Result<_, StoreError> = page;
    let subjects: Vec<_> = page
        .expect("events")
        .events
        .into_iter()
        .map(|row| (row.seq, row.event.subject))
        .collect();
    assert_eq!(subjects, [(1, machine_id(2)), (2, machine_id(4))]);
    assert_eq!(*store.last_event().borrow(), 2);
}

#[test]
fn a_row_comes_back_as_it_was_written_after_a_restart_too() {
    let (directory, store) = store();
    let mut held = intent(INTENT);
    held.holds.push(HoldRow {
        plugin: "quota".to_owned(),
        key: "live/acme".to_owned(),
        per_request: 1,
        per_daughter: 2,
        until: Some(NOW.after(9)),
    });
    let key = KeyRow {
        id: KeyId::from_bytes([3; 16]),
        tenant: "acme".to_owned(),
        project: "web".to_owned(),
        name: "ci".to_owned(),
        hash: [9; 32],
        scopes: vec!["read".to_owned()],
        created: NOW,
        expires: Some(NOW.after(100)),
        revoked: None,
    };
    let template = TemplateRow {
        seq: 1,
        id: machine_id(9),
        tenant: "acme".to_owned(),
        name: "base".to_owned(),
        visibility: Visibility::Private,
        guest: "bare".to_owned(),
        vcpus: 2,
        memory_mib: 256,
        created: NOW,
    };
    let one = born(1, "odd");
    let rows = (held.clone(), key.clone(), template.clone(), one.clone());
    let written = store.write(move |write| {
        write.put_tenant("acme", NOW)?;
        write.add_intent(&rows.0)?;
        write.add_key(&rows.1)?;
        write.add_template(&rows.2)?;
        write.add_machine(&rows.3)
    });
    written.wait().expect("written");
    drop(store);
    let store = open(&directory);
    store
        .read(|read| {
            assert_eq!(read.intent(INTENT)?, Some(held.clone()));
            assert_eq!(read.open_intents()?, [held.clone()]);
            assert_eq!(read.holding_intents(NOW)?, [held]);
            assert_eq!(read.key_by_hash(&[9; 32])?, Some(key));
            assert_eq!(read.key_by_hash(&[8; 32])?, None);
            assert_eq!(read.template("acme", machine_id(9))?, Some(template));
            assert_eq!(read.template("other", machine_id(9))?, None);
            let found = read.machine("acme", machine_id(1))?.expect("the machine");
            assert_eq!((found.born, found.life), (one, Life::Alive));
            assert_eq!(read.machine("other", machine_id(1))?, None);
            Ok::<_, StoreError>(())
        })
        .expect("read");
}

#[test]
fn pages_show_each_machine_once_though_some_end_between_them() {
    let (_directory, store) = store();
    with_machines(&store, 10);
    let page = |after| Page { after, limit: 2 };
    let even = query(Some("even"), false);
    assert_eq!(ids(&store, &even, page(0)), [2, 4].map(machine_id));
    let ended = store.write(|write| {
        write.end_machine(machine_id(2), "deleted", NOW)?;
        write.end_machine(machine_id(6), "deleted", NOW)
    });
    assert!(ended.wait().expect("written"), "it was alive");
    assert_eq!(ids(&store, &even, page(4)), [8, 10].map(machine_id));
    let gone = query(Some("even"), true);
    assert_eq!(ids(&store, &gone, page(0)), [2, 6].map(machine_id));
    assert_eq!(ids(&store, &query(None, true), page(2)), [machine_id(6)]);
    let other = MachineQuery {
        tenant: "other".to_owned(),
        ..query(None, false)
    };
    assert!(ids(&store, &other, ALL).is_empty());
    let again = store.write(|write| write.end_machine(machine_id(2), "again", NOW));
    assert!(!again.wait().expect("written"), "a machine ends once");
}

#[test]
fn a_key_of_idempotency_is_claimed_once_and_replays_its_answer() {
    let (_directory, store) = store();
    let row = IdempotencyRow {
        tenant: "acme".to_owned(),
        route: "POST /v1/machines".to_owned(),
        key: "k1".to_owned(),
        body_hash: [1; 32],
    };
    let claim = |row: IdempotencyRow, n: u8| {
        let id = IntentId::from_bytes([n; 16]);
        let claimed = store.write(move |write| {
            write.add_intent(&intent(id))?;
            write.claim(&row, id, NOW)
        });
        claimed.wait().expect("written")
    };
    let mine = IntentId::from_bytes([1; 16]);
    assert_eq!(claim(row.clone(), 1), None);
    assert_eq!(claim(row.clone(), 2), Some(Claim::InFlight(mine)));
    let changed = IdempotencyRow {
        body_hash: [2; 32],
        ..row.clone()
    };
    assert_eq!(claim(changed, 3), Some(Claim::Mismatch));
    let elsewhere = IdempotencyRow {
        tenant: "other".to_owned(),
        ..row.clone()
    };
    assert_eq!(claim(elsewhere, 4), None);
    let answered = store.write(move |write| {
        write.close_intent(mine, "done", NOW)?;
        write.answer(mine, "{\"id\":1}")
    });
    answered.wait().expect("written");
    let known = store.read(|read| read.claim_of(&row));
    let known: Result<_, StoreError> = known;
    let answer = Claim::Answered("{\"id\":1}".to_owned());
    assert_eq!(known.expect("read"), Some(answer));
    let forgotten = store.write(|write| write.forget_keys(NOW.after(1)));
    assert_eq!(forgotten.wait().expect("written"), 1, "open ones stay");
}

#[test]
fn a_reader_of_events_is_told_what_was_trimmed() {
    let (_directory, store) = store();
    let report = |tenant: &'static str| {
        store.write(move |write| {
            write.report(&NewEvent {
                tenant: tenant.to_owned(),
                kind: "fork.done".to_owned(),
                subject: machine_id(1),
                at: NOW,
                data: "{}".to_owned(),
            })
        })
    };
    for tenant in ["acme", "other", "acme", "acme"] {
        report(tenant).wait().expect("written");
    }
    let trimmed = store.write(|write| write.trim_events(2));
    assert_eq!(trimmed.wait().expect("written"), 2);
    let page = |after| {
        let page = store.read(|read| read.events("acme", after, 10));
        let page: Result<_, StoreError> = page;
        let page = page.expect("read");
        let numbers: Vec<i64> = page.events.iter().map(|row| row.seq).collect();
        (page.gap, numbers)
    };
    assert_eq!(page(0), (Some(2), vec![3, 4]));
    assert_eq!(page(2), (None, vec![3, 4]));
    // A number is never used again, though the last event be gone.
    let all = store.write(|write| write.trim_events(0));
    all.wait().expect("written");
    assert_eq!(report("acme").wait().expect("written"), 5);
    assert_eq!(page(4), (None, vec![5]));
}

#[test]
fn holds_last_as_long_as_their_machines_or_their_time() {
    let (_directory, store) = store();
    let hold = |until: Option<Timestamp>| HoldRow {
        plugin: "quota".to_owned(),
        key: "live".to_owned(),
        per_request: 0,
        per_daughter: 1,
        until,
    };
    let mut living = intent(INTENT);
    living.holds = vec![hold(None)];
    let rate_id = IntentId::from_bytes([8; 16]);
    let mut rate = intent(rate_id);
    rate.holds = vec![hold(Some(NOW.after(10)))];
    let written = store.write(move |write| {
        write.add_intent(&living)?;
        write.add_intent(&rate)?;
        write.add_machine(&born(1, "x"))?;
        write.close_intent(INTENT, "done", NOW)?;
        write.close_intent(rate_id, "done", NOW)
    });
    written.wait().expect("written");
    let holding = |now: Timestamp| {
        let rows = store.read(|read| read.holding_intents(now));
        let rows: Result<Vec<_>, StoreError> = rows;
        let rows = rows.expect("read");
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(holding(NOW.after(9)), [INTENT, rate_id]);
    assert_eq!(holding(NOW.after(10)), [INTENT]);
    let ended = store.write(|write| write.end_machine(machine_id(1), "deleted", NOW));
    ended.wait().expect("written");
    assert!(holding(NOW.after(10)).is_empty());
}

#[test]
fn state_of_a_plugin_changes_whole_and_secrets_get_versions() {
    let (_directory, store) = store();
    let entry = |value| {
        Some(PluginEntry {
            value,
            expires: None,
        })
    };
    let changes = vec![
        ("a".to_owned(), entry(PluginValue::Counter(-3))),
        ("b".to_owned(), entry(PluginValue::Bytes(vec![1, 2]))),
    ];
    let written = store.write(move |write| {
        write.change_plugin_state("quota", &changes)?;
        write.change_plugin_state("quota", &[("b".to_owned(), None)])?;
        write.add_secret("acme", "token", NOW, |_| sealed(b"one"))?;
        write.add_secret("acme", "token", NOW, |_| sealed(b"two"))
    });
    assert_eq!(written.wait().expect("written"), 2);
    store
        .read(|read| {
            let state = read.plugin_state("quota")?;
            let a = entry(PluginValue::Counter(-3)).expect("some");
            assert_eq!(state, [("a".to_owned(), a)]);
            assert!(read.plugin_state("other")?.is_empty());
            let secret = read.secret("acme", "token", None)?.expect("newest");
            assert_eq!(
                (secret.version, secret.sealed.as_slice()),
                (2, b"two".as_slice())
            );
            assert_eq!(read.secret("other", "token", None)?, None);
            Ok::<_, StoreError>(())
        })
        .expect("read");
}

fn sealed(bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    Ok(bytes.to_vec())
}

#[test]
fn a_version_of_a_secret_never_means_another_value_though_it_was_removed() {
    let (_directory, store) = store();
    let put = |value: &'static [u8]| {
        let put =
            store.write(move |write| write.add_secret("acme", "token", NOW, |_| sealed(value)));
        put.wait().expect("written")
    };
    assert_eq!((put(b"one"), put(b"two")), (1, 2));
    let listed = |tenant: &'static str| store.read(|read| read.secrets(tenant)).expect("read");
    let all = listed("acme");
    assert_eq!((all.len(), all[0].newest, all[0].versions), (1, 2, 2));
    assert!(listed("other").is_empty());
    let first = store.read(|read| read.secret("acme", "token", Some(1)));
    let first = first.expect("read").expect("it is there");
    assert_eq!(first.sealed, b"one");
    let removed = store.write(|write| write.remove_secret("acme", "token"));
    assert_eq!(removed.wait().expect("written"), 2);
    assert!(listed("acme").is_empty());
    assert_eq!(put(b"three"), 3);
    let gone = store.read(|read| read.secret("acme", "token", Some(1)));
    assert_eq!(gone.expect("read"), None);
}

#[test]
fn what_a_machine_was_given_is_known_while_she_lives_and_goes_over_to_her_checkpoints() {
    let (_directory, store) = store();
    with_machines(&store, 1);
    let given = [
        GivenRow {
            target: GivenTarget::Env,
            place: "TOKEN".to_owned(),
            name: "token".to_owned(),
            version: 3,
        },
        GivenRow {
            target: GivenTarget::File,
            place: "/run/cert".to_owned(),
            name: "cert".to_owned(),
            version: 1,
        },
    ];
    let rows = given.clone();
    let written = store.write(move |write| {
        write.add_given(machine_id(1), &rows)?;
        write.pass_given_on(machine_id(1), machine_id(2))
    });
    written.wait().expect("written");
    let of = |id| {
        store
            .read(move |read| read.given(machine_id(id)))
            .expect("read")
    };
    assert_eq!((of(1), of(2)), (given.to_vec(), given.to_vec()));
    let ended = store.write(|write| write.end_machine(machine_id(1), "deleted", NOW));
    ended.wait().expect("written");
    assert_eq!((of(1), of(2)), (vec![], given.to_vec()));
}

#[test]
fn what_a_panicking_job_wrote_is_undone_and_the_writer_goes_on() {
    let (_directory, store) = store();
    let broken = store.write(|write| {
        write.add_intent(&intent(INTENT))?;
        let empty: [u8; 0] = [];
        let index = std::hint::black_box(3);
        Ok::<_, StoreError>(empty[index])
    });
    assert!(broken.wait().is_err());
    with_machines(&store, 1);
    assert_eq!(ids(&store, &query(None, false), ALL), [machine_id(1)]);
}

#[test]
fn a_database_at_its_limit_refuses_a_write_whole_and_takes_smaller_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions {
        most_pages: Some(120),
    };
    let store = Store::open(directory.path(), &options).expect("a store");
    with_machines(&store, 1);
    let large = store.write(|write| {
        write.add_machine(&born(2, "small"))?;
        write.add_secret("acme", "large", NOW, |_| sealed(&vec![0; 4 << 20]))
    });
    assert!(matches!(large.wait(), Err(StoreError::Full)));
    assert_eq!(ids(&store, &query(None, false), ALL), [machine_id(1)]);
    let small = store.write(|write| write.add_machine(&born(3, "small")));
    small.wait().expect("it fits");
    assert_eq!(
        ids(&store, &query(None, false), ALL),
        [1, 3].map(machine_id)
    );
}

fn ran(machine: u32, exec: u32, created: i64) -> ExecRow {
    ExecRow {
        machine: machine_id(machine),
        exec,
        tenant: "acme".to_owned(),
        argv: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        state: ExecState::Running,
        code: None,
        signal: None,
        created: Timestamp::from_millis(created),
        ended: None,
    }
}

fn exited(row: &ExecRow, code: i32, at: i64) -> ExecRow {
    ExecRow {
        state: ExecState::Exited,
        code: Some(code),
        ended: Some(Timestamp::from_millis(at)),
        ..row.clone()
    }
}

#[test]
fn a_program_ends_once_and_is_nobody_elses() {
    let (directory, store) = store();
    let row = ran(1, 7, 5);
    let ended = exited(&row, 3, 9);
    let steps = (row.clone(), ended.clone());
    let written = store.write(move |write| {
        Ok::<_, StoreError>([
            write.put_exec(&steps.0)?,
            write.put_exec(&steps.0)?,
            write.put_exec(&steps.1)?,
            write.put_exec(&exited(&steps.0, 4, 11))?,
            write.put_exec(&steps.0)?,
        ])
    });
    let news = written.wait().expect("written");
    assert_eq!(news, [true, false, true, false, false]);
    drop(store);
    let store = open(&directory);
    let found = store.read(|read| -> Result<_, StoreError> {
        assert_eq!(read.exec("other", machine_id(1), 7)?, None);
        assert_eq!(read.execs("other", machine_id(1), 10)?, []);
        read.exec("acme", machine_id(1), 7)
    });
    assert_eq!(found.expect("read"), Some(ended));
}

#[test]
fn a_lost_program_may_be_found_with_its_end_and_not_running() {
    let (_directory, store) = store();
    let lost = ExecRow {
        state: ExecState::Lost,
        ended: Some(NOW),
        ..ran(1, 7, 5)
    };
    let found = exited(&lost, 3, 9);
    let steps = [ran(1, 7, 5), lost, ran(1, 7, 5), found.clone()];
    let written = store.write(move |write| {
        let news = steps.iter().map(|row| write.put_exec(row));
        news.collect::<Result<Vec<_>, StoreError>>()
    });
    assert_eq!(written.wait().expect("written"), [true, true, false, true]);
    let row: Result<_, StoreError> = store.read(|read| read.exec("acme", machine_id(1), 7));
    assert_eq!(row.expect("read"), Some(found));
}

#[test]
fn a_daughter_has_her_mothers_programs_of_before_the_fork_and_no_end_of_after_it() {
    let (_directory, store) = store();
    let before = exited(&ran(1, 1, 5), 0, 999);
    let runs = ran(1, 2, 6);
    // The fork is begun at 1000.
    let ends_later = exited(&ran(1, 3, 7), 9, 1000);
    let starts_later = ran(1, 4, 1000);
    let rows = [
        before.clone(),
        runs.clone(),
        ends_later.clone(),
        starts_later,
    ];
    with_machines(&store, 1);
    let daughter = Born {
        mother: Some(machine_id(1)),
        ..born(2, "odd")
    };
    let written = store.write(move |write| {
        for row in &rows {
            write.put_exec(row)?;
        }
        write.add_machine(&daughter)
    });
    written.wait().expect("written");
    let hers = |row: ExecRow| ExecRow {
        machine: machine_id(2),
        ..row
    };
    let found = store.read(|read| read.execs("acme", machine_id(2), 10));
    let found: Result<_, StoreError> = found;
    let expected = [hers(before), hers(runs), hers(ran(1, 3, 7))];
    assert_eq!(found.expect("a list"), expected);
    let newest = store.read(|read| read.execs("acme", machine_id(2), 2));
    let newest: Result<_, StoreError> = newest;
    let ids: Vec<_> = newest.expect("a list").iter().map(|row| row.exec).collect();
    assert_eq!(ids, [2, 3]);
}
