//! The supervisor itself, with ordinary programs in the place of cells: what it keeps, tells, refuses and survives.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails where something is not as it should be"
)]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use brood_control::{Control, SocketError};
use brood_supervisor::protocol::{Ask, FromSupervisor, Request, SOCKET, VERSION};
use brood_supervisor::{AskError, CellHandle, ConnectError, Said, Supervisor, SupervisorProgram};
use brood_testkit::{is_alive, settle};
use brood_units::MachineId;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

const A: MachineId = MachineId::from_bytes([1; 16]);
const B: MachineId = MachineId::from_bytes([2; 16]);

fn program() -> SupervisorProgram {
    SupervisorProgram {
        path: env!("CARGO_BIN_EXE_brood-supervisor").into(),
        arguments: Vec::new(),
    }
}

fn try_engine(directory: &Path) -> Result<(Supervisor, Receiver<Said>), ConnectError> {
    let (told, heard) = channel();
    // A test that is over hears no more.
    let tell = move |said| drop(told.send(said));
    Ok((Supervisor::connect(directory, &program(), tell)?, heard))
}

fn engine(directory: &TempDir) -> (Supervisor, Receiver<Said>) {
    try_engine(directory.path()).expect("a supervisor")
}

/// A program that reads its control socket to the end, and leaves what it reads on its line.
fn start(supervisor: &Supervisor, id: MachineId) -> CellHandle {
    let started = supervisor.start(id, Path::new("/bin/cat"), &[]);
    started.expect("it starts")
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it lives");
}

/// Ends whatever is kept, notes it, and sees the supervisor go.
fn finish(supervisor: Supervisor) {
    let list = supervisor.list().expect("list");
    for entry in list.iter().filter(|entry| entry.end.is_none()) {
        supervisor.kill(entry.id).expect("killed");
    }
    let ids: Vec<_> = list.iter().map(|entry| entry.id).collect();
    settle("all ends are noted", || supervisor.noted(&ids).is_ok());
    let pid = supervisor.pid();
    drop(supervisor);
    settle("it has nothing left to keep", || !is_alive(pid));
}

/// A socket of one who may be anybody.
fn stranger(directory: &TempDir) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("socket");
    let address = SocketAddrUnix::new(directory.path().join(SOCKET)).expect("an address");
    connect(&fd, &address).expect("it listens");
    fd
}

fn words_for(stranger: OwnedFd) -> String {
    let (said, _) = Control::new(stranger).receive().expect("words");
    match said {
        FromSupervisor::Answer { result, .. } => result.expect_err("refused").to_string(),
        FromSupervisor::Ended(end) => panic!("{end:?}"),
    }
}

#[test]
fn an_end_is_told_and_recorded_until_it_is_noted() {
    let directory = TempDir::new().expect("a directory");
    let (supervisor, heard) = engine(&directory);
    let (killed, exits) = (start(&supervisor, A), start(&supervisor, B));
    let list = supervisor.list().expect("list");
    assert_eq!(
        list.iter()
            .map(|entry| (entry.id, entry.pid, entry.end.is_none()))
            .collect::<Vec<_>>(),
        [(A, killed.pid, true), (B, exits.pid, true)]
    );
    let early = supervisor.noted(&[B]).expect_err("it lives").to_string();
    assert!(early.contains("lives"), "{early}");
    kill(killed.pid);
    let Ok(Said::Ended(end)) = heard.recv() else {
        panic!("an end is told")
    };
    assert_eq!((end.id, end.pid), (Some(A), killed.pid));
    assert_eq!((end.end.signal, end.end.code), (Some(9), None));
    assert_eq!(end.end.to_string(), "killed by signal 9");
    assert!(end.end.at.as_millis() > 0);
    let taken = supervisor.start(A, Path::new("/bin/cat"), &[]);
    assert!(
        taken
            .expect_err("taken")
            .to_string()
            .contains("known already")
    );
    let gone = supervisor.duplicate(A).expect_err("it has ended");
    assert!(gone.to_string().contains("has ended"), "{gone}");
    let recorded = supervisor.list().expect("list");
    assert_eq!(recorded[0].end, Some(end.end));
    supervisor.noted(&[A]).expect("noted");
    assert_eq!(supervisor.list().expect("list").len(), 1);
    supervisor.kill(B).expect("killed");
    assert!(matches!(heard.recv(), Ok(Said::Ended(end)) if end.id == Some(B)));
    finish(supervisor);
}

