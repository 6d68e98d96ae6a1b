//! Agents that hang and agents that lie, at every step of the conversation.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;

use brood_agent_proto::exec::{ExecId, ExecState};
use brood_agent_proto::fork::{ForkToken, StampCommand, StampFile};
use brood_agent_proto::stat::Clocks;
use brood_agent_proto::{
    AgentError, ClientError, ForkRefusal, Reply, Request, StampStep, frame, hello,
};

use super::super::unconfirmed::{Ending, Unconfirmed};
use super::*;

/// What an agent does where an honest one would answer.
enum Act {
    Say(Box<Reply>),
    Bytes(Vec<u8>),
    Hang,
    Close,
}

fn say(reply: Reply) -> Option<Act> {
    Some(Act::Say(Box::new(reply)))
}

/// Answers as an honest agent does, unless `act` does something else with a request.
fn play(mut stream: UnixStream, mut act: impl FnMut(&Request, &mut Honest) -> Option<Act>) {
    let mut honest = Honest::default();
    while let Ok(request) = frame::read_frame::<Request>(&mut stream) {
        let done = match act(&request, &mut honest) {
            Some(Act::Say(reply)) => frame::write_frame(&mut stream, &*reply).is_ok(),
            Some(Act::Bytes(bytes)) => stream.write_all(&bytes).is_ok(),
            Some(Act::Hang) => true,
            Some(Act::Close) => false,
            None => honest
                .answers(&request)
                .iter()
                .all(|reply| frame::write_frame(&mut stream, reply).is_ok()),
        };
        if !done {
            return;
        }
    }
}

/// An agent without a guest: it remembers what it was told and says so.
#[derive(Default)]
struct Honest {
    spec: Option<StampSpec>,
    /// How far its wall clock is ahead of the host's, nanoseconds.
    ahead: i64,
}

impl Honest {
    fn realtime(&self) -> u64 {
        wall_clock_ns().saturating_add_signed(self.ahead)
    }

    fn clocks(&self) -> Reply {
        Reply::Clocks(Clocks {
            realtime_ns: self.realtime(),
            monotonic_ns: 1,
            boottime_ns: 1,
        })
    }

    fn confirm(&self) -> ConfirmReport {
        let spec = self.spec.as_ref().expect("a stamp before its confirm");
        ConfirmReport {
            hostname: spec.hostname.clone(),
            machine_id: spec.machine_id.to_string(),
            boot_id: spec.boot_id.to_string(),
            random: [7; 32],
            realtime_ns: self.realtime(),
            monotonic_ns: 1,
        }
    }

    fn answers(&mut self, request: &Request) -> Vec<Reply> {
        match request {
            Request::Stamp { spec, .. } => {
                self.spec = Some(StampSpec::clone(spec));
                vec![Reply::Stamped(StampReport {
                    steps: Vec::new(),
                    clock_before_ns: 0,
                    clock_after_ns: spec.wall_clock_ns,
                    host_monotonic_ns: spec.host_monotonic_ns,
                })]
            }
            Request::FileRead(_) => vec![
                Reply::Chunk(b"seen".to_vec().into()),
                Reply::FileEnd { size: 4 },
            ],
            Request::Clock { .. } => vec![self.clocks()],
            Request::ClockStep { by_ns } => {
                self.ahead += by_ns;
                vec![self.clocks()]
            }
            Request::Confirm => vec![Reply::Confirmed(self.confirm())],
            Request::Exec(_) => vec![Reply::Started {
                exec: ExecId(1),
                pid: 2,
            }],
            Request::Attach(_) => vec![Reply::Ended {
                state: ExecState::Exited { code: 0 },
                stdout_end: 0,
                stderr_end: 0,
            }],
            _ => vec![Reply::Done],
        }
    }
}

/// Long enough for every exchange that is answered, however busy the host.
const PATIENCE: Duration = Duration::from_secs(60);
/// As long as an agent that hangs is waited for.
const SHORT: Duration = Duration::from_secs(3);

fn identity() -> IdentitySpec {
    IdentitySpec {
        id: None,
        entropy: Vec::new(),
        hostname: "d7".to_owned(),
        env: vec![("NAME".to_owned(), "it's\nme".to_owned())],
        files: vec![StampFile {
            path: "/etc/token".to_owned(),
            mode: 0o600,
            bytes: b"t".to_vec().into(),
        }],
        commands: vec![StampCommand {
            argv: vec!["/bin/renew".to_owned(), "-q".to_owned()],
        }],
        read_frozen: Some("/run/seen".to_owned()),
    }
}

