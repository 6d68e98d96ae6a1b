//! What is billed against what the kernel counts: a control group of the test's own around the supervisor and every cell.
//!
//! 500 machines spin in ring 3 for 10 to 500 ms each; a part of them is killed by SIGKILL, and so is the server, midway, with
//! cells killed while nobody is there. The sum of the rated CPU time is held against the group's, of which what is no machine's is
//! taken off: the supervisor and the template's cells, by their own CPU clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use brood_api::fork::ForkSpec;
use brood_api::machine::EndQuery;
use brood_api::usage::{UsageLine, UsageQuery, UsageRecord, UsageRows};
use brood_bare_guest::mailbox::Command;
use brood_cell::protocol::Motion;
use brood_cell::{Cell, Ends, Handle, LayerSource};
use brood_client::{ApiKey, Client, ClientError};
use brood_supervisor::{Supervisor, SupervisorProgram};
use brood_testkit::{children_of, scratch, settle};
use brood_units::MachineId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::policy::enforced;
use crate::program::{Options, Program, components, kvm};

const MACHINES: usize = 500;
/// Where the guest counts.
const WORD: u64 = 0x40_0000;
/// While no server is there.
const RETRY: Duration = Duration::from_millis(5);
/// Callers at once, each with one machine at a time.
const CALLERS: usize = 6;

/// A control group that counts CPU time, of version 2 or 1.
struct Group {
    directory: PathBuf,
    is_unified: bool,
}

impl Group {
    /// None, with a printed reason, where none can be made and nobody insists.
    fn make() -> Option<Self> {
        let name = format!("brood-test-{}", std::process::id());
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
        // Version 2 counts CPU time of every group, whether a controller is on or not (cgroup-v2.rst, "CPU Interface Files").
        let is_unified = unified.exists();
        let parent = if is_unified {
            "/sys/fs/cgroup"
        } else {
            "/sys/fs/cgroup/cpuacct"
        };
        let directory = Path::new(parent).join(name);
        match fs::create_dir(&directory) {
            Ok(()) => Some(Self {
                directory,
                is_unified,
            }),
            Err(error) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "{}: {error}",
                    directory.display()
                );
                println!("skipped: {}: {error}", directory.display());
                None
            }
        }
    }

    fn take(&self, pid: u32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).expect("it moves");
    }

    fn cpu_ns(&self) -> u64 {
        let read = |file: &str| fs::read_to_string(self.directory.join(file)).expect("it counts");
        if !self.is_unified {
            return read("cpuacct.usage").trim().parse().expect("nanoseconds");
        }
        let stat = read("cpu.stat");
        let micros = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        micros
            .and_then(|micros| micros.parse::<u64>().ok())
            .expect("usage_usec")
            * 1000
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It goes once everybody in it has ended; a test that failed may leave it.
        fs::remove_dir(&self.directory).ok();
    }
}

/// The supervisor, who ends with everybody she keeps when the test does, however that goes.
pub(crate) struct Reaped(pub(crate) u32);

impl Drop for Reaped {
    fn drop(&mut self) {
        kill(self.0);
    }
}

/// Prices CPU time by the nanosecond, so that the sum of all lines is the sum of what was counted.
fn prices() -> String {
    let price = "[[plugin.price-table.settings.plans.list.prices]]\nname = \"cpu\"\ndimension = \"vcpu-active-ns\"\nper = 1\n\
        tiers = [{ price = \"0.000000001\" }]\n\n[[admission]]";
    let policy = enforced().replacen("[[admission]]", price, 1);
    assert!(policy.contains("vcpu-active-ns"));
    policy
}

pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");
    // Whoever has ended by itself meanwhile is as good.
    kill_process(pid, Signal::KILL).ok();
}

/// What changes when the server does.
struct Now {
    client: Mutex<Client>,
    /// Machines whose end was seen.
    ended: AtomicUsize,
    /// Held by who has a fork under way: a daughter who was not written down when the server was killed is nobody's machine,
    /// nobody pays for her, and the next server ends her. `crash.rs` is about those.
    forks: RwLock<()>,
}

