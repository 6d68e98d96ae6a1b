//! What operators and tenants look at over HTTP, and the rotation of keys.

use std::time::{Duration, Instant};

use brood_front::Options;
use serde_json::Value;

use crate::http::{Server, text};
use crate::policy::SHIPPED;

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn an_operator_lists_tenants_page_by_page_and_nobody_else_does() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mut key = String::new();
    for name in ["b", "a"] {
        let made = server.good("POST /v1/tenants", &format!(r#"{{"name": "{name}"}}"#));
        key = text(&made["first_key"]["secret"]);
    }
    let first = server.good("GET /v1/tenants?limit=2", "");
    let next = text(&first["next"]);
    let rest = server.good(&format!("GET /v1/tenants?limit=2&cursor={next}"), "");
    assert_eq!(rest["next"], Value::Null);
    let all = [items(&first), items(&rest)].concat();
    let names: Vec<_> = all.iter().map(|one| text(&one["name"])).collect();
    assert_eq!(names, ["acme", "b", "a"], "oldest first");
    assert!(all.iter().all(|one| one["created_at"].is_string()));
    for line in ["GET /v1/tenants", "GET /v1/policies"] {
        assert_eq!(server.as_key(&key, line, "").code(), "missing_scope");
    }
}

#[test]
fn who_is_bound_is_listed_with_the_digest_of_its_file_and_what_became_of_its_calls() {
    let few = SHIPPED.replace("max-per-request = 64", "max-per-request = 2");
    let Some(server) = Server::start_with(&few, Options::default()) else {
        return;
    };
    let list = || items(&server.good("GET /v1/policies", ""));
    let hooks: Vec<_> = list().iter().map(|one| text(&one["hook"])).collect();
    assert_eq!(hooks, ["admission", "placement", "mutation", "billing"]);
    let quota = || list().swap_remove(0);
    let before = quota();
    assert_eq!(
        (&before["plugin"], &before["mode"]),
        (&"quota".into(), &"enforce".into())
    );
    assert_eq!(before["on_failure"], "closed");
    assert_eq!(before["calls"]["answered"], 0);
    let digest = server.component_digest("quota.wasm");
    assert_eq!(before["digest"], format!("sha256:{digest}"));
    assert_eq!(list()[3]["mode"], "warn");

    let mother = server.mother();
    let three = server.call(
        &format!("POST /v1/machines/{mother}/forks"),
        r#"{"count": 3}"#,
    );
    assert_eq!(three.code(), "denied");
    let after = quota();
    let calls = &after["calls"];
    assert_eq!(
        (&calls["answered"], &calls["refused"]),
        (&1.into(), &1.into())
    );
    assert!(calls["fuel"].as_u64().is_some_and(|fuel| fuel > 0));
}

#[test]
fn what_a_machine_costs_is_told_while_it_lives_and_to_its_tenant() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let line = format!("GET /v1/machines/{mother}/stats");
    let stats = server.good(&line, "");
    let kib = |name: &str| stats[name].as_u64().unwrap_or_default();
    // A share of what is shared comes on top of what is her own.
    assert!(
        kib("private_kib") > 0 && kib("pss_kib") >= kib("private_kib"),
        "{stats}"
    );
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    assert_eq!(server.as_key(&other, &line, "").code(), "not_found");
    server.good(&format!("DELETE /v1/machines/{mother}"), "");
    assert_eq!(server.call(&line, "").code(), "ended");
}

