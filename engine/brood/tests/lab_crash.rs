//! Linux machines and an engine that is killed before and after every message to their agents.
//!
//! What "made good" means for a message is what the next engine is asked here: a program that was asked for with a key has
//! begun once, a file is whole or as it was, a mother that was frozen counts on, a daughter whom nobody was told of is gone.

#![allow(
    clippy::expect_used,
    reason = "a test fails where something is not as it should be"
)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use brood_testkit::{is_alive, scratch, settle};
use serde_json::{Value, json};

use crate::program::{Options, Program, cells, components, kvm};

/// Lines of the file that is written, of four bytes each: more than one message of it.
const LINES: usize = 20_000;
/// The cells beside those of machines that are written down: the template's own, and its pool, where it was used.
const TEMPLATE: usize = 5;
const MACHINE: &str = r#"{"template": "linux", "name": "mother"}"#;
/// The first messages to an agent: the boot's, and what seals the template. Those that follow are any daughter's.
const BOOT: [&str; 2] = ["agent: hello", "agent: quiesce"];

/// More messages than a round can have.
const MOST_POINTS: usize = 150;

/// What a client wants in one round, in order; each step is done once, whoever is asked for it how often.
const STEPS: [&str; 5] = ["waited", "begun", "written", "forked", "ended"];

/// A client, its machine, and what it was answered in this round.
struct Client {
    key: String,
    mother: String,
    round: usize,
    answers: BTreeMap<&'static str, Value>,
}

impl Client {
    /// Does what is not done yet, until the engine is gone. Whether all is done.
    fn go_on(&mut self, engine: &Program) -> bool {
        for step in STEPS {
            if self.answers.contains_key(step) {
                continue;
            }
            let (line, body) = self.request(step);
            let own = format!("{step}-{}", self.round);
            let own = line.starts_with("POST").then_some(own);
            let Some((status, answer)) = engine.ask(&self.key, &line, own.as_deref(), &body) else {
                return false;
            };
            // An end that was done before its answer was lost.
            let is_done = status < 300 || (step == "ended" && status == 410);
            assert!(is_done, "{step}: {status} {answer}");
            self.answers.insert(step, answer);
        }
        true
    }

    fn request(&self, step: &str) -> (String, String) {
        let (mother, round) = (&self.mother, self.round);
        let execs = format!("POST /v1/machines/{mother}/execs");
        let begins = |wait: bool| {
            let script = format!("echo {step} {round} >> /tmp/begun; echo {round}");
            let argv = ["sh", "-c", &script];
            json!({ "argv": argv, "wait": wait }).to_string()
        };
        match step {
            "waited" => (execs, begins(true)),
            "begun" => (execs, begins(false)),
            "written" => {
                let line = format!("PUT /v1/machines/{mother}/files/tmp/written");
                (line, format!("{round:03}\n").repeat(LINES))
            }
            "forked" => {
                let line = format!("POST /v1/machines/{mother}/forks");
                (line, r#"{"count": 1}"#.to_owned())
            }
            _ => {
                let daughter = self.daughter();
                (format!("DELETE /v1/machines/{daughter}"), String::new())
            }
        }
    }

    fn daughter(&self) -> String {
        let forked = self.answers.get("forked").expect("she was born");
        let id = forked["daughters"][0]["machine"]["id"].as_str();
        id.expect("an id").to_owned()
    }

    /// Runs a shell line in the mother; its standard output.
    fn shell(&self, engine: &Program, line: &str) -> String {
        let body = json!({ "argv": ["sh", "-c", line] }).to_string();
        let execs = format!("POST /v1/machines/{}/execs", self.mother);
        let (status, ran) = engine
            .ask(&self.key, &execs, None, &body)
            .expect("it answers");
        assert_eq!(status, 201, "{line}: {ran}");
        let said = ran["stdout"].as_str().expect("output");
        said.trim_end().to_owned()
    }

    /// How often each program of this round has begun.
    fn begun(&self, engine: &Program) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for line in self.shell(engine, "cat /tmp/begun").lines() {
            if let Some((step, round)) = line.split_once(' ')
                && round.parse() == Ok(self.round)
            {
                *times.entry(step.to_owned()).or_default() += 1;
            }
        }
        times
    }

