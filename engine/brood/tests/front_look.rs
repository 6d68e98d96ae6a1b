//! What operators and tenants look at over HTTP, and the rotation of keys.

mod http;
mod policy;

use std::time::{Duration, Instant};

use brood_front::Options;
use serde_json::Value;

use http::{Server, text};

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
    let few = policy::SHIPPED.replace("max-per-request = 64", "max-per-request = 2");
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