impl Now {
    fn client(&self) -> Client {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks until there is an answer, of whichever server.
    fn ask<T>(&self, ask: impl Fn(&Client) -> Result<T, ClientError>) -> Result<T, ClientError> {
        loop {
            match ask(&self.client()) {
                Err(ClientError::Unreachable { .. }) => std::thread::sleep(RETRY),
                other => return other,
            }
        }
    }
}

/// One machine after another, each for its time; every seventh is killed as the kernel would.
fn caller(now: &Now, mother: MachineId, mother_pid: u32, number: usize) {
    let one: ForkSpec = serde_json::from_value(json!({ "count": 1 })).expect("a fork");
    for index in (number..MACHINES).step_by(CALLERS) {
        let once = format!("fork-{index}");
        let forked = {
            let _under_way = now.forks.read().unwrap_or_else(PoisonError::into_inner);
            now.ask(|client| client.fork_machine(mother, &one, Some(&once)))
        };
        let forked = forked.unwrap_or_else(|error| unreachable!("fork {index}: {error}"));
        let daughter = forked.daughters[0]
            .machine
            .as_ref()
            .expect("she was born")
            .id;
        // Her work: no two in a row have the same length, and none is a multiple of a tick.
        std::thread::sleep(Duration::from_micros(
            10_000 + (index as u64 * 7_919_317) % 490_000,
        ));
        if index % 7 == 0
            && let Some(pid) = children_of(mother_pid).first()
        {
            // Somebody's, hers or a sister's.
            kill(*pid);
        }
        let cascade = EndQuery { cascade: None };
        match now.ask(|client| client.end_machine(daughter, &cascade)) {
            Ok(_) | Err(ClientError::Refused(_)) => {}
            Err(error) => unreachable!("end {index}: {error}"),
        }
        now.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Tells the machine to count in ring 3 for ever, as an engine of its own between two servers: nobody asks a bare guest
/// anything over HTTP. Her daughters go on with what she does.
fn have_it_spin(state: &Path) {
    let program = SupervisorProgram {
        path: env!("CARGO_BIN_EXE_brood").into(),
        arguments: vec!["supervisor".to_owned()],
    };
    let ends = Ends::new();
    let supervisor = Supervisor::connect(state, &program, |_| ()).expect("it is there");
    let mut told = 0;
    for entry in supervisor
        .list()
        .expect("list")
        .into_iter()
        .filter(|entry| entry.end.is_none())
    {
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
            cell.begin_command(0, Command::Count { addr: WORD })
                .expect("told");
            told += 1;
        }
        cell.leave();
    }
    assert_eq!(told, 1, "the mother");
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(client: &Client, rows: UsageRows) -> Vec<T> {
    let query = UsageQuery {
        rows: Some(rows),
        ..UsageQuery::default()
    };
    let mut text = String::new();
    let mut reader = client.read_usage(&query).expect("usage");
    reader.read_to_string(&mut text).expect("usage");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"));
    rows.collect()
}

/// Starts a server and a client of it.
fn serve(options: &Options<'_>, key: &mut Option<String>) -> (Program, Client) {
    let server = Program::start(options);
    *key = server.key().or_else(|| key.take());
    let client = Client::new(server.address(), key.as_deref().and_then(ApiKey::new));
    (server, client)
}

/// CPU time of each cell that the supervisor has started: of the template, of warm daughters, of the mother.
fn started_ns(supervisor: u32) -> BTreeMap<u32, u64> {
    let started = children_of(supervisor).into_iter();
    let clock = |pid| Some((pid, brood_control::cpu_ns(pid)?));
    started.filter_map(clock).collect()
}

/// The CPU time of those that the next engine ends: nobody's usage.
fn others_ns(started: &BTreeMap<u32, u64>, mother: u32) -> u64 {
    let others = started.iter().filter(|(pid, _)| **pid != mother);
    others.map(|(_, ns)| ns).sum()
}

/// A template and a machine of it.
pub(crate) fn make_mother(client: &Client, supervisor: u32) -> MachineId {
    let template = json!({ "name": "spin", "guest": "bare", "memory_mib": 64 });
    let template = serde_json::from_value(template).expect("a template");
    client.create_template(&template, None).expect("a template");
    let machine = json!({ "template": "spin", "name": "mother" });
    let machine = serde_json::from_value(machine).expect("a machine");
    let mother = client.create_machine(&machine, None).expect("a machine").id;
    // The pool is filled up behind the answer: who is measured must not be in the making.
    settle(
        "the template, she and four warm daughters are there",
        || children_of(supervisor).len() == 1 + 1 + 4,
    );
    mother
}

#[test]
fn what_is_billed_is_what_the_kernel_counted_though_the_server_and_cells_are_killed() {
    if !kvm() {
        return;
    }
    let Some(components) = components() else {
        return;
    };
    let Some(group) = Group::make() else { return };
    let directory = scratch();
    let (state, policy) = (
        directory.path().join("state"),
        directory.path().join("policy.toml"),
    );
    fs::write(&policy, prices()).expect("written");
    let options = Options {
        policy: Some(&policy),
        ..Options::new(&state, &components)
    };
    let mut key = None;
    let (mut server, client) = serve(&options, &mut key);
    let supervisor = server.supervisor().expect("it has one");
    let _ended = Reaped(supervisor);
    group.take(supervisor);
    let supervisor_before = brood_control::cpu_ns(supervisor).expect("it lives");

    let mother = make_mother(&client, supervisor);
    server.kill();
    have_it_spin(&state);
    let started = started_ns(supervisor);
    let (again, client) = serve(&options, &mut key);
    server = again;
    settle(
        "the template and its warm daughters are ended by the next engine",
        || children_of(supervisor).len() == 1,
    );
    let mother_pid = children_of(supervisor)[0];
    let others = others_ns(&started, mother_pid);

    let now = Now {
        client: Mutex::new(client),
        ended: AtomicUsize::new(0),
        forks: RwLock::new(()),
    };
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let now = &now;
            scope.spawn(move || caller(now, mother, mother_pid, number));
        }
        while now.ended.load(Ordering::SeqCst) < MACHINES / 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _none_under_way = now.forks.write().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(children_of(supervisor), [mother_pid], "all others are hers");
        server.kill();
        // Nobody is there but the supervisor.
        children_of(mother_pid).into_iter().take(2).for_each(kill);
        let (again, client) = serve(&options, &mut key);
        server = again;
        *now.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    });

