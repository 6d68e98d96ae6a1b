//! The HTTP edge over a socket, with real cells (bare guests), the real database and the components that ship.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use brood_front::Options;
use serde_json::Value;

use crate::http::{Server, answer, text};
use crate::policy::SHIPPED;

#[test]
fn a_machine_is_made_forked_kept_shown_and_ended_over_http() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let forks = format!("POST /v1/machines/{mother}/forks");
    let body = r#"{"count": 3, "labels": {"team": "a"}, "ttl": "1h", "min_count": 1}"#;
    let forked = server.call(&forks, body);
    assert_eq!(forked.status, 201, "{}", forked.json());
    let timing = forked.header("server-timing").expect("where the time went");
    for stage in [
        "decide;dur=",
        "fork;dur=",
        "mother-pause;dur=",
        "total;dur=",
    ] {
        assert!(timing.contains(stage), "{timing}");
    }
    let fork = forked.json();
    assert_eq!((&fork["ready"], &fork["requested"]), (&3.into(), &3.into()));
    let daughters = fork["daughters"].as_array().expect("daughters");
    let ids: BTreeSet<_> = daughters
        .iter()
        .map(|one| text(&one["machine"]["id"]))
        .collect();
    assert_eq!(ids.len(), 3);
    for daughter in daughters {
        assert_eq!(daughter["machine"]["mother"], *mother);
        assert!(
            daughter["first_instruction_us"]
                .as_f64()
                .is_some_and(|us| us > 0.0)
        );
    }

    // A list by label, two at a time.
    let first = server.good("GET /v1/machines?label=team%3Da&limit=2", "");
    let next = text(&first["next"]);
    let rest = server.good(
        &format!("GET /v1/machines?label=team%3Da&limit=2&cursor={next}"),
        "",
    );
    let items = [&first["items"], &rest["items"]];
    let listed: Vec<_> = items
        .iter()
        .flat_map(|items| items.as_array())
        .flatten()
        .collect();
    let listed: BTreeSet<_> = listed.into_iter().map(|one| text(&one["id"])).collect();
    assert_eq!(listed, ids);

    // A checkpoint, and a daughter of it.
    let point = server.good(&format!("POST /v1/machines/{mother}/checkpoints"), "");
    let point = text(&point["id"]);
    let of_point = server.good(
        &format!("POST /v1/checkpoints/{point}/forks"),
        r#"{"count": 1}"#,
    );
    assert_eq!(of_point["ready"], 1);
    let tree = server.good(&format!("GET /v1/machines/{mother}/tree"), "");
    assert_eq!(tree["nodes"].as_array().map(Vec::len), Some(6));
    assert_eq!(
        server.call(&format!("GET /v1/machines/{point}"), "").status,
        404
    );

    let paused = server.good(&format!("POST /v1/machines/{mother}/pause"), "");
    assert_eq!(paused["state"], "paused");
    let resumed = server.good(&format!("POST /v1/machines/{mother}/resume"), "");
    assert_eq!(resumed["state"], "running");

    let decisions = server.good(
        &format!("GET /v1/intents/{}/decisions", text(&fork["intent"])),
        "",
    );
    assert!(!decisions["items"].as_array().expect("decisions").is_empty());

    let ended = server.good(&format!("DELETE /v1/machines/{mother}?cascade=true"), "");
    assert_eq!(ended["ended"].as_array().map(Vec::len), Some(6));
    assert_eq!(server.call(&forks, body).code(), "ended");
    let events = server.good("GET /v1/events?limit=1000", "");
    let kinds = events["items"].as_array().expect("events");
    let born = kinds.iter().filter(|one| one["kind"] == "machine.born");
    assert_eq!(born.count(), 5);
}