    /// What an engine that takes over has to find, whatever the last one was doing.
    fn is_made_good(&self, engine: &Program) {
        let count = || -> u64 {
            let text = self.shell(engine, "cat /tmp/count");
            text.parse().unwrap_or(0)
        };
        let before = count();
        settle("the mother was released and counts on", || count() > before);
        for (step, times) in self.begun(engine) {
            assert_eq!(times, 1, "{step} has begun once");
        }
        // One kind of line, and all of them: this round's or the one before's.
        let written = self.shell(engine, "busybox uniq -c /tmp/written");
        let whole = |round: usize| format!("{LINES} {round:03}");
        let [old, new] = [self.round - 1, self.round].map(whole);
        assert!([old, new].contains(&written.trim().to_owned()), "{written}");
    }

    /// All of the round is done, once, and whoever asks for a program again is shown the same.
    fn is_done(&self, engine: &Program) {
        for step in ["waited", "begun"] {
            let (line, body) = self.request(step);
            let own = format!("{step}-{}", self.round);
            let again = engine.ask(&self.key, &line, Some(&own), &body);
            let (status, again) = again.expect("it answers");
            let first = &self.answers[step];
            let same = (&again["id"], &again["stdout"]) == (&first["id"], &first["stdout"]);
            assert!(status == 201 && same, "{step}: {first} {again}");
        }
        settle("what nobody waits for has begun as well", || {
            self.begun(engine).len() == 2
        });
        let once = |step: &str| (step.to_owned(), 1);
        assert_eq!(self.begun(engine), [once("begun"), once("waited")].into());
        let waited = &self.answers["waited"];
        assert_eq!(waited["stdout"], format!("{}\n", self.round), "{waited}");
        assert_eq!(waited["code"], 0, "{waited}");
        let written = self.shell(engine, "busybox uniq -c /tmp/written");
        assert_eq!(written.trim(), format!("{LINES} {:03}", self.round));
        let (_, list) = engine
            .ask(&self.key, "GET /v1/machines", None, "")
            .expect("it answers");
        let living = list["items"].as_array().expect("a list");
        assert_eq!(living.len(), 1, "{list}");
        assert_eq!(living[0]["id"], self.mother);
    }
}

/// The points of an engine's area `agent`, by name.
fn points(counted: &std::path::Path) -> Vec<String> {
    let all = std::fs::read_to_string(counted).expect("counted");
    let names = all.lines().filter_map(|line| line.split_once(' '));
    names
        .map(|(_, name)| name.to_owned())
        .filter(|name| name.starts_with("agent: "))
        .collect()
}

/// One engine that is killed at a point, and the next one, which makes it good. Whether it was killed.
fn round(client: &mut Client, options: &Options<'_>, plan: &str) -> bool {
    client.round += 1;
    client.answers.clear();
    let mut killed = Program::start(&Options {
        plan: Some(plan),
        ..*options
    });
    if killed.is_serving() && client.go_on(&killed) {
        killed.terminate();
    }
    let status = killed.wait();
    let is_killed = status.signal() == Some(9);
    assert!(is_killed || status.success(), "{plan}: {status}");
    let answered = client.answers.len();
    let mut next = Program::start(options);
    client.is_made_good(&next);
    assert!(client.go_on(&next), "{plan}: the next one has gone");
    client.is_done(&next);
    let supervisor = next.supervisor().expect("a supervisor");
    settle("no cell is left that nobody knows of", || {
        cells(supervisor) == 1
    });
    next.terminate();
    assert!(next.wait().success());
    println!("{plan:>20} after {answered} of {} answers", STEPS.len());
    is_killed
}

