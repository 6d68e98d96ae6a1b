//! Machines that end by themselves, over HTTP: when their time is over, and when nobody asks anything of them.

use std::time::{Duration, Instant};

use brood_front::Options;
use serde_json::Value;

use crate::http::{Server, text};

/// So long something may take that is to happen by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn show(server: &Server, id: &str) -> Value {
    server.good(&format!("GET /v1/machines/{id}"), "")
}

/// Waits until a machine has ended; how. Looking at her does not keep her.
fn ending(server: &Server, id: &str) -> String {
    let begun = Instant::now();
    loop {
        let machine = show(server, id);
        if machine["state"] == "ended" {
            return text(&machine["ending"]);
        }
        assert!(begun.elapsed() < PATIENCE, "{machine}");
        std::thread::yield_now();
    }
}

fn daughter(server: &Server, mother: &str, spec: &str) -> Value {
    let fork = server.good(&format!("POST /v1/machines/{mother}/forks"), spec);
    fork["daughters"][0]["machine"].clone()
}

#[test]
fn a_time_to_live_can_be_shortened_and_given_back_and_is_never_longer_than_was_admitted() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let one = daughter(&server, &mother, r#"{"count": 1, "ttl": "1h"}"#);
    let line = format!("PUT /v1/machines/{}/ttl", text(&one["id"]));
    let shorter = server.good(&line, r#"{"ttl": "30m"}"#);
    assert!(text(&shorter["expires_at"]) < text(&one["expires_at"]));
    assert_eq!(server.good(&line, "{}")["expires_at"], one["expires_at"]);
    let longer = server.call(&line, r#"{"ttl": "2h"}"#);
    assert_eq!((longer.status, longer.code().as_str()), (409, "conflict"));
    assert_eq!(
        server.call(&line, r#"{"ttl": "0s"}"#).code(),
        "invalid_request"
    );
    assert_eq!(
        server.call(&line, r#"{"ttl": 30}"#).code(),
        "invalid_request"
    );

    server.good(&line, r#"{"ttl": "20ms"}"#);
    let id = text(&one["id"]);
    assert_eq!(ending(&server, &id), "its time to live was over");
    assert_eq!(server.call(&line, "{}").code(), "ended");
    // The mother was admitted for ever, and may be given any time.
    let line = format!("PUT /v1/machines/{mother}/ttl");
    assert!(server.good(&line, r#"{"ttl": "30days"}"#)["expires_at"].is_string());
    assert_eq!(server.good(&line, "{}")["expires_at"], Value::Null);
    assert_eq!(show(&server, &mother)["state"], "running");
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    assert_eq!(
        server.as_key(&other, &line, r#"{"ttl": "1s"}"#).code(),
        "not_found"
    );
}

#[test]
fn a_machine_of_which_nobody_asks_anything_ends_as_idle_and_her_family_lives_on() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let idle = daughter(
        &server,
        &mother,
        r#"{"count": 1, "idle": "50ms", "ttl": "1h"}"#,
    );
    assert_eq!(idle["idle"], "50ms");
    assert_eq!(ending(&server, &text(&idle["id"])), "idle");
    let events = server.good("GET /v1/events?limit=1000", "");
    let events = events["items"].as_array().cloned().unwrap_or_default();
    assert!(events.iter().any(|one| one["data"]["how"] == "idle"));

    let made = r#"{"template": "counter", "idle": "50ms"}"#;
    let made = server.good("POST /v1/machines", made);
    assert_eq!(ending(&server, &text(&made["id"])), "idle");
    assert_eq!(show(&server, &mother)["state"], "running");
    let none = format!("POST /v1/machines/{mother}/forks");
    let none = server.call(&none, r#"{"count": 1, "idle": "0s"}"#);
    assert_eq!(none.code(), "invalid_request");
}
