//! `brood up`, killed before and after every commit and every message, and started again.
//!
//! The engine is the shipped program with the shipped policy, cells are real ones with bare guests, and whoever asks
//! repeats what was not answered with the same idempotency key, as a client does.

#![allow(
    clippy::expect_used,
    reason = "a test fails where something is not as it should be"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use brood_testkit::{children_of, is_alive, scratch, settle};
use serde_json::Value;

use crate::policy::SHIPPED;
use crate::program::{Options, Program, components, kvm};

/// What the client wants, in order. `{a}` is the id that the step `a` was answered with.
const STEPS: [(&str, &str, &str); 16] = [
    (
        "template",
        "POST /v1/templates",
        r#"{"name": "counter", "guest": "bare", "memory_mib": 64}"#,
    ),
    (
        "mother",
        "POST /v1/machines",
        r#"{"template": "counter", "name": "mother"}"#,
    ),
    (
        "fork",
        "POST /v1/machines/{mother}/forks",
        r#"{"count": 2}"#,
    ),
    ("point", "POST /v1/machines/{mother}/checkpoints", "{}"),
    (
        "past",
        "POST /v1/checkpoints/{point}/forks",
        r#"{"count": 1}"#,
    ),
    ("pause", "POST /v1/machines/{mother}/pause", ""),
    ("resume", "POST /v1/machines/{mother}/resume", ""),
    ("pause again", "POST /v1/machines/{past}/pause", ""),
    ("end", "DELETE /v1/machines/{fork}", ""),
    ("snapshot", "POST /v1/machines/{mother}/snapshots", "{}"),
    ("of point", "POST /v1/checkpoints/{point}/snapshots", "{}"),
    (
        "restored",
        "POST /v1/snapshots/{snapshot}/forks",
        r#"{"count": 1}"#,
    ),
    ("removed", "DELETE /v1/snapshots/{of point}", ""),
    ("asleep", "POST /v1/machines/{restored}/hibernate", ""),
    ("awake", "POST /v1/machines/{restored}/wake", ""),
    ("asleep again", "POST /v1/machines/{restored}/hibernate", ""),
];
/// What is alive when all of it is done: the mother, a daughter of hers, one of the past, and one of a snapshot, who sleeps;
/// the point is a checkpoint.
const MACHINES: usize = 4;
const ASLEEP: usize = 1;
const CHECKPOINTS: usize = 1;
/// The one that is kept, and what she who sleeps sleeps in.
const SNAPSHOTS: usize = 2;
/// The cells of a template that was used: its own, and the pool.
const TEMPLATE: usize = 5;

/// A client that remembers what it was answered.
#[derive(Default)]
struct Client {
    key: Option<String>,
    answers: BTreeMap<&'static str, Value>,
}

impl Client {
    /// Does what is not done yet, until the engine is gone. Whether all is done.
    fn go_on(&mut self, engine: &Program) -> bool {
        for (name, line, body) in STEPS {
            if self.answers.contains_key(name) {
                continue;
            }
            let line = self.fill(line);
            let remembers = ["/v1/machines", "/forks", "/checkpoints", "/snapshots"];
            let remembered = remembers
                .iter()
                .any(|end| line.ends_with(end))
                .then_some(name);
            let Some((status, answer)) = engine.ask(self.key(), &line, remembered, body) else {
                return false;
            };
            // A template or an end that was done before its answer was lost.
            let is_done = match name {
                "template" => status == 201 || status == 409,
                "end" => status == 200 || status == 410,
                "removed" => status == 204 || status == 404,
                _ => status == 200 || status == 201,
            };
            assert!(is_done, "{name}: {status} {answer}");
            self.answers.insert(name, answer);
        }
        true
    }

    fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    /// The id that a step was answered with.
    fn id(&self, name: &str) -> Option<&str> {
        let answer = self.answers.get(name)?;
        let of = match answer.get("daughters") {
            Some(daughters) => daughters.get(0)?.get("machine")?,
            None => answer,
        };
        of.get("id")?.as_str()
    }

    fn fill(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (name, _, _) in STEPS {
            let place = format!("{{{name}}}");
            if line.contains(&place) {
                let id = self.id(name).expect("an earlier step was answered");
                line = line.replace(&place, id);
            }
        }
        line
    }

    /// Everybody whom an answer has named and none has ended.
    fn confirmed(&self) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for name in ["mother", "point", "past", "restored"] {
            ids.extend(self.id(name).map(str::to_owned));
        }
        if let Some(fork) = self.answers.get("fork") {
            let daughters = fork["daughters"].as_array().expect("daughters");
            // The first is the one that is ended; whether she is, is not known until it is answered.
            ids.extend(daughters.iter().skip(1).map(|one| {
                let id = one["machine"]["id"].as_str();
                id.expect("an id").to_owned()
            }));
        }
        ids
    }
}

