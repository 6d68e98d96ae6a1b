//! Files over HTTP where no Linux guest is needed: what is refused, and that it is refused before anything is read.

use brood_front::Options;

use crate::http::{Server, text};

#[test]
fn files_of_a_guest_without_an_agent_are_refused_with_what_to_use_instead() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let machine = format!("/v1/machines/{mother}");
    let lines = [
        format!("GET {machine}/files/etc/hostname"),
        format!("PUT {machine}/files/etc/hostname?mode=0600"),
        format!("DELETE {machine}/files/etc/hostname"),
        format!("GET {machine}/directory?path=/etc"),
        format!("GET {machine}/stat?path=/etc"),
    ];
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let reader = r#"{"name": "look", "scopes": ["read"]}"#;
    let reader = text(&server.good("POST /v1/keys", reader)["secret"]);
    for line in &lines {
        let refused = server.call(line, "");
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "conflict"),
            "{line}"
        );
        assert!(
            text(&refused.json()["detail"]).contains("Linux guest"),
            "{line}"
        );
        assert_eq!(
            server.as_key(&other, line, "").code(),
            "not_found",
            "{line}"
        );
        // Who may not run programs that read them reads no files either.
        assert_eq!(
            server.as_key(&reader, line, "").code(),
            "missing_scope",
            "{line}"
        );
    }
    server.good(&format!("DELETE /v1/machines/{mother}"), "");
    for line in &lines {
        assert_eq!(server.call(line, "").code(), "ended", "{line}");
    }
}

#[test]
fn paths_and_modes_that_can_be_none_are_refused_by_name() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let mother = server.mother();
    let long = "a/".repeat(2500);
    let refused = [
        ("GET", "stat?path=etc", "path"),
        ("GET", "stat?path=%2Fa%00b", "path"),
        ("GET", "stat", "path"),
        ("GET", "directory?path=/etc&depth=2", "depth"),
        ("PUT", "files/x?mode=888", "mode"),
        ("PUT", "files/x?mode=%2B644", "mode"),
        ("PUT", "files/x?mode=07777777", "mode"),
        ("DELETE", "files/x?recursive=yes", "recursive"),
        ("GET", "files/a%00b", "NUL"),
        ("GET", &format!("files/{long}"), "4095 bytes"),
    ];
    for (verb, rest, words) in refused {
        let answer = server.call(&format!("{verb} /v1/machines/{mother}/{rest}"), "");
        assert_eq!(answer.code(), "invalid_request", "{rest}");
        assert!(
            answer.json().to_string().contains(words),
            "{rest}: {}",
            answer.json()
        );
    }
    let none = server.call(&format!("GET /v1/machines/{mother}/files/"), "");
    assert_eq!(none.code(), "no_such_route");
}
