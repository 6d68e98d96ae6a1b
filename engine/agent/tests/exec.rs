//! Exec sessions, over a real socket with real programs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::borrow::BorrowMut;

use brood_agent_proto::client::AttachEvent;
use brood_agent_proto::errno::Errno;
use brood_agent_proto::exec::{
    AttachSpec, ExecId, ExecKey, ExecSpec, ExecState, Follow, From, Output, Removal, SignalTarget,
    Stdin, Stream, TtySize,
};
use brood_agent_proto::{AgentError, Attachment, Client, ClientError, SpawnStep};
use common::{Guest, TIMEOUT};

fn sh(script: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", script])
}

fn run(client: &mut Client, spec: &ExecSpec) -> (ExecState, String, String) {
    let output = client.run(spec, TIMEOUT, 1 << 24).unwrap();
    assert_eq!(output.lost, 0);
    (
        output.state,
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn output(attachment: &mut Attachment<&mut Client>) -> Output {
    match attachment.next(TIMEOUT).unwrap() {
        Some(AttachEvent::Output(output)) => output,
        other => panic!("no output: {other:?}"),
    }
}

/// Reads until what came ends with `end`.
fn until(attachment: &mut Attachment<&mut Client>, end: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        seen.extend(output(attachment).bytes.0);
    }
    seen
}

/// The state at the end, and how many bytes came and were lost before it.
fn to_the_end<C: BorrowMut<Client>>(attachment: &mut Attachment<C>) -> (ExecState, u64, u64) {
    let (mut came, mut lost) = (0, 0);
    loop {
        match attachment.next(TIMEOUT).unwrap().expect("an end in time") {
            AttachEvent::Output(output) => {
                came += u64::try_from(output.bytes.0.len()).unwrap();
                lost += output.lost;
            }
            AttachEvent::Ended { state, .. } => return (state, came, lost),
        }
    }
}

fn agent_error<T: std::fmt::Debug>(result: Result<T, ClientError>) -> AgentError {
    match result {
        Err(ClientError::Agent(error)) => error,
        other => panic!("not refused by the agent: {other:?}"),
    }
}

fn start_and_see(client: &mut Client, spec: &ExecSpec, end: &str) -> ExecId {
    let exec = client.exec(spec).unwrap();
    let mut reader = client.attach(&AttachSpec::all(exec)).unwrap();
    until(&mut reader, end);
    exec
}

#[test]
fn stdin_passes_through_and_the_exit_code_comes_back() {
    let Some(guest) = Guest::start() else { return };
    let (mut client, mut typist) = (guest.client(), guest.client());
    let mut spec = sh("cat; echo gone >&2; exit 3");
    spec.stdin = Stdin::Pipe;
    let exec = client.exec(&spec).unwrap();
    let mut attachment = client.attach(&AttachSpec::all(exec)).unwrap();
    let sent = vec![b'x'; 1 << 20];
    typist.write_stdin(exec, b"hello ").unwrap();
    assert_eq!(output(&mut attachment).bytes.0, b"hello ");
    let writer = std::thread::spawn(move || {
        typist.write_stdin(exec, &sent).unwrap();
        typist.close_stdin(exec).unwrap();
        agent_error(typist.write_stdin(exec, b"late"))
    });
    let (state, came, lost) = to_the_end(&mut attachment);
    assert_eq!(
        (state, came + lost),
        (ExecState::Exited { code: 3 }, (1 << 20) + 5)
    );
    assert_eq!(writer.join().unwrap(), AgentError::NoStdin { exec });
}

#[test]
fn a_program_that_is_asked_for_again_under_its_key_is_begun_once_and_never_anew() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let log = guest.directory.path().join("log");
    let spec = sh(&format!("echo begun >> {}; exec sleep 600", log.display()));
    let (key, other) = (ExecKey([1; 16]), ExecKey([2; 16]));
    assert_eq!(client.exec_begun(key).unwrap(), None);
    // Everybody asks at once, each over a conversation of its own.
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, spec) = (guest.client(), spec.clone());
            std::thread::spawn(move || client.exec_once(key, &spec).unwrap())
        })
        .collect();
    let mut ids: Vec<_> = asking.into_iter().map(|one| one.join().unwrap()).collect();
    ids.dedup();
    let [exec] = ids[..] else {
        panic!("begun more than once: {ids:?}");
    };
    assert_eq!(client.exec_list().unwrap().len(), 1);
    assert_eq!(client.exec_begun(key).unwrap(), Some(exec));
    assert_eq!(client.exec_begun(other).unwrap(), None);
    let another = client.exec_once(other, &sh("true")).unwrap();
    assert_ne!(another, exec);

    // What has been removed is not begun again.
    client.remove(exec, Removal::Kill).unwrap();
    let gone = AgentError::NoSuchExec { exec };
    assert_eq!(agent_error(client.exec_begun(key)), gone);
    assert_eq!(agent_error(client.exec_once(key, &spec)), gone);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "begun\n");
}