#[test]
fn what_it_keeps_outlives_one_engine_and_is_handed_to_the_next() {
    let directory = TempDir::new().expect("a directory");
    let (first, _heard) = engine(&directory);
    let started = start(&first, A);
    let (pid, process) = (first.pid(), started.pid);
    drop((first, started));
    let (second, heard) = engine(&directory);
    assert_eq!(second.pid(), pid, "it is the same supervisor");
    assert!(is_alive(process));
    let handle = second.duplicate(A).expect("it lives");
    assert_eq!(handle.pid, process);
    // It takes what is sent on the duplicate, and leaves nonsense on its line, which does nothing.
    send(&handle.control, b"nonsense", SendFlags::empty()).expect("sent");
    second.kill(A).expect("killed");
    assert!(matches!(heard.recv(), Ok(Said::Ended(end)) if end.end.words.is_none()));
    finish(second);
}

#[test]
fn an_end_that_no_engine_saw_is_in_the_list_of_the_next() {
    let directory = TempDir::new().expect("a directory");
    let (first, _heard) = engine(&directory);
    let started = start(&first, A);
    drop(first);
    kill(started.pid);
    let (second, _heard) = engine(&directory);
    settle("the end is known", || {
        let list = second.list().expect("list");
        list[0]
            .end
            .as_ref()
            .is_some_and(|end| end.signal == Some(9))
    });
    finish(second);
}

#[test]
fn a_second_engine_is_refused_by_the_name_of_the_first() {
    let directory = TempDir::new().expect("a directory");
    let (first, _heard) = engine(&directory);
    start(&first, A);
    let refused = try_engine(directory.path()).expect_err("refused");
    let ConnectError::Greeting(AskError::Refused(refusal)) = refused else {
        panic!("{refused:?}")
    };
    let own = std::process::id();
    assert_eq!(
        refusal.to_string(),
        format!(
            "hello: the engine with process id {own} is connected; stop it first, or use another state directory"
        )
    );
    assert_eq!(first.list().expect("the first is served").len(), 1);
    finish(first);
}

#[test]
fn garbage_ends_the_connection_with_words_and_nothing_else() {
    let directory = TempDir::new().expect("a directory");
    let (first, _heard) = engine(&directory);
    let started = start(&first, A);
    for garbage in [&[0xff_u8; 300][..], &[0; 1], &[1; 20_000]] {
        let peer = stranger(&directory);
        send(&peer, garbage, SendFlags::empty()).expect("sent");
        assert!(!words_for(peer).is_empty());
    }
    let peer = Control::new(stranger(&directory));
    let request = Request::List { after: None };
    peer.send(&Ask { id: 7, request }, &[]).expect("sent");
    let (said, _) = peer.receive::<FromSupervisor>().expect("words");
    assert!(matches!(
        said,
        FromSupervisor::Answer {
            id: 7,
            result: Err(_)
        }
    ));
    assert!(matches!(
        peer.receive::<FromSupervisor>(),
        Err(SocketError::Closed)
    ));
    // More newcomers than it has room for, none of whom says anything.
    let silent: Vec<_> = (0..20).map(|_| stranger(&directory)).collect();
    assert_eq!(first.list().expect("list").len(), 1);
    assert!(is_alive(started.pid));
    drop(silent);
    finish(first);
}

#[test]
fn an_engine_of_another_version_is_refused_in_words() {
    let directory = TempDir::new().expect("a directory");
    let (first, _heard) = engine(&directory);
    start(&first, A);
    drop(first);
    let peer = Control::new(stranger(&directory));
    let version = VERSION + 1;
    let request = Request::Hello { version };
    peer.send(&Ask { id: 1, request }, &[]).expect("sent");
    let (said, _) = peer.receive::<FromSupervisor>().expect("words");
    let FromSupervisor::Answer { result, .. } = said else {
        panic!("{said:?}")
    };
    let words = result.expect_err("refused").to_string();
    let expected = format!("the engine speaks version {version}, this supervisor {VERSION}");
    assert!(words.contains(&expected), "{words}");
    let (second, _heard) = engine(&directory);
    finish(second);
}

