//! What a fork over HTTP gives daughters, and what it refuses to leave out in silence.

use brood_front::Options;

use crate::http::{Server, holds, text};

#[test]
fn a_bare_guest_is_not_forked_where_only_an_agent_could_do_what_daughters_are_to_get() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let point = server.good(&format!("POST /v1/machines/{mother}/checkpoints"), "");
    let point = text(&point["id"]);
    for place in [
        format!("/v1/machines/{mother}"),
        format!("/v1/checkpoints/{point}"),
        "/v1/templates/counter".to_owned(),
    ] {
        for what in [
            r#""env": {"A": "1"}"#,
            r#""files": [{"path": "/etc/task", "text": ""}]"#,
        ] {
            let line = format!("POST {place}/forks");
            let refused = server.call(&line, &format!(r#"{{"count": 1, {what}}}"#));
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (409, "conflict"),
                "{place} {what}"
            );
            let detail = text(&refused.json()["detail"]);
            assert!(detail.contains("Linux guest"), "{detail}");
        }
    }
    let left = server.good("GET /v1/machines", "");
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{left}");
}

#[test]
fn a_secret_that_a_caller_names_for_daughters_is_opened_before_the_fork_and_is_of_the_tenant() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let line = format!("POST /v1/machines/{mother}/forks");
    let give = r#"{"count": 2, "give_secrets": [{"name": "token", "env": "TOKEN"}]}"#;
    let detail = || {
        let refused = server.call(&line, give);
        assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"));
        text(&refused.json()["detail"])
    };
    assert!(detail().contains("no secret 'token'"), "{}", detail());
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let value = r#"{"value": "canary-of-the-mine"}"#;
    server.as_key(&other, "PUT /v1/secrets/token", value);
    assert!(detail().contains("no secret 'token'"), "{}", detail());
    server.good("PUT /v1/secrets/token", value);
    // It is there, and a bare guest has nobody to take it.
    assert!(detail().contains("Linux guest"), "{}", detail());
    let version = give.replace(r#""name""#, r#""version": 2, "name""#);
    let none = server.call(&line, &version);
    assert!(
        text(&none.json()["detail"]).contains("version 2"),
        "{}",
        none.json()
    );
    assert!(!holds(&server.kept(), "canary-of-the-mine"));
}