/// Who is alive, by the engine's word: machines, then checkpoints.
fn alive(engine: &Program, key: &str) -> [BTreeSet<String>; 2] {
    ["/v1/machines", "/v1/checkpoints"].map(|path| {
        let (status, list) = engine
            .ask(key, &format!("GET {path}"), None, "")
            .expect("it answers");
        assert_eq!(status, 200, "{list}");
        let items = list["items"].as_array().expect("items").iter();
        items
            .map(|one| one["id"].as_str().expect("an id").to_owned())
            .collect()
    })
}

/// Forks whoever was confirmed, ends what came of it, and gives how many that were.
fn all_can_be_forked(engine: &Program, client: &Client) {
    let [machines, points] = alive(engine, client.key());
    for id in client.confirmed() {
        let path = match (machines.contains(&id), points.contains(&id)) {
            (true, _) => "machines",
            (_, true) => "checkpoints",
            _ => unreachable!("{id} was confirmed and is not there"),
        };
        let (fork, place) = (
            format!("POST /v1/{path}/{id}/forks"),
            format!("/v1/{path}/{id}"),
        );
        let shown = engine.ask(client.key(), &format!("GET {place}"), None, "");
        let sleeps = shown.expect("it answers").1["state"] == "hibernated";
        let turn = |verb: &str| {
            let line = format!("POST {place}/{verb}");
            let turned = engine.ask(client.key(), &line, None, "");
            let (status, answer) = turned.expect("it answers");
            assert_eq!(status, 200, "{line}: {answer}");
        };
        if sleeps {
            turn("wake");
        }
        end_daughter(engine, client, &fork);
        if sleeps {
            turn("hibernate");
        }
    }
}

/// What is on disk is what is written down, and nothing of it is damaged: each can be forked.
fn snapshots_are_whole(engine: &Program, client: &Client, state: &Path) -> usize {
    let listed = engine.ask(client.key(), "GET /v1/snapshots", None, "");
    let listed = listed.expect("it answers").1;
    let listed = listed["items"].as_array().expect("items");
    for one in listed {
        let id = one["id"].as_str().expect("an id");
        end_daughter(engine, client, &format!("POST /v1/snapshots/{id}/forks"));
    }
    // Before the first one there is no directory of them.
    let on_disk = std::fs::read_dir(state.join("snapshots/default/snapshots"));
    let on_disk = on_disk.map_or(0, Iterator::count);
    assert_eq!(on_disk, listed.len(), "{listed:?}");
    listed.len()
}

/// Processes below the supervisor, its cells and those they have forked.
fn cells(supervisor: u32) -> usize {
    let mut found = children_of(supervisor);
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let below = children_of(*pid);
        found.extend(below);
        at += 1;
    }
    found.len()
}

/// Makes a machine of the template, so that it is sealed and its pool is full, and ends it.
fn template_can_be_used(engine: &Program, client: &Client) {
    let fork = "POST /v1/templates/counter/forks";
    end_daughter(engine, client, fork);
}

