//! The rows of `bench usage`: an engine in this process, with real cells, the real database and the price list that ships.
//!
//! `ledger/10000-per-second` forks alone and then beside ten thousand records a second, in turns, so that each ratio is of two
//! neighbours. Records are of machines that never were, written as the engine writes a window of fifty machines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Stopwatch};

use anyhow::{Context, ensure};
use brood::plugin::child::compile_options;
use brood::plugin::open::panels;
use brood_meter::{Cause, Last, Motion, Reading, Subject};
use brood_plugin_host::{
    Builtins, Host as PluginHost, HostOptions, Policies, Silent, VolatileState,
};
use brood_service::ask::ForkSpec;
use brood_service::engine::{
    Caller, Change, CreateMachine, CreateTemplate, Engine, ForkMachine, GuestKind, OnError,
    UsageOptions,
};
use brood_service::host::Host;
use brood_store::{Store, StoreError, StoreOptions, Write};
use brood_units::{Instant, MachineId, Timestamp};
use tokio::runtime::Runtime;

use crate::Shipped;
use crate::report::Report;

/// Machines that never were.
const METERS: u32 = 200;
/// Of one job, as the engine writes them.
const TOGETHER: u32 = 50;
/// Records a second.
const RATE: u32 = 10_000;
/// Forks of one turn.
const TURN: usize = 50;
/// Machines that are sampled.
const SAMPLED: u32 = 200;
const BORN_MS: i64 = 1_795_745_045_678;

/// Where things are, and how many samples are wanted.
pub(crate) struct Plan {
    /// Forks of each kind.
    pub(crate) samples: usize,
    /// Samples that are rated.
    pub(crate) rated: u64,
    pub(crate) shipped: Shipped,
}

/// Runs every wanted row.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if plan.shipped.wants("ledger/10000-per-second") {
        ledger(plan, report)?;
    }
    if plan.shipped.wants("sample/200") {
        sample(plan, report)?;
    }
    if plan.shipped.wants("rate/1000000") {
        rate(plan, report)?;
    }
    Ok(())
}

/// An engine over a directory of its own.
struct Open {
    engine: Engine,
    caller: Caller,
    store: Store,
    runtime: Runtime,
    _directory: tempfile::TempDir,
    // Last: bindings call into it.
    _plugins: PluginHost,
}

impl Open {
    fn new(plan: &Plan) -> anyhow::Result<Self> {
        const SHIPPED: &str = include_str!("../../policies/default.toml");
        let warned = "plugin = \"price-table\"\nmode = \"warn\"";
        ensure!(
            SHIPPED.contains(warned),
            "the policy that ships bills nobody"
        );
        let policy = SHIPPED.replace(warned, "plugin = \"price-table\"");
        let mut set = brood_policy::parse("policies/default.toml", &policy)?;
        for binding in &mut set.bindings {
            // Two shared CPUs on which machines spin.
            binding.limits.deadline_ms = binding.limits.deadline_ms.max(5000);
        }
        let options = HostOptions::new(compile_options(&plan.shipped.program, None));
        let plugins = PluginHost::start(
            &options,
            Arc::new(VolatileState::default()),
            Arc::new(Silent),
        )?;
        let policies = Policies::open(&plugins, &set, &plan.shipped.plugins, &Builtins::default())?;
        let directory = tempfile::tempdir()?;
        let store = Store::open(&directory.path().join("state"), &StoreOptions::default())?;
        let host = Host::open(&plan.shipped.program, None, directory.path())?;
        let far = Duration::from_secs(86_400);
        let by_hand = UsageOptions {
            window: far,
            rating: far,
            ..UsageOptions::DEFAULT
        };
        let runtime = Runtime::new()?;
        let (engine, caller) = runtime.block_on(async {
            let engine = Engine::open_with(store.clone(), host, panels(policies), by_hand).await?;
            let token = engine.first_key("bench", |_| {}).await?.context("no key")?;
            let caller = engine.authenticate(token.reveal())?;
            anyhow::Ok((engine, caller))
        })?;
        Ok(Self {
            engine,
            caller,
            store,
            runtime,
            _directory: directory,
            _plugins: plugins,
        })
    }

