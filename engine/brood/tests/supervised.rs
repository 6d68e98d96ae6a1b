//! Cells under a supervisor: the engine is killed at every message it sends, and the next one takes up what it left.
//!
//! The engine that is killed is this test program, started anew; supervisor and cells are the shipped program, and guests
//! are bare ones, which count in memory so that it shows whether they went on.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails where something is not as it should be"
)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, channel};

use brood_bare_guest::mailbox::{Command, Width};
use brood_cell::protocol::{
    Ask, CellState, Checkpoint, ChildEnd, GuestSpec, MachineSpec, Motion, Request, Start,
};
use brood_cell::{Cell, CellError, Ends, Handle, LayerSource};
use brood_crash_point::{VARIABLE, arm};
use brood_supervisor::protocol::Entry;
use brood_supervisor::{AskError, CellHandle, End, Said, Supervisor, SupervisorProgram};
use brood_testkit::{children_of, is_alive, scratch, settle};
use brood_units::MachineId;
use rustix::process::{Pid, Signal, kill_process};

const STATE: &str = "BROOD_TEST_STATE_DIRECTORY";
const WORD: u64 = 0x40_0000;
const MOTHER: MachineId = MachineId::from_bytes([1; 16]);

fn brood() -> PathBuf {
    env!("CARGO_BIN_EXE_brood").into()
}

fn id(number: u8) -> MachineId {
    MachineId::from_bytes([number; 16])
}

/// `/dev/kvm`, or none (with a printed reason) where there is none and nobody insists.
fn kvm() -> Option<File> {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => Some(kvm),
        Err(error) if std::env::var_os("CI").is_some() => panic!("/dev/kvm: {error}"),
        Err(error) => {
            println!("skipped: /dev/kvm: {error}");
            None
        }
    }
}

/// An engine, as far as this test needs one.
struct Engine {
    supervisor: Supervisor,
    heard: Receiver<Said>,
    ends: Ends,
    state: PathBuf,
}

impl Engine {
    fn on(state: &Path) -> Self {
        let program = SupervisorProgram {
            path: brood(),
            arguments: vec!["supervisor".to_owned()],
        };
        let (told, heard) = channel();
        let ends = Ends::new();
        let book = ends.clone();
        let tell = move |said: Said| {
            match &said {
                Said::Ended(ended) => book.tell(ChildEnd {
                    pid: ended.pid,
                    code: ended.end.code,
                    signal: ended.end.signal,
                    cpu_ns: ended.end.cpu_ns,
                }),
                Said::Gone { .. } => book.lose(),
            }
            // A test that is over hears no more.
            drop(told.send(said));
        };
        Self {
            supervisor: Supervisor::connect(state, &program, tell).expect("a supervisor"),
            heard,
            ends,
            state: state.to_owned(),
        }
    }

    fn layers(&self) -> LayerSource {
        LayerSource::new(&self.state)
    }

    fn start(&self, id: MachineId) -> Cell {
        let arguments = ["cell".to_owned()];
        let started = self.supervisor.start(id, &brood(), &arguments);
        let handle = handle(id, started.expect("a cell starts"));
        Cell::started(handle, self.layers(), &self.ends).expect("it is heard")
    }

    /// A running guest that is named.
    fn boot(&self, kvm: &File, id: MachineId) -> Cell {
        let mut cell = self.start(id);
        let spec = MachineSpec {
            ram_bytes: 64 << 20,
            vcpus: 2,
            disk: None,
        };
        cell.boot(&spec, &GuestSpec::Bare, &[kvm.as_fd()])
            .expect("it boots");
        cell.resume().expect("it runs");
        cell.name(id).expect("it has a name");
        cell
    }

    /// Has a daughter kept, and names her.
    fn keep(&self, id: MachineId, cell: &mut Cell) {
        let pidfd = cell.pidfd().expect("a pidfd");
        let kept = [(id, cell.pid(), cell.control(), pidfd)];
        self.supervisor.keep(&kept).expect("kept");
        cell.set_kept_as(id);
        cell.name(id).expect("named");
    }

    fn adopt(&self, id: MachineId) -> Result<(Cell, CellState), CellError> {
        let handle = handle(id, self.supervisor.duplicate(id).expect("it lives"));
        Cell::adopt(handle, self.layers(), &self.ends)
    }