fn end_daughter(engine: &Program, client: &Client, fork: &str) {
    let answer = engine.ask(client.key(), fork, None, r#"{"count": 1}"#);
    let (status, forked) = answer.expect("it answers");
    assert_eq!(status, 201, "{forked}");
    let daughter = forked["daughters"][0]["machine"]["id"].as_str();
    let end = format!("DELETE /v1/machines/{}", daughter.expect("an id"));
    let (status, ended) = engine
        .ask(client.key(), &end, None, "")
        .expect("it answers");
    assert_eq!(status, 200, "{ended}");
}

/// One engine that is killed somewhere, and the next one, which has to make it good. Gives how far the first one came, and
/// whether it was killed.
fn killed_and_made_good(plan: &str, components: &Path, compiled: &Path) -> (usize, bool) {
    let state = scratch();
    // What it would compile first, as every engine before it.
    let copy = Command::new("cp")
        .arg("-r")
        .arg(compiled)
        .arg(state.path())
        .status();
    assert!(copy.is_ok_and(|copied| copied.success()));
    let mut client = Client::default();
    let options = Options::new(state.path(), components);
    let mut killed = Program::start(&Options {
        plan: Some(plan),
        ..options
    });
    client.key = killed.key();
    // Threads race, so there may be fewer points than there were in the dry run.
    if killed.is_serving() && client.go_on(&killed) {
        killed.terminate();
    }
    let status = killed.wait();
    let is_killed = status.signal() == Some(9);
    assert!(is_killed || status.success(), "{plan}: {status}");
    let answered = client.answers.len();

    let mut next = Program::start(&options);
    assert!(next.is_serving(), "{plan}: the next one does not start");
    // A key that was shown and not written down opens nothing, and then another one is shown.
    client.key = next.key().or(client.key);
    all_can_be_forked(&next, &client);
    snapshots_are_whole(&next, &client, state.path());
    assert!(client.go_on(&next), "{plan}: the next one has gone");
    let [machines, points] = alive(&next, client.key());
    assert_eq!(
        (machines.len(), points.len()),
        (MACHINES, CHECKPOINTS),
        "{plan}: {machines:?} {points:?}"
    );
    all_can_be_forked(&next, &client);
    template_can_be_used(&next, &client);
    let kept = snapshots_are_whole(&next, &client, state.path());
    assert_eq!(kept, SNAPSHOTS, "{plan}");
    let supervisor = next.supervisor().expect("a supervisor");
    settle("no cell is left that nobody knows of", || {
        cells(supervisor) == MACHINES - ASLEEP + CHECKPOINTS + TEMPLATE
    });
    next.interrupt();
    settle("the supervisor has ended", || !is_alive(supervisor));
    (answered, is_killed)
}

#[test]
fn an_engine_killed_before_every_commit_and_message_is_made_good_by_the_next() {
    killed_everywhere("before");
}

#[test]
fn an_engine_killed_after_every_commit_and_message_is_made_good_by_the_next() {
    killed_everywhere("after");
}

fn killed_everywhere(when: &str) {
    let (Some(components), true) = (components(), kvm()) else {
        return;
    };
    // A supervisor whose engine has died is a child of this process from then on.
    brood_cell::become_reaper().expect("reaper");
    let state = scratch();
    let compiled = state.path().join("state/compiled");
    let counted = state.path().join("points");
    let directory = state.path().join("state");
    let mut dry = Program::start(&Options {
        plan: Some(&format!("count:{}", counted.display())),
        ..Options::new(&directory, &components)
    });
    let mut client = Client {
        key: dry.key(),
        ..Client::default()
    };
    assert!(client.go_on(&dry), "nobody kills it");
    let points = std::fs::read_to_string(&counted).expect("counted");
    dry.interrupt();
    let points: Vec<&str> = points.lines().collect();
    for word in [
        "store: commit",
        "supervisor: keep",
        "cell: fork",
        "cell: pause",
        "snapshot: save",
        "snapshot: hibernate",
    ] {
        assert!(points.iter().any(|point| point.ends_with(word)), "{word}");
    }
    let (mut answered, mut survived) = (BTreeSet::new(), 0);
    for (number, point) in (1..).zip(&points) {
        let plan = format!("{when}:{number}");
        let (steps, is_killed) = killed_and_made_good(&plan, &components, &compiled);
        survived += usize::from(!is_killed);
        let of = STEPS.len();
        println!("{plan:>10} {point:<28} after {steps} of {of} answers");
        answered.insert(steps);
    }
    println!("killed {when} each of {} points", points.len() - survived);
    assert!(
        survived < 10,
        "{survived} of {} did not kill it",
        points.len()
    );
    // It died before the first answer, before the last, and between any two.
    assert!(answered.len() >= STEPS.len() - 1, "{answered:?}");
}

/// What a manager of services does: terminate, start again. Machines count on meanwhile, and their holds are known.
#[test]
fn a_restart_leaves_machines_running_under_the_same_ids_and_within_the_same_limits() {
    let (Some(components), true) = (components(), kvm()) else {
        return;
    };
    brood_cell::become_reaper().expect("reaper");
    let state = scratch();
    let policy = state.path().join("policy.toml");
    let few = SHIPPED.replace("max-live = 256", "max-live = 6");
    std::fs::write(&policy, few).expect("written");
    let options = Options {
        policy: Some(&policy),
        ..Options::new(state.path(), &components)
    };
    let mut first = Program::start(&options);
    let mut client = Client {
        key: first.key(),
        ..Client::default()
    };
    assert!(client.go_on(&first));
    let before = alive(&first, client.key());
    first.terminate();
    assert!(first.wait().success());
    let supervisor = first.supervisor().expect("it goes on");
    assert_eq!(cells(supervisor), MACHINES - ASLEEP + CHECKPOINTS);

    let mut second = Program::start(&options);
    assert_eq!(second.key(), None, "there is a key");
    assert_eq!(alive(&second, client.key()), before);
    all_can_be_forked(&second, &client);
    template_can_be_used(&second, &client);
    // A kept answer is the same after a restart.
    let repeated = second
        .ask(
            client.key(),
            "POST /v1/machines",
            Some("mother"),
            r#"{"template": "counter", "name": "mother"}"#,
        )
        .expect("it answers")
        .1;
    assert_eq!(repeated["id"], client.answers["mother"]["id"]);
    // Three of six are those from before.
    let fork = client.fill("POST /v1/machines/{mother}/forks");
    for (body, expected) in [(r#"{"count": 4}"#, 403), (r#"{"count": 3}"#, 201)] {
        let answer = second.ask(client.key(), &fork, None, body);
        let (status, answer) = answer.expect("it answers");
        assert_eq!(status, expected, "{body}: {answer}");
    }
    second.interrupt();
    settle("the supervisor has ended", || !is_alive(supervisor));
}