    fn mother(&self) -> anyhow::Result<MachineId> {
        let template = CreateTemplate {
            name: "bench".to_owned(),
            guest: GuestKind::Bare,
            vcpus: 1,
            memory_mib: 64,
            public: false,
        };
        let machine = CreateMachine {
            template: "bench".to_owned(),
            name: None,
            reuse: false,
            labels: BTreeMap::new(),
            ttl_ms: None,
            idle_ms: None,
        };
        self.runtime.block_on(async {
            self.engine
                .create_template(&self.caller, template, None)
                .await?;
            let made = self
                .engine
                .create_machine(&self.caller, machine, None)
                .await?;
            Ok(made.id)
        })
    }

    fn fork(&self, mother: MachineId, count: u32) -> anyhow::Result<Vec<MachineId>> {
        let fork = ForkMachine {
            spec: ForkSpec::of(count),
            on_error: OnError::EndAll,
            name: None,
            idle_ms: None,
        };
        let answer = self
            .runtime
            .block_on(self.engine.fork(&self.caller, mother, fork, None))?;
        Ok(answer.daughters.iter().map(|one| one.machine.id).collect())
    }

    fn end(&self, id: MachineId, subtree: bool) -> anyhow::Result<()> {
        self.runtime
            .block_on(self.engine.end(&self.caller, id, subtree))?;
        Ok(())
    }

    /// Machines that never were.
    fn made_up(&self, count: u32) -> anyhow::Result<Vec<MachineId>> {
        let ids: Vec<_> = (0..count).map(id).collect();
        let born = ids.clone();
        let write = move |write: &mut Write<'_>| -> Result<(), StoreError> {
            for id in born {
                let at = Timestamp::from_millis(BORN_MS);
                write.open_meter(
                    &subject(id),
                    &Last::at_birth(at, instant(0), Motion::Running),
                )?;
            }
            Ok(())
        };
        self.store.write(write).wait()?;
        Ok(ids)
    }

    fn records(&self) -> anyhow::Result<i64> {
        Ok(self.store.read(|read| read.chain_end())?.seq)
    }
}

fn id(number: u32) -> MachineId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    MachineId::from_bytes(bytes)
}

fn instant(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + millis * 1_000_000)
}

fn subject(machine: MachineId) -> Subject {
    Subject {
        machine,
        is_checkpoint: false,
        tenant: "bench".to_owned(),
        project: "default".to_owned(),
        lineage: machine,
        template: id(u32::MAX),
        vcpu_milli: 1000,
        memory_mib: 256,
        disk_mib: 0,
        labels: BTreeMap::new(),
        born: Timestamp::from_millis(BORN_MS),
    }
}

/// Counts these machines at an age.
fn count(write: &mut Write<'_>, machines: &[MachineId], millis: u64) -> Result<u64, StoreError> {
    let mut counted = 0;
    for machine in machines {
        let reading = Reading {
            at: Timestamp::from_millis(BORN_MS + millis.cast_signed()),
            instant: Some(instant(millis)),
            cpu_ns: Some(millis * 17_000),
            private_kib: Some(176),
        };
        counted += u64::from(write.count(*machine, &reading, Cause::Tick)?.is_some());
    }
    Ok(counted)
}

/// Forks alone and beside so many records a second; how many of those are not there afterwards.
fn ledger(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let name = "ledger/10000-per-second";
    let open = Open::new(plan)?;
    let mother = open.mother()?;
    let machines = open.made_up(METERS)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (mut written, mut millis) = (0, 0);
    turn(&open, mother, &mut Vec::new())?;
    let before = open.records()?;
    let mut others = 0;
    for _ in 0..plan.samples.div_ceil(TURN) {
        let at = open.records()?;
        turn(&open, mother, &mut alone)?;
        others += open.records()? - at;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let writes = scope.spawn(|| write(&open.store, &machines, &mut millis, &stop));
            let turned = turn(&open, mother, &mut beside);
            stop.store(true, Ordering::Relaxed);
            let (records, took) = writes.join().ok().context("the writer broke off")??;
            report.count(name, "records-per-second", records as f64 / took);
            written += records;
            // Each fork closes a window of the mother, and each end one of a daughter.
            others += 2 * TURN as i64;
            turned
        })?;
    }
    let there = open.records()? - before - others;
    report.count(name, "lost", written as f64 - there as f64);
    for (metric, samples) in [("fork-alone", &alone), ("fork-beside", &beside)] {
        samples
            .iter()
            .for_each(|micros| report.micros(name, metric, *micros));
    }
    for (metric, part) in [("ratio-p50", 0.50), ("ratio-p99", 0.99)] {
        report.ratio(
            name,
            metric,
            percentile(&mut beside, part) / percentile(&mut alone, part),
        );
    }
    let seen = open.engine.verify_usage(&open.caller)?;
    report.count(name, "breaks", seen.breaks.len() as f64);
    open.end(mother, true)
}

