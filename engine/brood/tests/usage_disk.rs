//! A disk that is full under a server that runs: a small tmpfs as its state directory, machines that are bare guests. Whoever
//! asks is told what is wrong, nothing of what was used is lost, and with room again everything goes on.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use brood_api::Code;
use brood_api::fork::ForkSpec;
use brood_api::machine::{EndQuery, State};
use brood_api::usage::{Credit, CreditSpec, UsageQuery, UsageRecord, UsageRows};
use brood_cell::protocol::Motion;
use brood_cell::{Cell, Ends, Handle, LayerSource};
use brood_client::{ApiKey, Client, ClientError};
use brood_supervisor::{Supervisor, SupervisorProgram};
use brood_testkit::{children_of, scratch, settle};
use brood_units::MachineId;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use crate::policy::enforced;
use crate::program::{Options, Program, components, kvm};
use crate::usage_reconcile::{Reaped, kill, make_mother, read};

/// A file system of 32 MiB, until it is dropped.
struct Small(PathBuf);

impl Small {
    /// None, with a printed reason, where none can be mounted and nobody insists.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).expect("a directory");
        let flags = MountFlags::empty();
        match mount("tmpfs", &at, "tmpfs", flags, c"size=32m,mode=0700") {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                println!("skipped: a tmpfs cannot be mounted: {error}");
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes every page that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file");
        loop {
            match ballast.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => unreachable!("{error}"),
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it is there");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // After a test that failed somebody may still have it open.
        unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

fn fork(client: &Client, mother: MachineId, count: u32) -> Result<Vec<MachineId>, ClientError> {
    let spec: ForkSpec = serde_json::from_value(json!({ "count": count })).expect("a fork");
    let answer = client.fork_machine(mother, &spec, None)?;
    let daughters = answer.daughters.into_iter();
    Ok(daughters
        .map(|one| one.machine.expect("she was born").id)
        .collect())
}

fn end(client: &Client, machine: MachineId) -> Result<(), ClientError> {
    let alone = EndQuery { cascade: None };
    client.end_machine(machine, &alone).map(|_| ())
}

/// What is wrong, and that the caller is told what to do.
fn is_full<T>(what: &str, answer: Result<T, ClientError>) {
    let Err(error) = answer else {
        unreachable!("{what}: it was done")
    };
    let problem = error
        .problem()
        .unwrap_or_else(|| unreachable!("{what}: {error}"));
    assert_eq!(
        (problem.code, problem.status, problem.retryable),
        (Code::StoreFull, Some(507), true),
        "{what}: {problem:?}"
    );
    assert!(problem.remediation.contains("free space"), "{problem:?}");
}

/// Posts a credit, always the same one.
fn post(client: &Client) -> Result<Credit, ClientError> {
    let credit = CreditSpec {
        currency: "EUR".to_owned(),
        amount: "1".to_owned(),
        note: String::new(),
    };
    client.post_credit("default", "k", &credit)
}

/// Whatever has to be written down is refused, and who only looks is answered.
fn asks_in_vain(client: &Client, mother: MachineId, daughter: MachineId) {
    is_full("fork", fork(client, mother, 1));
    is_full("pause", client.pause_machine(mother));
    is_full("credit", post(client));
    is_full("rate", client.rate_usage());
    is_full("end", end(client, daughter));
    let seen = client.show_machine(mother).expect("she is there");
    assert_eq!(
        seen.state,
        State::Running,
        "what was refused has not happened"
    );
    assert_eq!(client.check_usage().expect("looked").breaks, [""; 0]);
    client
        .show_usage(&UsageQuery::default())
        .expect("summed up");
}

/// What a machine's cell does, asked as the next engine does.
fn motions(state: &Path) -> Vec<Motion> {
    let program = SupervisorProgram {
        path: env!("CARGO_BIN_EXE_brood").into(),
        arguments: vec!["supervisor".to_owned()],
    };
    let ends = Ends::new();
    let supervisor = Supervisor::connect(state, &program, |_| ()).expect("it is there");
    let entries = supervisor.list().expect("list").into_iter();
    let mut motions = Vec::new();
    for entry in entries.filter(|entry| entry.end.is_none()) {
        let kept = supervisor.duplicate(entry.id).expect("it lives");
        let handle = Handle {
            id: entry.id,
            pid: kept.pid,
            control: kept.control,
            pidfd: kept.pidfd,
        };
        // A shell that waits to become a warm daughter takes no greeting.
        if let Ok((cell, found)) = Cell::adopt(handle, LayerSource::new(state), &ends) {
            motions.push(found.motion);
            cell.leave();
        }
    }
    motions
}

/// She has one end, and of none of her windows the count is a guess.
fn has_ended_once(machine: MachineId, records: &[UsageRecord]) {
    let hers: Vec<_> = records
        .iter()
        .filter(|record| record.machine == machine)
        .collect();
    let ends = hers.iter().filter(|record| record.cause == "end").count();
    assert_eq!(ends, 1, "{machine}: {hers:?}");
    assert!(hers.iter().all(|record| !record.estimated), "{hers:?}");
    assert!(
        hers.iter().map(|record| record.cpu_ns).sum::<u64>() > 0,
        "{hers:?}"
    );
}

#[test]
fn a_full_disk_is_told_to_whoever_asks_and_with_room_again_everything_goes_on_and_nothing_is_lost()
{
    if !kvm() {
        return;
    }
    let Some(components) = components() else {
        return;
    };
    let directory = scratch();
    let state = directory.path().join("state");
    let Some(small) = Small::mount(state.clone()) else {
        return;
    };
    let policy = directory.path().join("policy.toml");
    fs::write(&policy, enforced()).expect("written");
    let options = Options {
        policy: Some(&policy),
        ..Options::new(&state, &components)
    };
    let mut server = Program::start(&options);
    let key = server.key();
    let client =
        |server: &Program| Client::new(server.address(), key.as_deref().and_then(ApiKey::new));
    let first = client(&server);
    let supervisor = server.supervisor().expect("it has one");
    let _ended = Reaped(supervisor);
    let mother = make_mother(&first, supervisor);
    let daughters = fork(&first, mother, 2).expect("there is room");
    let states = |client: &Client| {
        let state = |id: &MachineId| client.show_machine(*id).expect("there").state;
        daughters.iter().map(state).collect::<Vec<_>>()
    };

    small.fill();
    asks_in_vain(&first, mother, daughters[0]);
    // The one who is left is killed meanwhile: the other's end was refused, and yet she has ended.
    let cells = |pid| children_of(pid);
    let mother_pid = cells(supervisor)
        .into_iter()
        .find(|pid| cells(*pid).len() == 1)
        .expect("one daughter is left");
    kill(cells(mother_pid)[0]);
    settle("both have ended", || cells(mother_pid).is_empty());

    small.make_room();
    settle("both are written down as ended", || {
        states(&first) == [State::Ended, State::Ended]
    });
    let born = fork(&first, mother, 1).expect("there is room again");
    end(&first, born[0]).expect("she ends");
    let posted = post(&first).expect("posted");
    assert_eq!(posted.amount, "1", "the first time, as nothing was kept");
    // An engine that comes now finds every machine doing what is written down.
    server.kill();
    let running = motions(&state).into_iter();
    let running = running.filter(|motion| *motion == Motion::Running);
    assert_eq!(running.count(), 1, "the mother, whose pause was undone");
    server = Program::start(&options);
    let second = client(&server);
    end(&second, mother).expect("she ends");
    let rated = second.rate_usage().expect("rated");
    assert_eq!((rated.held, rated.dead), (0, 0));
    let check = second.check_usage().expect("looked");
    assert_eq!(check.breaks, [""; 0]);
    let records: Vec<UsageRecord> = read(&second, UsageRows::Records);
    for machine in daughters.iter().chain(&born).chain([&mother]) {
        has_ended_once(*machine, &records);
    }
    let summary = second.show_usage(&UsageQuery::default()).expect("looked");
    assert_eq!(
        (summary.unsealed, summary.held, summary.dead),
        (0, 0, 0),
        "all of it is billed"
    );
    server.interrupt();
}
