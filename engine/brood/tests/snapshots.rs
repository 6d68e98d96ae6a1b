//! Snapshots over HTTP: taken, forked, sent elsewhere, slept in; with real cells, a real disk, and an engine that is killed.
//!
//! Guests are bare ones. Nobody asks them anything over HTTP, so between two engines this test is one itself, and has them
//! write and read their memory and disk.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command as Process;

use brood_api::fork::ForkSpec;
use brood_api::machine::{Machine, MachineSpec, State};
use brood_api::snapshot::{ImportQuery, Snapshot, SnapshotSpec};
use brood_api::template::{GuestKind, TemplateSpec, Visibility};
use brood_api::{Code, ListQuery};
use brood_bare_guest::mailbox::Command;
use brood_cell::protocol::Motion;
use brood_cell::{Cell, Ends, Handle, LayerSource};
use brood_client::{ApiKey, Client, ClientError};
use brood_supervisor::{Supervisor, SupervisorProgram};
use brood_testkit::{children_of, is_alive, scratch, settle};
use brood_units::MachineId;
use serde_json::json;

use crate::program::{Options, Program, components, kvm};

/// Where the guest counts.
const WORD: u64 = 0x40_0000;
/// What it has filled, so that no page of it is like another.
const FILLED: u64 = 0x80_0000;
const BYTES: u64 = 16 << 20;
const SEED: u64 = 7;
const SECTOR: u64 = 100;

/// An engine with a client of it.
struct Engine {
    program: Program,
    client: Client,
    key: String,
}

impl Engine {
    fn start(options: &Options<'_>, key: Option<String>) -> Self {
        let program = Program::start(options);
        let key = program.key().or(key).expect("a key");
        let client = Client::new(program.address(), ApiKey::new(&key));
        Self {
            program,
            client,
            key,
        }
    }

    /// Kills it and starts the next.
    fn killed_and_started(mut self, options: &Options<'_>, meanwhile: impl FnOnce()) -> Self {
        self.program.kill();
        meanwhile();
        Self::start(options, Some(self.key.clone()))
    }

    /// A machine of a bare template.
    fn mother(&self) -> Machine {
        let template = TemplateSpec {
            name: "counter".to_owned(),
            guest: GuestKind::Bare,
            vcpus: 1,
            memory_mib: 64,
            visibility: Visibility::Private,
        };
        self.client.create_template(&template, None).expect("made");
        let spec: MachineSpec =
            serde_json::from_value(json!({ "template": "counter", "name": "mother" }))
                .expect("a machine");
        self.client.create_machine(&spec, None).expect("made")
    }

    fn take(&self, machine: MachineId, name: &str) -> Snapshot {
        let spec = SnapshotSpec {
            name: Some(name.to_owned()),
            ..SnapshotSpec::default()
        };
        self.client
            .create_snapshot(machine, &spec, None)
            .expect("taken")
    }

    fn fork(&self, snapshot: &str, count: u32) -> Vec<Machine> {
        let forked = self
            .client
            .fork_snapshot(snapshot, &of(count), None)
            .expect("forked");
        let daughters = forked.daughters.into_iter().filter_map(|one| one.machine);
        daughters.collect()
    }

    fn kill(&self, machine: MachineId) {
        let cascade = Default::default();
        self.client.end_machine(machine, &cascade).expect("ended");
    }

    fn state(&self, machine: MachineId) -> State {
        self.client.show_machine(machine).expect("there").state
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let all = self.client.list_snapshots(&ListQuery::default());
        all.expect("listed").items
    }

    fn finish(mut self) {
        let supervisor = self.program.supervisor();
        self.program.interrupt();
        if let Some(pid) = supervisor {
            settle("the supervisor has ended", || !is_alive(pid));
        }
    }
}

fn of(count: u32) -> ForkSpec {
    serde_json::from_value(json!({ "count": count })).expect("a fork")
}

fn code(error: &ClientError) -> Option<Code> {
    error.problem().map(|problem| problem.code)
}

/// What this test does with each guest that runs, while no engine is there; how many those were.
fn with_guests(state: &Path, mut work: impl FnMut(&mut Cell)) -> usize {
    let program = SupervisorProgram {
        path: env!("CARGO_BIN_EXE_brood").into(),
        arguments: vec!["supervisor".to_owned()],
    };
    let ends = Ends::new();
    let supervisor = Supervisor::connect(state, &program, |_| ()).expect("it is there");
    let mut told = 0;
    let entries = supervisor.list().expect("list").into_iter();
    for entry in entries.filter(|entry| entry.end.is_none()) {
        let kept = supervisor.duplicate(entry.id).expect("it lives");
        let handle = Handle {
            id: entry.id,
            pid: kept.pid,
            control: kept.control,
            pidfd: kept.pidfd,
        };
        // A shell that waits to become a warm daughter takes no greeting, and ends with the server that wanted it.
        let Ok((mut cell, found)) = Cell::adopt(handle, LayerSource::new(state), &ends) else {
            continue;
        };
        // The template's own stand still.
        if found.motion == Motion::Running {
            work(&mut cell);
            told += 1;
        }
        cell.leave();
    }
    told
}

