//! Programs over HTTP, in Linux guests behind a real server: readers come back, daughters inherit, ends outlive machines.

#![expect(clippy::panic, reason = "helpers of tests fail tests")]

use std::net::TcpStream;
use std::path::PathBuf;

use brood_api::exec::{OutputPiece, Stream, TerminalWord};
use brood_front::Options;
use serde_json::{Value, json};
use tungstenite::{ClientRequestBuilder, Message, WebSocket};

use crate::http::{Server, text};

/// Nobody is asked: what policies say is the business of other tests.
const NO_POLICY: &str = "version = 1\n";
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; busybox usleep 10000; done";

/// A server with one Linux machine, or none (with a printed reason) where there are no guest files.
fn server() -> Option<(Server, String)> {
    let Some(files) = std::env::var_os("BROOD_GUEST_FILES").map(PathBuf::from) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "BROOD_GUEST_FILES is not set: run `cargo xtask test`"
        );
        println!("skipped: BROOD_GUEST_FILES is not set; `cargo xtask test` sets it");
        return None;
    };
    let server = Server::start_on(NO_POLICY, Options::default(), Some(&files))?;
    let template = r#"{"name": "linux", "guest": "linux", "memory_mib": 256}"#;
    server.good("POST /v1/templates", template);
    let machine = server.good("POST /v1/machines", r#"{"template": "linux"}"#);
    let id = text(&machine["id"]);
    Some((server, id))
}

/// One event of a stream.
#[derive(Debug)]
struct Event {
    id: Option<String>,
    kind: String,
    data: Value,
}

/// The events of a stream. Each is in one chunk, so that lines of the transfer encoding are never in the middle of one.
fn events(mut lines: impl Iterator<Item = String>) -> impl Iterator<Item = Event> {
    std::iter::from_fn(move || {
        let (mut id, mut kind) = (None, String::new());
        for line in lines.by_ref() {
            if let Some(rest) = line.strip_prefix("id: ") {
                id = Some(rest.to_owned());
            } else if let Some(rest) = line.strip_prefix("event: ") {
                rest.clone_into(&mut kind);
            } else if let Some(rest) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(rest).expect("JSON");
                return Some(Event { id, kind, data });
            }
        }
        None
    })
}

fn piece(data: &Value) -> OutputPiece {
    serde_json::from_value(data.clone()).expect("a piece of output")
}

/// Output that is read from a stream until there are `lines` whole lines more; what was read, and the last id.
fn read_lines(events: &mut impl Iterator<Item = Event>, lines: usize) -> (String, String) {
    let mut read = String::new();
    for event in events {
        assert_eq!(event.kind, "output", "{event:?}");
        read.push_str(&String::from_utf8_lossy(&piece(&event.data).data.0));
        if read.matches('\n').count() >= lines {
            return (read, event.id.expect("a place"));
        }
    }
    panic!("the stream ended after {read:?}");
}

/// The whole lines of `text` are numbers that count on from 1.
fn counts_from_one(text: &str) {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for (line, wanted) in whole.lines().zip(1_u64..) {
        assert_eq!(line, wanted.to_string(), "in {text:?}");
    }
}

struct Programs<'a> {
    server: &'a Server,
    machine: String,
}

impl Programs<'_> {
    fn path(&self, verb: &str, rest: &str) -> String {
        format!("{verb} /v1/machines/{}/execs{rest}", self.machine)
    }

    fn start(&self, body: &Value) -> Value {
        let answer = self.server.call(&self.path("POST", ""), &body.to_string());
        assert_eq!(answer.status, 201, "{}", answer.json());
        answer.json()
    }

    /// Starts a program that is not waited for; its number.
    fn begin(&self, mut body: Value) -> u64 {
        body["wait"] = false.into();
        let started = self.start(&body);
        assert_eq!(started["state"], "running", "{started}");
        assert!(started["stdout"].is_null(), "{started}");
        started["id"].as_u64().expect("a number")
    }

    fn show(&self, exec: u64) -> Value {
        self.server.good(&self.path("GET", &format!("/{exec}")), "")
    }

    fn done(&self, exec: u64, what: &str, body: &Value) {
        let line = self.path("POST", &format!("/{exec}/{what}"));
        let answer = self.server.call(&line, &body.to_string());
        let words = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 204, "{what}: {words}");
    }

    fn follow(
        &self,
        exec: u64,
        query: &str,
        last: Option<&str>,
    ) -> impl Iterator<Item = Event> + use<> {
        let line = self.path("GET", &format!("/{exec}/output{query}"));
        events(self.server.stream(&self.server.key, &line, last))
    }

    fn sit(&self, exec: u64, offset: u64) -> WebSocket<TcpStream> {
        let at = &self.server.address;
        let path = format!("/v1/machines/{}/execs/{exec}/tty", self.machine);
        let uri = format!("ws://{at}{path}?offset={offset}");
        let request = ClientRequestBuilder::new(uri.parse().expect("an address"));
        let request = request.with_header("Authorization", format!("Bearer {}", self.server.key));
        let (socket, _) = tungstenite::client(request, self.server.connect())
            .unwrap_or_else(|error| panic!("no WebSocket at {path}: {error}"));
        socket
    }
}