#[test]
fn a_program_that_could_not_be_begun_is_begun_under_the_same_key_later() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let key = ExecKey([1; 16]);
    let failed = agent_error(client.exec_once(key, &ExecSpec::new(["/no/such"])));
    assert!(matches!(failed, AgentError::Spawn { .. }), "{failed:?}");
    let exec = client.exec_once(key, &sh("true")).unwrap();
    assert_eq!(client.exec_begun(key).unwrap(), Some(exec));
}

#[test]
fn who_follows_to_the_exit_alone_is_told_the_end_and_sent_no_output() {
    let Some(guest) = Guest::start() else { return };
    let (mut client, mut typist) = (guest.client(), guest.client());
    let mut spec = sh("echo loud; read line; echo louder; exit 5");
    spec.stdin = Stdin::Pipe;
    let exec = start_and_see(&mut client, &spec, "loud\n");
    let watch = AttachSpec {
        follow: Follow::Exit,
        ..AttachSpec::all(exec)
    };
    let mut watcher = guest.client().into_attachment(&watch).unwrap();
    assert_eq!(
        watcher.next(std::time::Duration::from_millis(1)).unwrap(),
        None
    );
    typist.write_stdin(exec, b"go\n").unwrap();
    let ended = to_the_end(&mut watcher);
    assert_eq!(ended, (ExecState::Exited { code: 5 }, 0, 0));
}

#[test]
fn stdout_and_stderr_are_two_streams() {
    let Some(guest) = Guest::start() else { return };
    let ran = run(&mut guest.client(), &sh("echo out; echo err >&2"));
    assert_eq!(
        ran,
        (
            ExecState::Exited { code: 0 },
            "out\n".into(),
            "err\n".into()
        )
    );
}

#[test]
fn environment_directory_and_user_are_those_asked_for() {
    let Some(guest) = Guest::start() else { return };
    let mut spec = sh("id -u; id -g; pwd; echo $FOO:$USER; grep -c . /proc/self/cgroup >/dev/null");
    spec.env.insert("FOO", "bar baz").unwrap();
    spec.cwd = Some("/usr".to_owned());
    spec.user = Some("nobody".to_owned());
    let (state, out, err) = run(&mut guest.client(), &spec);
    assert_eq!((state, err.as_str()), (ExecState::Exited { code: 0 }, ""));
    assert_eq!(out, "65534\n65534\n/usr\nbar baz:nobody\n");
}

#[test]
fn a_program_starts_with_default_signals_and_no_other_descriptors() {
    let Some(guest) = Guest::start() else { return };
    let script = "grep -E '^Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd";
    let (_, out, _) = run(&mut guest.client(), &sh(script));
    let zero = "0000000000000000";
    // 3 is the directory that ls itself reads.
    assert_eq!(
        out,
        format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\n0\n1\n2\n3\n")
    );
}

#[test]
fn every_way_not_to_start_names_its_step() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let plain = guest.directory.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let nowhere = ExecSpec {
        cwd: Some("/no/such".into()),
        ..sh("true")
    };
    let nobody = ExecSpec {
        user: Some("no-such-user".into()),
        ..sh("true")
    };
    let cases = [
        (
            ExecSpec::new(["no-such-program"]),
            SpawnStep::Exec,
            libc::ENOENT,
        ),
        (
            ExecSpec::new([plain.to_string_lossy()]),
            SpawnStep::Exec,
            libc::EACCES,
        ),
        (nowhere, SpawnStep::Cwd, libc::ENOENT),
        (nobody, SpawnStep::User, libc::ENOENT),
    ];
    for (spec, step, errno) in cases {
        let error = agent_error(client.exec(&spec));
        assert_eq!(
            error,
            AgentError::Spawn {
                step,
                errno: Errno(errno)
            }
        );
    }
    assert_eq!(client.exec_list().unwrap(), []);
    assert_eq!(
        std::fs::read_dir(guest.cgroup.0.join("workload"))
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .count(),
        0
    );
}