fn introduce(
    patience: Duration,
    connect: impl FnOnce(Duration) -> anyhow::Result<Client>,
) -> Result<Introduced, Failure> {
    Introduction {
        identity: &identity(),
        ticket: &StampTicket::from_token(ForkToken([3; 16])),
        mother: MachineId::from_bytes([0xee; 16]),
        generation: 4,
        index: 7,
        deadline: Deadline::now() + patience,
    }
    .hold(connect)
}

/// A conversation with an agent that says hello and then does what `act` says.
fn meet(
    patience: Duration,
    act: impl FnMut(&Request, &mut Honest) -> Option<Act> + Send + 'static,
) -> Result<Introduced, Failure> {
    introduce(patience, |left| {
        let (ours, mut theirs) = UnixStream::pair()?;
        thread::spawn(move || {
            hello::read(&mut theirs).expect("the engine says hello");
            hello::write(&mut theirs, hello::VERSION).expect("so do we");
            play(theirs, act);
        });
        Ok(Client::handshake(ours, left)?)
    })
}

/// The failure as a caller is told, and its cause.
fn told(result: Result<Introduced, Failure>) -> (Unconfirmed, String) {
    let Failure { step, source } = result.err().expect("she is not confirmed");
    let unconfirmed = Unconfirmed {
        index: 7,
        step,
        ending: Ending(None),
        source,
    };
    let text = unconfirmed.to_string();
    (unconfirmed, text)
}

fn cause(unconfirmed: &Unconfirmed) -> &ClientError {
    unconfirmed.source.downcast_ref().expect("an agent's fault")
}

#[test]
fn what_a_caller_asks_is_what_the_agent_is_told() {
    let (tell, told) = channel();
    let met = meet(PATIENCE, move |request, _| {
        if let Request::Stamp { token, spec } = request {
            tell.send((*token, StampSpec::clone(spec)))
                .expect("the test listens");
        }
        None
    });
    let introduced = met.ok().expect("an honest agent confirms");
    let (token, spec) = told.recv().expect("a stamp");
    assert_eq!(token, ForkToken([3; 16]));
    assert_eq!(introduced.id, spec.machine_id);
    assert_eq!(introduced.seen_frozen, b"seen");
    let asked = identity();
    assert_eq!(spec.hostname, asked.hostname);
    assert_eq!(spec.env.value("NAME"), Some("it's\nme"));
    assert_eq!((spec.files, spec.commands), (asked.files, asked.commands));
    assert_eq!((spec.generation, spec.fork_index), (4, 7));
    assert_eq!(spec.mother, Some(MachineId::from_bytes([0xee; 16])));
    assert!(spec.hook_timeout_ms > 0);
}

#[test]
fn no_two_stamps_share_seed_machine_id_or_boot_id() {
    let (tell, told) = channel();
    for _ in 0..2 {
        let tell = tell.clone();
        let met = meet(PATIENCE, move |request, _| {
            if let Request::Stamp { spec, .. } = request {
                tell.send(StampSpec::clone(spec)).expect("the test listens");
            }
            None
        });
        met.ok().expect("an honest agent confirms");
    }
    let (one, other) = (told.recv().expect("one"), told.recv().expect("two"));
    assert_ne!(one.seed.bytes(), other.seed.bytes());
    assert_ne!(one.seed.bytes()[32..], one.seed.bytes()[..32]);
    assert_ne!(one.machine_id, other.machine_id);
    assert_ne!(one.boot_id, other.boot_id);
}

#[test]
fn a_clock_that_was_set_late_is_set_again_until_it_is_right() {
    let met = meet(PATIENCE, |request, honest| {
        if matches!(request, Request::Stamp { .. }) {
            honest.ahead = -300_000_000;
        }
        None
    });
    let clock = met.ok().expect("an honest agent confirms").clock;
    let limit = 5_000_000 + clock.round_trip() / 2;
    assert!(
        clock.error().unsigned_abs() <= limit,
        "{} of {limit} ns",
        clock.error()
    );
}

#[test]
fn a_clock_whose_readings_are_vague_is_read_again_before_it_is_moved() {
    let (tell, told) = channel();
    let met = meet(PATIENCE, move |request, honest| {
        let kind = match request {
            // It is not what the stamp tells.
            Request::Stamp { .. } => {
                honest.ahead = 100_000_000;
                return None;
            }
            Request::Clock { .. } => {
                // A slow way there: what one such exchange tells is within 6 ms, which is not enough.
                thread::sleep(Duration::from_millis(12));
                "read"
            }
            Request::ClockStep { .. } => "moved",
            _ => return None,
        };
        tell.send(kind).expect("the test listens");
        None
    });
    met.ok().expect("an honest agent confirms");
    let done: Vec<_> = told.iter().take_while(|kind| *kind == "read").collect();
    assert!(done.len() > 1, "{done:?}");
}