/// A machine is being made of a template that was never used when the engine is killed; the next one makes it.
fn made_by_the_next(options: &Options<'_>, key: &str, plan: &str) -> String {
    let mut killed = Program::start(&Options {
        plan: Some(plan),
        ..*options
    });
    let answered = killed.ask(key, "POST /v1/machines", Some(plan), MACHINE);
    assert_eq!(answered, None, "{plan}");
    assert_eq!(killed.wait().signal(), Some(9), "{plan}");
    let mut next = Program::start(options);
    let (status, made) = next
        .ask(key, "POST /v1/machines", Some(plan), MACHINE)
        .expect("it answers");
    assert_eq!(status, 201, "{plan}: {made}");
    let supervisor = next.supervisor().expect("a supervisor");
    settle("no cell is left of the first try", || {
        cells(supervisor) == TEMPLATE + 1
    });
    next.terminate();
    assert!(next.wait().success());
    println!("{plan:>20} before the machine was there");
    made["id"].as_str().expect("an id").to_owned()
}

#[test]
fn lab_an_engine_killed_before_and_after_every_message_to_an_agent_is_made_good_by_the_next() {
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

    // The first machine of a template: its boot and its seal.
    let counted = state.path().join("boot");
    let count = format!("count:{}", counted.display());
    let mut dry = Program::start(&Options {
        plan: Some(&count),
        ..options
    });
    let key = dry.key().expect("the first key");
    let template = r#"{"name": "linux", "memory_mib": 128}"#;
    let made = [("templates", template), ("machines", MACHINE)].map(|(path, body)| {
        let line = format!("POST /v1/{path}");
        let (status, made) = dry.ask(&key, &line, None, body).expect("it answers");
        assert_eq!(status, 201, "{made}");
        made
    });
    let end = |engine: &Program, id: &Value| {
        let line = format!("DELETE /v1/machines/{}", id.as_str().expect("an id"));
        let ended = engine.ask(&key, &line, None, "").expect("it answers");
        assert_eq!(ended.0, 200, "{}", ended.1);
    };
    end(&dry, &made[1]["id"]);
    dry.terminate();
    assert!(dry.wait().success());
    assert_eq!(points(&counted)[..BOOT.len()], BOOT);
    let mut client = Client {
        key: key.clone(),
        mother: String::new(),
        round: 0,
        answers: BTreeMap::new(),
    };
    let plans = (1..=BOOT.len()).flat_map(|number| {
        let plan = move |when: &str| format!("{when}:{number}:agent");
        ["before", "after"].map(plan)
    });
    for plan in plans {
        if !client.mother.is_empty() {
            let mut engine = Program::start(&options);
            end(&engine, &client.mother.as_str().into());
            engine.terminate();
            assert!(engine.wait().success());
        }
        client.mother = made_by_the_next(&options, &key, &plan);
    }

    // All that is done with a machine.
    let counted = state.path().join("steps");
    let count = format!("count:{}", counted.display());
    let mut dry = Program::start(&Options {
        plan: Some(&count),
        ..options
    });
    let counts =
        "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done) >/dev/null 2>&1 &";
    client.shell(&dry, counts);
    assert!(client.go_on(&dry), "nobody kills it");
    client.is_done(&dry);
    dry.terminate();
    assert!(dry.wait().success());
    let points = points(&counted);
    for word in [
        "release",
        "exec once",
        "attach",
        "chunk",
        "finish",
        "quiesce",
        "thaw",
        "stamp",
        "confirm",
        "thaw stamped",
    ] {
        let name = format!("agent: {word}");
        assert!(points.contains(&name), "{name} in {points:?}");
    }
    let mut killed = BTreeMap::new();
    for when in ["before", "after"] {
        // Sessions that make room for others, and a clock that is read again, are points more than the dry run had: it goes
        // on until there is none of that number.
        let is_killed = |number: &usize| {
            let plan = format!("{when}:{number}:agent");
            println!("{}", points.get(number - 1).map_or("", String::as_str));
            round(&mut client, &options, &plan)
        };
        killed.insert(when, (1..MOST_POINTS).take_while(is_killed).count());
    }
    println!(
        "killed at messages to agents, {killed:?}, the dry run had {}, and at {BOOT:?} of a boot",
        points.len()
    );
    for (when, times) in killed {
        assert!(times + 5 > points.len(), "{when}: {times} of {points:?}");
        assert!(times + 1 < MOST_POINTS, "{when}: it is killed for ever");
    }

    let mut last = Program::start(&options);
    let supervisor = last.supervisor().expect("a supervisor");
    last.interrupt();
    settle("the supervisor has ended", || !is_alive(supervisor));
}