#[test]
fn a_signal_reaches_the_whole_group_and_is_told_as_the_end() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let exec = start_and_see_running(&guest, "sleep 1000 & echo up; wait");
    client
        .signal(exec, libc::SIGTERM, SignalTarget::Group)
        .unwrap();
    let mut attachment = client.attach(&AttachSpec::all(exec)).unwrap();
    assert_eq!(
        to_the_end(&mut attachment).0,
        ExecState::Signaled {
            signal: libc::SIGTERM
        }
    );
    drop(attachment);
    common::wait_for_event(&guest.cgroup.0.join("workload"), "populated 0");
    let late = agent_error(client.signal(exec, libc::SIGTERM, SignalTarget::Group));
    assert!(matches!(
        late,
        AgentError::Os {
            errno: Errno(libc::ESRCH),
            ..
        }
    ));
    assert!(matches!(
        agent_error(client.signal(exec, 65, SignalTarget::Leader)),
        AgentError::Invalid { .. }
    ));
}

/// Starts `script` and waits for its "up".
fn start_and_see_running(guest: &Guest, script: &str) -> ExecId {
    start_and_see(&mut guest.client(), &sh(script), "up\n")
}

#[test]
fn a_timeout_kills_even_what_left_the_process_group() {
    let Some(guest) = Guest::start() else { return };
    let mut spec = sh("setsid sleep 1000 & wait");
    spec.timeout_ms = Some(100);
    let (state, _, _) = run(&mut guest.client(), &spec);
    assert_eq!(state, ExecState::TimedOut);
    common::wait_for_event(&guest.cgroup.0.join("workload"), "populated 0");
}

#[test]
fn a_terminal_has_the_size_asked_for_and_can_be_resized() {
    let Some(guest) = Guest::start() else { return };
    let (mut client, mut typist) = (guest.client(), guest.client());
    let mut spec = sh("stty size; read x; stty size; tty >&2; exit 7");
    spec.tty = Some(TtySize { rows: 24, cols: 80 });
    spec.stdin = Stdin::Pipe;
    let exec = client.exec(&spec).unwrap();
    let mut attachment = client.attach(&AttachSpec::all(exec)).unwrap();
    until(&mut attachment, "24 80\r\n");
    typist
        .resize(
            exec,
            TtySize {
                rows: 50,
                cols: 132,
            },
        )
        .unwrap();
    typist.write_stdin(exec, b"\n").unwrap();
    let mut rest = Vec::new();
    let state = loop {
        match attachment.next(TIMEOUT).unwrap().unwrap() {
            AttachEvent::Output(output) => {
                assert_eq!(output.stream, Stream::Stdout);
                rest.extend(output.bytes.0);
            }
            AttachEvent::Ended { state, .. } => break state,
        }
    };
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.contains("50 132\r\n") && rest.contains("/dev/pts/"),
        "{rest:?}"
    );
    assert_eq!(state, ExecState::Exited { code: 7 });
    let plain = typist.exec(&sh("true")).unwrap();
    assert_eq!(
        agent_error(typist.resize(plain, TtySize { rows: 1, cols: 1 })),
        AgentError::NoTty { exec: plain }
    );
}

#[test]
fn a_terminal_takes_end_of_file() {
    let Some(guest) = Guest::start() else { return };
    let (mut client, mut typist) = (guest.client(), guest.client());
    let mut spec = sh("echo up; cat; echo over");
    spec.tty = Some(TtySize { rows: 24, cols: 80 });
    spec.stdin = Stdin::Pipe;
    let exec = start_and_see(&mut guest.client(), &spec, "up\r\n");
    typist.close_stdin(exec).unwrap();
    let mut attachment = client.attach(&AttachSpec::all(exec)).unwrap();
    assert_eq!(to_the_end(&mut attachment).0, ExecState::Exited { code: 0 });
}

#[test]
fn attaching_again_tells_what_was_overwritten_and_goes_on() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let mut spec = sh("i=0; while [ $i -lt 1000 ]; do printf %09d\\\\n $i; i=$((i+1)); done");
    spec.ring_bytes = 4096;
    let exec = client.exec(&spec).unwrap();
    let mut first = client.attach(&AttachSpec::all(exec)).unwrap();
    let (_, came, lost) = to_the_end(&mut first);
    assert_eq!(came + lost, 10_000);
    drop(first);
    let from_start = AttachSpec {
        stdout: From::Offset(1000),
        ..AttachSpec::all(exec)
    };
    let mut again = client.attach(&from_start).unwrap();
    let piece = output(&mut again);
    assert_eq!(
        (piece.lost, piece.offset),
        (10_000 - 4096 - 1000, 10_000 - 4096)
    );
    assert!(piece.bytes.0.ends_with(b"000000999\n"));
    assert_eq!(
        to_the_end(&mut again),
        (ExecState::Exited { code: 0 }, 0, 0)
    );
    drop(again);
    let ahead = AttachSpec {
        stdout: From::Offset(10_001),
        ..AttachSpec::all(exec)
    };
    let refused = agent_error(client.attach(&ahead).unwrap().next(TIMEOUT));
    assert_eq!(
        refused,
        AgentError::OffsetAhead {
            offset: 10_001,
            end: 10_000
        }
    );
    assert_eq!(client.exec_status(exec).unwrap().stdout_end, 10_000);
}