#[test]
fn a_clock_that_a_hook_of_the_stamp_has_set_is_moved() {
    let (tell, told) = channel();
    let met = meet(PATIENCE, move |request, honest| {
        match request {
            Request::Stamp { .. } => honest.ahead = 60_000_000,
            Request::ClockStep { by_ns } => tell.send(*by_ns).expect("the test listens"),
            _ => {}
        }
        None
    });
    met.ok().expect("an honest agent confirms");
    assert!(told.recv().expect("it is moved") < 0);
}

#[test]
fn an_agent_that_hangs_at_any_step_fails_that_step() {
    type Hangs = fn(&Request) -> bool;
    let steps: [(Step, Hangs); 7] = [
        (Step::Stamp, |it| matches!(it, Request::Stamp { .. })),
        (Step::Look, |it| matches!(it, Request::FileRead(_))),
        (Step::Clock, |it| matches!(it, Request::Clock { .. })),
        (Step::Confirm, |it| matches!(it, Request::Confirm)),
        (Step::Thaw, |it| matches!(it, Request::ThawStamped { .. })),
        (Step::Answer, |it| matches!(it, Request::Exec(_))),
        (Step::Answer, |it| matches!(it, Request::Attach(_))),
    ];
    thread::scope(|scope| {
        for (step, hangs) in steps {
            scope.spawn(move || {
                let met = meet(SHORT, move |request, _| hangs(request).then_some(Act::Hang));
                let (unconfirmed, text) = told(met);
                assert_eq!(unconfirmed.step, step);
                assert!(
                    matches!(cause(&unconfirmed), ClientError::Timeout(_)),
                    "{step}: {:?}",
                    unconfirmed.source
                );
                assert!(
                    text.contains("daughter 7") && text.contains("hangs"),
                    "{text}"
                );
            });
        }
    });
}

#[test]
fn an_agent_that_accepts_and_never_says_hello_fails_to_be_reached() {
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let (unconfirmed, text) = told(introduce(SHORT, |left| Ok(Client::handshake(ours, left)?)));
    assert_eq!(unconfirmed.step, Step::Connect);
    assert!(text.contains("hangs or is gone"), "{text}");
}

#[test]
fn time_that_is_up_fails_even_an_agent_that_would_answer() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let honest = thread::spawn(move || {
        hello::read(&mut theirs).expect("the engine says hello");
        hello::write(&mut theirs, hello::VERSION).expect("so do we");
        play(theirs, |_, _| None);
    });
    let client = Client::handshake(ours, PATIENCE).expect("hello");
    let (unconfirmed, _) = told(introduce(Duration::ZERO, |left| {
        assert_eq!(left, Duration::ZERO);
        Ok(client)
    }));
    assert_eq!(unconfirmed.step, Step::Stamp);
    assert!(matches!(cause(&unconfirmed), ClientError::Timeout(_)));
    honest.join().expect("the agent is let go");
}

#[test]
fn hellos_of_strangers_are_told_apart_and_each_has_its_remedy() {
    let greeted = |greeting: Vec<u8>| {
        told(introduce(PATIENCE, |left| {
            let (ours, mut theirs) = UnixStream::pair()?;
            theirs.write_all(&greeting)?;
            Ok(Client::handshake(ours, left)?)
        }))
    };
    let mut newer = Vec::new();
    hello::write(&mut newer, hello::VERSION + 1).expect("in memory");
    let (unconfirmed, text) = greeted(newer);
    assert_eq!(unconfirmed.step, Step::Connect);
    let theirs = hello::VERSION + 1;
    assert!(
        matches!(cause(&unconfirmed), ClientError::Version { theirs: it, .. } if *it == theirs)
    );
    assert!(
        text.contains("another version") && text.contains("brood prepare"),
        "{text}"
    );
    let (unconfirmed, text) = greeted(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec());
    assert!(matches!(cause(&unconfirmed), ClientError::Hello(_)));
    assert!(text.contains("something else listens"), "{text}");
}

/// Every way to answer `wanted` wrongly.
fn wrong_answers() -> Vec<Act> {
    let garbage = |len: u32, body: &[u8]| {
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend(body);
        Act::Bytes(bytes)
    };
    vec![
        Act::Say(Box::new(Reply::Ready)),
        Act::Close,
        garbage(4, &[0xff; 4]),
        garbage(u32::MAX, &[]),
        garbage(0, &[]),
        // Half a frame, then nothing, until the end of time that the other side has.
        garbage(100, &[2; 10]),
    ]
}

