//! The command line where Linux guests run: programs, and how they end.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::serve::Serve;

#[test]
fn lab_a_program_is_run_in_a_machine_and_its_end_is_the_commands() {
    let Some(serve) = Serve::start_with_guest() else {
        return;
    };
    serve.good(&["template", "create", "linux"]);
    serve.good(&["create", "linux", "--name", "mother"]);
    let exec = |rest: &[&str]| serve.brood(&[&["exec", "mother"], rest].concat());
    let said = exec(&[
        "-e",
        "WHO=her",
        "--",
        "sh",
        "-c",
        "echo $WHO; echo odd >&2; exit 7",
    ]);
    assert_eq!(
        (said.status, said.stdout.as_str(), said.stderr.as_str()),
        (7, "her\n", "odd\n")
    );
    assert_eq!(exec(&["sh", "-c", "kill -9 $$"]).status, 137);
    let late = exec(&[
        "--timeout",
        "200ms",
        "--",
        "sh",
        "-c",
        "while :; do :; done",
    ]);
    assert_eq!(late.status, 124);
    assert_eq!(serve.json(&["exec", "mother", "false"]).status, 1);

    // Daughters have what they were told, before their workload runs.
    let forked = serve.good(&["fork", "mother", "-n", "2", "-e", "TASK=t"]);
    let daughters = forked["daughters"].as_array().cloned().unwrap_or_default();
    assert_eq!(daughters.len(), 2);
    for daughter in daughters {
        let id = daughter["machine"]["id"].as_str().unwrap_or_default();
        let name = serve.text(&["exec", id, "--", "sh", "-c", "echo $(uname -n) $TASK"]);
        let hostname = daughter["hostname"].as_str().unwrap_or_default();
        assert_eq!(name, format!("{hostname} t\n"));
    }
    serve.good(&["kill", "mother", "--cascade"]);
    assert_eq!(serve.text(&["ls", "-q"]), "");
}

/// A file of more than one message, with every byte in it.
fn bytes() -> Vec<u8> {
    (0..200_001_u32).map(|at| (at % 251) as u8).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is set");
}

#[test]
fn lab_files_and_directories_are_copied_both_ways_as_they_are_and_logs_are_what_programs_said() {
    let Some(serve) = Serve::start_with_guest() else {
        return;
    };
    serve.good(&["template", "create", "linux"]);
    serve.good(&["create", "linux", "--name", "mother"]);
    let here = serve.directory().join("here");
    fs::create_dir_all(here.join("tree/deep/er")).expect("made");
    files_are_copied(&serve, &here);
    directories_are_copied(&serve, &here);
    logged(&serve);
}

/// A path in the machine, as `cp` takes it.
fn at(path: &str) -> String {
    format!("mother:{path}")
}

fn files_are_copied(serve: &Serve, here: &Path) {
    let path = |name: &str| here.join(name).display().to_string();

    // There and back.
    fs::write(here.join("file"), bytes()).expect("written");
    set_mode(&here.join("file"), 0o640);
    let brought = serve.good(&["cp", &path("file"), &at("/tmp/file")]);
    assert_eq!(
        (&brought["files"], &brought["bytes"]),
        (&1.into(), &200_001.into())
    );
    let seen = "busybox stat -c '%a %s' /tmp/file";
    assert_eq!(
        serve.text(&["exec", "mother", "--", "sh", "-c", seen]),
        "640 200001\n"
    );
    serve.good(&["cp", &at("/tmp/file"), &path("back")]);
    assert_eq!(fs::read(here.join("back")).expect("it came"), bytes());
    assert_eq!(mode(&here.join("back")), 0o640);
    // Into a directory it keeps its name; `-` is what is piped.
    serve.good(&["exec", "mother", "--", "mkdir", "/tmp/in"]);
    serve.good(&["cp", &path("file"), &at("/tmp/in")]);
    let piped = serve.program(&["cp", &at("/tmp/in/file"), "-"]).output();
    assert_eq!(piped.expect("it runs").stdout, bytes());
    let from = fs::File::open(here.join("file")).expect("it opens");
    let mut typed = serve.program(&["cp", "-", &at("/tmp/typed")]);
    let typed = typed.stdin(Stdio::from(from)).status();
    assert!(typed.is_ok_and(|status| status.success()));
    let same = "busybox cmp /tmp/typed /tmp/in/file && echo same";
    assert_eq!(
        serve.text(&["exec", "mother", "--", "sh", "-c", same]),
        "same\n"
    );

    // What is not there is not made up, and leaves what is here as it was.
    let none = serve.brood(&["cp", &at("/tmp/none"), &path("back")]);
    assert_eq!(none.status, 110, "{}", none.stderr);
    assert_eq!(fs::read(here.join("back")).expect("still there"), bytes());
}

