//! What a fork over HTTP gives daughters, and what it refuses to leave out in silence.

mod http;
mod policy;

use brood_front::Options;

use http::Server;

#[test]
fn a_bare_guest_is_not_forked_where_only_an_agent_could_do_what_daughters_are_to_get() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let point = server.good(&format!("POST /v1/machines/{mother}/checkpoints"), "");
    let point = http::text(&point["id"]);
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
            let detail = http::text(&refused.json()["detail"]);
            assert!(detail.contains("Linux guest"), "{detail}");
        }
    }
    let left = server.good("GET /v1/machines", "");
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{left}");
}
