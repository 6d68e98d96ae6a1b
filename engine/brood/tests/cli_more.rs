//! The command line against a real server with bare guests: times to live, rotated keys, lists for operators, and what a
//! terminal, files and logs say where there is no agent.

use crate::serve::Serve;
use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn a_time_to_live_is_shortened_and_given_back() {
    let Some(serve) = Serve::start() else { return };
    serve.mother();
    let forked = serve.good(&["fork", "mother", "--ttl", "1h"]);
    let one = &forked["daughters"][0]["machine"];
    let id = text(&one["id"]);
    let shorter = serve.good(&["ttl", id, "30m"]);
    assert!(text(&shorter["expires_at"]) < text(&one["expires_at"]));
    assert!(serve.text(&["ttl", id]).contains("59m"));
    assert_eq!(serve.json(&["ttl", id, "2h"]).status, 113);
    assert_eq!(serve.json(&["ttl", id, "soon"]).status, 2);
}

#[test]
fn a_key_is_rotated_and_the_old_one_ends_or_has_its_grace() {
    let Some(serve) = Serve::start() else { return };
    let old = serve.good(&["key", "create", "ci", "--scope", "read"]);
    let (id, first) = (text(&old["key"]["id"]), text(&old["secret"]));
    let status = |key: &str| serve.brood(&["info", "--key", key]).status;
    let new = serve.good(&["key", "rotate", id, "--grace", "1h"]);
    let second = text(&new["secret"]);
    assert_eq!((status(first), status(second)), (0, 0));
    let printed = serve.text(&["key", "rotate", text(&new["key"]["id"])]);
    assert_eq!((status(second), status(printed.trim())), (111, 0));
    assert_eq!(
        serve.json(&["key", "rotate", id, "--grace", "0s"]).status,
        2
    );
    let unknown = "00000000000000000000000000000001";
    assert_eq!(serve.json(&["key", "rotate", unknown]).status, 110);
}

#[test]
fn what_is_made_under_a_key_of_ones_own_is_made_once() {
    let Some(serve) = Serve::start() else { return };
    let key = serve.good(&["key", "create", "old", "--scope", "read"]);
    let key = text(&key["key"]["id"]).to_owned();
    for once in [
        &["template", "create", "bare", "--guest", "bare"][..],
        &["key", "create", "ci", "--scope", "read"],
        &["key", "rotate", &key],
        &["tenant", "create", "other"],
    ] {
        let once = [once, &["--idempotency-key", "k"]].concat();
        assert_eq!(serve.good(&once), serve.good(&once), "{once:?}");
    }
}

#[test]
fn tenants_and_bindings_are_listed_for_an_operator_alone() {
    let Some(serve) = Serve::start() else { return };
    serve.good(&["tenant", "create", "other"]);
    let listed = serve.good(&["tenant", "ls"]);
    let names: Vec<&str> = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| text(&one["name"]))
        .collect();
    assert_eq!(names, ["default", "other"]);
    assert!(serve.text(&["tenant", "ls"]).contains("other"));

    serve.mother();
    let bound = serve.good(&["policy", "ls"]);
    let quota = &bound["items"][0];
    assert_eq!(
        (text(&quota["hook"]), text(&quota["plugin"])),
        ("admission", "quota")
    );
    let words = serve.text(&["policy", "ls"]);
    assert!(
        words.contains("quota") && words.contains("enforce"),
        "{words}"
    );

    let key = serve.good(&["key", "create", "look", "--scope", "read"]);
    for list in ["tenant", "policy"] {
        let refused = serve.brood(&[list, "ls", "--key", text(&key["secret"])]);
        assert_eq!(refused.status, 111, "{list}");
    }
}

#[test]
fn a_bare_guest_has_no_terminal_no_files_and_no_programs() {
    let Some(serve) = Serve::start() else { return };
    serve.mother();
    let here = serve.directory().join("here");
    std::fs::write(&here, "text").expect("it is written");
    let here = here.display().to_string();
    let none = format!("{here}-none");
    let cases: [(&[&str], i32); 10] = [
        (&["shell", "mother"], 113),
        (&["shell", "nobody"], 110),
        (&["cp", &here, "mother:/root/file"], 113),
        (&["cp", "mother:/root/file", &none], 113),
        (&["cp", &none, "mother:/root/file"], 1),
        (&["cp", "mother:/a", "mother:/b"], 2),
        (&["cp", "mother:a", "b"], 2),
        (&["cp", "a", "b"], 2),
        (&["logs", "mother", "0"], 113),
        (&["logs", "mother", "0", "--follow"], 113),
    ];
    for (arguments, status) in cases {
        let ended = serve.brood(arguments);
        assert_eq!(ended.status, status, "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    assert!(!std::path::Path::new(&none).exists());
    assert_eq!(serve.json(&["shell", "mother"]).json()["code"], "usage");
    assert_eq!(
        serve.good(&["logs", "mother"])["items"],
        Value::Array(Vec::new())
    );
    assert_eq!(serve.text(&["logs", "mother"]).lines().count(), 1);
}