/// With all that is in them, but no link.
fn directories_are_copied(serve: &Serve, here: &Path) {
    let path = |name: &str| here.join(name).display().to_string();
    let write = |name: &str, bytes: &[u8]| fs::write(here.join(name), bytes).expect("written");

    write("tree/a", b"a");
    write("tree/deep/empty", b"");
    write("tree/deep/er/run", b"#!/bin/sh\necho ran\n");
    set_mode(&here.join("tree/deep/er/run"), 0o755);
    symlink("/etc/passwd", here.join("tree/link")).expect("a link");
    assert_eq!(
        serve.brood(&["cp", &path("tree"), &at("/tmp/tree")]).status,
        2,
        "not asked for"
    );
    let brought = serve.brood(&["cp", "-r", &path("tree"), &at("/tmp/tree")]);
    assert_eq!(brought.status, 0, "{}", brought.stderr);
    assert!(
        brought.stderr.contains("tree/link"),
        "it is named: {}",
        brought.stderr
    );
    let list = "cd /tmp/tree && busybox find . | busybox sort";
    let there = serve.text(&["exec", "mother", "--", "sh", "-c", list]);
    assert_eq!(
        there,
        ".\n./a\n./deep\n./deep/empty\n./deep/er\n./deep/er/run\n"
    );
    assert_eq!(
        serve.text(&["exec", "mother", "/tmp/tree/deep/er/run"]),
        "ran\n"
    );
    let link = "busybox ln -s /etc/passwd /tmp/tree/link";
    serve.good(&["exec", "mother", "--", "sh", "-c", link]);
    let fetched = serve.brood(&["cp", "-r", &at("/tmp/tree"), &path("tree-back")]);
    assert_eq!(fetched.status, 0, "{}", fetched.stderr);
    assert!(
        fetched.stderr.contains("/tmp/tree/link"),
        "{}",
        fetched.stderr
    );
    let back = here.join("tree-back");
    assert!(!back.join("link").exists());
    assert_eq!(mode(&back.join("deep/er/run")), 0o755);
    for name in ["a", "deep/empty", "deep/er/run"] {
        let [one, other] = ["tree", "tree-back"].map(|tree| here.join(tree).join(name));
        assert_eq!(
            fs::read(one).expect("ours"),
            fs::read(other).expect("it came"),
            "{name}"
        );
    }
}

fn logged(serve: &Serve) {
    let script = "until [ -e /tmp/go ]; do sleep 0.1; done; \
                  echo one; echo odd >&2; echo two; echo late >&2; exit 3";
    let exec = serve.text(&["exec", "-d", "mother", "--", "sh", "-c", script]);
    let exec = exec.trim();
    let listed = serve.text(&["logs", "mother"]);
    let line = listed
        .lines()
        .find(|line| line.starts_with(&format!("{exec} ")));
    assert!(
        line.is_some_and(|line| line.contains("running")),
        "{listed}"
    );
    // One that follows is there before anything is said, and hears all of it.
    let mut follows = serve.program(&["logs", "mother", exec, "--follow"]);
    let follows = follows
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let follows = follows.expect("it starts");
    serve.good(&["exec", "mother", "--", "sh", "-c", ": > /tmp/go"]);
    let heard = follows.wait_with_output().expect("it ends");
    assert!(heard.status.success());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let said = (text(heard.stdout), text(heard.stderr));
    assert_eq!(said, ("one\ntwo\n".to_owned(), "odd\nlate\n".to_owned()));

    // Later it is read once more: all of it, one stream, and from a place on.
    let read = serve.brood(&["logs", "mother", exec]);
    assert_eq!((read.status, read.stdout, read.stderr), (0, said.0, said.1));
    let one = serve.brood(&["logs", "mother", exec, "--stream", "stderr"]);
    assert_eq!(
        (one.stdout.as_str(), one.stderr.as_str()),
        ("", "odd\nlate\n")
    );
    let rest = [
        "logs", "mother", exec, "--stream", "stdout", "--offset", "4",
    ];
    assert_eq!(serve.text(&rest), "two\n");
    let piece = serve.json(&rest);
    let piece = piece.good();
    let data = "dHdvCg==";
    assert_eq!(
        (&piece["data"], &piece["offset"]),
        (&data.into(), &4.into())
    );
    let listed = serve.text(&["logs", "mother"]);
    assert!(listed.contains("exited 3"), "{listed}");
    assert_eq!(serve.brood(&["logs", "mother", "4000000"]).status, 110);
}
