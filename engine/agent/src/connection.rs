//! One conversation. Invariant: every request gets its replies or the connection closes with a reason; nothing a client
//! sends ends more than its own connection.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use brood_agent_proto::errno::Errno;
use brood_agent_proto::exec::{ExecKey, ExecSpec};
use brood_agent_proto::frame::{self, FrameError};
use brood_agent_proto::hello::{self, HelloError};
use brood_agent_proto::stat::Power;
use brood_agent_proto::{AgentError, ForkToken, Reply, Request, StampSpec};
use brood_units::MachineId;

use crate::agent::ConnectionSlot;
use crate::exec::{Attached, attach};
use crate::fail;
use crate::file::{self, TransferError};
use crate::freezer::{FreezeError, Freezer};
use crate::gate::Spawning;
use crate::serial::enter;
use crate::stamp;
use crate::stat;

/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_secs(10);

/// Longest quiesce, so that the deadline can be represented.
const LONGEST_QUIESCE: Duration = Duration::from_secs(600);

/// How a request left the conversation.
enum Turn {
    /// Send this; the conversation goes on.
    Reply(Reply),
    /// All was sent; the conversation goes on.
    Sent,
    /// Send this and end it.
    Last(AgentError),
    /// Nobody listens any more.
    Gone,
}

/// Serves `stream` until it ends.
pub(crate) fn serve(slot: &ConnectionSlot, mut stream: UnixStream) {
    if !greet(&mut stream) {
        return;
    }
    loop {
        let turn = match frame::read_frame::<Request>(&mut stream) {
            Ok(request) => answer(slot, request, &mut stream),
            Err(error) => unreadable(&error),
        };
        let goes_on = match turn {
            Turn::Reply(reply) => send(&mut stream, &reply),
            Turn::Sent => true,
            Turn::Last(error) => {
                // It closes whether or not the client hears why.
                send(&mut stream, &Reply::Error(error));
                false
            }
            Turn::Gone => false,
        };
        if !goes_on {
            return;
        }
    }
}

/// A frame that does not fit is our own mistake, and the client learns that instead.
fn send(stream: &mut UnixStream, reply: &Reply) -> bool {
    match frame::write_frame(stream, reply) {
        Ok(()) => true,
        Err(FrameError::Length { len }) => {
            let too_long = AgentError::Limit {
                what: format!("bytes of reply, not {len}"),
                limit: u64::try_from(frame::MAX_FRAME).unwrap_or(u64::MAX),
            };
            frame::write_frame(stream, &Reply::Error(too_long)).is_ok()
        }
        Err(_) => false,
    }
}

/// Exchanges hellos; says what is wrong if they do not match.
fn greet(stream: &mut UnixStream) -> bool {
    if stream.set_read_timeout(Some(HELLO)).is_err() {
        return false;
    }
    let theirs = hello::read(stream);
    if matches!(theirs, Err(HelloError::Io(_))) {
        return false;
    }
    if hello::write(stream, hello::VERSION).is_err() {
        return false;
    }
    let detail = match theirs {
        Ok(hello::VERSION) => return stream.set_read_timeout(None).is_ok(),
        Ok(version) => format!(
            "version {version} is not spoken here; {} is",
            hello::VERSION
        ),
        Err(error) => error.to_string(),
    };
    send(stream, &Reply::Error(AgentError::Protocol { detail }));
    false
}

fn unreadable(error: &FrameError) -> Turn {
    match error {
        FrameError::Closed | FrameError::Io(_) => Turn::Gone,
        FrameError::Length { .. } | FrameError::Garbage { .. } => {
            Turn::Last(AgentError::Protocol {
                detail: error.to_string(),
            })
        }
    }
}

