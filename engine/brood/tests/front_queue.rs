//! Requests that wait for room, over HTTP, in the queue of the shipped quota plugin.

use std::thread::{self, ScopedJoinHandle};

use brood_front::Options;
use serde_json::Value;

use crate::http::{self, Answer, Server, text};
use crate::policy::SHIPPED;

/// Two machines live at once; who is too many waits for so long.
fn queue(max_wait_ms: u32) -> String {
    let live = "max-live = 256";
    let queued = format!(
        "max-live = 2\nwhen-full = \"queue\"\nmax-wait-ms = {max_wait_ms}\nmax-queued = 3\npriority = 10"
    );
    let policy = SHIPPED.replace(live, &queued);
    assert_ne!(policy, SHIPPED);
    policy
}

/// A mother and her daughter, who fill the quota.
fn full(max_wait_ms: u32) -> Option<(Server, String, String)> {
    let server = Server::start_with(&queue(max_wait_ms), Options::default())?;
    let mother = server.mother();
    let forked = server.good(&forks(&mother), r#"{"count": 1}"#);
    let daughter = text(&forked["daughters"][0]["machine"]["id"]);
    Some((server, mother, daughter))
}

fn forks(mother: &str) -> String {
    format!("POST /v1/machines/{mother}/forks")
}

fn end(server: &Server, id: &str) {
    server.good(&format!("DELETE /v1/machines/{id}"), "");
}

/// So many requests stand in line: what a policy is told.
fn until_waiting(server: &Server, count: u32) {
    while server.engine.waiting("acme") != count {
        thread::yield_now();
    }
}

fn answer(thread: ScopedJoinHandle<'_, Answer>) -> Value {
    let answer = thread.join().expect("it ran");
    let words = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 201, "{words}");
    answer.json()
}

/// The label `who` of the one daughter.
fn who(fork: &Value) -> String {
    text(&fork["daughters"][0]["machine"]["labels"]["who"])
}

#[test]
fn a_request_that_finds_no_room_waits_until_a_machine_ends_and_says_so() {
    let Some((server, mother, daughter)) = full(600_000) else {
        return;
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| server.call(&forks(&mother), r#"{"count": 1}"#));
        until_waiting(&server, 1);
        assert!(!waiting.is_finished());
        let shown = |line: &str| {
            let scrape = server.call("GET /metrics", "").body;
            String::from_utf8_lossy(&scrape)
                .lines()
                .any(|one| one == line)
        };
        assert!(shown("brood_forks_waiting 1.0"));
        end(&server, &daughter);
        let fork = answer(waiting);
        assert!(shown("brood_forks_waiting 0.0"));
        let line = r#"brood_fork_step_seconds_count{source="machine",step="line"} 1"#;
        assert!(shown(line));
        let warnings = fork["warnings"].to_string();
        assert!(warnings.contains("ms for room"), "{warnings}");
        assert_eq!(fork["daughters"].as_array().map(Vec::len), Some(1));
        until_waiting(&server, 0);
        // Kept of it is what was said first, and in the review that admitted it: two of admission, one of each other hook.
        let line = format!("GET /v1/intents/{}/decisions", text(&fork["intent"]));
        let decisions = server.good(&line, "");
        let hooks: Vec<_> = decisions["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| text(&one["hook"]))
            .collect();
        assert_eq!(hooks, ["admission", "admission", "placement", "mutation"]);
    });
}

#[test]
fn the_highest_priority_goes_first_and_a_newcomer_passes_nobody() {
    let Some((server, mother, daughter)) = full(600_000) else {
        return;
    };
    let (server, mother) = (&server, mother.as_str());
    let ask = |who: &str, priority: i32| {
        let body =
            format!(r#"{{"count": 1, "priority": {priority}, "labels": {{"who": "{who}"}}}}"#);
        move || server.call(&forks(mother), &body)
    };
    thread::scope(|scope| {
        let low = scope.spawn(ask("low", 0));
        until_waiting(server, 1);
        let high = scope.spawn(ask("high", 5));
        until_waiting(server, 2);
        let last = scope.spawn(ask("last", 0));
        until_waiting(server, 3);
        // A fourth is one more than the policy lets wait.
        let fourth = ask("fourth", 9)();
        assert_eq!((fourth.status, fourth.code().as_str()), (403, "denied"));
        assert!(
            fourth.json()["detail"]
                .to_string()
                .contains("3 of 3 requests wait")
        );

        end(server, &daughter);
        let high = answer(high);
        assert_eq!(who(&high), "high");
        assert!(!low.is_finished() && !last.is_finished());
        end(server, &text(&high["daughters"][0]["machine"]["id"]));
        let low = answer(low);
        assert_eq!(who(&low), "low");
        end(server, &text(&low["daughters"][0]["machine"]["id"]));
        assert_eq!(who(&answer(last)), "last");
    });
}

#[test]
fn who_waits_too_long_is_told_how_long_and_holds_nothing() {
    let Some((server, mother, daughter)) = full(50) else {
        return;
    };
    let late = server.call(&forks(&mother), r#"{"count": 1}"#);
    assert_eq!((late.status, late.code().as_str()), (429, "busy"));
    let problem = late.json();
    assert!(
        text(&problem["detail"]).contains("in queue 'default' for"),
        "{problem}"
    );
    assert_eq!(problem["retryable"], true);
    assert_eq!(server.engine.waiting("acme"), 0);
    end(&server, &daughter);
    let forked = server.good(&forks(&mother), r#"{"count": 1}"#);
    assert_eq!(forked["warnings"], serde_json::json!([]));
}

#[test]
fn a_server_that_stops_answers_those_who_wait() {
    let Some((mut server, mother, _)) = full(600_000) else {
        return;
    };
    let address = server.address;
    let (engine, key) = (server.engine.clone(), server.key.clone());
    let waiting = thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let key = format!("Bearer {key}");
        let headers = [("Authorization", key.as_str())];
        let request = http::request(&forks(&mother), &headers, r#"{"count": 1}"#);
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it is sent");
        http::answer(&mut stream)
    });
    while engine.waiting("acme") != 1 {
        thread::yield_now();
    }
    server.stop();
    let answer = waiting.join().expect("it ran");
    assert_eq!((answer.status, answer.code().as_str()), (429, "busy"));
}