#[test]
fn another_user_is_refused_although_the_socket_lets_it_in() {
    use std::os::unix::fs::PermissionsExt;
    if !getuid().is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let (first, _heard) = engine(&directory);
    let socket = directory.path().join(SOCKET);
    let mode = std::fs::metadata(&socket)
        .expect("it is there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    for path in [directory.path(), &socket] {
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path, open).expect("opened");
    }
    let words = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_uid(nobody).expect("another user");
            words_for(stranger(&directory))
        });
        other.join().expect("it ends")
    });
    assert!(
        words.contains("this user is 65534; run the engine as user 0"),
        "{words}"
    );
    assert!(first.list().expect("list").is_empty());
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let directory = TempDir::new().expect("a directory");
    let (supervisor, _heard) = engine(&directory);
    let refused = |result: Result<CellHandle, AskError>| result.expect_err("refused").to_string();
    let missing = refused(supervisor.start(A, Path::new("/no/such/program"), &[]));
    assert!(
        missing.contains("cannot start /no/such/program"),
        "{missing}"
    );
    let long = refused(supervisor.start(A, Path::new("/bin/cat"), &["x".repeat(9000)]));
    assert!(
        long.contains("its command has 9008 bytes; use at most 8192"),
        "{long}"
    );
    let unknown = refused(supervisor.duplicate(A));
    assert!(unknown.contains("is not known"), "{unknown}");
    let file = std::fs::File::open("/dev/null").expect("open");
    let fd = || std::os::fd::AsFd::as_fd(&file);
    let kept = [(A, 1, fd(), fd()), (A, 1, fd(), fd())];
    let twice = supervisor.keep(&kept).expect_err("refused").to_string();
    assert!(twice.contains("named twice"), "{twice}");
    let regular = std::fs::File::open(env!("CARGO_BIN_EXE_brood-supervisor")).expect("open");
    let regular = std::os::fd::AsFd::as_fd(&regular);
    let no_pidfd = supervisor.keep(&[(A, 1, fd(), regular)]);
    let no_pidfd = no_pidfd.expect_err("refused").to_string();
    assert!(no_pidfd.contains("send a pidfd for each"), "{no_pidfd}");
    assert!(supervisor.list().expect("nothing was kept").is_empty());
    let deep = directory.path().join("x".repeat(100));
    std::fs::create_dir(&deep).expect("a directory");
    let error = try_engine(&deep).expect_err("too long").to_string();
    assert!(
        error.contains("is too long: use a state directory"),
        "{error}"
    );
}

#[test]
fn the_end_of_the_supervisor_is_an_error_in_words_and_the_next_engine_starts_another() {
    let directory = TempDir::new().expect("a directory");
    let (supervisor, heard) = engine(&directory);
    let started = start(&supervisor, A);
    kill(supervisor.pid());
    assert!(matches!(heard.recv(), Ok(Said::Gone { .. })));
    let error = supervisor.list().expect_err("nobody answers").to_string();
    assert_eq!(
        error,
        "the supervisor is gone: it has ended; its cells end with it: start the engine again"
    );
    let old = supervisor.pid();
    drop(supervisor);
    let process = started.pid;
    drop(started);
    settle("nobody holds its control socket, so it ends", || {
        !is_alive(process)
    });
    let (next, _heard) = engine(&directory);
    assert_ne!(next.pid(), old);
    assert!(next.list().expect("list").is_empty());
}

#[test]
fn it_ends_when_there_is_nothing_left_to_keep_and_not_before() {
    let directory = TempDir::new().expect("a directory");
    let (first, heard) = engine(&directory);
    let pid = first.pid();
    start(&first, A);
    first.kill(A).expect("killed");
    assert!(matches!(heard.recv(), Ok(Said::Ended(_))));
    drop(first);
    let (second, _heard) = engine(&directory);
    assert_eq!(second.pid(), pid, "an end that was not noted keeps it");
    second.noted(&[A]).expect("noted");
    drop(second);
    settle("it has ended", || !is_alive(pid));
}

#[test]
fn a_hundred_and_fifty_are_listed_in_order_and_their_ends_are_all_told() {
    let directory = TempDir::new().expect("a directory");
    let (supervisor, heard) = engine(&directory);
    let ids: Vec<_> = (0..150).map(|n| MachineId::from_bytes([n; 16])).collect();
    let cells: Vec<_> = ids.iter().map(|id| start(&supervisor, *id)).collect();
    let list = supervisor.list().expect("list");
    assert!(list.iter().map(|entry| entry.id).eq(ids.iter().copied()));
    for id in &ids {
        supervisor.kill(*id).expect("killed");
    }
    let mut ended: Vec<_> = heard
        .iter()
        .take(ids.len())
        .map(|said| match said {
            Said::Ended(end) => end.id.expect("known"),
            Said::Gone { reason } => panic!("{reason}"),
        })
        .collect();
    ended.sort();
    assert_eq!(ended, ids);
    drop(cells);
    supervisor.noted(&ids).expect("noted");
    assert!(supervisor.list().expect("list").is_empty());
}
