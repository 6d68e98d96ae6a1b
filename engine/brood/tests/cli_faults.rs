//! The command line where something is wrong: statuses, problems as they were sent, terminals and broken pipes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::policy::SHIPPED;
use crate::serve::{Ended, Serve, brood, program};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Both ways of saying it.
fn both(serve: &Serve, arguments: &[&str]) -> (Ended, Ended) {
    (serve.brood(arguments), serve.json(arguments))
}

/// What the command sends for a fork.
fn fork(count: u8) -> String {
    format!(
        r#"{{"count":{count},"min_count":null,"labels":{{}},"ttl":null,"env":{{}},"files":[],"secrets":"drop","on_error":"keep"}}"#
    )
}

#[test]
fn a_problem_is_passed_on_as_it_was_sent_and_has_a_status_of_its_own() {
    let few = SHIPPED.replace("max-per-request = 64", "max-per-request = 2");
    let Some(serve) = Serve::start_with(&few) else {
        return;
    };
    let mother = serve.mother();
    serve.good(&["create", "counter", "--name", "gone"]);
    let gone = serve.good(&["kill", "gone"])["ended"][0].clone();
    let gone = gone.as_str().unwrap_or_default();
    let many = ["fork", &mother, "-n", "3"];
    let forks = format!("POST /v1/machines/{mother}/forks");
    let ended = format!("POST /v1/machines/{gone}/pause");
    let template = r#"{"name":"counter","guest":"bare"}"#.to_owned();
    let cases: [(&[&str], i32, &str, String, &str); 6] = [
        (
            &["template", "show", "nobody"],
            110,
            "not_found",
            String::new(),
            "GET /v1/templates/nobody",
        ),
        (&["pause", gone], 110, "ended", String::new(), &ended),
        (
            &["fork", &mother, "-n", "0"],
            2,
            "invalid_request",
            fork(0),
            &forks,
        ),
        (&many, 112, "denied", fork(3), &forks),
        (
            &["template", "create", "counter", "--guest", "bare"],
            113,
            "conflict",
            template,
            "POST /v1/templates",
        ),
        (
            &["exec", &mother, "--", "true"],
            113,
            "conflict",
            r#"{"argv":["true"]}"#.to_owned(),
            &format!("POST /v1/machines/{mother}/execs"),
        ),
    ];
    for (arguments, status, code, body, line) in cases {
        let (text, json) = both(&serve, arguments);
        assert_eq!(
            (text.status, json.status),
            (status, status),
            "{arguments:?}: {}",
            text.stderr
        );
        let problem = json.json();
        assert_eq!(problem["code"], code);
        // But for the name of the request, it is what a plain client reads, byte for byte.
        let sent = serve.body(line, &body);
        let name = |json: &str| {
            let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
            json["request_id"].as_str().unwrap_or_default().to_owned()
        };
        let (own, theirs) = (name(&json.stdout), name(&sent));
        assert_eq!(
            json.stdout.trim_end().replace(&own, "ID"),
            sent.replace(&theirs, "ID")
        );
        assert_eq!(text.stdout, "");
        for words in ["detail", "cause", "remediation"] {
            let words = problem[words].as_str().expect("words");
            assert!(text.stderr.contains(words), "{}", text.stderr);
        }
    }
    let (text, _) = both(&serve, &many);
    assert!(
        text.stderr.contains("denied by 'admission/quota'"),
        "{}",
        text.stderr
    );
}

#[test]
fn a_request_that_is_repeated_under_its_key_is_done_once() {
    let Some(serve) = Serve::start() else { return };
    serve.mother();
    for once in [
        ["fork", "mother", "--idempotency-key", "f"],
        ["create", "counter", "--idempotency-key", "c"],
        ["checkpoint", "mother", "--idempotency-key", "p"],
    ] {
        assert_eq!(serve.good(&once), serve.good(&once), "{once:?}");
    }
    let other = serve.brood(&[
        "fork",
        "mother",
        "-n",
        "2",
        "--idempotency-key",
        "f",
        "-o",
        "json",
    ]);
    assert_eq!(
        (other.status, &other.json()["code"]),
        (113, &"idempotency_key_reused".into())
    );
}