    /// The end of a machine, as it is recorded.
    fn end_of(&self, id: MachineId) -> End {
        let mut end = None;
        settle("the end is recorded", || {
            let list = self.supervisor.list().expect("list");
            let entry = list.into_iter().find(|entry| entry.id == id);
            end = entry.and_then(|entry| entry.end);
            end.is_some()
        });
        end.expect("it is")
    }

    /// Ends everything, and sees that nothing is left, the supervisor neither.
    fn finish(self) {
        let list = self.supervisor.list().expect("list");
        for Entry { id, .. } in list.iter().filter(|entry| entry.end.is_none()) {
            // One that has ended meanwhile is as good as killed.
            self.supervisor.kill(*id).ok();
        }
        let ids: Vec<_> = list.iter().map(|entry| entry.id).collect();
        settle("every end is noted", || self.supervisor.noted(&ids).is_ok());
        let pid = self.supervisor.pid();
        settle("no process is left", || children_of(pid).is_empty());
        drop(self);
        settle("the supervisor has ended", || !is_alive(pid));
    }
}

fn handle(id: MachineId, kept: CellHandle) -> Handle {
    Handle {
        id,
        pid: kept.pid,
        control: kept.control,
        pidfd: kept.pidfd,
    }
}

fn ask(cell: &mut Cell, command: Command) -> u64 {
    let answer = cell.command(0, command).expect("answer");
    answer.unwrap_or_else(|fault| panic!("{command:?}: {fault:?}"))
}

fn read(cell: &mut Cell) -> u64 {
    ask(cell, Command::Read64 { addr: WORD })
}

fn count(cell: &mut Cell) {
    let begun = cell.begin_command(1, Command::Count { addr: WORD });
    begun.expect("it counts");
}

fn counts_on(cell: &mut Cell) {
    let before = read(cell);
    settle("it counts on", || read(cell) > before);
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it lives");
}

/// Not a test by itself: the engine that other tests start and kill. A mother counts, is forked twice, all are kept; one
/// daughter is paused.
#[test]
fn an_engine_works_until_it_is_killed() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let Some(kvm) = kvm() else { return };
    if let Ok(plan) = std::env::var(VARIABLE) {
        arm(plan.parse().expect("a plan")).expect("armed");
    }
    let engine = Engine::on(Path::new(&state));
    let mut mother = engine.boot(&kvm, MOTHER);
    count(&mut mother);
    let mut number = 2;
    let mut cells = Vec::new();
    for checkpoint in [Checkpoint::Drop, Checkpoint::Keep] {
        let fork = mother.fork(2, checkpoint, Start::Run).expect("fork");
        for cell in fork.daughters.into_iter().chain(fork.checkpoint) {
            let mut cell = cell.expect("born");
            engine.keep(id(number), &mut cell);
            number += 1;
            cells.push(cell);
        }
    }
    cells[0].pause().expect("paused");
    fs::write(engine.state.join("done"), "").expect("written");
    // Whoever started this process never writes to it.
    std::io::stdin().lines().next();
}

/// Starts that engine; its standard input stays open with the child.
fn working_engine(state: &Path, plan: &str) -> Child {
    let mut program = Program::new(std::env::current_exe().expect("this program"));
    program
        .args(["--exact", "supervised::an_engine_works_until_it_is_killed"])
        .env(STATE, state)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    if !plan.is_empty() {
        program.env(VARIABLE, plan);
    }
    program.spawn().expect("the engine starts")
}

/// What the next engine makes of what it finds: every named cell goes on and forks, every other is ended.
/// Gives how many of each there were.
fn take_up(state: &Path) -> (usize, usize) {
    let engine = Engine::on(state);
    let (mut adopted, mut ended) = (0, 0);
    for Entry { id, end, .. } in engine.supervisor.list().expect("list") {
        if end.is_some() {
            ended += 1;
            continue;
        }
        match engine.adopt(id) {
            Ok((mut cell, state)) if state.name == Some(id) => {
                works(&mut cell, id, &state);
                cell.leave();
                adopted += 1;
            }
            // Made and not named: nobody has been told of her.
            Ok((cell, state)) => {
                assert_eq!(state.name, None);
                drop(cell);
                ended += 1;
            }
            // Its engine died before the machine was made.
            Err(CellError::Refused(refusal)) => {
                assert!(refusal.cause.contains("neither Boot nor Load"), "{refusal}");
                ended += 1;
            }
            Err(error) => panic!("{id}: {error}"),
        }
    }
    engine.finish();
    (adopted, ended)
}