fn ask(cell: &mut Cell, command: Command) -> u64 {
    let answer = cell.command(0, command).expect("an answer");
    answer.unwrap_or_else(|fault| unreachable!("{command:?}: {fault:?}"))
}

/// Has a guest fill memory and a sector of its disk, and count for ever; what it has filled, summed up.
fn busy(cell: &mut Cell) -> (u64, u64) {
    let (start, bytes) = (FILLED, BYTES);
    ask(
        cell,
        Command::Fill {
            start,
            bytes,
            seed: SEED,
        },
    );
    ask(
        cell,
        Command::BlkWrite {
            lba: SECTOR,
            seed: SEED,
        },
    );
    let sums = sums(cell);
    let begun = cell.begin_command(0, Command::Count { addr: WORD });
    begun.expect("it counts");
    sums
}

fn sums(cell: &mut Cell) -> (u64, u64) {
    let (start, bytes) = (FILLED, BYTES);
    let memory = ask(cell, Command::Checksum { start, bytes });
    (memory, ask(cell, Command::BlkRead { lba: SECTOR }))
}

/// How far a guest has counted since she began, as she says herself and as her memory says; she has gone on.
fn counted(cell: &mut Cell) -> u64 {
    let said = ask(cell, Command::Idle {});
    cell.outcome(0).expect("idle answers too").expect("idle");
    let word = ask(cell, Command::Read64 { addr: WORD });
    assert_eq!(said, word, "each increment is in her memory");
    let begun = cell.begin_command(0, Command::Count { addr: WORD });
    begun.expect("it counts");
    settle("she counts on", || {
        // Whoever is asked stops counting.
        ask(cell, Command::Idle {});
        cell.outcome(0).expect("idle answers too").expect("idle");
        let now = ask(cell, Command::Read64 { addr: WORD });
        let begun = cell.begin_command(0, Command::Count { addr: WORD });
        begun.expect("it counts");
        now > word
    });
    word
}

/// A state directory, and what an engine in it is started with; none, with a printed reason, where it cannot be.
fn ready() -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    let (Some(components), true) = (components(), kvm()) else {
        return None;
    };
    // A supervisor whose engine has died is a child of this process from then on.
    brood_cell::become_reaper().expect("reaper");
    Some((scratch(), components))
}

#[test]
fn daughters_of_a_snapshot_go_on_where_the_mother_was_though_she_and_three_engines_are_gone() {
    let Some((state, components)) = ready() else {
        return;
    };
    let options = Options::new(state.path(), &components);
    let engine = Engine::start(&options, None);
    let mother = engine.mother();
    let mut filled = None;
    let engine = engine.killed_and_started(&options, || {
        let told = with_guests(state.path(), |cell| filled = Some(busy(cell)));
        assert_eq!(told, 1, "the mother");
    });
    let filled = filled.expect("it was");
    let snapshot = engine.take(mother.id, "kept");
    assert_eq!((snapshot.machine, snapshot.memory_mib), (mother.id, 64));
    assert!(snapshot.bytes >= BYTES, "{snapshot:?}");
    let mut reached = 0;
    let engine = engine.killed_and_started(&options, || {
        // She has run on since.
        with_guests(state.path(), |cell| reached = counted(cell));
    });
    engine.kill(mother.id);
    let engine = engine.killed_and_started(&options, || ());
    let daughters = engine.fork("kept", 2);
    assert_eq!(daughters.len(), 2);
    for one in &daughters {
        assert_eq!((one.lineage, one.mother), (one.id, None));
        assert_eq!(one.template, mother.template);
    }
    engine.client.remove_snapshot("kept").expect("removed");
    let engine = engine.killed_and_started(&options, || {
        let told = with_guests(state.path(), |cell| {
            assert!(counted(cell) > 0);
            ask(cell, Command::Idle {});
            cell.outcome(0).expect("idle answers too").expect("idle");
            assert_eq!(sums(cell), filled);
        });
        assert_eq!(told, 2, "both daughters");
    });
    assert!(reached > 0);
    assert!(engine.snapshots().is_empty());
    engine.finish();
}