fn answer(slot: &ConnectionSlot, request: Request, stream: &mut UnixStream) -> Turn {
    let transferred = |transfer: Result<Reply, TransferError>| match transfer {
        Ok(reply) => Turn::Reply(reply),
        Err(TransferError::Refused(error)) => Turn::Reply(Reply::Error(error)),
        Err(TransferError::Frame(error)) => unreadable(&error),
        Err(TransferError::Unexpected) => out_of_place("another request inside a file"),
    };
    match request {
        Request::Attach(spec) => match slot.agent.sessions.session(spec.exec) {
            Ok(session) => match attach(&session, &spec, stream) {
                Attached::Ended => Turn::Sent,
                Attached::Refused(error) => Turn::Reply(Reply::Error(error)),
                Attached::Gone => Turn::Gone,
            },
            Err(error) => Turn::Reply(Reply::Error(error)),
        },
        Request::FileRead(spec) => transferred(file::read(&spec, stream)),
        Request::FileWrite(spec) => transferred(file::write(&spec, stream)),
        Request::List { path } => transferred(file::list(&path, stream)),
        Request::Chunk(_) | Request::Finish => out_of_place("a piece of no file"),
        Request::Power(power) => power_down(slot, power, stream),
        other => Turn::Reply(reply(slot, other, stream).unwrap_or_else(Reply::Error)),
    }
}

fn out_of_place(detail: &str) -> Turn {
    Turn::Last(AgentError::Protocol {
        detail: detail.to_owned(),
    })
}

/// The requests with a single reply.
fn reply(
    slot: &ConnectionSlot,
    request: Request,
    stream: &UnixStream,
) -> Result<Reply, AgentError> {
    let sessions = &slot.agent.sessions;
    match request {
        Request::Exec(spec) => return start(slot, None, &spec),
        Request::ExecOnce { key, spec } => return start(slot, Some(key), &spec),
        Request::ExecBegun { key } => return Ok(Reply::Begun(sessions.begun(key)?)),
        Request::StdinWrite { exec, bytes } => sessions
            .session(exec)?
            .write_stdin(&bytes.0, stream.as_fd())?,
        Request::StdinClose { exec } => sessions.session(exec)?.close_stdin(stream.as_fd())?,
        Request::ExecStatus { exec } => {
            return Ok(Reply::ExecStatus(sessions.session(exec)?.status()));
        }
        Request::ExecList => return Ok(Reply::ExecList(sessions.list())),
        Request::Signal {
            exec,
            signal,
            target,
        } => sessions.session(exec)?.signal(signal, target)?,
        Request::Resize { exec, size } => sessions.session(exec)?.resize(size)?,
        Request::Remove { exec, removal } => sessions.remove(exec, removal)?,
        Request::Stat { path } => return file::stat(&path),
        Request::RemovePath { path, depth } => return file::remove(&path, depth),
        Request::Mkdir {
            path,
            mode,
            parents,
        } => return file::mkdir(&path, mode, parents),
        Request::Stats => return Ok(Reply::Stats(stat::stats(sessions.len()))),
        Request::Clock { set_realtime_ns } => return clock(slot, set_realtime_ns),
        Request::ClockStep { by_ns } => {
            let system = &slot.agent.system;
            system
                .step_realtime(by_ns)
                .map_err(|error| fail::os("clock_adjtime", &error))?;
            return Ok(Reply::Clocks(system.clocks()));
        }
        Request::Quiesce { token, timeout_ms } => return quiesce(slot, token, timeout_ms),
        Request::Thaw { token } => thaw(slot, token)?,
        Request::Stamp { token, spec } => return apply_stamp(slot, token, &spec),
        Request::Confirm => {
            let _step = enter(&slot.agent.freezer);
            let gate = &slot.agent.gate;
            gate.check_confirm(slot.id).map_err(AgentError::Fork)?;
            let report = stamp::confirm(&slot.agent)?;
            gate.confirmed();
            return Ok(Reply::Confirmed(report));
        }
        Request::ThawStamped { machine_id } => thaw_stamped(slot, machine_id)?,
        Request::Release => release(slot)?,
        // Handled by the caller, which has the stream to itself.
        Request::Attach(_)
        | Request::FileRead(_)
        | Request::FileWrite(_)
        | Request::List { .. }
        | Request::Chunk(_)
        | Request::Finish
        | Request::Power(_) => return Err(fail::invalid("request", "does not belong here")),
    }
    Ok(Reply::Done)
}

