//! `brood snapshot`, `hibernate` and `wake`, against real servers with bare guests.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::serve::Serve;
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn a_snapshot_is_made_shown_forked_and_removed() {
    let Some(serve) = Serve::start() else { return };
    let mother = serve.mother();
    let once = [
        "snapshot",
        "create",
        "mother",
        "--name",
        "warm",
        "-l",
        "a=b",
        "--idempotency-key",
        "k",
    ];
    let taken = serve.good(&once);
    assert_eq!(serve.good(&once), taken, "it is one");
    assert_eq!(
        (text(&taken["machine"]), &taken["labels"]),
        (mother.as_str(), &json!({"a": "b"}))
    );
    let point = serve.good(&["checkpoint", "mother"]);
    let of_point = serve.good(&["snapshot", "create", text(&point["id"])]);
    assert_eq!(of_point["machine"], taken["machine"]);
    let listed = serve.good(&["snapshot", "ls"]);
    assert_eq!(listed["items"], json!([taken, of_point]));
    assert_eq!(serve.good(&["snapshot", "show", "warm"]), taken);
    let shown = serve.text(&["snapshot", "ls"]);
    let head = shown.lines().next().unwrap_or_default();
    for word in ["ID", "NAME", "OF", "MEMORY", "DISK", "HOLDS"] {
        assert!(head.contains(word), "{head}");
    }
    assert!(
        shown.contains("warm") && shown.contains("64 MiB"),
        "{shown}"
    );
    assert!(shown.contains("a=b"), "{shown}");

    let forked = serve.good(&["snapshot", "fork", "warm", "-n", "2", "-l", "of=warm"]);
    assert_eq!(forked["ready"], 2);
    let by_label = serve.text(&["ls", "-q", "-l", "of=warm"]);
    assert_eq!(by_label.lines().count(), 2);
    let drawn = serve.text(&["snapshot", "fork", "warm"]);
    assert!(drawn.contains("1 of 1 daughters"), "{drawn}");

    assert_eq!(
        serve.good(&["snapshot", "rm", "warm"]),
        json!({"removed": "warm"})
    );
    for gone in [
        &["snapshot", "show", "warm"][..],
        &["snapshot", "rm", "warm"],
        &["snapshot", "fork", "warm"],
        &["snapshot", "export", "warm", "/nonexistent/f"],
    ] {
        let status = serve.json(gone).status;
        // Where the file cannot be, nothing is asked.
        assert!(status == 110 || status == 1, "{gone:?}: {status}");
    }
    let named = serve.json(&["snapshot", "create", "mother", "--name", "import"]);
    assert_eq!(named.status, 2);
}

#[test]
fn a_machine_sleeps_and_wakes_and_the_lists_say_so() {
    let Some(serve) = Serve::start() else { return };
    let mother = serve.mother();
    assert_eq!(serve.good(&["hibernate", "mother"])["state"], "hibernated");
    assert!(serve.text(&["ls"]).contains("hibernated"));
    assert!(serve.text(&["tree"]).contains("hibernated"));
    assert!(
        serve
            .text(&["top"])
            .contains("0 running, 0 paused, 1 hibernated")
    );
    let bed = serve.text(&["snapshot", "ls"]);
    assert!(
        bed.contains(&format!("{}, hibernated", &mother[24..])),
        "{bed}"
    );
    let refused = serve.json(&["fork", "mother"]);
    assert_eq!(refused.status, 113);
    let words = serve.brood(&["pause", "mother"]).stderr;
    assert!(words.contains("wake it first"), "{words}");
    let woken = serve.text(&["wake", "mother"]);
    assert!(woken.contains("running"), "{woken}");
    assert_eq!(serve.good(&["snapshot", "ls"])["items"], json!([]));
}

#[test]
fn a_file_of_one_server_is_a_snapshot_of_another_and_only_its_owner_reads_it() {
    let (Some(serve), Some(other)) = (Serve::start(), Serve::start()) else {
        return;
    };
    serve.mother();
    serve.good(&["snapshot", "create", "mother", "--name", "warm"]);
    let file = serve.directory().join("warm.brood");
    let path = file.to_str().expect("UTF-8");
    let exported = serve.good(&["snapshot", "export", "warm", path]);
    let about = file.metadata().expect("it is there");
    assert_eq!(exported, json!({"exported": "warm", "bytes": about.len()}));
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    let imported = other.good(&["snapshot", "import", path, "--name", "again"]);
    assert_eq!(imported["name"], "again");
    assert_eq!(other.good(&["snapshot", "fork", "again"])["ready"], 1);

    // Through a pipe as well, in both directions.
    let whole = serve.program(&["snapshot", "export", "warm", "-"]).output();
    let whole = whole.expect("it runs");
    assert!(whole.status.success());
    assert_eq!(whole.stdout, std::fs::read(&file).expect("it is read"));
    let mut piped = other
        .program(&["snapshot", "-o", "json", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = piped.stdin.take().expect("a pipe");
    stdin.write_all(&whole.stdout).expect("it reads");
    drop(stdin);
    let piped = piped.wait_with_output().expect("it ends");
    assert!(piped.status.success());
    let piped: Value = serde_json::from_slice(&piped.stdout).expect("JSON");
    assert_eq!(piped.get("name"), None);

    // What is no snapshot is refused, and what is there stays as it is.
    std::fs::write(&file, b"no snapshot").expect("written");
    let refused = other.json(&["snapshot", "import", path]);
    assert_eq!(refused.status, 116);
    assert_eq!(refused.json()["code"], "snapshot_damaged");
    assert_eq!(
        serve.json(&["snapshot", "export", "none", path]).status,
        110
    );
    assert_eq!(std::fs::read(&file).expect("read"), b"no snapshot");
    assert_eq!(
        other.json(&["snapshot", "import", "/nonexistent"]).status,
        1
    );
}
