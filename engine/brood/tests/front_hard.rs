//! Clients that mean harm or have bad luck, and a host that is out of descriptors: the server goes on.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use brood_front::Options;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::http::apart::Apart;
use crate::http::{Server, answer, text};
use crate::policy::SHIPPED;

/// So long something may take that the server does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// One place for connections: whoever comes next is served when the one before was let go.
fn one_place() -> Options {
    Options {
        connections: 1,
        ..Options::default()
    }
}

#[test]
fn a_client_that_asks_and_never_reads_is_let_go() {
    let options = Options {
        write_time: Duration::from_millis(100),
        ..one_place()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let mut deaf = server.connect();
    deaf.set_write_timeout(Some(Duration::from_millis(100)))
        .expect("it is set");
    let ask = b"GET /v1/openapi.json HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1000);
    // Until neither side takes anything more, or the server has gone already.
    let full = loop {
        match deaf.write(&ask) {
            Ok(0) => break ErrorKind::WriteZero,
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    println!("the connection took no more: {full:?}");
    assert_eq!(server.ask("GET /healthz", &[], "").status, 200);
    drop(deaf);
}

#[test]
fn a_client_that_sends_its_head_a_byte_at_a_time_is_let_go_in_time() {
    let options = Options {
        head_time: Duration::from_millis(100),
        ..one_place()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let mut slow = server.connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nX: ")
        .expect("it is sent");
    let begun = Instant::now();
    while slow.write_all(b"x").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it is still listened to");
        std::thread::yield_now();
    }
    assert_eq!(server.ask("GET /healthz", &[], "").status, 200);
}

#[test]
fn a_body_that_does_not_say_how_long_it_is_is_cut_off_at_the_limit() {
    let Some(server) = Server::start(Options::default()) else {
        return;
    };
    let head = format!(
        "POST /v1/templates HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.key
    );
    let mut endless = server.connect();
    endless.write_all(head.as_bytes()).expect("it is sent");
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 64 << 20 && endless.write_all(&chunk).is_ok() {
        sent += 0x10000;
    }
    // What was sent after the answer resets the connection, and may take the answer with it.
    let refused = answer(&mut endless);
    assert!([0, 413].contains(&refused.status), "{}", refused.head);
    assert!(sent < 64 << 20, "all of it was taken");

    let one_more = (1 << 20) + 1;
    let body = format!("{one_more:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(one_more));
    let refused = server.raw(format!("{head}{body}").as_bytes());
    assert!([0, 413].contains(&refused.status), "{}", refused.head);
    assert_eq!(
        server.good("GET /v1/templates", "")["items"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
}

#[test]
fn a_follower_that_vanishes_gives_its_place_to_the_next() {
    let options = Options {
        heartbeat: Duration::from_millis(20),
        ..one_place()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let mut lines = server.follow(&server.key, 0);
    assert!(lines.by_ref().any(|line| line == ":"), "it is served");
    drop(lines);
    assert_eq!(server.ask("GET /healthz", &[], "").status, 200);
}

#[test]
fn a_server_that_is_out_of_descriptors_says_so_and_serves_on_when_there_are_some() {
    let Some(mut server) = Apart::start(SHIPPED) else {
        return;
    };
    assert_eq!(server.call("GET /v1/machines", "").status, 200);
    let pid = Pid::from_child(server.process());
    let limit = |current| Rlimit {
        current: Some(current),
        ..rustix::process::getrlimit(Resource::Nofile)
    };
    // What is open stays so; nothing new is.
    let before = prlimit(Some(pid), Resource::Nofile, limit(3)).expect("it is set");
    let mut waiting = server.connect();
    let said = server.log_until("cannot accept connections");
    assert!(said.contains("Too many open files"), "{said}");
    prlimit(Some(pid), Resource::Nofile, before).expect("it is set back");
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .expect("it is sent");
    assert_eq!(answer(&mut waiting).status, 200);
    let machines = server.call("GET /v1/machines", "").json();
    assert_eq!(text(&machines["next"]), "");
    let rest = server.stop();
    assert!(rest.contains("stopped"), "{rest}");
}