fn start(
    slot: &ConnectionSlot,
    key: Option<ExecKey>,
    spec: &ExecSpec,
) -> Result<Reply, AgentError> {
    let base = enter(&slot.agent.env).clone();
    let (sessions, root) = (&slot.agent.sessions, &slot.agent.options.root_prefix);
    let session = match key {
        None => sessions.start(spec, &base, root)?,
        Some(key) => sessions.start_once(key, spec, &base, root)?,
    };
    Ok(Reply::Started {
        exec: session.exec,
        pid: session.status().pid,
    })
}

fn clock(slot: &ConnectionSlot, set_realtime_ns: Option<u64>) -> Result<Reply, AgentError> {
    let system = &slot.agent.system;
    if let Some(realtime_ns) = set_realtime_ns {
        system
            .set_realtime(realtime_ns)
            .map_err(|error| fail::os("clock_settime", &error))?;
    }
    Ok(Reply::Clocks(system.clocks()))
}

fn quiesce(slot: &ConnectionSlot, token: ForkToken, timeout_ms: u32) -> Result<Reply, AgentError> {
    let timeout = Duration::from_millis(u64::from(timeout_ms)).min(LONGEST_QUIESCE);
    let gate = &slot.agent.gate;
    let mut freezer = enter(&slot.agent.freezer);
    let start = Instant::now();
    let deadline = start + timeout;
    let spawning = gate.begin_quiesce(deadline).map_err(AgentError::Fork)?;
    let frozen = match spawning {
        Spawning::None => freezer.freeze(deadline),
        Spawning::Some => Err(FreezeError::Blocked(Vec::new())),
    };
    match frozen {
        Ok(report) => {
            gate.quiesced(token, slot.id);
            Ok(Reply::Quiesced(report))
        }
        Err(error) => {
            gate.running();
            Err(match error {
                FreezeError::Blocked(blockers) => AgentError::QuiesceRefused {
                    waited_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
                    blockers,
                },
                FreezeError::Io { operation, error } => fail::os(operation, &error),
            })
        }
    }
}

fn thaw(slot: &ConnectionSlot, token: ForkToken) -> Result<(), AgentError> {
    let mut freezer = enter(&slot.agent.freezer);
    slot.agent
        .gate
        .check_thaw(token, slot.id)
        .map_err(AgentError::Fork)?;
    run_on(slot, &mut freezer)
}

fn release(slot: &ConnectionSlot) -> Result<(), AgentError> {
    let mut freezer = enter(&slot.agent.freezer);
    slot.agent.gate.check_release().map_err(AgentError::Fork)?;
    run_on(slot, &mut freezer)
}

fn apply_stamp(
    slot: &ConnectionSlot,
    token: ForkToken,
    spec: &StampSpec,
) -> Result<Reply, AgentError> {
    let gate = &slot.agent.gate;
    let mut freezer = enter(&slot.agent.freezer);
    gate.begin_stamp(token, slot.id).map_err(AgentError::Fork)?;
    match stamp::apply(&slot.agent, &mut freezer, spec) {
        Ok(report) => {
            gate.stamped(spec.machine_id, slot.id);
            Ok(Reply::Stamped(report))
        }
        Err(error) => {
            gate.stamp_failed();
            Err(error)
        }
    }
}

fn thaw_stamped(slot: &ConnectionSlot, machine_id: MachineId) -> Result<(), AgentError> {
    let mut freezer = enter(&slot.agent.freezer);
    slot.agent
        .gate
        .check_thaw_stamped(machine_id, slot.id)
        .map_err(AgentError::Fork)?;
    run_on(slot, &mut freezer)
}

/// Lets the workload run on; whether it may has been checked.
fn run_on(slot: &ConnectionSlot, freezer: &mut Freezer) -> Result<(), AgentError> {
    freezer
        .thaw()
        .map_err(|error| fail::os("thawing the workload", &error))?;
    slot.agent.gate.running();
    Ok(())
}

/// Replies first: afterwards there is nobody to.
fn power_down(slot: &ConnectionSlot, power: Power, stream: &mut UnixStream) -> Turn {
    if frame::write_frame(stream, &Reply::Done).is_err() {
        return Turn::Gone;
    }
    if let Err(error) = slot.agent.system.power(power) {
        eprintln!("brood-agent: {power:?}: {}", Errno::from(&error));
    }
    Turn::Gone
}
