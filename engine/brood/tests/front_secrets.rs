//! Secrets over HTTP: put, listed, given to daughters by policies, removed, and nowhere to be read.

use brood_front::Options;
use serde_json::Value;

use crate::http::apart::Apart;
use crate::http::{Server, bytes_below, holds, text};
use crate::policy::SHIPPED;

const CANARY: &str = "canary-7c1f-of-the-mine";

/// The policy that ships, which gives every daughter a secret.
fn giving() -> String {
    let settings = "[plugin.identity.settings]";
    let give = "[plugin.identity.settings.give]\nsecrets = [{ name = \"token\", env = \"TOKEN\" }]";
    let policy = SHIPPED.replace(settings, &format!("{give}\n{settings}"));
    let permits = "file-roots = [\"/etc\", \"/run\"]";
    let policy = policy.replace(permits, &format!("{permits}, secrets = [\"token\"]"));
    assert!(policy.contains("secrets = [\"token\"]"));
    policy
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|one| text(&one["name"])).collect()
}

#[test]
fn a_secret_gets_a_version_each_time_is_listed_without_its_value_and_is_removed() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let put = |value: &str| {
        let body = format!(r#"{{"value": "{value}"}}"#);
        server.good("PUT /v1/secrets/token", &body)
    };
    assert_eq!(put(CANARY)["version"], 1);
    let second = put(&format!("{CANARY}-2"));
    assert_eq!(
        (&second["version"], &second["versions"]),
        (&2.into(), &2.into())
    );
    server.good("PUT /v1/secrets/cert", r#"{"value": "line\nline"}"#);
    let list = server.call("GET /v1/secrets", "");
    assert_eq!(names(&list.json()), ["cert", "token"]);
    for field in ["created_at", "updated_at"] {
        assert!(list.json()["items"][1][field].is_string(), "{field}");
    }
    assert!(!holds(&list.body, "canary") && !holds(&list.body, "value"));
    // There is no way to look at one.
    assert_eq!(server.call("GET /v1/secrets/token", "").status, 405);

    let remove = "DELETE /v1/secrets/token";
    assert_eq!(server.call(remove, "").status, 204);
    assert_eq!(server.call(remove, "").code(), "not_found");
    assert_eq!(names(&server.good("GET /v1/secrets", "")), ["cert"]);
    assert_eq!(
        put("again")["version"],
        3,
        "a version means one value for ever"
    );
}

#[test]
fn what_can_be_no_secret_is_refused_without_being_repeated() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let long = format!(r#"{{"value": "{}{CANARY}"}}"#, "x".repeat(64 * 1024));
    let refused = [
        (
            "PUT /v1/secrets/Token",
            r#"{"value": "x"}"#,
            "invalid_request",
        ),
        (
            "PUT /v1/secrets/token",
            r#"{"value": "canary\u0000"}"#,
            "invalid_request",
        ),
        (
            "PUT /v1/secrets/token",
            r#"{"value": {"canary": 1}}"#,
            "invalid_request",
        ),
        (
            "PUT /v1/secrets/token",
            r#"{"valeu": "canary"}"#,
            "invalid_request",
        ),
        ("PUT /v1/secrets/token", &long, "invalid_request"),
    ];
    for (line, body, code) in refused {
        let answer = server.call(line, body);
        assert_eq!(answer.code(), code, "{line}");
        assert!(!holds(&answer.body, "canary"), "{line}");
    }
    assert!(names(&server.good("GET /v1/secrets", "")).is_empty());
}

#[test]
fn a_tenant_sees_gives_and_removes_its_own_secrets_alone() {
    let Some(server) = Server::start_with(&giving(), Options::default()) else {
        return;
    };
    server.good("PUT /v1/secrets/token", r#"{"value": "of acme"}"#);
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let as_other = |line: &str, body: &str| server.as_key(&other, line, body);
    assert!(names(&as_other("GET /v1/secrets", "").json()).is_empty());
    assert_eq!(as_other("DELETE /v1/secrets/token", "").code(), "not_found");
    // Its machines do not get what another tenant has under the name.
    let template = r#"{"name": "counter", "guest": "bare", "memory_mib": 64}"#;
    assert_eq!(as_other("POST /v1/templates", template).status, 201);
    let lacking = as_other("POST /v1/machines", r#"{"template": "counter"}"#);
    assert_eq!((lacking.status, lacking.code().as_str()), (409, "conflict"));
    let detail = text(&lacking.json()["detail"]);
    assert!(detail.contains("no secret 'token'"), "{detail}");
    assert_eq!(names(&server.good("GET /v1/secrets", "")), ["token"]);
}

#[test]
fn a_value_is_in_no_file_of_the_state_directory_no_log_no_event_and_no_decision() {
    let Some(server) = Apart::start(&giving()) else {
        return;
    };
    let value = format!(r#"{{"value": "{CANARY}"}}"#);
    assert_eq!(
        server.call("PUT /v1/secrets/token", &value).json()["version"],
        1
    );
    let template = r#"{"name": "counter", "guest": "bare", "memory_mib": 64}"#;
    assert_eq!(server.call("POST /v1/templates", template).status, 201);
    // The secret is resolved, and there is no agent to take it.
    let fork = server.call("POST /v1/machines", r#"{"template": "counter"}"#);
    assert!(
        text(&fork.json()["detail"]).contains("take secrets"),
        "{}",
        fork.json()
    );
    let events = server.call("GET /v1/events?limit=1000", "");

    let state = server.state();
    let said = server.stop();
    assert!(said.contains("stopped"), "{said}");

    let kept = bytes_below(&state.path().join("state"));
    // What is looked at is what was written.
    assert!(holds(&kept, "token") && holds(&kept, "mutation"));
    for (what, bytes) in [
        ("the state directory", kept.as_slice()),
        ("the log", said.as_bytes()),
        ("events", &events.body),
        ("the answer", &fork.body),
    ] {
        assert!(!holds(bytes, CANARY), "{what} holds the value");
    }
}
