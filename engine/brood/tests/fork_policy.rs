//! Forks of real cells by way of the components that ship: admitted, narrowed, denied, their units held and given back.
//!
//! The guests are bare ones, whose mother's agent is played by the test; they have nobody to stamp, so that part is in
//! the lab tests. Components are built by `cargo xtask plugins`; without them it is a printed skip on a laptop and a
//! failure where the environment says `CI`.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use brood_agent_proto::fork::QuiesceReport;
use brood_agent_proto::{AGENT_PORT, Client, Reply, Request, frame, hello};
use brood_bare_guest::mailbox::Command;
use brood_cell::CellProgram;
use brood_cell::protocol::Checkpoint;
use brood_service::ask::ForkSpec;
use brood_service::decision::Standing;
use brood_service::hold::Holds;
use brood_service::machine::Machine;
use brood_service::path::Why;
use brood_testkit::{Host, children_of, is_alive, settle};

use crate::policy::{Bound, SHIPPED, bound, decide};

const PATIENCE: Duration = Duration::from_secs(60);

fn host() -> Option<Host> {
    Host::of(CellProgram {
        path: env!("CARGO_BIN_EXE_brood").into(),
        arguments: vec!["cell".to_owned()],
    })
}

/// A running machine of 64 MiB whose agent freezes and thaws a workload that she does not have.
fn mother(host: &Host) -> Machine {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    thread::spawn(move || {
        hello::read(&mut theirs).expect("the engine says hello");
        hello::write(&mut theirs, hello::VERSION).expect("so do we");
        while let Ok(request) = frame::read_frame::<Request>(&mut theirs) {
            let reply = match request {
                Request::Quiesce { .. } => Reply::Quiesced(QuiesceReport {
                    took_ns: 1,
                    cgroups: 1,
                }),
                _ => Reply::Done,
            };
            frame::write_frame(&mut theirs, &reply).expect("the engine listens");
        }
    });
    let client = Client::handshake(ours, PATIENCE).expect("hello");
    let mut cell = host.bare(64, 1);
    // What answers as her daughters' agent is no agent: none of them can be stamped.
    let counts = Command::VsockCount { port: AGENT_PORT };
    cell.begin_command(0, counts).expect("a listener");
    Machine::adopt(cell, client).expect("a machine")
}

/// A policy file and what is bound by it, or none (with a printed reason).
fn shipped() -> Option<Bound> {
    bound(SHIPPED)
}

fn still_runs(mother: &mut Machine) {
    assert!(is_alive(mother.pid()));
    mother.cell().stats().expect("she answers");
}

#[test]
fn a_fork_through_all_shipped_components_makes_what_was_admitted_and_holds_it_until_the_end() {
    let (Some(host), Some(bound)) = (host(), shipped()) else {
        return;
    };
    let mut mother = mother(&host);
    let mut holds = Holds::default();
    let stamps =
        decide(bound.panels(), &ForkSpec::of(3), &mother, &mut holds).expect("it is admitted");
    let hooks: Vec<_> = stamps
        .decisions()
        .iter()
        .map(|one| one.binding.as_str())
        .collect();
    assert_eq!(
        hooks,
        ["admission/quota", "placement/spread", "mutation/identity"]
    );
    for decision in stamps.decisions() {
        println!("{decision}");
        assert_eq!(decision.standing, Standing::Enforced);
        assert!(decision.took_us > Some(0) && decision.fuel > Some(0));
    }
    for (index, stamp) in stamps.stamps().iter().enumerate() {
        assert_eq!(stamp.identity.hostname, format!("d{index}-{}", stamp.id));
    }
    assert_eq!(holds.used("quota", "live/tenant/acme"), 3);

    let born = stamps
        .fork_live(&mut mother, Checkpoint::Drop)
        .expect("a live fork");
    let pids: Vec<u32> = born.pids().collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // A stranger answers where her agent should be: she is killed, and her units come back.
    let mut fledged = born.stamp();
    fledged.settle(&mut holds);
    assert!(fledged.daughters.iter().all(Result::is_err));
    assert_eq!(fledged.held, None);
    assert_eq!(holds.used("quota", "live/tenant/acme"), 0);
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    still_runs(&mut mother);
    mother.end().expect("she ends");
}

