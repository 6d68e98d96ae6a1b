//! Linux machines on disk: `brood up` over a real socket, killed, and the next one goes on with what was saved.

#![allow(
    clippy::expect_used,
    reason = "a test fails where something is not as it should be"
)]

use std::path::PathBuf;

use brood_testkit::{is_alive, scratch, settle};
use serde_json::Value;

use crate::program::{Options, Program, components, kvm};

/// An engine and the key to it.
struct Engine {
    program: Program,
    key: String,
}

impl Engine {
    fn start(options: &Options<'_>, key: Option<String>) -> Self {
        let program = Program::start(options);
        let key = program.key().or(key).expect("a key");
        Self { program, key }
    }

    fn good(&self, line: &str, body: &str) -> Value {
        let answer = self.program.ask(&self.key, line, None, body);
        let (status, answer) = answer.expect("it answers");
        assert!(status < 300, "{line}: {status} {answer}");
        answer
    }

    /// Runs a shell line in a machine; its standard output.
    fn shell(&self, machine: &str, line: &str) -> String {
        let body = serde_json::json!({ "argv": ["sh", "-c", line] }).to_string();
        let run = self.good(&format!("POST /v1/machines/{machine}/execs"), &body);
        assert_eq!(run["exec"]["code"], 0, "{line}: {run}");
        run["stdout"]
            .as_str()
            .expect("output")
            .trim_end()
            .to_owned()
    }

    fn count(&self, machine: &str) -> u64 {
        let count = self.shell(machine, "cat /tmp/count");
        count.parse().expect("a number")
    }

    fn counts_on(&self, machine: &str, from: u64) {
        settle("it counts on", || self.count(machine) > from);
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}

/// Who a machine says that she is: machine id, host name, SSH host key, random bytes.
const WHO: &str = "cat /etc/machine-id; uname -n; head -c 16 /dev/urandom | od -An -tx1";

#[test]
fn lab_a_program_goes_on_in_a_daughter_of_another_engine_who_is_somebody_else_and_in_one_who_slept_who_is_not()
 {
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
    let mut engine = Engine::start(&options, None);
    let template = r#"{"name": "linux", "memory_mib": 128}"#;
    engine.good("POST /v1/templates", template);
    let mother = id(&engine.good("POST /v1/machines", r#"{"template": "linux"}"#));
    let begin =
        "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count.new; mv /tmp/count.new /tmp/count; sleep 0.1; done) >/dev/null 2>&1 &
         head -c 8388608 /dev/urandom > /dev/shm/noise; sha256sum < /dev/shm/noise > /tmp/noise.sum; sync";
    engine.shell(&mother, begin);
    settle("it has begun", || {
        engine.shell(&mother, "cat /tmp/count 2>/dev/null || echo 0") != "0"
    });
    let who = engine.shell(&mother, WHO);
    let before = engine.count(&mother);
    let take = format!("POST /v1/machines/{mother}/snapshots");
    engine.good(&take, r#"{"name": "kept"}"#);
    engine.counts_on(&mother, before);
    engine.good(&format!("DELETE /v1/machines/{mother}"), "");
    engine.program.kill();

    let mut engine = Engine::start(&options, Some(engine.key.clone()));
    let forked = engine.good("POST /v1/snapshots/kept/forks", r#"{"count": 2}"#);
    let daughters = forked["daughters"].as_array().expect("daughters");
    let ids: Vec<String> = daughters.iter().map(|one| id(&one["machine"])).collect();
    let mut all = vec![who];
    for one in &ids {
        let then = engine.count(one);
        assert!(then >= before, "{then} after {before}");
        engine.counts_on(one, then);
        let sums = "sha256sum < /dev/shm/noise; cat /tmp/noise.sum";
        let sums = engine.shell(one, sums);
        let (memory, disk) = sums.split_once('\n').expect("two");
        assert_eq!(memory, disk, "each byte is what it was");
        all.push(engine.shell(one, WHO));
    }
    for (place, who) in all.iter().enumerate() {
        for other in &all[place + 1..] {
            let same = who.lines().zip(other.lines()).filter(|(a, b)| a == b);
            assert_eq!(same.count(), 0, "{who} {other}");
        }
    }

    // One of them sleeps, and wakes in yet another engine as who she was, with her clock right.
    let one = &ids[0];
    let before = engine.count(one);
    let who = engine.shell(one, WHO);
    let slept = engine.good(&format!("POST /v1/machines/{one}/hibernate"), "");
    assert_eq!(slept["state"], "hibernated");
    engine.program.kill();
    let mut engine = Engine::start(&options, Some(engine.key.clone()));
    let woken = engine.good(&format!("POST /v1/machines/{one}/wake"), "");
    assert_eq!(
        (&woken["id"], &woken["state"]),
        (&slept["id"], &Value::from("running"))
    );
    let then = engine.count(one);
    assert!(then >= before, "{then} after {before}");
    engine.counts_on(one, then);
    let now = engine.shell(one, WHO);
    let same: Vec<bool> = who.lines().zip(now.lines()).map(|(a, b)| a == b).collect();
    assert_eq!(same, [true, true, false], "{who} {now}");
    let clock: i64 = engine.shell(one, "date +%s").parse().expect("seconds");
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let host = host.expect("after 1970").as_secs().cast_signed();
    // The exec takes its time, which in an emulated machine may be long.
    assert!((host - clock).abs() < 60, "{host} {clock}");
    let supervisor = engine.program.supervisor().expect("a supervisor");
    engine.program.interrupt();
    settle("the supervisor has ended", || !is_alive(supervisor));
}