/// An adopted cell does what any other does.
fn works(cell: &mut Cell, id: MachineId, state: &CellState) {
    assert_eq!(
        (state.machine.vcpus, state.machine.ram_bytes),
        (2, 64 << 20)
    );
    assert_eq!(state.depth, u32::from(id != MOTHER));
    if state.motion == Motion::Paused {
        cell.resume().expect("it runs again");
    }
    if state.motion != Motion::Frozen && cell.stats().expect("stats").depth == 1 {
        // Every daughter was forked while her mother counted.
        counts_on(cell);
    }
    let fork = cell.fork(2, Checkpoint::Drop, Start::Run).expect("fork");
    for daughter in fork.daughters {
        let mut daughter = daughter.expect("born");
        read(&mut daughter);
        daughter.end().expect("she ends");
    }
    if state.motion != Motion::Frozen {
        cell.pause().expect("paused");
        cell.resume().expect("it runs");
        read(cell);
        assert!(
            !cell
                .collapse()
                .is_err_and(|error| !matches!(error, CellError::Refused(_)))
        );
    }
}

#[test]
fn an_engine_killed_before_or_after_any_message_leaves_cells_that_the_next_one_adopts() {
    if kvm().is_none() {
        return;
    }
    let state = scratch();
    let counted = state.path().join("points");
    let mut dry = working_engine(state.path(), &format!("count:{}", counted.display()));
    settle("the dry run is done", || state.path().join("done").exists());
    dry.kill().expect("killed");
    dry.wait().expect("reaped");
    assert_eq!(take_up(state.path()), (6, 0), "all were kept and named");
    let points = fs::read_to_string(&counted).expect("counted");
    let points: Vec<_> = points.lines().collect();
    println!("{} points, each before and after", points.len());
    assert!(
        points
            .iter()
            .any(|point| point.ends_with("supervisor: keep"))
    );
    assert!(points.iter().any(|point| point.ends_with("cell: fork")));
    let (mut adopted, mut ended) = (0, 0);
    for (number, point) in (1..).zip(&points) {
        for when in ["before", "after"] {
            let plan = format!("{when}:{number}");
            let died = working_engine(state.path(), &plan).wait().expect("reaped");
            assert_eq!(died.signal(), Some(9), "{plan} ({point})");
            let (a, e) = take_up(state.path());
            println!("{plan:>10} {point:<24} {a} adopted, {e} ended");
            (adopted, ended) = (adopted + a, ended + e);
        }
    }
    assert!(
        adopted > 40 && ended > 0,
        "{adopted} adopted, {ended} ended"
    );
}

#[test]
fn an_engine_killed_at_any_moment_leaves_nothing_that_the_next_one_cannot_find() {
    if kvm().is_none() {
        return;
    }
    let state = scratch();
    let done = state.path().join("done");
    for round in 0..12_u32 {
        fs::remove_file(&done).ok();
        let mut engine = working_engine(state.path(), "");
        // Each round waits for another number of processes, then a little longer.
        let socket = state.path().join(brood_supervisor::protocol::SOCKET);
        settle("it works", || socket.exists());
        settle("it has come that far", || {
            done.exists() || cells_below(engine.id()) > round as usize / 2
        });
        (0..round * 20_000).for_each(|_| std::hint::spin_loop());
        engine.kill().expect("killed");
        engine.wait().expect("reaped");
        take_up(state.path());
    }
}

/// Processes two and more levels below one.
fn cells_below(pid: u32) -> usize {
    let below = |pids: Vec<u32>| pids.into_iter().flat_map(children_of).collect::<Vec<_>>();
    let cells = below(children_of(pid));
    let daughters = below(cells.clone());
    cells.len() + daughters.len()
}