#[test]
fn a_machine_sleeps_under_her_id_and_wakes_in_the_next_engine_where_she_was() {
    let Some((state, components)) = ready() else {
        return;
    };
    let options = Options::new(state.path(), &components);
    let engine = Engine::start(&options, None);
    let mother = engine.mother();
    let mut filled = None;
    let engine = engine.killed_and_started(&options, || {
        with_guests(state.path(), |cell| filled = Some(busy(cell)));
    });
    let slept = engine.client.hibernate_machine(mother.id).expect("asleep");
    assert_eq!((slept.id, slept.state), (mother.id, State::Hibernated));
    assert_eq!(slept.name.as_deref(), Some("mother"));
    // Nothing of her is in memory: no process is left but those of the template, which she was not made by.
    let again = engine
        .client
        .hibernate_machine(mother.id)
        .expect("as she is");
    assert_eq!(again.state, State::Hibernated);
    let bed = engine.snapshots().pop().expect("what she sleeps in");
    assert_eq!(bed.hibernates, Some(mother.id));
    let engine = engine.killed_and_started(&options, || {
        assert_eq!(with_guests(state.path(), |_| ()), 0, "nobody runs");
    });
    assert_eq!(engine.state(mother.id), State::Hibernated);
    let refused = engine.client.fork_machine(mother.id, &of(1), None);
    assert_eq!(code(&refused.expect_err("asleep")), Some(Code::Conflict));
    let bound = engine.client.remove_snapshot(&bed.id.to_string());
    assert_eq!(code(&bound.expect_err("bound")), Some(Code::Conflict));
    let woken = engine.client.wake_machine(mother.id).expect("awake");
    assert_eq!((woken.id, woken.state), (mother.id, State::Running));
    assert_eq!(woken.created_at, mother.created_at);
    assert!(engine.snapshots().is_empty(), "it went with her sleep");
    let engine = engine.killed_and_started(&options, || {
        let told = with_guests(state.path(), |cell| {
            assert!(counted(cell) > 0);
            ask(cell, Command::Idle {});
            cell.outcome(0).expect("idle answers too").expect("idle");
            assert_eq!(Some(sums(cell)), filled);
        });
        assert_eq!(told, 1, "she herself");
    });
    // Asleep again, she is ended like anybody, and nothing of her stays on disk.
    engine.client.hibernate_machine(mother.id).expect("asleep");
    engine.kill(mother.id);
    assert_eq!(engine.state(mother.id), State::Ended);
    assert!(engine.snapshots().is_empty());
    assert_eq!(packed(state.path()), 0, "no byte of a snapshot is left");
    engine.finish();
}

#[test]
fn an_export_is_taken_by_another_engine_whole_or_not_at_all() {
    let Some((state, components)) = ready() else {
        return;
    };
    let options = Options::new(state.path(), &components);
    let engine = Engine::start(&options, None);
    let mother = engine.mother();
    let mut filled = None;
    let engine = engine.killed_and_started(&options, || {
        with_guests(state.path(), |cell| filled = Some(busy(cell)));
    });
    let taken = engine.take(mother.id, "kept");
    let mut bytes = Vec::new();
    let mut export = engine.client.export_snapshot("kept").expect("sent");
    export.read_to_end(&mut bytes).expect("whole");
    engine.finish();

    let elsewhere = scratch();
    let options = Options::new(elsewhere.path(), &components);
    let engine = Engine::start(&options, None);
    let query = |name: &str| ImportQuery {
        name: Some(name.to_owned()),
    };
    let half = bytes.get(..bytes.len() / 2).expect("half");
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (bad, why) in [
        (half, "half"),
        (flipped.as_slice(), "flipped"),
        (b"", "none"),
    ] {
        let refused = engine.client.import_snapshot(&query("bad"), bad);
        let refused = refused.expect_err(why);
        assert_eq!(code(&refused), Some(Code::SnapshotDamaged), "{why}");
        assert!(engine.snapshots().is_empty(), "{why}");
        assert_eq!(packed(elsewhere.path()), 0, "{why}: a byte is left");
    }
    let imported = engine
        .client
        .import_snapshot(&query("kept"), bytes.as_slice())
        .expect("taken");
    assert_eq!((imported.machine, imported.bytes), (mother.id, taken.bytes));
    assert_ne!(imported.id, taken.id);
    let again = engine
        .client
        .import_snapshot(&query("kept"), bytes.as_slice());
    assert_eq!(code(&again.expect_err("taken")), Some(Code::Conflict));
    assert_eq!(engine.fork("kept", 1).len(), 1);
    let engine = engine.killed_and_started(&options, || {
        let told = with_guests(elsewhere.path(), |cell| {
            assert!(counted(cell) > 0);
            ask(cell, Command::Idle {});
            cell.outcome(0).expect("idle answers too").expect("idle");
            assert_eq!(Some(sums(cell)), filled);
        });
        assert_eq!(told, 1, "she goes on here");
    });
    engine.finish();
}