#[test]
fn a_name_that_could_be_two_machines_or_none_does_nothing() {
    let Some(serve) = Serve::start() else { return };
    let mother = serve.mother();
    let (text, json) = both(&serve, &["kill", "nobody"]);
    assert_eq!((text.status, json.status), (110, 110));
    assert_eq!(json.json()["code"], "not_found");
    assert!(text.stderr.contains("'nobody'"), "{}", text.stderr);
    // Three digits of an id are too few to mean it.
    assert_eq!(serve.brood(&["kill", &mother[29..]]).status, 110);
    let whole = "0".repeat(32);
    for command in ["pause", "kill", "tree", "fork"] {
        assert_eq!(serve.brood(&[command, &whole]).status, 110, "{command}");
    }
    assert_eq!(serve.text(&["ls", "-q"]), format!("{mother}\n"));
}

#[test]
fn a_key_that_is_wrong_missing_or_too_weak_has_one_status_and_three_codes() {
    let Some(serve) = Serve::start() else { return };
    let weak = serve.good(&["key", "create", "look", "--scope", "read"]);
    let weak = weak["secret"].as_str().unwrap_or_default();
    for (key, code) in [("brood_00", "bad_key"), (weak, "missing_scope")] {
        let asked = serve.brood(&["key", "ls", "--key", key, "-o", "json"]);
        assert_eq!((asked.status, &asked.json()["code"]), (111, &code.into()));
        assert!(!asked.stdout.contains(key), "a key is not shown");
    }
    let none = program(&["ls", "-o", "json", "--url", &serve.url]).output();
    let none = Ended::from(none.expect("it runs"));
    assert_eq!(
        (none.status, &none.json()["code"]),
        (111, &"missing_key".into())
    );
    let odd = serve.brood(&["ls", "--key", "two words", "-o", "json"]);
    assert_eq!((odd.status, &odd.json()["code"]), (2, &"usage".into()));
    let file = serve.brood(&["ls", "--key-file", "/nonexistent/key", "-o", "json"]);
    assert_eq!((file.status, &file.json()["code"]), (1, &"local".into()));
    let text = serve.brood(&["ls", "--key-file", "/nonexistent/key"]);
    assert!(text.stderr.contains("/nonexistent/key"), "{}", text.stderr);
}

#[test]
fn nobody_there_and_somebody_else_there_are_told_apart() {
    let mut url = String::new();
    // A page, the page of a proxy, JSON that is no problem of this API, and nothing.
    for (status, body) in [
        ("200 OK", "<html>"),
        ("502 Bad Gateway", "<html>"),
        ("404 Not Found", r#"{"error": 404}"#),
        ("503 Unavailable", ""),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        url = format!("http://{}", listener.local_addr().expect("an address"));
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
            let end = lines.by_ref().map_while(Result::ok).find(String::is_empty);
            assert!(end.is_some());
            let length = body.len();
            let page = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(page.as_bytes()).expect("it is sent");
            // The port is nobody's from here on.
        });
        let asked = brood(&["ls", "--url", &url, "-o", "json"]);
        other.join().expect("it ends");
        let problem = asked.json();
        assert_eq!(
            (asked.status, &problem["code"]),
            (116, &"not_understood".into())
        );
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains(&status[..3]) && detail.contains(&url),
            "{detail}"
        );
        let begins = body.get(2..6).unwrap_or_default();
        assert!(detail.contains(begins), "{detail}");
    }
    let nobody = brood(&["ls", "--url", &url, "-o", "json"]);
    let problem = nobody.json();
    assert_eq!(
        (nobody.status, &problem["code"]),
        (115, &"unreachable".into())
    );
    assert_eq!(problem["retryable"], true);
    let text = brood(&["ls", "--url", &url]);
    assert_eq!((text.status, text.stdout.as_str()), (115, ""));
    assert!(
        text.stderr.contains(&url) && text.stderr.contains("brood up"),
        "{}",
        text.stderr
    );
    let secure = brood(&["ls", "--url", "https://127.0.0.1:1", "-o", "json"]);
    assert_eq!(
        (secure.status, &secure.json()["code"]),
        (2, &"usage".into())
    );
}