#[test]
fn whatever_is_asked_wrongly_is_answered_with_a_problem_that_says_where() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let forks = format!("POST /v1/machines/{mother}/forks");
    let refused = [
        ("GET /v2/nothing", "", 404, "no_such_route"),
        ("PUT /v1/machines", "", 405, "method_not_allowed"),
        (&forks, "{\"count\": 1,\n}", 400, "malformed_json"),
        (&forks, r#"{"cuont": 1}"#, 400, "invalid_request"),
        (&forks, r#"{"count": 0}"#, 400, "invalid_request"),
        (&forks, r#"{"count": 1000000000}"#, 400, "invalid_request"),
        (&forks, r#"{"count": "1"}"#, 400, "invalid_request"),
        ("GET /v1/machines?limit=0", "", 400, "invalid_request"),
        ("GET /v1/machines?cursor=zz", "", 400, "invalid_request"),
        ("GET /v1/machines/xyz", "", 400, "invalid_request"),
        (
            "GET /v1/machines/00000000000000000000000000000000",
            "",
            404,
            "not_found",
        ),
        ("GET /v1/problems/nothing", "", 404, "not_found"),
        (
            "POST /v1/machines",
            r#"{"template": "nobody"}"#,
            404,
            "not_found",
        ),
        (
            "POST /v1/templates",
            r#"{"name": "counter", "guest": "bare"}"#,
            409,
            "conflict",
        ),
    ];
    for (line, body, status, code) in refused {
        let answer = server.call(line, body);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{line} {body}"
        );
    }
    let place = server.call(&forks, "{\"count\": 1,\n}").json();
    assert!(text(&place["detail"]).contains("line 2"), "{place}");
    let nearest = server.call(&forks, r#"{"cuont": 1}"#).json();
    assert_eq!(nearest["errors"][0]["nearest"], "count");
    let allowed = server.call("PUT /v1/machines", "");
    let allow = allowed.header("allow").expect("what is allowed");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");

    let key = format!("Bearer {}", server.key);
    let large = format!(
        r#"{{"count": 1, "env": {{"A": "{}"}}}}"#,
        "x".repeat(2 << 20)
    );
    assert_eq!(server.call(&forks, &large).code(), "body_too_large");
    let plain = format!(
        "{forks} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: {key}\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(
        server.raw(plain.as_bytes()).code(),
        "unsupported_media_type"
    );
    let headers = [("Authorization", key.as_str()), ("Accept", "text/html")];
    assert_eq!(
        server.ask("GET /v1/events", &headers, "").code(),
        "not_acceptable"
    );
    // Nothing of all that was done.
    let all = server.good("GET /v1/machines", "");
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_key_opens_what_its_scopes_name_and_nothing_of_another_tenant() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let show = format!("GET /v1/machines/{mother}");
    assert_eq!(server.ask(&show, &[], "").code(), "missing_key");
    let refused = server.as_key("brood_00", &show, "");
    assert_eq!((refused.status, refused.code().as_str()), (401, "bad_key"));
    assert!(refused.header("www-authenticate").is_some());

    let reader = server.good("POST /v1/keys", r#"{"name": "look", "scopes": ["read"]}"#);
    let secret = text(&reader["secret"]);
    assert_eq!(server.as_key(&secret, &show, "").status, 200);
    for operation in brood_api::Operation::ALL {
        let scope = operation
            .scope
            .filter(|scope| *scope != brood_api::key::Scope::Read);
        let Some(scope) = scope else { continue };
        let path = operation.path.replace("{machine}", &mother);
        let path = path.replace("{name}", "n").replace(['{', '}'], "");
        let verb = format!("{:?}", operation.verb).to_uppercase();
        let refused = server.as_key(&secret, &format!("{verb} {path}"), "{}");
        assert_eq!(refused.code(), "missing_scope", "{path}");
        assert!(text(&refused.json()["detail"]).contains(scope.as_str()));
    }
    let revoke = format!("DELETE /v1/keys/{}", text(&reader["key"]["id"]));
    assert_eq!(server.call(&revoke, "").status, 204);
    assert_eq!(server.as_key(&secret, &show, "").code(), "bad_key");

    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let lines = [
        show,
        format!("GET /v1/machines/{mother}/tree"),
        format!("POST /v1/machines/{mother}/pause"),
        format!("DELETE /v1/machines/{mother}"),
        "GET /v1/templates/counter".to_owned(),
    ];
    for line in lines {
        assert_eq!(
            server.as_key(&other, &line, "").code(),
            "not_found",
            "{line}"
        );
    }
    let none = server.as_key(&other, "GET /v1/machines", "").json();
    assert_eq!(none["items"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_request_that_comes_twice_under_one_key_is_done_once() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let line = format!("POST /v1/machines/{mother}/forks");
    let key = format!("Bearer {}", server.key);
    let headers = [
        ("Authorization", key.as_str()),
        ("Idempotency-Key", "fork-1"),
    ];
    let ask = |body: &str| server.ask(&line, &headers, body);
    let (first, again) = (ask(r#"{"count": 2}"#), ask(r#"{"count": 2}"#));
    assert_eq!(first.status, 201);
    assert_eq!(first.json(), again.json());
    let other = ask(r#"{"count": 3}"#);
    assert_eq!(
        (other.status, other.code().as_str()),
        (422, "idempotency_key_reused")
    );
    let all = server.good("GET /v1/machines", "");
    assert_eq!(all["items"].as_array().map(Vec::len), Some(3));
    let line = format!("POST /v1/machines/{mother}/pause");
    let none_kept = server.ask(&line, &headers, "");
    assert_eq!(none_kept.code(), "invalid_request");
}

#[test]
fn a_policys_denial_reaches_the_caller_in_its_own_words() {
    let few = SHIPPED.replace("max-per-request = 64", "max-per-request = 2");
    let Some(server) = Server::start_with(&few, Options::default()) else {
        return;
    };
    let mother = server.mother();
    let denied = server.call(
        &format!("POST /v1/machines/{mother}/forks"),
        r#"{"count": 3}"#,
    );
    assert_eq!((denied.status, denied.code().as_str()), (403, "denied"));
    let problem = denied.json();
    assert_eq!(problem["detail"], problem["denial"]["message"]);
    // The policy alone knows its limit.
    assert!(text(&problem["detail"]).contains('2'), "{problem}");
    for word in ["binding", "code", "message"] {
        assert!(!text(&problem["denial"][word]).is_empty(), "{problem}");
    }
}

#[test]
fn a_follower_sees_every_event_once_and_in_order_and_is_told_the_end() {
    let Some(mut server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let numbers = |events: &Value| {
        let items = events["items"].as_array().cloned().unwrap_or_default();
        let numbers = items.iter().filter_map(|one| one["number"].as_i64());
        numbers.collect::<Vec<_>>()
    };
    let before = numbers(&server.good("GET /v1/events", ""));
    let mut lines = server.follow(&server.key, before[0]);
    server.good(
        &format!("POST /v1/machines/{mother}/forks"),
        r#"{"count": 2}"#,
    );
    let all = numbers(&server.good("GET /v1/events", ""));
    let expected: Vec<_> = all.iter().filter(|number| **number > before[0]).collect();
    assert!(expected.len() >= 2);
    for number in expected {
        let id = format!("id: {number}");
        let seen = lines.by_ref().find(|line| line.starts_with("id: "));
        assert_eq!(seen, Some(id));
    }
    server.stop();
    assert!(lines.any(|line| line == "event: problem"));
}

#[test]
fn the_stream_of_a_revoked_key_ends() {
    let options = Options {
        heartbeat: Duration::from_millis(20),
        ..Options::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let made = server.good("POST /v1/keys", r#"{"name": "look", "scopes": ["read"]}"#);
    let mut lines = server.follow(&text(&made["secret"]), 0);
    assert!(lines.by_ref().any(|line| line == ":"));
    let revoke = format!("DELETE /v1/keys/{}", text(&made["key"]["id"]));
    assert_eq!(server.call(&revoke, "").status, 204);
    assert!(lines.by_ref().any(|line| line.contains("bad_key")));
    assert_eq!(lines.find(|line| line.starts_with("event")), None);
}

#[test]
fn a_slow_client_is_let_go_and_one_that_vanishes_changes_nothing() {
    let options = Options {
        head_time: Duration::from_millis(50),
        body_time: Duration::from_millis(50),
        ..Options::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let mut mute = server.connect();
    mute.write_all(b"GET /healthz HT").expect("it is sent");
    let let_go = answer(&mut mute);
    assert!([0, 408].contains(&let_go.status), "{}", let_go.head);

    let key = format!("Bearer {}", server.key);
    let head = format!(
        "POST /v1/templates HTTP/1.1\r\nHost: t\r\nAuthorization: {key}\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{{"
    );
    assert_eq!(server.raw(head.as_bytes()).code(), "body_too_slow");
    let mut gone = server.connect();
    gone.write_all(head.as_bytes()).expect("it is sent");
    drop(gone);
    assert_eq!(server.ask("GET /healthz", &[], "").status, 200);
    let templates = server.good("GET /v1/templates", "");
    assert_eq!(templates["items"].as_array().map(Vec::len), Some(0));
}

#[test]
fn the_server_says_what_it_is_and_what_it_can_do() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    for line in ["GET /healthz", "GET /readyz", "GET /v1/problems"] {
        assert_eq!(server.ask(line, &[], "").status, 200, "{line}");
    }
    let document = server.ask("GET /v1/openapi.json", &[], "").json();
    assert_eq!(document["openapi"], "3.1.0");
    let fork = &document["paths"]["/v1/machines/{machine}/forks"]["post"]["responses"];
    for status in ["201", "400", "401", "403", "404", "409", "410", "422"] {
        assert!(fork[status].is_object(), "{status}");
    }
    let info = server.good("GET /v1/info", "");
    assert_eq!(info["tenant"], "acme");
    assert_eq!(
        info["scopes"].as_array().map(Vec::len),
        Some(brood_api::key::Scope::ALL.len())
    );
    let named = server.ask("GET /healthz", &[("X-Request-Id", "mine-1")], "");
    assert_eq!(named.header("x-request-id"), Some("mine-1"));
    let id = server.ask("GET /healthz", &[("X-Request-Id", "no good")], "");
    assert_eq!(id.header("x-request-id").map(str::len), Some(32));
}
