//! The document that is served against the server that serves it, as schemathesis sees the two.
//!
//! Every operation is asked with what the document allows and with what it does not, with live ids and a key, without a
//! key, and with methods that it does not name; every answer is as the document says. Each operation is done at least once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::serve::Serve;
use serde_json::{Value, json};

/// Operations that a bare guest has no agent for, or that are no plain HTTP. What they answer where there is a Linux guest
/// is in the tests that begin with `lab_`.
const NOT_HERE: [&str; 12] = [
    "listDirectory",
    "readFile",
    "readOutput",
    "removeFile",
    "resizeExec",
    "showExec",
    "signalExec",
    "startExec",
    "statFile",
    "terminal",
    "writeFile",
    "writeStdin",
];

/// Answers of each operation by status.
type Seen = BTreeMap<String, BTreeMap<u16, u32>>;

/// Something of every kind; what paths name, by the names of their parameters.
fn live(serve: &Serve) -> Value {
    let mother = serve.mother();
    let forked = serve.good(&["fork", &mother, "-n", "1"]);
    let checkpoint = serve.good(&["checkpoint", &mother]);
    let snapshot = serve.good(&["snapshot", "create", &mother, "--name", "kept"]);
    let template = serve.good(&["template", "show", "counter"]);
    serve.body("PUT /v1/secrets/token", r#"{"value": "canary"}"#);
    json!({
        "url": serve.url,
        "token": serve.key,
        "machine": mother,
        "checkpoint": checkpoint["id"],
        "snapshot": snapshot["name"],
        "template": template["name"],
        "intent": forked["intent"],
    })
}

#[test]
fn every_operation_does_what_the_document_says_and_every_answer_is_in_it() {
    let Some(program) = std::env::var_os("BROOD_SCHEMATHESIS") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "BROOD_SCHEMATHESIS is not set: run `cargo xtask test`"
        );
        println!("skipped: BROOD_SCHEMATHESIS is not set; `cargo xtask test` sets it");
        return;
    };
    let policy = include_str!("schemathesis/policy.toml");
    let Some(serve) = Serve::start_with(policy) else {
        return;
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis");
    let file = |name: &str| serve.directory().join(name);
    let (known, seen) = (file("live.json"), file("seen.json"));
    std::fs::write(&known, live(&serve).to_string()).expect("it is written");
    // Where it fetches a document itself, that is an operation that it leaves out.
    let document = serve.body("GET /v1/openapi.json", "");
    std::fs::write(file("openapi.json"), document).expect("it is written");
    let output = Command::new(program)
        .arg("--config-file")
        .arg(here.join("schemathesis.toml"))
        .args(["run", "--no-color", "--checks", "all", "--url", &serve.url])
        .arg(file("openapi.json"))
        .current_dir(serve.directory())
        .env("BROOD_KEY", &serve.key)
        .env("BROOD_LIVE", &known)
        .env("BROOD_SEEN", &seen)
        .env("SCHEMATHESIS_HOOKS", here.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("it runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "schemathesis found something");

    let seen = std::fs::read(&seen).expect("what was seen");
    let seen: Seen = serde_json::from_slice(&seen).expect("counts");
    let mut undone = Vec::new();
    for operation in brood_api::Operation::ALL {
        let id = operation.id.as_str();
        let answers = seen.get(id).into_iter().flatten();
        let done: u32 = answers
            .clone()
            .filter(|(status, _)| (200..300).contains(*status))
            .map(|(_, count)| count)
            .sum();
        let others: Vec<_> = answers
            .filter(|(status, _)| !(200..300).contains(*status))
            .map(|(status, count)| format!("{count} × {status}"))
            .collect();
        println!("{id:<18} {done:>5} × 2xx, {}", others.join(", "));
        if done == 0 {
            undone.push(id);
        }
    }
    undone.sort_unstable();
    assert_eq!(undone, NOT_HERE, "operations without a 2xx");
}
