//! Programs over HTTP, as far as they need no Linux guest: what is refused, and what the database knows.

use brood_front::Options;
use brood_store::{ExecRow, ExecState, Pending, StoreError};
use brood_units::{MachineId, Timestamp};

use crate::http::{Server, text};

fn ran(machine: &str, exec: u32, state: ExecState) -> ExecRow {
    let at = Timestamp::from_millis(1_000);
    ExecRow {
        machine: machine.parse::<MachineId>().expect("an id"),
        exec,
        tenant: "acme".to_owned(),
        argv: vec!["true".to_owned()],
        state,
        code: (state == ExecState::Exited).then_some(3),
        signal: None,
        created: at,
        ended: (state != ExecState::Running).then_some(at),
    }
}

#[test]
fn what_no_guest_could_take_is_refused_with_its_place() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let execs = format!("/v1/machines/{mother}/execs");
    let start = format!("POST {execs}");
    let at = |verb: &str, rest: &str| format!("{verb} {execs}/1/{rest}");
    let many = format!(r#"{{"argv": ["a", "{}"]}}"#, "x".repeat(128 << 10));
    let refused = [
        (start.clone(), r#"{"argv": []}"#, "/argv"),
        (start.clone(), &many, "/argv"),
        (
            start.clone(),
            r#"{"argv": ["a"], "env": {"A=B": ""}}"#,
            "/env/A=B",
        ),
        (start.clone(), r#"{"argv": ["a"], "ttyy": {}}"#, "/ttyy"),
        (
            start.clone(),
            r#"{"argv": ["a"], "tty": {"cols": 80, "rows": 0}}"#,
            "/tty/rows",
        ),
        (at("POST", "stdin"), "{}", "/text"),
        (at("POST", "stdin"), r#"{"data": "?"}"#, "/data"),
        (at("POST", "signal"), r#"{"signal": 65}"#, "/signal"),
        (at("POST", "resize"), r#"{"cols": 0, "rows": 1}"#, "/cols"),
        (at("GET", "output?offset=5"), "", "offset"),
        (at("GET", "output?offset=-5"), "", "offset"),
        (at("GET", "output?stream=stdout&offset=5-0"), "", "offset"),
        (at("GET", "output?stream=stdin"), "", "stream"),
        (at("GET", "output?limit=0"), "", "limit"),
        (format!("GET {execs}/x"), "", "exec"),
        (format!("GET {execs}/4294967296"), "", "exec"),
    ];
    for (line, body, place) in refused {
        let answer = server.call(&line, body);
        assert_eq!(answer.code(), "invalid_request", "{line}");
        assert_eq!(answer.json()["errors"][0]["pointer"], place, "{line}");
    }
    let large = format!(r#"{{"text": "{}"}}"#, "x".repeat(2 << 20));
    let answer = server.call(&at("POST", "stdin"), &large);
    assert_eq!(answer.code(), "body_too_large");
    let key = format!("Bearer {}", server.key);
    let ask = |name: &str, value: &str| {
        let headers = [("Authorization", key.as_str()), (name, value)];
        server.ask(&at("GET", "output"), &headers, "").code()
    };
    assert_eq!(ask("Accept", "text/html"), "not_acceptable");
    assert_eq!(ask("Last-Event-ID", "5"), "invalid_request");
}

#[test]
fn a_machine_without_an_agent_has_no_programs_and_says_so() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let execs = format!("/v1/machines/{mother}/execs");
    let started = server.call(&format!("POST {execs}"), r#"{"argv": ["true"]}"#);
    assert_eq!((started.status, started.code().as_str()), (409, "conflict"));
    let listed = server.good(&format!("GET {execs}"), "");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(0));
    assert_eq!(
        server.call(&format!("GET {execs}/1"), "").code(),
        "not_found"
    );

    // Only a WebSocket is at a terminal, and only for who may write.
    let tty = format!("GET {execs}/1/tty");
    let plain = server.call(&tty, "");
    assert_eq!(
        (plain.status, plain.code().as_str()),
        (426, "upgrade_required")
    );
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    let asks = |key: &str| {
        let key = format!("Bearer {key}");
        let line = format!(
            "{tty} HTTP/1.1\r\nHost: t\r\nAuthorization: {key}\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        server.raw(line.as_bytes()).code()
    };
    assert_eq!(asks(&server.key), "conflict");
    let made = server.good("POST /v1/keys", r#"{"name": "look", "scopes": ["read"]}"#);
    assert_eq!(asks(&text(&made["secret"])), "missing_scope");
}

#[test]
fn what_is_known_of_a_program_outlives_its_machine_and_is_nobody_elses() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let rows = [
        ran(&mother, 1, ExecState::Exited),
        ran(&mother, 2, ExecState::Running),
    ];
    let written = server.store.write(move |write| {
        let mut rows = rows.iter();
        rows.try_for_each(|row| write.put_exec(row).map(drop))
    });
    let written: Pending<(), StoreError> = written;
    written.wait().expect("written");
    let execs = format!("GET /v1/machines/{mother}/execs");
    let known = server.good(&format!("{execs}/1"), "");
    assert_eq!(
        (&known["state"], &known["code"]),
        (&"exited".into(), &3.into())
    );

    // Her daughter has them as well, and a checkpoint has none to show.
    let forks = format!("POST /v1/machines/{mother}/forks");
    let forked = server.good(&forks, r#"{"count": 1}"#);
    let daughter = text(&forked["daughters"][0]["machine"]["id"]);
    let hers = server.good(&format!("GET /v1/machines/{daughter}/execs/1"), "");
    assert_eq!(
        (&hers["code"], &hers["machine"]),
        (&3.into(), &daughter.into())
    );
    let point = server.good(&format!("POST /v1/machines/{mother}/checkpoints"), "");
    let point = text(&point["id"]);
    let none = [("GET", ""), ("POST", r#"{"argv": ["true"]}"#)];
    for (verb, body) in none {
        let answer = server.call(&format!("{verb} /v1/machines/{point}/execs"), body);
        assert_eq!(answer.code(), "not_found", "{verb}");
    }

    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let path = format!("/v1/machines/{mother}/execs");
    for (line, body) in [
        (format!("GET {path}"), ""),
        (format!("POST {path}"), r#"{"argv": ["true"]}"#),
        (format!("GET {path}/1"), ""),
        (format!("GET {path}/1/output"), ""),
        (format!("POST {path}/1/stdin"), r#"{"close": true}"#),
        (format!("POST {path}/1/signal"), r#"{"signal": 9}"#),
        (format!("POST {path}/1/resize"), r#"{"cols": 1, "rows": 1}"#),
    ] {
        let refused = server.as_key(&other, &line, body);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (404, "not_found"),
            "{line}"
        );
    }

    server.good(&format!("DELETE /v1/machines/{mother}"), "");
    let listed = server.good(&execs, "");
    let states = listed["items"].as_array().expect("a list").iter();
    let states: Vec<_> = states.map(|one| text(&one["state"])).collect();
    assert_eq!(states, ["exited", "lost"]);
    let lost = server.good(&format!("{execs}/2"), "");
    assert!(lost["ended_at"].is_string(), "{lost}");
    assert_eq!(server.call(&format!("{execs}/3"), "").code(), "not_found");
    assert_eq!(
        server.call(&format!("{execs}/1/output"), "").code(),
        "ended"
    );
    let late = server.call(&format!("POST {path}"), r#"{"argv": ["true"]}"#);
    assert_eq!((late.status, late.code().as_str()), (410, "ended"));
}
