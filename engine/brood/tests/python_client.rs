//! The client for Python (`sdk/python`), with the real engine.

use std::process::Command;

use crate::serve::Serve;
use crate::watch::{file, python, workspace};

/// One of the programs beside this, with the client on its path.
fn with_client(program: &str, server: &Serve) -> Option<Command> {
    let mut python = python(&["http.client"])?;
    python
        .arg(file(program))
        .env("BROOD_URL", &server.url)
        .env("BROOD_KEY", &server.key)
        .env("PYTHONPATH", workspace().join("sdk/python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Some(python)
}

fn quickstart(server: &Serve, block: &str) -> Option<String> {
    let mut run = with_client("quickstart.py", server)?;
    let readme = workspace().join("sdk/python/README.md");
    // It writes a file beside itself.
    run.arg(readme).arg(block).current_dir(server.directory());
    let ran = run.output().expect("it starts");
    let words = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{words}");
    Some(String::from_utf8(ran.stdout).expect("UTF-8"))
}

#[test]
fn the_client_keeps_its_promises() {
    let Some(server) = Serve::start() else { return };
    let Some(mut promises) = with_client("client.py", &server) else {
        return;
    };
    let ran = promises.output().expect("it starts");
    let words = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{words}");
    assert!(words.contains("Ran 8 tests"), "{words}");
}

#[test]
fn the_quickstart_of_the_readme_does_what_it_says() {
    let Some(server) = Serve::start() else { return };
    let Some(said) = quickstart(&server, "0") else {
        return;
    };
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("paused for "), "{said}");
    let own = lines.iter().filter(|line| line.ends_with("KiB of her own"));
    assert_eq!(own.count(), 3, "{said}");
    assert!(
        lines.iter().any(|line| line.contains("checkpoint")),
        "{said}"
    );
    assert!(lines.contains(&"True 2 restored"), "{said}");
    assert!(lines.contains(&"<Snapshot again>"), "{said}");
    assert!(
        lines.iter().any(|line| line.starts_with("admission/quota")),
        "{said}"
    );
    assert!(
        lines
            .last()
            .is_some_and(|line| line.starts_with("not_found")),
        "{said}"
    );
    assert_eq!(server.text(&["ls", "-q"]), "", "all of it has ended");
}

#[test]
fn lab_the_quickstarts_programs_and_files_do_what_they_say() {
    let Some(server) = Serve::start_with_guest() else {
        return;
    };
    let Some(said) = quickstart(&server, "1") else {
        return;
    };
    for words in [
        "fork\nsix times seven\n",
        "stdout 1\n",
        "stdout 3\n",
        "hello\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(said.contains("task.txt"), "{said}");
    assert!(said.ends_with("false exited with 1 1\n"), "{said}");
    assert_eq!(server.text(&["ls", "-q"]), "", "all of it has ended");
}

#[test]
fn the_clients_types_hold() {
    let Some(mut mypy) = python(&["mypy"]) else {
        return;
    };
    let cache = brood_testkit::scratch();
    let checked = mypy
        .args(["-m", "mypy", "--strict", "--cache-dir"])
        .arg(cache.path())
        .current_dir(workspace().join("sdk/python"))
        .output()
        .expect("it starts");
    let words = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{words}");
}