#[test]
fn a_rotated_key_ends_at_once_or_after_its_grace_and_the_new_one_allows_the_same() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let spec = r#"{"name": "ci", "scopes": ["read"], "project": "tests", "ttl": "1h"}"#;
    let old = server.good("POST /v1/keys", spec);
    let rotate = |key: &Value, body: &str| {
        let line = format!("POST /v1/keys/{}/rotate", text(&key["key"]["id"]));
        server.call(&line, body)
    };
    let look = |key: &Value| {
        server
            .as_key(&text(&key["secret"]), "GET /v1/machines", "")
            .status
    };
    let second = rotate(&old, "{}").json();
    assert_eq!((look(&old), look(&second)), (401, 200));
    for field in ["name", "project", "scopes"] {
        assert_eq!(second["key"][field], old["key"][field], "{field}");
    }
    assert!(second["key"]["expires_at"].is_string());
    assert_ne!(second["key"]["id"], old["key"]["id"]);

    let third = rotate(&second, r#"{"grace": "30m"}"#).json();
    assert_eq!((look(&second), look(&third)), (200, 200));
    let fourth = rotate(&third, r#"{"grace": "50ms"}"#);
    assert_eq!((fourth.status, look(&fourth.json())), (201, 200));
    let patience = Instant::now() + Duration::from_secs(30);
    while look(&third) != 401 {
        assert!(Instant::now() < patience, "the grace is over");
    }
    // A grace does not make the old one live longer than it would have.
    let fifth = rotate(&fourth.json(), r#"{"grace": "7days"}"#);
    assert_eq!(fifth.status, 201);
    let keys = items(&server.good("GET /v1/keys", ""));
    let id = &fourth.json()["key"]["id"];
    let known = keys
        .iter()
        .find(|key| key["id"] == *id)
        .expect("it is listed");
    assert_eq!(known["expires_at"], fourth.json()["key"]["expires_at"]);

    assert_eq!(rotate(&old, "{}").code(), "conflict");
    assert_eq!(
        rotate(&fifth.json(), r#"{"grace": "0s"}"#).code(),
        "invalid_request"
    );
    let nobody = format!("POST /v1/keys/{}/rotate", "0".repeat(32));
    assert_eq!(server.call(&nobody, "{}").code(), "not_found");
}

#[test]
fn nobody_gets_more_than_they_have_by_rotating_the_key_of_somebody_else() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let keys = server.good("POST /v1/keys", r#"{"name": "keys", "scopes": ["keys"]}"#);
    let first = items(&server.good("GET /v1/keys", "")).swap_remove(0);
    let line = format!("POST /v1/keys/{}/rotate", text(&first["id"]));
    let refused = server.as_key(&text(&keys["secret"]), &line, "{}");
    assert_eq!(refused.code(), "missing_scope");
    assert_eq!(
        server.call("GET /v1/machines", "").status,
        200,
        "it is as it was"
    );
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    assert_eq!(server.as_key(&other, &line, "{}").code(), "not_found");
}

/// A server whose policy has forks of two at most, and five machines; a mother and two daughters, and three who were denied.
fn with_a_denial() -> Option<(Server, String, String)> {
    let few = SHIPPED
        .replace("max-per-request = 64", "max-per-request = 2")
        .replace("max-live = 256", "max-live = 5");
    let server = Server::start_with(&few, Options::default())?;
    let mother = server.mother();
    let forks = format!("POST /v1/machines/{mother}/forks");
    server.good(&forks, r#"{"count": 2}"#);
    assert_eq!(server.call(&forks, r#"{"count": 3}"#).code(), "denied");
    Some((server, mother, forks))
}

#[test]
fn the_log_of_decisions_is_looked_through_by_machine_and_by_denial() {
    let Some((server, mother, forks)) = with_a_denial() else {
        return;
    };
    let log = |query: &str| items(&server.good(&format!("GET /v1/decisions{query}"), ""));
    let all = log("");
    let numbers: Vec<_> = all
        .iter()
        .filter_map(|one| one["number"].as_i64())
        .collect();
    assert!(numbers.is_sorted() && numbers.len() == all.len());
    assert_eq!(all.last().map(|one| &one["denies"]), Some(&true.into()));
    // The mother of a template, her fork, and the denial, which was asked of admission alone.
    assert_eq!(all.len(), 3 + 3 + 1);
    let denied = log("?denied=true");
    assert_eq!(denied.len(), 1);
    let denial = &denied[0];
    assert_eq!(
        (text(&denial["hook"]), text(&denial["subject"])),
        ("admission".into(), mother.clone())
    );
    assert!(text(&denial["verdict"]).starts_with("deny ("), "{denial}");
    assert_eq!(denial["tenant"], "acme");
    // About her: the request that she came of, and those that were about her.
    let hers = log(&format!("?machine={mother}"));
    assert_eq!(hers.len(), all.len());
    let daughter = items(&server.good("GET /v1/machines", "")).swap_remove(1);
    let of_daughter = log(&format!("?machine={}", text(&daughter["id"])));
    assert_eq!(of_daughter.len(), 3, "the fork that she came of");
    let behind = numbers[numbers.len() - 3];
    assert_eq!(
        log(&format!("?after={behind}&limit=1"))[0]["number"],
        numbers[numbers.len() - 2]
    );
    assert_eq!(log("?limit=2").len(), 2, "the newest two");
    assert_eq!(log("?limit=2")[1]["number"], numbers[numbers.len() - 1]);

    // The limit of all machines has no room, which no policy said beforehand.
    server.good(&forks, r#"{"count": 2}"#);
    assert_eq!(server.call(&forks, r#"{"count": 2}"#).status / 100, 4);
    let full = log("?denied=true").pop().expect("one more");
    assert!(text(&full["verdict"]).contains("5 of 5"), "{full}");
    for query in [
        "?limit=0",
        "?after=-1",
        "?machine=x",
        "?denied=maybe",
        "?odd=1",
    ] {
        let refused = server.call(&format!("GET /v1/decisions{query}"), "");
        assert_eq!(refused.code(), "invalid_request", "{query}");
    }
}

#[test]
fn decisions_are_a_tenants_own_and_an_operator_sees_everybodys() {
    let Some((server, _, _)) = with_a_denial() else {
        return;
    };
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let none = server.as_key(&other, "GET /v1/decisions", "").json();
    assert_eq!(items(&none).len(), 0);
    for tenant in ["acme", "*"] {
        let line = format!("GET /v1/decisions?tenant={tenant}");
        assert_eq!(server.as_key(&other, &line, "").code(), "missing_scope");
        assert_eq!(items(&server.good(&line, "")).len(), 7, "{tenant}");
    }
    let of_other = server.good("GET /v1/decisions?tenant=other", "");
    assert_eq!(items(&of_other).len(), 0);
}

#[test]
fn whoever_follows_decisions_is_told_of_a_denial_and_goes_on_where_they_were() {
    let Some((server, mother, forks)) = with_a_denial() else {
        return;
    };
    let follow = |last: Option<&str>| {
        let mut lines = server.stream(&server.key, "GET /v1/decisions", last);
        // With the head it is settled from where they follow.
        let head = lines.next().expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        lines.filter(|line| line.starts_with("data: "))
    };
    let read = |line: &str| -> Value {
        serde_json::from_str(line.trim_start_matches("data: ")).expect("JSON")
    };
    let all = items(&server.good("GET /v1/decisions", ""));
    let before = all[all.len() - 2]["number"].to_string();
    let mut resumed = follow(Some(&before));
    let first = read(&resumed.next().expect("a decision"));
    assert_eq!(
        first["number"],
        all[all.len() - 1]["number"],
        "from where they were"
    );

    // Two who follow: one is there since before, one from now on.
    let mut from_now = follow(None);
    server.call(&forks, r#"{"count": 3}"#);
    let told = read(&resumed.next().expect("a decision"));
    assert_eq!(
        (&told["denies"], text(&told["subject"])),
        (&true.into(), mother)
    );
    assert!(told["number"].as_i64() > first["number"].as_i64());
    assert_eq!(read(&from_now.next().expect("a decision")), told);
    let events = items(&server.good("GET /v1/events?limit=1000", ""));
    let refused = events.iter().filter(|one| one["kind"] == "fork.refused");
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[1]["data"]["intent"], told["intent"]);
    assert!(text(&refused[1]["data"]["why"]).contains("denies it"));
}