/// Forks of one daughter each, who is ended before the next is asked for, outside of the times.
fn turn(open: &Open, mother: MachineId, times: &mut Vec<f64>) -> anyhow::Result<()> {
    for _ in 0..TURN {
        let begun = Stopwatch::now();
        let daughters = open.fork(mother, 1)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        for daughter in daughters {
            open.end(daughter, false)?;
        }
    }
    Ok(())
}

/// Writes records at the rate, job after job, until it is told to stop; how many, and in how many seconds.
fn write(
    store: &Store,
    machines: &[MachineId],
    millis: &mut u64,
    stop: &AtomicBool,
) -> anyhow::Result<(u64, f64)> {
    let begun = Stopwatch::now();
    let mut written = 0;
    let mut due = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        *millis += 1;
        for some in machines.chunks(TOGETHER as usize) {
            let (some, at) = (some.to_vec(), *millis);
            written += store.write(move |write| count(write, &some, at)).wait()?;
            due += TOGETHER;
            let at = Duration::from_secs_f64(f64::from(due) / f64::from(RATE));
            std::thread::sleep(at.saturating_sub(begun.elapsed()));
        }
    }
    Ok((written, begun.elapsed().as_secs_f64()))
}

/// CPU time of the whole engine for the windows of so many machines, per cent of a core at a window a minute.
fn sample(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let name = "sample/200";
    let open = Open::new(plan)?;
    let mother = open.mother()?;
    let mut machines = Vec::new();
    while machines.len() < SAMPLED as usize {
        for daughter in open.fork(mother, 50)? {
            // Whoever spins on the same two CPUs would be measured as well.
            open.runtime
                .block_on(open.engine.change(&open.caller, daughter, Change::Pause))?;
            machines.push(daughter);
        }
    }
    open.runtime
        .block_on(open.engine.change(&open.caller, mother, Change::Pause))?;
    for _ in 0..20 {
        let before = own_cpu_ns()?;
        let begun = Stopwatch::now();
        let counted = open.runtime.block_on(open.engine.count_all())?;
        ensure!(counted == machines.len() + 1, "{counted} were counted");
        report.micros(name, "latency", begun.elapsed().as_secs_f64() * 1e6);
        let used = own_cpu_ns()? - before;
        report.count(name, "percent-of-a-core", used as f64 / 60e9 * 100.0);
    }
    open.end(mother, true)
}

fn own_cpu_ns() -> anyhow::Result<u64> {
    brood_cell::cpu_ns(std::process::id()).context("the kernel does not say")
}

/// Records through seal, component and commit.
fn rate(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let name = "rate/1000000";
    let open = Open::new(plan)?;
    let machines = open.made_up(1000)?;
    // A machine's record is four samples: vCPU and memory given, vCPU and memory used.
    let rounds = plan.rated / 4 / machines.len() as u64;
    for round in 1..=rounds {
        let machines = machines.clone();
        let counted = open
            .store
            .write_for_process(move |write| count(write, &machines, round * 60_000));
        ensure!(counted.wait()? == 1000, "not all were counted");
    }
    let filled_kib = peak_kib()?;
    let begun = Stopwatch::now();
    let rated = open.runtime.block_on(open.engine.rate_due())?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(rated.held == 0 && rated.dead == 0, "{rated:?}");
    let mut lines = 0_u64;
    for batch in 1..=rated.settled {
        lines += open
            .store
            .read(|read| read.lines(batch.cast_signed(), 0, u32::MAX))?
            .len() as u64;
    }
    report.count(name, "samples", (rounds * 4 * 1000) as f64);
    report.count(name, "lines", lines as f64);
    report.count(
        name,
        "samples-per-second",
        (rounds * 4 * 1000) as f64 / took,
    );
    report.kib(name, "peak-rss-before", filled_kib);
    report.kib(name, "peak-rss", peak_kib()?);
    Ok(())
}

/// The most memory that this process has had (man 5 proc_pid_status).
fn peak_kib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse()?)
}

fn percentile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = (samples.len() as f64 * part) as usize;
    samples
        .get(at.min(samples.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}
