//! Requests that come twice under one Idempotency-Key: each POST that makes something makes it once.

use brood_front::Options;
use serde_json::Value;

use crate::http::{Answer, Server, holds, text};

/// Asks with a caller's own key.
fn ask(server: &Server, key: &str, line: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {}", server.key);
    let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", key)];
    server.ask(line, &headers, body)
}

/// The same request twice is one; the same key with another body is refused, and so is one that is none.
fn is_done_once(server: &Server, line: &str, body: &str, other: &str) -> Value {
    let first = ask(server, "once", line, body);
    assert_eq!(first.status, 201, "{line}: {}", first.head);
    let again = ask(server, "once", line, body);
    assert_eq!((again.status, again.json()), (201, first.json()), "{line}");
    let reused = ask(server, "once", line, other);
    assert_eq!(
        (reused.status, reused.code().as_str()),
        (422, "idempotency_key_reused"),
        "{line}"
    );
    for none in ["", "a b"] {
        assert_eq!(ask(server, none, line, body).code(), "invalid_request");
    }
    first.json()
}

fn count(server: &Server, list: &str) -> usize {
    let items = server.good(list, "");
    items["items"].as_array().map_or(0, Vec::len)
}

#[test]
fn each_route_that_makes_something_makes_it_once_under_one_key() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let (machines, templates, keys) = ("GET /v1/machines", "GET /v1/templates", "GET /v1/keys");
    let before = [machines, templates, keys].map(|list| count(&server, list));

    let line = "POST /v1/templates";
    let bare = |name: &str| format!(r#"{{"name": "{name}", "guest": "bare", "memory_mib": 64}}"#);
    is_done_once(&server, line, &bare("other"), &bare("third"));
    let line = "POST /v1/machines";
    let of = |name: &str| format!(r#"{{"template": "counter", "name": "{name}"}}"#);
    is_done_once(&server, line, &of("twin"), &of("triplet"));
    let fork = (r#"{"count": 1}"#, r#"{"count": 2}"#);
    for place in [
        format!("/v1/machines/{mother}"),
        "/v1/templates/counter".to_owned(),
    ] {
        is_done_once(&server, &format!("POST {place}/forks"), fork.0, fork.1);
    }
    let line = format!("POST /v1/machines/{mother}/checkpoints");
    // It takes no body, so there is no other one.
    let points = [(); 2].map(|()| ask(&server, "once", &line, "").json());
    assert_eq!(points[0], points[1]);
    assert_eq!(count(&server, "GET /v1/checkpoints"), 1);
    let point = text(&points[0]["id"]);
    let line = format!("POST /v1/checkpoints/{point}/forks");
    is_done_once(&server, &line, fork.0, fork.1);

    let key = |name: &str| format!(r#"{{"name": "{name}", "scopes": ["read"]}}"#);
    let made = is_done_once(&server, "POST /v1/keys", &key("ci"), &key("cd"));
    let line = format!("POST /v1/keys/{}/rotate", text(&made["key"]["id"]));
    let rotated = is_done_once(&server, &line, "{}", r#"{"grace": "1h"}"#);
    let line = "POST /v1/tenants";
    let tenant = is_done_once(&server, line, r#"{"name": "b"}"#, r#"{"name": "c"}"#);

    let after = [machines, templates, keys].map(|list| count(&server, list));
    let made = [
        after[0] - before[0],
        after[1] - before[1],
        after[2] - before[2],
    ];
    assert_eq!(made, [4, 1, 2]);
    assert_eq!(count(&server, "GET /v1/tenants"), 2);
    // What was told once can be told again, and is not to be read where it is kept.
    for token in [&rotated["secret"], &tenant["first_key"]["secret"]] {
        let token = text(token);
        assert_eq!(server.as_key(&token, "GET /v1/info", "").status, 200);
        assert!(!holds(&server.kept(), &token), "{token}");
    }
}

#[test]
fn a_key_that_is_told_again_is_told_to_nobody_who_is_allowed_less() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let body = r#"{"name": "root", "scopes": ["read", "write"]}"#;
    let made = ask(&server, "one", "POST /v1/keys", body).json();
    let line = format!("POST /v1/keys/{}/rotate", text(&made["key"]["id"]));
    let rotated = ask(&server, "two", &line, "{}");
    assert_eq!(rotated.status, 201);
    let less = r#"{"name": "less", "scopes": ["read", "keys"]}"#;
    let less = text(&server.good("POST /v1/keys", less)["secret"]);
    let bearer = format!("Bearer {less}");
    for (key, line, body) in [("one", "POST /v1/keys", body), ("two", line.as_str(), "{}")] {
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", key)];
        let answer = server.ask(line, &headers, body);
        assert_eq!(answer.code(), "missing_scope", "{line}");
    }
}

#[test]
fn requests_of_one_key_at_once_make_one_thing() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let line = format!("POST /v1/machines/{mother}/forks");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = || ask(&server, "at-once", &line, r#"{"count": 2}"#);
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let join = |one: std::thread::ScopedJoinHandle<'_, Answer>| one.join().expect("it asks");
        all.into_iter().map(join).collect()
    });
    let (done, others): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status == 201);
    for other in others {
        assert_eq!(
            (other.status, other.code().as_str()),
            (409, "request_in_flight")
        );
        assert!(other.header("retry-after").is_some());
    }
    assert!(!done.is_empty());
    for one in &done {
        assert_eq!(one.json(), done[0].json());
    }
    assert_eq!(count(&server, "GET /v1/machines"), 3);
    let again = ask(&server, "at-once", &line, r#"{"count": 2}"#);
    assert_eq!(again.json(), done[0].json());
}
