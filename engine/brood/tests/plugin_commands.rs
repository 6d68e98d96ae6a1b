//! `brood plugin …` as an author uses it: the program itself, from nothing to a tested component and back from a record.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const BROOD: &str = env!("CARGO_BIN_EXE_brood");

fn brood(words: &[&str], in_directory: &Path) -> Output {
    let mut command = Command::new(BROOD);
    command.arg("plugin").args(words).current_dir(in_directory);
    // What plugins depend on was compiled with those that ship.
    if let Some(plugins) = std::env::var_os("BROOD_PLUGINS") {
        command.env("CARGO_TARGET_DIR", Path::new(&plugins).join("build"));
    }
    command.output().expect("the program starts")
}

fn succeeds(words: &[&str], in_directory: &Path) -> String {
    let output = brood(words, in_directory);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{words:?}: {out}\n{err}");
    out
}

fn fails(words: &[&str], in_directory: &Path) -> String {
    let output = brood(words, in_directory);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
    said
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The directory of shipped components; none if they were not built, which CI does not forgive.
fn components() -> Option<PathBuf> {
    let directory = std::env::var_os("BROOD_PLUGINS").map(PathBuf::from);
    if directory.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI needs BROOD_PLUGINS");
        eprintln!("skipped: BROOD_PLUGINS is not set; run `cargo xtask test`");
    }
    directory
}