#[test]
fn a_snapshot_of_a_running_session_ends_at_once() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let exec = start_and_see_running(&guest, "echo up; sleep 1000");
    let spec = AttachSpec {
        follow: Follow::Snapshot,
        ..AttachSpec::all(exec)
    };
    let mut attachment = client.attach(&spec).unwrap();
    assert_eq!(to_the_end(&mut attachment), (ExecState::Running, 3, 0));
}

#[test]
fn losing_an_attachment_loses_no_byte_of_the_session() {
    let Some(guest) = Guest::start() else { return };
    let mut typist = guest.client();
    let mut spec = sh("while read x; do echo got $x; done");
    spec.stdin = Stdin::Pipe;
    let exec = typist.exec(&spec).unwrap();
    let mut offset = 0;
    for round in 0..20 {
        // A new connection each time, dropped in the middle of the session.
        let mut client = guest.client();
        let spec = AttachSpec {
            stdout: From::Offset(offset),
            ..AttachSpec::all(exec)
        };
        let mut attachment = client.attach(&spec).unwrap();
        typist
            .write_stdin(exec, format!("{round}\n").as_bytes())
            .unwrap();
        let line = format!("got {round}\n");
        assert_eq!(until(&mut attachment, "\n"), line.as_bytes());
        offset += u64::try_from(line.len()).unwrap();
    }
}

#[test]
fn an_attachment_that_does_not_read_delays_nobody_and_is_told_its_loss() {
    let Some(guest) = Guest::start() else { return };
    let (mut slow, mut fast) = (guest.client(), guest.client());
    let exec = fast
        .exec(&ExecSpec {
            stdin: Stdin::Pipe,
            ..sh("read x; head -c 8388608 /dev/zero")
        })
        .unwrap();
    let mut asleep = slow.attach(&AttachSpec::all(exec)).unwrap();
    fast.write_stdin(exec, b"go\n").unwrap();
    let mut awake = fast.attach(&AttachSpec::all(exec)).unwrap();
    let (state, came, lost) = to_the_end(&mut awake);
    assert_eq!(
        (state, came + lost),
        (ExecState::Exited { code: 0 }, 8 << 20)
    );
    let (_, came, lost) = to_the_end(&mut asleep);
    assert_eq!(came + lost, 8 << 20);
    assert!(lost > 0, "the socket cannot have held 8 MiB");
}

#[test]
fn a_descendant_that_keeps_stdout_open_does_not_delay_the_end() {
    let Some(guest) = Guest::start() else { return };
    let (state, out, _) = run(&mut guest.client(), &sh("sleep 1000 & echo done"));
    assert_eq!(
        (state, out.as_str()),
        (ExecState::Exited { code: 0 }, "done\n")
    );
}

#[test]
fn a_running_session_is_removed_only_by_killing_it() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let exec = start_and_see_running(&guest, "echo up; sleep 1000");
    let refused = agent_error(client.remove(exec, Removal::EndedOnly));
    assert_eq!(refused, AgentError::StillRunning { exec });
    client.remove(exec, Removal::Kill).unwrap();
    assert_eq!(
        agent_error(client.exec_status(exec)),
        AgentError::NoSuchExec { exec }
    );
    common::wait_for_event(&guest.cgroup.0.join("workload"), "populated 0");
}

#[test]
fn the_oldest_ended_session_makes_room_and_running_ones_are_never_dropped() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let mut keeper = sh("echo up; read x");
    keeper.stdin = Stdin::Pipe;
    let running = start_and_see(&mut guest.client(), &keeper, "up\n");
    for _ in 0..300 {
        let exec = client.exec(&ExecSpec::new(["true"])).unwrap();
        to_the_end(&mut client.attach(&AttachSpec::all(exec)).unwrap());
    }
    let list = client.exec_list().unwrap();
    assert_eq!(list.len(), 256);
    assert_eq!((list[0].exec, list[0].state), (running, ExecState::Running));
}

#[test]
fn stats_are_those_of_this_machine() {
    let Some(guest) = Guest::start() else { return };
    let stats = guest.client().stats().unwrap();
    assert!(stats.mem_total_kib > stats.mem_free_kib && stats.uptime_ms > 0 && stats.processes > 0);
    assert_eq!(stats.agent_version, env!("CARGO_PKG_VERSION"));
}
