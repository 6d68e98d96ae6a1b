//! Agents that hang or lie in machines that really fork: bare guests, whose vsock port answers whatever they play. What
//! each lie does to the conversation is in the tests of `brood_service::fork`; here it costs a daughter, and nobody else.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use brood_agent_proto::fork::QuiesceReport;
use brood_agent_proto::{AGENT_PORT, Client, Reply, Request, frame, hello};
use brood_bare_guest::mailbox::Command;
use brood_cell::protocol::Checkpoint;
use brood_cell::{Cell, CellProgram};
use brood_service::fork::{self, IdentitySpec, Step, Unconfirmed};
use brood_service::machine::Machine;
use brood_testkit::{Host, children_of, is_alive, settle};

/// Long enough for whoever answers at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one is waited for who never answers.
const SHORT: Duration = Duration::from_secs(2);
/// Longer than a test may run: whoever is waited for so long fails it.
const FOR_EVER: Duration = Duration::from_secs(3600);
const STORM: Command = Command::Storm {
    start: 8 << 20,
    bytes: 8 << 20,
    seed: 5,
};

fn host() -> Option<Host> {
    Host::of(CellProgram {
        path: env!("CARGO_BIN_EXE_brood").into(),
        arguments: vec!["cell".to_owned()],
    })
}

/// A machine whose first vCPU writes a storm of records while the second plays what `agent` says.
fn mother(host: &Host, agent: Command, conversation: Client) -> Machine {
    let mut cell = host.bare(64, 2);
    cell.begin_command(0, STORM).expect("a storm");
    cell.begin_command(1, agent).expect("an agent");
    Machine::adopt(cell, conversation).expect("a machine")
}

/// Her storm has lost nothing and goes on.
fn keeps_her_data(cell: &mut Cell) {
    let round = |cell: &mut Cell| {
        let stopped = cell.command(0, Command::Idle {}).expect("idle");
        cell.outcome(0).expect("idle answers too").expect("idle");
        let verify = Command::StormVerify {
            start: 8 << 20,
            bytes: 8 << 20,
            seed: 5,
        };
        let last = cell.command(0, verify).expect("verify");
        last.expect("every page holds its record");
        cell.begin_command(0, STORM).expect("a storm");
        stopped.expect("writes")
    };
    round(cell);
    assert!(round(cell) > 0, "she goes on");
}

/// What a mother's agent does, played by the test.
#[derive(Clone, Copy, PartialEq)]
enum Plays {
    Honest,
    HangsAtQuiesce,
    HangsAtThaw,
    AnswersSomethingElse,
}

fn conversation(plays: Plays) -> Client {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    thread::spawn(move || {
        hello::read(&mut theirs).expect("the engine says hello");
        hello::write(&mut theirs, hello::VERSION).expect("so do we");
        while let Ok(request) = frame::read_frame::<Request>(&mut theirs) {
            let reply = match (request, plays) {
                (Request::Quiesce { .. }, Plays::HangsAtQuiesce)
                | (Request::Thaw { .. }, Plays::HangsAtThaw) => continue,
                (Request::Quiesce { .. }, Plays::Honest | Plays::HangsAtThaw) => {
                    Reply::Quiesced(QuiesceReport {
                        took_ns: 1,
                        cgroups: 1,
                    })
                }
                _ => Reply::Done,
            };
            frame::write_frame(&mut theirs, &reply).expect("the engine listens");
        }
    });
    let mut client = Client::handshake(ours, PATIENCE).expect("hello");
    if plays != Plays::Honest {
        client.end_by(Some(Instant::now() + SHORT));
    }
    client
}

/// Forks a mother whose daughters' agents are what `agent` plays, and gives why each is not handed out.
fn stamped_in_vain(host: &Host, agent: Command, patience: Duration) -> Vec<Unconfirmed> {
    let mut mother = mother(host, agent, conversation(Plays::Honest));
    let fork = fork::live(&mut mother, 2, Checkpoint::Drop).expect("a live fork");
    let identity = IdentitySpec {
        hostname: "daughter".to_owned(),
        ..IdentitySpec::default()
    };
    let mut reasons = Vec::new();
    for daughter in fork.daughters {
        let daughter = daughter.expect("she is born");
        let pid = daughter.pid();
        assert!(is_alive(pid));
        let error = daughter
            .stamp(&identity, patience)
            .err()
            .expect("she is not handed out");
        println!("{error:#}");
        assert!(!is_alive(pid), "her cell is gone with the error");
        reasons.push(error.downcast().expect("a reason and a remedy"));
    }
    keeps_her_data(mother.cell());
    mother.end().expect("the mother ends");
    reasons
}

#[test]
fn daughters_whose_agent_talks_nonsense_are_killed_and_the_mother_keeps_her_data() {
    let Some(host) = host() else { return };
    let echo = Command::VsockEcho { port: AGENT_PORT };
    for reason in stamped_in_vain(&host, echo, PATIENCE) {
        assert_eq!(reason.step, Step::Stamp, "an echo of our hello is a hello");
        assert!(reason.to_string().contains("do not trust this guest"));
    }
}

#[test]
fn daughters_with_a_stranger_at_the_agents_port_are_killed_at_once() {
    let Some(host) = host() else { return };
    let count = Command::VsockCount { port: AGENT_PORT };
    for reason in stamped_in_vain(&host, count, FOR_EVER) {
        assert_eq!(reason.step, Step::Connect);
        assert!(reason.to_string().contains("something else listens"));
    }
}

#[test]
fn daughters_whose_agent_never_answers_are_killed_when_their_time_is_up() {
    let Some(host) = host() else { return };
    // The driver is up, and nobody listens at the agent's port.
    let elsewhere = Command::VsockEcho {
        port: AGENT_PORT + 1,
    };
    for reason in stamped_in_vain(&host, elsewhere, SHORT) {
        assert_eq!(reason.step, Step::Connect);
    }
}

/// Forks a mother whose own agent misbehaves, and gives what the caller is told.
fn forked_in_vain(host: &Host, plays: Plays) -> String {
    let echo = Command::VsockEcho { port: AGENT_PORT };
    let mut mother = mother(host, echo, conversation(plays));
    let error = match fork::live(&mut mother, 2, Checkpoint::Keep) {
        Ok(_) => unreachable!("forked over a conversation that failed"),
        Err(error) => format!("{error:#}"),
    };
    println!("{error}");
    let mothers = mother.cell().pid();
    settle("no daughter and no point is left", || {
        children_of(std::process::id()) == [mothers]
    });
    keeps_her_data(mother.cell());
    assert!(
        mother.agent().is_ok(),
        "the next call begins a conversation anew"
    );
    mother.end().expect("the mother ends");
    error
}

#[test]
fn a_mother_whose_agent_hangs_or_lies_is_not_forked_and_keeps_her_data() {
    let Some(host) = host() else { return };
    let hung = forked_in_vain(&host, Plays::HangsAtQuiesce);
    assert!(
        hung.contains("not forked") && hung.contains("hangs or is gone"),
        "{hung}"
    );
    let lied = forked_in_vain(&host, Plays::AnswersSomethingElse);
    assert!(
        lied.contains("not forked") && lied.contains("do not trust"),
        "{lied}"
    );
}

#[test]
fn daughters_of_a_mother_who_does_not_thaw_are_let_go() {
    let Some(host) = host() else { return };
    let error = forked_in_vain(&host, Plays::HangsAtThaw);
    assert!(
        error.contains("does not thaw") && error.contains("hangs or is gone"),
        "{error}"
    );
}
