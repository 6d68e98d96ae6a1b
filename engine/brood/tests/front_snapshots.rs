//! Snapshots and hibernation, over HTTP: whose they are, what they are called, what is told of them, what they hold.

use std::time::{Duration, Instant};

use brood_front::Options;
use brood_meter::Cause;
use serde_json::{Value, json};

use crate::http::{Server, text};
use crate::policy::SHIPPED;

/// So long something may take that is to happen by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn take(server: &Server, machine: &str, spec: &str) -> Value {
    server.good(&format!("POST /v1/machines/{machine}/snapshots"), spec)
}

fn ids(server: &Server) -> Vec<String> {
    let all = server.good("GET /v1/snapshots", "");
    let all = all["items"].as_array().into_iter().flatten();
    all.map(|one| text(&one["id"])).collect()
}

/// Kinds of events about something, in order.
fn told(server: &Server, subject: &str) -> Vec<String> {
    let all = server.good("GET /v1/events?limit=1000", "");
    let all = all["items"].as_array().into_iter().flatten();
    let about = all.filter(|one| one["subject"] == subject);
    about.map(|one| text(&one["kind"])).collect()
}

#[test]
fn a_snapshot_has_a_name_labels_and_a_tenant_and_goes_when_it_is_told_to() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let kept = take(
        &server,
        &mother,
        r#"{"name": "kept", "labels": {"team": "a"}}"#,
    );
    assert_eq!(kept["machine"], mother);
    assert_eq!(kept["guest"], "bare");
    assert_eq!(kept["labels"], json!({ "team": "a" }));
    let id = text(&kept["id"]);
    for which in [id.as_str(), "kept"] {
        assert_eq!(server.good(&format!("GET /v1/snapshots/{which}"), ""), kept);
    }
    let line = format!("POST /v1/machines/{mother}/snapshots");
    let twice = server.call(&line, r#"{"name": "kept"}"#);
    assert_eq!((twice.status, twice.code().as_str()), (409, "conflict"));
    for body in [
        r#"{"name": "import"}"#,
        r#"{"name": "A"}"#,
        r#"{"labels": {"brood.a": ""}}"#,
    ] {
        assert_eq!(server.call(&line, body).code(), "invalid_request");
    }
    // Of a checkpoint as well, which stays.
    let point = server.good(&format!("POST /v1/machines/{mother}/checkpoints"), "");
    let of_point = server.good(
        &format!("POST /v1/checkpoints/{}/snapshots", text(&point["id"])),
        "{}",
    );
    assert_eq!(of_point["machine"], mother, "it is a moment of hers");
    assert_eq!(ids(&server), [id.clone(), text(&of_point["id"])]);
    let page = server.good("GET /v1/snapshots?limit=1", "");
    let line = format!("GET /v1/snapshots?cursor={}", text(&page["next"]));
    assert_eq!(server.good(&line, "")["items"][0], of_point);

    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let line = format!("GET /v1/snapshots/{id}");
    for line in [
        line.as_str(),
        "GET /v1/snapshots/kept",
        "GET /v1/snapshots/kept/export",
        "DELETE /v1/snapshots/kept",
    ] {
        let none = server.as_key(&other, line, "");
        assert_eq!(
            (none.status, none.code().as_str()),
            (404, "not_found"),
            "{line}"
        );
    }
    let fork = server.as_key(&other, "POST /v1/snapshots/kept/forks", r#"{"count": 1}"#);
    assert_eq!(fork.status, 404);
    assert_eq!(
        server.as_key(&other, "GET /v1/snapshots", "").json()["items"],
        json!([])
    );

    assert_eq!(server.call("DELETE /v1/snapshots/kept", "").status, 204);
    assert_eq!(server.call("DELETE /v1/snapshots/kept", "").status, 404);
    assert_eq!(ids(&server), [text(&of_point["id"])]);
    assert_eq!(told(&server, &id), ["snapshot.created", "snapshot.removed"]);
    let fork = format!("POST /v1/snapshots/{}/forks", text(&of_point["id"]));
    let forked = server.good(&fork, r#"{"count": 2, "labels": {"team": "b"}}"#);
    assert_eq!(forked["ready"], 2);
    let daughter = &forked["daughters"][0]["machine"];
    assert_eq!(daughter["lineage"], daughter["id"]);
    assert_eq!(daughter["labels"], json!({ "team": "b" }));
    let line = format!("GET /v1/intents/{}/decisions", text(&forked["intent"]));
    let said = server.good(&line, "");
    let hooks = said["items"].as_array().into_iter().flatten();
    let hooks: Vec<_> = hooks.map(|one| text(&one["hook"])).collect();
    assert_eq!(hooks, ["admission", "placement", "mutation"]);
}

#[test]
fn a_snapshot_that_is_asked_for_twice_under_one_key_is_one() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let key = format!("Bearer {}", server.key);
    let headers = [("Authorization", key.as_str()), ("Idempotency-Key", "once")];
    let take = format!("POST /v1/machines/{mother}/snapshots");
    let answers = [(); 2].map(|()| server.ask(&take, &headers, "{}"));
    assert_eq!(answers[0].status, 201);
    assert_eq!(answers[0].json(), answers[1].json());
    let fork = format!(
        "POST /v1/snapshots/{}/forks",
        text(&answers[0].json()["id"])
    );
    let forks = [(); 2].map(|()| server.ask(&fork, &headers, r#"{"count": 1}"#));
    assert_eq!(forks[0].status, 201);
    assert_eq!(forks[0].json(), forks[1].json());
    assert_eq!(ids(&server).len(), 1);
}

#[test]
fn who_sleeps_gives_back_what_was_held_for_her_and_wakes_when_there_is_room() {
    let few = SHIPPED.replace("max-live = 256", "max-live = 2");
    let Some(server) = Server::start_with(&few, Options::default()) else {
        return;
    };
    let mother = server.mother();
    let fork = format!("POST /v1/machines/{mother}/forks");
    let one = server.good(&fork, r#"{"count": 1}"#);
    let one = text(&one["daughters"][0]["machine"]["id"]);
    assert_eq!(server.call(&fork, r#"{"count": 1}"#).status, 403);
    let asleep = server.good(&format!("POST /v1/machines/{one}/hibernate"), "");
    assert_eq!(asleep["state"], "hibernated");
    let two = server.good(&fork, r#"{"count": 1}"#);
    let two = text(&two["daughters"][0]["machine"]["id"]);
    let wake = format!("POST /v1/machines/{one}/wake");
    let denied = server.call(&wake, "");
    assert_eq!((denied.status, denied.code().as_str()), (403, "denied"));
    let still = server.good(&format!("GET /v1/machines/{one}"), "");
    assert_eq!(still["state"], "hibernated");
    server.good(&format!("DELETE /v1/machines/{two}"), "");
    let woken = server.good(&wake, "");
    assert_eq!(
        (&woken["state"], &woken["id"]),
        (&json!("running"), &json!(one))
    );
    assert_eq!(woken["mother"], mother, "she is who she was");
    assert_eq!(server.good(&wake, "")["state"], "running", "as she is");
    // She holds again.
    assert_eq!(server.call(&fork, r#"{"count": 1}"#).status, 403);
    let about = told(&server, &one);
    assert_eq!(
        about,
        [
            "machine.born",
            "machine.hibernated",
            "fork.refused",
            "machine.woken"
        ]
    );
}

#[test]
fn nothing_is_asked_of_who_sleeps_and_her_time_to_live_goes_on() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let fork = format!("POST /v1/machines/{mother}/forks");
    // Idle she would be over by now, and is not, as she sleeps.
    let one = server.good(&fork, r#"{"count": 1, "ttl": "1h", "idle": "1h"}"#);
    let one = text(&one["daughters"][0]["machine"]["id"]);
    let place = format!("/v1/machines/{one}");
    server.good(&format!("POST {place}/hibernate"), "");
    for line in ["pause", "resume", "checkpoints"] {
        let refused = server.call(&format!("POST {place}/{line}"), "");
        assert_eq!(refused.code(), "conflict", "{line}");
        assert!(text(&refused.json()["detail"]).contains("wake"), "{line}");
    }
    for (line, body) in [("forks", r#"{"count": 1}"#), ("snapshots", "{}")] {
        let refused = server.call(&format!("POST {place}/{line}"), body);
        assert_eq!(refused.code(), "conflict", "{line}");
    }
    assert_eq!(
        server.call(&format!("GET {place}/stats"), "").code(),
        "conflict"
    );
    // A paused one cannot be frozen.
    server.good(&format!("POST /v1/machines/{mother}/pause"), "");
    for (line, body) in [("hibernate", ""), ("snapshots", "{}")] {
        let line = format!("POST /v1/machines/{mother}/{line}");
        assert_eq!(server.call(&line, body).code(), "conflict", "{line}");
    }
    server.good(&format!("PUT {place}/ttl"), r#"{"ttl": "20ms"}"#);
    let begun = Instant::now();
    loop {
        let machine = server.good(&format!("GET {place}"), "");
        if machine["state"] == "ended" {
            assert_eq!(machine["ending"], "its time to live was over");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{machine}");
        std::thread::yield_now();
    }
    assert!(ids(&server).is_empty(), "what she slept in went with her");
    assert_eq!(
        server.call(&format!("POST {place}/wake"), "").code(),
        "ended"
    );
}

#[test]
fn no_time_of_sleep_is_used_and_the_windows_of_a_life_still_add_up() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let place = format!("/v1/machines/{mother}");
    server.good(&format!("POST {place}/hibernate"), "");
    server.good(&format!("POST {place}/wake"), "");
    server.good(&format!("DELETE {place}"), "");
    let rows = server.store.read(|read| read.usage(0, 1000));
    let rows: Result<Vec<_>, brood_store::StoreError> = rows;
    let rows = rows.expect("records");
    let id = mother.parse().expect("an id");
    let hers: Vec<_> = rows
        .iter()
        .filter(|row| row.subject.machine == id)
        .map(|row| row.record)
        .collect();
    let causes: Vec<_> = hers.iter().map(|record| record.cause).collect();
    assert_eq!(causes, [Cause::Hibernate, Cause::End]);
    let age: u64 = hers.iter().map(|record| record.span_us).sum();
    assert_eq!(hers[1].age_us, age, "no gap and no overlap in her own time");
    let begun = hers[1].end.as_millis() - (hers[1].span_us / 1000).cast_signed();
    assert!(begun >= hers[0].end.as_millis(), "between them she slept");
}