#[test]
fn a_killed_cell_and_its_daughter_are_told_with_their_causes() {
    let Some(kvm) = kvm() else { return };
    let state = scratch();
    let engine = Engine::on(state.path());
    let mut mother = engine.boot(&kvm, MOTHER);
    let fork = mother.fork(3, Checkpoint::Drop, Start::Run).expect("fork");
    let mut daughters: Vec<_> = fork
        .daughters
        .into_iter()
        .map(|d| d.expect("born"))
        .collect();
    for (number, daughter) in (2..).zip(&mut daughters) {
        engine.keep(id(number), daughter);
    }
    // Her mother takes her status, and tells the supervisor.
    kill(daughters[0].pid());
    let killed = daughters.remove(0);
    assert_eq!(killed.wait().expect("told").signal, Some(9));
    assert_eq!(engine.end_of(id(2)).to_string(), "killed by signal 9");
    // What she says herself is told as she says it.
    let off = Command::PortOut {
        port: 0x600,
        value: 0x34,
        width: Width::Byte,
    };
    daughters[0].begin_command(0, off).expect("given");
    let end = engine.end_of(id(3));
    assert_eq!(end.to_string(), "the guest powered off");
    assert_eq!(end.code, Some(0));
    let said = daughters.remove(0).wait().expect("told");
    assert_eq!(said.to_string(), "the guest powered off");
    // A mother leaves her daughters to the supervisor.
    kill(mother.pid());
    assert_eq!(mother.wait().expect("told").signal, Some(9));
    assert_eq!(engine.end_of(MOTHER).signal, Some(9));
    let mut last = daughters.remove(0);
    read(&mut last);
    kill(last.pid());
    assert_eq!(last.wait().expect("told").signal, Some(9));
    assert_eq!(engine.end_of(id(4)).signal, Some(9));
    let told = engine.heard.try_iter().count();
    assert!(told >= 4, "{told} ends were told unasked");
    engine.finish();
}

#[test]
fn the_supervisors_end_ends_every_cell_although_the_engine_holds_their_sockets() {
    let Some(kvm) = kvm() else { return };
    brood_cell::become_reaper().expect("reaper");
    let state = scratch();
    let engine = Engine::on(state.path());
    let mut mother = engine.boot(&kvm, MOTHER);
    let fork = mother.fork(2, Checkpoint::Keep, Start::Run).expect("fork");
    let mut cells: Vec<_> = fork.daughters.into_iter().chain(fork.checkpoint).collect();
    let unbooted = engine.start(id(9));
    cells.extend([Ok(mother), Ok(unbooted)]);
    let cells: Vec<_> = cells.into_iter().map(|cell| cell.expect("born")).collect();
    let pids: Vec<_> = cells.iter().map(Cell::pid).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    kill(engine.supervisor.pid());
    settle("every cell has ended", || {
        pids.iter().all(|pid| !is_alive(*pid))
    });
    let error = engine.supervisor.list().expect_err("nobody answers");
    assert!(matches!(error, AskError::Gone { .. }), "{error}");
    for mut cell in cells {
        let error = cell.stats().expect_err("it has ended");
        assert!(matches!(error, CellError::Ended(_)), "{error}");
    }
}

#[test]
fn a_cell_whose_socket_nobody_reads_goes_on_and_is_adopted_with_what_waits_thrown_away() {
    let Some(kvm) = kvm() else { return };
    let state = scratch();
    let engine = Engine::on(state.path());
    let mut cell = engine.boot(&kvm, MOTHER);
    count(&mut cell);
    cell.leave();
    let flood = handle(
        MOTHER,
        engine.supervisor.duplicate(MOTHER).expect("it lives"),
    );
    let control = brood_control::Control::new(flood.control);
    let request = || Request::Stats;
    // Far more answers than any socket has room for; a cell that waited for room would not take these asks.
    for id in 1..=3000 {
        settle("the cell takes asks", || {
            let request = request();
            control.send_at_once(&Ask { id, request }, &[]).is_ok()
        });
    }
    let (mut cell, state) = engine.adopt(MOTHER).expect("adopted");
    assert_eq!((state.name, state.motion), (Some(MOTHER), Motion::Running));
    counts_on(&mut cell);
    works(&mut cell, MOTHER, &state);
    drop(control);
    cell.leave();
    engine.finish();
}