#[test]
fn a_disk_that_is_full_is_said_so_and_the_machine_runs_on_with_nothing_left_behind() {
    let Some((state, components)) = ready() else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "only root can mount");
        println!("skipped: only root can mount a small disk");
        return;
    }
    let options = Options::new(state.path(), &components);
    let engine = Engine::start(&options, None);
    let mother = engine.mother();
    let snapshots = state.path().join("snapshots");
    let small = Mounted::over(&snapshots, "4m");
    let engine = engine.killed_and_started(&options, || {
        with_guests(state.path(), |cell| {
            busy(cell);
        });
    });
    let spec = SnapshotSpec::default();
    let full = engine.client.create_snapshot(mother.id, &spec, None);
    let full = full.expect_err("there is no room");
    assert_eq!(code(&full), Some(Code::SnapshotDiskFull), "{full}");
    let slept = engine.client.hibernate_machine(mother.id);
    assert_eq!(
        code(&slept.expect_err("there is no room")),
        Some(Code::SnapshotDiskFull)
    );
    assert_eq!(engine.state(mother.id), State::Running);
    assert!(engine.snapshots().is_empty());
    assert_eq!(packed(state.path()), 0, "a byte is left");
    let engine = engine.killed_and_started(&options, || {
        let told = with_guests(state.path(), |cell| assert!(counted(cell) > 0));
        assert_eq!(told, 1, "she counts on");
    });
    engine.finish();
    drop(small);
}

/// A small file system over a directory, until it is dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn over(directory: &Path, size: &str) -> Self {
        let options = format!("size={size}");
        let mounted = Process::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory)
            .status();
        assert!(mounted.is_ok_and(|status| status.success()));
        Self(directory.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Process::new("umount").arg(&self.0).status();
        // After a test that failed an engine may still be there.
        unmounted.map(|status| status.success()).ok();
    }
}

/// The packs of the tenant of the first key.
fn packs(state: &Path) -> Vec<std::path::PathBuf> {
    // Nobody has made one yet.
    let Ok(packs) = std::fs::read_dir(state.join("snapshots/default/packs")) else {
        return Vec::new();
    };
    packs.map(|entry| entry.expect("an entry").path()).collect()
}

/// Bytes of them.
fn packed(state: &Path) -> u64 {
    let packs = packs(state).into_iter();
    packs
        .map(|pack| pack.metadata().expect("it is there").len())
        .sum()
}

#[test]
fn a_chunk_that_is_damaged_ends_the_daughter_who_reads_it_with_its_number_and_nobody_else() {
    let Some((state, components)) = ready() else {
        return;
    };
    let options = Options::new(state.path(), &components);
    let engine = Engine::start(&options, None);
    let mother = engine.mother();
    let engine = engine.killed_and_started(&options, || {
        with_guests(state.path(), |cell| {
            busy(cell);
        });
    });
    engine.take(mother.id, "kept");
    // Every chunk of what the guest filled is found by its first word; one bit of one is turned over.
    let biggest = packs(state.path())
        .into_iter()
        .max_by_key(|path| path.metadata().map(|about| about.len()).unwrap_or(0))
        .expect("a pack");
    let mut bytes = std::fs::read(&biggest).expect("read");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let mut file = std::fs::File::options()
        .write(true)
        .open(&biggest)
        .expect("opened");
    file.write_all(&bytes).expect("written");
    drop(file);
    // She runs at first, and whether she is known by then is a matter of time.
    let how = match engine.client.fork_snapshot("kept", &of(1), None) {
        Ok(forked) => {
            let machine = forked.daughters[0].machine.as_ref();
            let id = machine.expect("she was born").id;
            settle("she has ended", || engine.state(id) == State::Ended);
            let ended = engine.client.show_machine(id).expect("there");
            ended.ending.expect("how")
        }
        Err(error) => error.to_string(),
    };
    assert!(how.contains("chunk"), "{how}");
    assert_eq!(engine.state(mother.id), State::Running);
    engine.finish();
}

#[test]
fn the_cell_of_a_machine_goes_as_she_falls_asleep_and_she_has_another_when_she_wakes() {
    let Some((state, components)) = ready() else {
        return;
    };
    let options = Options::new(state.path(), &components);
    let engine = Engine::start(&options, None);
    let mother = engine.mother();
    let supervisor = engine.program.supervisor().expect("a supervisor");
    // The template's own, and its pool.
    let others = 5;
    let cells = || children_of(supervisor).len();
    settle("the pool is full", || cells() == others + 1);
    engine.client.hibernate_machine(mother.id).expect("asleep");
    settle("her cell has gone", || cells() == others);
    engine.client.wake_machine(mother.id).expect("awake");
    assert_eq!(cells(), others + 1);
    engine.finish();
}
