//! The settings are strict, and say where they are wrong.

use super::*;

fn wrong(settings: &str) -> Vec<String> {
    let refused = Host::with_settings::<Identity>(settings).err().unwrap();
    let lines = refused
        .0
        .into_iter()
        .map(|one| format!("{}: {}", one.at, one.message));
    lines.collect()
}

#[test]
fn host_name_must_be_one_for_every_daughter() {
    for right in [
        "vm-${id}",
        "d${index}-${id}",
        "${tenant}.${project}",
        "a",
        "${node}",
    ] {
        assert!(
            Host::with_settings::<Identity>(&format!(r#"{{"hostname": "{right}"}}"#)).is_ok(),
            "{right}"
        );
    }
    let long = "x".repeat(54) + "${index}";
    for not in [
        "",
        "-a",
        "a-",
        "a b",
        "${ip}",
        "${mac}",
        "${idx}",
        "${index",
        "a..b",
        "${id}${id}",
        &long,
    ] {
        let found = wrong(&format!(r#"{{"hostname": "{not}"}}"#));
        assert!(
            found.len() == 1 && found[0].starts_with("/hostname: `"),
            "{not}: {found:?}"
        );
    }
}

#[test]
fn every_mistake_is_reported_at_its_place() {
    let found = wrong(
        r#"{"give": {"env": {"A": "${what}"}, "unset-env": ["1A"], "files": [{"path": "etc", "content": "", "mode": "888"}],
            "numbers": {"N": {"first": 1, "step": 0}}, "secret": []}, "rules": [{"tenants": "a"}]}"#,
    );
    assert_eq!(
        found,
        [
            "/give/secret: no such setting; did you mean `secrets`?",
            "/give/env/A: `${what}` is not a text whose `${…}` are index, id, node, ip, mac, tenant, project or subject",
            "/give/unset-env/0: `1A` is not the name of an environment variable",
            "/give/numbers/N/step: 0 would give all the same; that is what `env` is for",
            "/give/files/0/path: `etc` is not an absolute path without `.`, `..` and empty parts",
            "/give/files/0/mode: `888` is not a mode from 000 to 777",
            "/rules/0/tenants: expected a list, found a string",
        ]
    );
}

#[test]
fn what_one_field_cannot_say_is_reported_too() {
    let found = wrong(
        r#"{"give": {"env": {"A B": ""}, "values": {"V": {"list": []}}, "labels": {"brood.x": ""},
                "secrets": [{"name": "s"}, {"name": "", "env": "S", "file": "/run/s"}]},
            "rules": [{"give": {"env": {"A": ""}, "unset-env": ["A"], "remove-files": ["/f", "/f"]}}]}"#,
    );
    assert_eq!(
        found,
        [
            "/give/env/A B: not the name of an environment variable",
            "/give/values/V/list: an empty list has no values",
            "/give/labels/brood.x: 1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`, not beginning with `brood.`",
            "/give/secrets/0: a secret goes to `env` or to `file`, one of them",
            "/give/secrets/1/name: a secret has a name",
            "/give/secrets/1: a secret goes to `env` or to `file`, one of them",
            "/rules/0/give: /f is given twice",
            "/rules/0/give: A is given twice",
        ]
    );
}

#[test]
fn modes_are_octal() {
    let mode = |mode: &str| {
        let file = format!(
            r#"{{"give": {{"files": [{{"path": "/f", "content": "", "mode": "{mode}"}}]}}}}"#
        );
        Host::with_settings::<Identity>(&file).is_ok()
    };
    assert!(mode("000") && mode("777") && mode("0644"));
    for wrong in ["", "7", "1777", "0800", "+77", "0o644", " 644"] {
        assert!(!mode(wrong), "{wrong}");
    }
}

#[test]
fn schema_documents_every_setting() {
    assert_eq!(
        brood_plugin::testkit::undocumented::<Identity>(),
        Vec::<String>::new()
    );
}
