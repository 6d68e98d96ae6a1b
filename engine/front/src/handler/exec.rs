//! Programs in machines.

use brood_api::exec::{
    self as wire, ExecSpec, Execs, OutputQuery, SignalSpec, StdinSpec, Streams, TerminalQuery,
    TtySize,
};
use brood_service::engine::exec::{
    From, Place, SignalTarget, StartExec, Stdin, StdinWrite, Stream, Which,
};

use super::machine::MACHINE;
use crate::answer::Answer;
use crate::call::{Call, bearer, invalid};
use crate::convert;
use crate::fault::{Refusal, problem};
use crate::output_stream::stream;
use crate::terminal::{Sitting, sit};

const JSON: &str = "application/json";
const STREAM: &str = "text/event-stream";

fn which(call: &Call) -> Result<Which, Refusal> {
    let machine = call.id(MACHINE.parameter)?;
    let exec = call.text("exec")?.parse().map_err(|_| {
        let words = "a program has a number, as the list of its machine shows it";
        invalid("exec", words.to_owned())
    })?;
    Ok(Which { machine, exec })
}

pub(super) async fn start(mut call: Call) -> Result<Answer, Refusal> {
    let idempotency = call.idempotency();
    let spec: ExecSpec = call.body()?;
    let machine = call.id(MACHINE.parameter)?;
    let wanted = StartExec {
        stdin: match spec.has_stdin() {
            true => Stdin::Pipe,
            false => Stdin::None,
        },
        wait: spec.waits(),
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd,
        user: spec.user,
        timeout_ms: spec.timeout.map(brood_api::Span::as_millis),
        tty: spec.tty.map(convert::tty_size),
    };
    let started = call
        .engine()
        .start_exec(call.caller()?, machine, wanted, idempotency);
    Answer::of(&convert::started(started.await.map_err(problem)?))
}

pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let machine = call.id(MACHINE.parameter)?;
    let rows = call.engine().execs(call.caller()?, machine).await;
    let rows = rows.map_err(problem)?;
    Answer::of(&Execs {
        items: rows.into_iter().map(convert::exec).collect(),
    })
}

pub(super) async fn show(call: &Call) -> Result<Answer, Refusal> {
    let row = call.engine().exec(call.caller()?, which(call)?).await;
    Answer::of(&convert::exec(row.map_err(problem)?))
}

pub(super) async fn output(call: Call) -> Result<Answer, Refusal> {
    let which = which(&call)?;
    let query: OutputQuery = call.query()?;
    let from = from(&call, &query)?;
    let (engine, caller) = (call.engine(), call.caller()?);
    if call.prefers(JSON, STREAM)? == STREAM {
        let key = bearer(&call.headers)?.to_owned();
        let follower = engine.follow(caller, which, from).await;
        let follower = follower.map_err(problem)?;
        return Ok(Answer::Stream(stream(call.shared, key, follower)));
    }
    let most = usize::try_from(query.limit()).unwrap_or(usize::MAX);
    let output = engine.output(caller, which, from, most).await;
    Answer::of(&convert::output(output.map_err(problem)?))
}

/// Whoever comes back says from where in a header; whoever comes first, in the query.
fn from(call: &Call, query: &OutputQuery) -> Result<From, Refusal> {
    let again = match call.headers.get("last-event-id") {
        None => None,
        Some(last) => {
            let offset = last.to_str().ok().and_then(|last| last.parse().ok());
            let fits = offset.filter(|offset| query.fits(*offset));
            let none = || {
                let words = "it is the id of an event, as a stream of the same output sent it";
                invalid("Last-Event-ID", words.to_owned())
            };
            Some(fits.ok_or_else(none)?)
        }
    };
    let (one, both) = match again.or(query.offset) {
        None => (0, Place::default()),
        Some(wire::Offset::One(offset)) => (offset, Place::default()),
        Some(wire::Offset::Both(stdout, stderr)) => (0, Place { stdout, stderr }),
    };
    Ok(match query.stream {
        Streams::Both => From::Both(both),
        Streams::Stdout => From::One(Stream::Stdout, one),
        Streams::Stderr => From::One(Stream::Stderr, one),
    })
}

pub(super) async fn stdin(call: &Call) -> Result<Answer, Refusal> {
    let spec: StdinSpec = call.body()?;
    let wanted = StdinWrite {
        close: spec.close,
        bytes: spec.into_bytes(),
    };
    let written = call
        .engine()
        .write_stdin(call.caller()?, which(call)?, wanted);
    written.await.map(|()| Answer::Done).map_err(problem)
}

pub(super) async fn signal(call: &Call) -> Result<Answer, Refusal> {
    let spec: SignalSpec = call.body()?;
    let target = match spec.target {
        wire::SignalTarget::Group => SignalTarget::Group,
        wire::SignalTarget::Leader => SignalTarget::Leader,
    };
    let sent = call
        .engine()
        .signal(call.caller()?, which(call)?, spec.signal, target);
    sent.await.map(|()| Answer::Done).map_err(problem)
}

pub(super) async fn resize(call: &Call) -> Result<Answer, Refusal> {
    let size: TtySize = call.body()?;
    let size = convert::tty_size(size);
    let resized = call
        .engine()
        .resize(call.caller()?, which(call)?, size)
        .await;
    resized.map(|()| Answer::Done).map_err(problem)
}

pub(super) async fn terminal(mut call: Call) -> Result<Answer, Refusal> {
    let which = which(&call)?;
    let query: TerminalQuery = call.query()?;
    let socket = call.socket()?;
    let offset = query.offset.unwrap_or(0);
    let terminal = call.engine().sit(call.caller()?, which, offset).await;
    let sitting = Sitting {
        key: bearer(&call.headers)?.to_owned(),
        terminal: terminal.map_err(problem)?,
        shared: call.shared,
    };
    Ok(Answer::Socket(sit(socket, sitting)))
}
