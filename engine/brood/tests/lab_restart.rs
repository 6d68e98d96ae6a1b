//! Linux machines and an engine that dies: `brood up` over a real socket, killed and started again.

#![allow(
    clippy::expect_used,
    reason = "a test fails where something is not as it should be"
)]

use std::path::PathBuf;
use std::time::Duration;

use brood_agent_proto::{AgentError, ClientError, ForkRefusal, ForkToken};
use brood_testkit::{is_alive, scratch, settle};
use serde_json::Value;

use crate::common::{SMALL, boot, host};
use crate::program::{Options, Program, components, kvm};

/// Asks until it is done well, and gives the answer.
fn good(engine: &Program, key: &str, line: &str, body: &str) -> Value {
    let (status, answer) = engine.ask(key, line, None, body).expect("it answers");
    assert!(status < 300, "{line}: {status} {answer}");
    answer
}

/// Runs a shell line in a machine; its standard output.
fn shell(engine: &Program, key: &str, machine: &str, line: &str) -> String {
    let body = serde_json::json!({ "argv": ["sh", "-c", line] }).to_string();
    let run = good(
        engine,
        key,
        &format!("POST /v1/machines/{machine}/execs"),
        &body,
    );
    run["stdout"]
        .as_str()
        .expect("output")
        .trim_end()
        .to_owned()
}

fn id_of(daughter: &Value) -> String {
    let id = daughter["machine"]["id"].as_str();
    id.expect("an id").to_owned()
}

#[test]
fn lab_machines_of_an_engine_that_was_killed_run_on_and_fork_under_the_next() {
    let (Some(components), true) = (components(), kvm()) else {
        return;
    };
    brood_cell::become_reaper().expect("reaper");
    let files = PathBuf::from(std::env::var_os("BROOD_GUEST_FILES").expect("guest files"));
    let state = scratch();
    // An emulated CPU has no time for a component within its limits.
    let policy = state.path().join("policy.toml");
    std::fs::write(&policy, "version = 1\n").expect("written");
    let options = Options {
        files: Some(&files),
        policy: Some(&policy),
        ..Options::new(state.path(), &components)
    };
    let mut first = Program::start(&options);
    let key = first.key().expect("the first key");
    let template = r#"{"name": "linux", "memory_mib": 128}"#;
    good(&first, &key, "POST /v1/templates", template);
    let mother = good(
        &first,
        &key,
        "POST /v1/machines",
        r#"{"template": "linux"}"#,
    );
    let mother = mother["id"].as_str().expect("an id");
    let count =
        "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done) >/dev/null 2>&1 &";
    shell(&first, &key, mother, count);
    let point = format!("POST /v1/machines/{mother}/checkpoints");
    let point = good(&first, &key, &point, "{}");
    let point = point["id"].as_str().expect("an id");
    let who = shell(&first, &key, mother, "cat /etc/machine-id");
    first.kill();

    let mut second = Program::start(&options);
    assert_eq!(shell(&second, &key, mother, "cat /etc/machine-id"), who);
    let read = || -> u64 {
        let text = shell(&second, &key, mother, "cat /tmp/count");
        text.parse().unwrap_or(0)
    };
    let before = read();
    settle("it counts on", || read() > before);
    for path in [format!("machines/{mother}"), format!("checkpoints/{point}")] {
        let forked = good(
            &second,
            &key,
            &format!("POST /v1/{path}/forks"),
            r#"{"count": 1}"#,
        );
        let daughter = id_of(&forked["daughters"][0]);
        let own = shell(&second, &key, &daughter, "cat /etc/machine-id /tmp/count");
        let (own, counted) = own.split_once('\n').expect("two lines");
        assert_ne!(own, who, "{path}: she has an identity of her own");
        assert!(counted.parse::<u64>().is_ok_and(|counted| counted > 0));
    }
    let supervisor = second.supervisor().expect("a supervisor");
    second.interrupt();
    settle("the supervisor has ended", || !is_alive(supervisor));
}

#[test]
fn lab_a_mother_that_was_frozen_by_an_engine_that_died_runs_on_when_the_next_one_says_so() {
    let Some(host) = host() else {
        return;
    };
    let mut machine = boot(&host, SMALL, "");
    let count =
        "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done) >/dev/null 2>&1 &";
    machine.shell(count).expect("it counts");
    let freezing = machine.connect().expect("an agent");
    let frozen = freezing
        .quiesce(ForkToken([7; 16]), Duration::from_secs(20))
        .expect("it freezes");
    let mut next = machine.connect().expect("an agent");
    let early = next
        .release()
        .expect_err("whoever froze it may thaw it still");
    let refused = ClientError::Agent(AgentError::Fork(ForkRefusal::WrongConnection));
    assert_eq!(format!("{early:?}"), format!("{refused:?}"));
    // The engine dies with its conversations.
    drop(frozen);
    settle("it is released", || next.release().is_ok());
    let mut read = || {
        let text = machine.shell("cat /tmp/count").expect("it runs programs");
        text.parse::<u64>().unwrap_or(0)
    };
    let before = read();
    settle("it counts on", || read() > before);
    machine.end().expect("it ends");
}