    let client = now.client();
    let cascade = EndQuery {
        cascade: Some(true),
    };
    client.end_machine(mother, &cascade).expect("all end");
    settle("every cell has ended", || {
        children_of(supervisor).is_empty()
    });
    client.rate_usage().expect("rated");
    let counted = group.cpu_ns();
    let supervisor_ns = brood_control::cpu_ns(supervisor).expect("it lives") - supervisor_before;
    println!("group {counted} ns, of it supervisor {supervisor_ns}, others {others}");
    agrees(&client, counted - supervisor_ns - others);
}

/// Each machine has one end and no window is missing or double, and what is rated is what was counted.
fn agrees(client: &Client, machines_ns: u64) {
    let records: Vec<UsageRecord> = read(client, UsageRows::Records);
    let born: BTreeSet<_> = records.iter().map(|record| record.machine).collect();
    assert_eq!(born.len(), MACHINES + 1, "the daughters and their mother");
    for machine in &born {
        let hers: Vec<_> = records
            .iter()
            .filter(|record| record.machine == *machine)
            .collect();
        let ends = hers.iter().filter(|record| record.cause == "end").count();
        assert_eq!(ends, 1, "{machine}: {hers:?}");
        assert!(hers.iter().all(|record| !record.estimated), "{hers:?}");
    }
    let lines: Vec<UsageLine> = read(client, UsageRows::Lines);
    let rated: i64 = lines
        .iter()
        .filter(|line| line.unit == "vcpu-active-ns")
        .map(|line| line.quantity)
        .sum();
    let of_records: u64 = records.iter().map(|record| record.cpu_ns).sum();
    assert_eq!(
        rated.unsigned_abs(),
        of_records,
        "no window is missing or double"
    );
    let seen = client.check_usage().expect("looked");
    assert_eq!(seen.breaks, Vec::<String>::new());
    let difference = rated as f64 / machines_ns as f64 - 1.0;
    println!(
        "{} machines, rated {rated} ns of {machines_ns}: {:+.3} %",
        born.len(),
        difference * 100.0
    );
    assert!(difference.abs() < 0.01, "{:+.3} %", difference * 100.0);
}