#[test]
fn a_command_line_that_means_nothing_is_told_in_the_form_that_it_asks_for() {
    for arguments in [
        &["lss", "-o", "json"][..],
        &["ls", "--limit", "0", "-ojson"],
        &["fork", "--output=json"],
        &["create", "x", "--label", "nothing", "--output", "json"],
    ] {
        let told = brood(arguments);
        assert_eq!((told.status, &told.json()["code"]), (2, &"usage".into()));
    }
    let told = brood(&["lss"]);
    assert_eq!((told.status, told.stdout.as_str()), (2, ""));
    assert!(told.stderr.contains("'ls'"), "{}", told.stderr);
    let help = brood(&["--help"]);
    for status in ["110", "111", "112", "113", "114", "115", "116", "141"] {
        assert!(help.text().contains(&format!("\n  {status}  ")), "{status}");
    }
}

#[test]
fn who_reads_no_further_ends_the_command_without_a_word() {
    let Some(serve) = Serve::start() else { return };
    serve.mother();
    let commands: [&[&str]; 4] = [
        &["ls"],
        &["ls", "-o", "json"],
        &["events", "--follow"],
        &["completion", "bash"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = serve.program(arguments);
        command.stdout(writer).stderr(Stdio::piped());
        let ended = Ended::from(command.output().expect("it runs"));
        assert_eq!(
            (ended.status, ended.stderr.as_str()),
            (141, ""),
            "{arguments:?}"
        );
    }
}

/// Runs a command with a terminal as standard output and error; what it showed there.
fn on_a_terminal(command: &mut Command) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("it is ours");
    unlockpt(&terminal).expect("it opens");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let open = || {
        let path = name.to_str().expect("a path");
        let side = std::fs::File::options().read(true).write(true).open(path);
        OwnedFd::from(side.expect("its other side"))
    };
    command.env("TERM", "xterm").stdout(open()).stderr(open());
    let mut child = command.spawn().expect("it runs");
    // The command's own copies are closed, so that its end is the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut shown = Vec::new();
    // A terminal whose other side is gone says EIO (man 4 pty).
    std::fs::File::from(terminal).read_to_end(&mut shown).ok();
    assert!(child.wait().expect("it ends").success());
    String::from_utf8(shown).expect("UTF-8")
}

#[test]
fn colour_and_progress_are_for_terminals_and_colour_is_not_forced_on_anybody() {
    let Some(serve) = Serve::start() else { return };
    let mother = serve.mother();
    let shown = on_a_terminal(&mut serve.program(&["tree"]));
    // Green, as it runs.
    assert!(shown.contains("\u{1b}[32m● running"), "{shown:?}");
    let mut plain = serve.program(&["tree"]);
    let shown = on_a_terminal(plain.env("NO_COLOR", "1"));
    assert!(
        shown.contains("● running") && !shown.contains('\u{1b}'),
        "{shown:?}"
    );
    let once = on_a_terminal(&mut serve.program(&["top", "--once"]));
    assert!(
        once.contains("1 running") && !once.contains("\u{1b}[2J"),
        "{once:?}"
    );

    let shown = on_a_terminal(&mut serve.program(&["fork", &mother]));
    assert!(
        shown.starts_with("forking 1 daughter …\r\u{1b}[K"),
        "{shown:?}"
    );
    let shown = on_a_terminal(&mut serve.program(&["fork", &mother, "-o", "json"]));
    assert!(shown.starts_with('{'), "{shown:?}");
}