#[test]
fn wrong_answers_at_any_step_fail_that_step_with_a_remedy() {
    type Is = fn(&Request) -> bool;
    let steps: [(Step, Is); 5] = [
        (Step::Stamp, |it| matches!(it, Request::Stamp { .. })),
        (Step::Clock, |it| matches!(it, Request::Clock { .. })),
        (Step::Confirm, |it| matches!(it, Request::Confirm)),
        (Step::Thaw, |it| matches!(it, Request::ThawStamped { .. })),
        (Step::Answer, |it| matches!(it, Request::Exec(_))),
    ];
    thread::scope(|scope| {
        for (step, is) in steps {
            for wrong in wrong_answers() {
                scope.spawn(move || {
                    let mut wrong = Some(wrong);
                    let met = meet(
                        SHORT,
                        move |request, _| {
                            if is(request) { wrong.take() } else { None }
                        },
                    );
                    let (unconfirmed, text) = told(met);
                    assert_eq!(unconfirmed.step, step, "{:?}", unconfirmed.source);
                    assert!(
                        text.contains("do not trust this guest")
                            || text.contains("hangs or is gone"),
                        "{text}"
                    );
                });
            }
        }
    });
}

#[test]
fn a_refusal_is_handed_on_in_the_agents_words() {
    let met = meet(PATIENCE, |request, _| match request {
        Request::Stamp { .. } => say(Reply::Error(AgentError::StampFailed {
            step: StampStep::Hooks,
            errno: brood_agent_proto::errno::Errno(5),
            detail: "20-db exited with 4".to_owned(),
        })),
        _ => None,
    });
    let (unconfirmed, text) = told(met);
    assert!(text.contains("mend in the mother"), "{text}");
    let whole = format!("{:#}", anyhow::Error::from(unconfirmed));
    assert!(whole.contains("20-db exited with 4"), "{whole}");
}

#[test]
fn whoever_confirms_another_identity_is_not_confirmed() {
    type Lie = fn(&mut ConfirmReport);
    let mothers = MachineId::from_bytes([0xee; 16]).to_string();
    assert_eq!(mothers.len(), 32);
    let lies: [(&str, Lie); 4] = [
        ("hostname", |it| it.hostname = "d6".to_owned()),
        ("machine id", |it| it.machine_id = "ee".repeat(16)),
        ("machine id", |it| it.machine_id.push('0')),
        ("boot id", |it| it.boot_id = "x".repeat(100_000)),
    ];
    for (wanted, lie) in lies {
        let met = meet(PATIENCE, move |request, honest| match request {
            Request::Confirm => {
                let mut report = honest.confirm();
                lie(&mut report);
                say(Reply::Confirmed(report))
            }
            Request::ThawStamped { .. } | Request::Exec(_) => {
                unreachable!("she was taken for who she is not")
            }
            _ => None,
        });
        let (unconfirmed, text) = told(met);
        assert_eq!(unconfirmed.step, Step::Confirm);
        match cause(&unconfirmed) {
            ClientError::Identity {
                field, reported, ..
            } => assert!(*field == wanted && reported.len() <= 128),
            other => unreachable!("{other:?}"),
        }
        assert!(text.contains("/etc/brood/fork.d"), "{text}");
    }
}

#[test]
fn a_thaw_that_is_refused_is_no_machine() {
    let met = meet(PATIENCE, |request, _| match request {
        Request::ThawStamped { .. } => {
            say(Reply::Error(AgentError::Fork(ForkRefusal::WrongMachine)))
        }
        _ => None,
    });
    let (unconfirmed, _) = told(met);
    assert_eq!(unconfirmed.step, Step::Thaw);
    let refused = AgentError::Fork(ForkRefusal::WrongMachine);
    assert!(matches!(cause(&unconfirmed), ClientError::Agent(it) if *it == refused));
}

#[test]
fn a_wall_clock_that_does_not_obey_is_not_confirmed() {
    for reads in [0, 1, u64::MAX] {
        let met = meet(PATIENCE, move |request, _| match request {
            Request::Clock { .. } | Request::ClockStep { .. } => say(Reply::Clocks(Clocks {
                realtime_ns: reads,
                monotonic_ns: 0,
                boottime_ns: 0,
            })),
            _ => None,
        });
        let (unconfirmed, _) = told(met);
        assert_eq!(unconfirmed.step, Step::Clock);
        let why = unconfirmed.source.to_string();
        assert!(why.contains("does not let itself be set"), "{why}");
    }
}

#[test]
fn an_endless_file_stops_at_the_limit() {
    let met = meet(PATIENCE, |request, _| match request {
        Request::FileRead(_) => {
            let mut bytes = Vec::new();
            for _ in 0..20 {
                frame::write_frame(&mut bytes, &Reply::Chunk(vec![0; 100_000].into()))
                    .expect("in memory");
            }
            Some(Act::Bytes(bytes))
        }
        _ => None,
    });
    let (unconfirmed, text) = told(met);
    assert_eq!(unconfirmed.step, Step::Look);
    assert!(matches!(cause(&unconfirmed), ClientError::TooMuch { .. }));
    assert!(text.contains("do not trust this guest"), "{text}");
}