/// Reads what a terminal shows until that has `word`; its length.
fn shows(socket: &mut WebSocket<TcpStream>, word: &str) -> u64 {
    let mut shown = String::new();
    while !shown.contains(word) {
        match socket
            .read()
            .unwrap_or_else(|error| panic!("{error} after {shown:?}"))
        {
            Message::Binary(bytes) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?} after {shown:?}"),
        }
    }
    u64::try_from(shown.len()).expect("small")
}

/// The next text frame.
fn says(socket: &mut WebSocket<TcpStream>) -> String {
    loop {
        match socket.read().expect("a frame") {
            Message::Text(word) => return word.to_string(),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn types(socket: &mut WebSocket<TcpStream>, line: &str) {
    let typed = Message::binary(line.as_bytes().to_vec());
    socket.send(typed).expect("it is typed");
}

/// The program's end, as the last event of its stream says it.
fn end_of(programs: &Programs<'_>, exec: u64) -> Value {
    let last = programs.follow(exec, "", None).last().expect("an end");
    assert_eq!(last.kind, "end", "{last:?}");
    last.data
}

#[test]
fn lab_exec_readers_come_back_daughters_inherit_and_ends_outlive_the_machine() {
    let Some((server, machine)) = server() else {
        return;
    };
    let mother = Programs {
        server: &server,
        machine,
    };

    // Waited for, as one answer.
    let script = "echo out; echo err >&2; exit 3";
    let ran = mother.start(&json!({"argv": ["sh", "-c", script]}));
    let first = ran["id"].as_u64().expect("a number");
    assert_eq!((&ran["state"], &ran["code"]), (&"exited".into(), &3.into()));
    assert_eq!(
        (&ran["stdout"], &ran["stderr"]),
        (&"out\n".into(), &"err\n".into())
    );
    let none = mother
        .server
        .call(&mother.path("POST", ""), r#"{"argv": ["/no/such"]}"#);
    assert_eq!(none.code(), "invalid_request");

    input_reaches_a_program(&mother);
    what_was_overwritten_is_counted(&mother);

    let (counter, mut open, read, place) = a_reader_comes_back(&mother);
    let tty = a_terminal_is_left_and_sat_down_at_again(&mother);

    // Who is paused runs nothing, and says so at once.
    let machine = format!("POST /v1/machines/{}", mother.machine);
    server.good(&format!("{machine}/pause"), "");
    let paused = server.call(&mother.path("POST", ""), r#"{"argv": ["true"]}"#);
    assert_eq!(paused.code(), "conflict");
    assert_eq!(mother.show(counter)["state"], "running");
    server.good(&format!("{machine}/resume"), "");

    // A daughter has all of it, from where it was.
    let forks = format!("POST /v1/machines/{}/forks", mother.machine);
    let forked = server.good(&forks, r#"{"count": 1}"#);
    let daughter = Programs {
        server: &server,
        machine: text(&forked["daughters"][0]["machine"]["id"]),
    };
    let listed = server.good(&daughter.path("GET", ""), "");
    let ids = |list: &Value| -> Vec<u64> {
        let items = list["items"].as_array().expect("a list");
        items.iter().filter_map(|one| one["id"].as_u64()).collect()
    };
    assert_eq!(ids(&listed), ids(&server.good(&mother.path("GET", ""), "")));
    let hers = daughter.show(first);
    assert_eq!(
        (&hers["state"], &hers["code"]),
        (&"exited".into(), &3.into())
    );
    let (more, _) = read_lines(&mut daughter.follow(counter, "", Some(&place)), 50);
    counts_from_one(&format!("{read}{more}"));
    let mut hers = daughter.sit(tty, 0);
    types(&mut hers, "echo e$((X+3))f\n");
    shows(&mut hers, "e44f");
    // The mother's own stream goes on through the fork.
    let (more, _) = read_lines(&mut open, 50);
    counts_from_one(&format!("{read}{more}"));

    // A terminal's end is said to who sits there.
    types(&mut hers, "exit 9\n");
    let end = says(&mut hers);
    match serde_json::from_str(&end).expect("JSON") {
        TerminalWord::End(exec) => assert_eq!(exec.code, Some(9), "{end}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(mother.show(tty)["state"], "running");

    // What ended is known when the machine is gone, and what ran is not said to run.
    let ended = server.good(&format!("DELETE /v1/machines/{}", mother.machine), "");
    assert_eq!(ended["ended"].as_array().map(Vec::len), Some(1));
    assert_eq!(mother.show(first)["code"], 3);
    assert_eq!(mother.show(counter)["state"], "lost");
    assert_eq!(daughter.show(tty)["code"], 9);
    assert_eq!(daughter.show(counter)["state"], "running");
}

/// One who goes away and comes back misses nothing and gets nothing twice. The program, the stream, what was read, the place.
fn a_reader_comes_back(
    programs: &Programs<'_>,
) -> (u64, impl Iterator<Item = Event> + use<>, String, String) {
    let counter = programs.begin(json!({"argv": ["sh", "-c", COUNT]}));
    let (mut read, place) = read_lines(&mut programs.follow(counter, "", None), 5);
    let mut open = programs.follow(counter, "", Some(&place));
    let (more, place) = read_lines(&mut open, 5);
    read.push_str(&more);
    counts_from_one(&read);
    let ahead = programs.path(
        "GET",
        &format!("/{counter}/output?stream=stdout&offset=99999999"),
    );
    assert_eq!(programs.server.call(&ahead, "").code(), "invalid_request");
    (counter, open, read, place)
}

fn a_terminal_is_left_and_sat_down_at_again(programs: &Programs<'_>) -> u64 {
    let tty = programs.begin(json!({"argv": ["sh"], "tty": {"cols": 80, "rows": 24}}));
    let mut socket = programs.sit(tty, 0);
    types(&mut socket, "X=41; echo a$((X+1))b\n");
    let seen = shows(&mut socket, "a42b");
    let resize = json!({"type": "resize", "cols": 100, "rows": 30});
    socket
        .send(Message::text(resize.to_string()))
        .expect("it is said");
    socket.send(Message::text("{}")).expect("it is said");
    assert!(says(&mut socket).contains("invalid_request"));
    drop(socket);
    programs.done(tty, "resize", &json!({"cols": 90, "rows": 20}));
    let mut again = programs.sit(tty, seen);
    types(&mut again, "echo c$((X+2))d\n");
    shows(&mut again, "c43d");
    tty
}

fn input_reaches_a_program(programs: &Programs<'_>) {
    let cat = programs.begin(json!({"argv": ["cat"], "stdin": true}));
    programs.done(cat, "stdin", &json!({"text": "hello "}));
    programs.done(cat, "stdin", &json!({"data": "d29ybGQ=", "close": true}));
    assert_eq!(end_of(programs, cat)["code"], 0);
    let output = programs.path("GET", &format!("/{cat}/output"));
    let output = programs.server.good(&output, "");
    let all = output["pieces"].as_array().expect("pieces").iter();
    let all: Vec<u8> = all.flat_map(|one| piece(one).data.0).collect();
    assert_eq!(String::from_utf8_lossy(&all), "hello world");
    assert_eq!(
        (&output["next"], &output["ended"]),
        (&"11-0".into(), &true.into())
    );
    let late = programs.path("POST", &format!("/{cat}/stdin"));
    let late = programs.server.call(&late, r#"{"text": "late"}"#);
    assert_eq!(late.code(), "conflict");

    let sleeper = programs.begin(json!({"argv": ["sleep", "1000"]}));
    programs.done(sleeper, "signal", &json!({"signal": 15}));
    let end = end_of(programs, sleeper);
    assert_eq!(
        (&end["state"], &end["signal"]),
        (&"signaled".into(), &15.into())
    );
    let slow = programs.start(&json!({"argv": ["sleep", "1000"], "timeout": "100ms"}));
    assert_eq!(slow["state"], "timed_out");
}

fn what_was_overwritten_is_counted(programs: &Programs<'_>) {
    const MADE: u64 = 700_000;
    let script = format!("head -c {MADE} /dev/zero; echo end >&2");
    let loud = programs.begin(json!({"argv": ["sh", "-c", script]}));
    // Nobody reads until it has ended, so that only its ring is left.
    let last = programs.follow(loud, "?stream=stderr", None).last();
    assert_eq!(last.expect("an end").kind, "end");
    let (mut lost, mut came) = (0, 0);
    for event in programs.follow(loud, "?stream=stdout", None) {
        match event.kind.as_str() {
            "lost" => lost += event.data["bytes"].as_u64().expect("a number"),
            "output" => {
                let piece = piece(&event.data);
                assert_eq!((piece.stream, piece.offset), (Stream::Stdout, lost + came));
                came += u64::try_from(piece.data.0.len()).expect("small");
                assert_eq!(event.id, Some((lost + came).to_string()));
            }
            "end" => assert_eq!(event.data["state"], "exited"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(lost + came, MADE);
    assert!(lost > 0 && came > 0, "{lost} lost, {came} came");
}