#[test]
fn a_denied_fork_says_the_plugins_words_and_touches_nobody() {
    let (Some(host), Some(bound)) = (host(), shipped()) else {
        return;
    };
    let mut mother = mother(&host);
    let mut holds = Holds::default();
    let stopped =
        decide(bound.panels(), &ForkSpec::of(65), &mother, &mut holds).expect_err("too many");
    let Why::Denied { by, denial } = &stopped.why else {
        unreachable!("{stopped}")
    };
    assert_eq!(by, "admission/quota");
    assert_eq!(denial.message, "65 machines in one request, 64 are allowed");
    assert_eq!(stopped.decisions.len(), 1, "no other hook is asked");
    assert_eq!(stopped.held, None);
    assert_eq!(children_of(std::process::id()), [mother.pid()]);
    still_runs(&mut mother);
    mother.end().expect("she ends");
}

#[test]
fn a_fork_for_more_than_is_allowed_is_narrowed_to_what_its_caller_takes() {
    let narrow = SHIPPED.replace(
        "max-per-request = 64",
        "max-per-request = 2\nmax-ttl-ms = 5000",
    );
    let (Some(host), Some(bound)) = (host(), bound(&narrow)) else {
        return;
    };
    let mut mother = mother(&host);
    let mut holds = Holds::default();
    let spec = ForkSpec {
        min_count: 1,
        ttl_ms: Some(60_000),
        ..ForkSpec::of(6)
    };
    let stamps = decide(bound.panels(), &spec, &mother, &mut holds).expect("two of six");
    println!("{:?}", stamps.warnings());
    assert!(
        stamps
            .warnings()
            .iter()
            .any(|words| words.contains("2 of 6 machines"))
    );
    assert!(
        stamps
            .stamps()
            .iter()
            .all(|stamp| stamp.ttl_ms == Some(5000))
    );
    let born = stamps
        .fork_live(&mut mother, Checkpoint::Drop)
        .expect("a live fork");
    assert_eq!(born.pids().count(), 2);
    drop(born);
    settle("daughters whose cells are dropped end", || {
        children_of(std::process::id()) == [mother.pid()]
    });
    mother.end().expect("she ends");
}

#[test]
fn a_component_that_is_removed_gives_the_declared_fail_mode_and_the_engine_goes_on() {
    let (Some(host), Some(whole)) = (host(), shipped()) else {
        return;
    };
    std::fs::remove_file(whole.components().join("spread.wasm")).expect("there");
    // What was loaded does not need its file.
    let mut mother = mother(&host);
    let mut holds = Holds::default();
    let stamps =
        decide(whole.panels(), &ForkSpec::of(1), &mother, &mut holds).expect("still bound");
    assert_eq!(stamps.decisions().len(), 3);
    drop(stamps);
    // Loaded without it, placement is bound all the same.
    let declared = |mode: &str| {
        let binding = "[[placement]]\nplugin = \"spread\"";
        let file = SHIPPED.replace(binding, &format!("{binding}\non-failure = \"{mode}\""));
        whole
            .open(&file)
            .expect("a file that is missing is no mistake")
    };
    let open = declared("open");
    let stamps = decide(&open, &ForkSpec::of(1), &mother, &mut Holds::default()).expect("open");
    assert_eq!(stamps.decisions()[1].standing, Standing::FailedOpen);
    let told = |words: &String| words.contains("fails open") && words.contains("spread.wasm");
    assert!(stamps.warnings().iter().any(told));
    let mut holds = Holds::default();
    let closed = declared("closed");
    let stopped = decide(&closed, &ForkSpec::of(1), &mother, &mut holds).expect_err("closed");
    let words = stopped.to_string();
    assert!(words.contains("spread.wasm cannot be read"), "{words}");
    let held = stopped.held.expect("it was admitted");
    assert_eq!(holds.end(held, 1), None);
    still_runs(&mut mother);
    mother.end().expect("she ends");
}