#[test]
fn from_nothing_to_a_tested_component_in_two_commands_and_a_record_of_it_replays() {
    // The second command compiles for WebAssembly, which `cargo xtask test` has seen to.
    if components().is_none() {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let at = place.path();
    let told = succeeds(&["new", "my-quota", "--hook", "admission"], at);
    let policy = fs::read_to_string(at.join("my-quota/policy.toml")).expect("reads");
    let (_, policy) = policy.split_once('\n').expect("a comment first");
    let readme = include_str!("../../../README.md");
    assert!(
        readme.contains(&told) && readme.contains(policy),
        "{told}\n{policy}"
    );
    let tested = succeeds(&["test", "my-quota", "--decisions", "records"], at);
    assert!(
        tested.contains("recorded calls: 1, all as recorded"),
        "{tested}"
    );
    let built = succeeds(&["build", "my-quota", "--json"], at);
    let built: Value = serde_json::from_str(&built).expect("one JSON object");
    let component = "my-quota/target/my-quota.wasm";
    let checked = succeeds(&["check", component, "--json"], at);
    let checked: Value = serde_json::from_str(&checked).expect("one JSON object");
    assert_eq!(
        checked["digest"], built["digest"],
        "built twice, the same bytes"
    );
    assert_eq!(checked["hooks"], serde_json::json!(["admission"]));

    let replayed = succeeds(
        &["replay", "records", "--policy", "my-quota/policy.toml"],
        at,
    );
    assert!(replayed.contains("1 of 1 identical"), "{replayed}");
    // Other settings are another decision, and are not passed off as the same.
    let policy = fs::read_to_string(at.join("my-quota/policy.toml")).expect("reads");
    let other = policy.replace("max-live = 8", "max-live = 9");
    fs::write(at.join("my-quota/other.toml"), other).expect("writes");
    let differs = fails(
        &["replay", "records", "--policy", "my-quota/other.toml"],
        at,
    );
    assert!(differs.contains("the record is of settings"), "{differs}");

    // What is recorded is what is compared.
    let file = at.join("my-quota/calls/first.json");
    let calls = fs::read_to_string(&file).expect("reads");
    fs::write(&file, calls.replace("\"limit\": 8", "\"limit\": 7")).expect("writes");
    let words = ["test", "my-quota", "--component", component];
    let differs = fails(&words, at);
    assert!(differs.contains("limit: recorded 7, now 8"), "{differs}");
    assert!(fails(&["new", "my-quota"], at).contains("is not empty"));
}

#[test]
fn scaffolds_of_the_other_hooks_on_an_sdk_of_a_checkout_are_tested_and_replayed_by_component() {
    if components().is_none() {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let at = place.path();
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/plugin");
    let sdk = sdk.canonicalize().expect("it is there");
    let sdk_text = sdk.to_str().expect("text");
    for hook in ["placement", "mutation", "billing"] {
        let name = format!("my-{hook}");
        let told = succeeds(&["new", &name, "--hook", hook, "--sdk", sdk_text], at);
        assert!(!told.contains(".brood"), "nothing is unpacked: {told}");
        let manifest = fs::read_to_string(at.join(&name).join("Cargo.toml")).expect("reads");
        assert!(manifest.contains(sdk_text), "{manifest}");
        let tested = succeeds(
            &["test", &name, "--decisions", &format!("{hook}.records")],
            at,
        );
        assert!(tested.contains(", all as recorded"), "{tested}");
    }
    let settings = "{\"hostname\": \"vm-${index}\"}";
    fs::write(at.join("settings.json"), settings).expect("writes");
    let replay = |component: &str| {
        let component = format!("my-{component}/target/my-{component}.wasm");
        let words = ["replay", "mutation.records", "--component", &component];
        brood(&[&words[..], &["--settings", "settings.json"]].concat(), at)
    };
    let replayed = replay("mutation");
    let said = text(&replayed.stdout) + &text(&replayed.stderr);
    assert!(
        replayed.status.success() && said.contains("1 of 1 identical"),
        "{said}"
    );
    // Another component did not decide it.
    let refused = replay("placement");
    let said = text(&refused.stdout) + &text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(fails(&["new", "no-sdk", "--sdk", "nowhere"], at).contains("nowhere is no SDK"));
}

#[test]
fn check_says_what_a_file_is_that_is_no_plugin_and_what_to_do() {
    let Some(components) = components() else {
        return;
    };
    let place = tempfile::tempdir().expect("a directory");
    let at = place.path();
    let whole = fs::read(components.join("quota.wasm")).expect("reads");
    let wrong: [(&str, &[u8], &str); 5] = [
        ("cut.wasm", &whole[..whole.len() / 2], "cut short"),
        ("text.wasm", b"#!/bin/sh\n", "not WebAssembly"),
        (
            "code.cwasm",
            b"\x7fELF\x02\x01\x01\0",
            "precompiled artifact",
        ),
        ("module.wasm", b"\0asm\x01\0\0\0", "brood plugin build"),
        (
            "empty.wasm",
            b"\0asm\x0d\0\x01\0",
            "does not export brood:policy/plugin",
        ),
    ];
    for (name, bytes, words) in wrong {
        fs::write(at.join(name), bytes).expect("writes");
        let said = fails(&["check", name], at);
        assert!(said.contains(name) && said.contains(words), "{said}");
    }
    fs::write(at.join("quota.wasm"), &whole).expect("writes");
    let said = succeeds(&["check", "quota.wasm"], at);
    for words in [
        "brood:policy 0.1.0",
        "imports  config, log",
        "loads    quota",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn inspect_and_bench_say_what_is_in_a_component_and_what_it_costs() {
    let Some(components) = components() else {
        return;
    };
    let file = components.join("price-table.wasm");
    let file = file.to_str().expect("text");
    let calls = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/price-table/calls");
    // Its currency has no default: it is looked at without settings all the same.
    let inspected = succeeds(&["inspect", file, "--json"], &calls);
    let inspected: Value = serde_json::from_str(&inspected).expect("one JSON object");
    assert_eq!(inspected["name"], "price-table");
    assert!(inspected["settings-schema"]["properties"]["currency"].is_object());
    let words = [
        "bench",
        file,
        "--input",
        "budgets.json",
        "--calls",
        "20",
        "--json",
    ];
    let measured: Value = serde_json::from_str(&succeeds(&words, &calls)).expect("one JSON object");
    let row = &measured["rows"][0];
    assert_eq!(row["hook"], "billing");
    assert!(row["fuel-min"].as_u64() < row["fuel-max"].as_u64(), "{row}");
    assert!(row["instantiate"]["p50-ns"].as_u64() > Some(0), "{row}");
}
