//! What the engine answers, as it goes over the wire.

use brood_api::exec::{self as wire, Base64, Exec, Offset, Output, OutputPiece, StartedExec};
use brood_api::fork::{Daughter, ForkAnswer, ForkTiming};
use brood_api::key::{Key, Scope};
use brood_api::machine::{Kind, Machine, MachineStats, State};
use brood_api::snapshot::Snapshot;
use brood_api::template::{GuestKind, Template, Visibility};
use brood_api::{Code, Page, Span, Time};
use brood_service::engine::exec::{
    ExecRow, ExecState, From, OutputAnswer, Piece, Started, Stream, TtySize,
};
use brood_service::engine::{
    self, Caller, KeyAnswer, MachineAnswer, PageAnswer, SnapshotAnswer, TemplateRow,
};

use crate::answer::Stages;
use crate::fault::{Refusal, refusal};

/// A word that this edge does not know is the engine's mistake.
fn unknown(what: &str, word: &str) -> Refusal {
    refusal(Code::Failed, format!("the engine has a {what} '{word}'"))
}

pub(crate) fn machine(answer: MachineAnswer) -> Result<Machine, Refusal> {
    let kind = match answer.kind.as_str() {
        "machine" => Kind::Machine,
        "checkpoint" => Kind::Checkpoint,
        other => return Err(unknown("kind", other)),
    };
    let state = match answer.state.as_str() {
        "running" => State::Running,
        "paused" => State::Paused,
        "frozen" => State::Frozen,
        "hibernated" => State::Hibernated,
        "ended" => State::Ended,
        other => return Err(unknown("state", other)),
    };
    Ok(Machine {
        id: answer.id,
        kind,
        name: answer.name,
        project: answer.project,
        state,
        mother: answer.mother,
        lineage: answer.lineage,
        template: answer.template,
        generation: answer.generation,
        vcpu_milli: answer.vcpu_milli,
        memory_mib: answer.memory_mib,
        labels: answer.labels,
        created_at: Time(answer.created),
        expires_at: answer.expires.map(Time),
        idle: answer.idle_ms.map(Span::from_millis),
        ended_at: answer.ended.map(Time),
        ending: answer.ending,
        stats: None,
    })
}

pub(crate) const fn stats(answer: &engine::StatsAnswer) -> MachineStats {
    MachineStats {
        private_kib: answer.private_kib,
        pss_kib: answer.pss_kib,
    }
}

pub(crate) fn page<T, U>(
    answer: PageAnswer<T>,
    item: impl Fn(T) -> Result<U, Refusal>,
) -> Result<Page<U>, Refusal> {
    Ok(Page {
        items: answer
            .items
            .into_iter()
            .map(item)
            .collect::<Result<_, _>>()?,
        next: answer.next.map(brood_api::Cursor),
    })
}

fn guest(word: &str) -> Result<GuestKind, Refusal> {
    match word {
        "linux" => Ok(GuestKind::Linux),
        "bare" => Ok(GuestKind::Bare),
        other => Err(unknown("guest", other)),
    }
}

pub(crate) fn snapshot(answer: SnapshotAnswer) -> Result<Snapshot, Refusal> {
    Ok(Snapshot {
        id: answer.id,
        name: answer.name,
        machine: answer.machine,
        hibernates: answer.hibernates,
        template: answer.template,
        lineage: answer.lineage,
        generation: answer.generation,
        guest: guest(&answer.guest)?,
        vcpu_milli: answer.vcpu_milli,
        memory_mib: answer.memory_mib,
        labels: answer.labels,
        bytes: answer.bytes,
        created_at: Time(answer.created),
    })
}

pub(crate) fn template(caller: &Caller, row: TemplateRow) -> Result<Template, Refusal> {
    Ok(Template {
        own: row.tenant == caller.tenant(),
        id: row.id,
        name: row.name,
        guest: guest(&row.guest)?,
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        visibility: match row.visibility {
            engine::Visibility::Private => Visibility::Private,
            engine::Visibility::Public => Visibility::Public,
        },
        created_at: Time(row.created),
    })
}

pub(crate) fn key(answer: KeyAnswer) -> Result<Key, Refusal> {
    let scope = |word: &String| {
        let known = Scope::ALL.iter().find(|scope| scope.as_str() == word);
        known.copied().ok_or_else(|| unknown("scope", word))
    };
    Ok(Key {
        id: answer.id,
        name: answer.name,
        project: answer.project,
        scopes: answer.scopes.iter().map(scope).collect::<Result<_, _>>()?,
        created_at: Time(answer.created),
        expires_at: answer.expires.map(Time),
        revoked_at: answer.revoked.map(Time),
    })
}

/// What became of a fork, and where its time went.
pub(crate) fn fork(
    requested: u32,
    answer: engine::ForkAnswer,
) -> Result<(ForkAnswer, Stages), Refusal> {
    let timing = ForkTiming {
        decided_us: answer.decided_us,
        forked_us: answer.forked_us,
        mother_pause_us: answer.mother_pause_us,
    };
    let mut stages = vec![("decide", timing.decided_us), ("fork", timing.forked_us)];
    stages.extend(timing.mother_pause_us.map(|pause| ("mother-pause", pause)));
    let ready = answer.daughters.len();
    let mut daughters = Vec::with_capacity(ready + answer.missing.len());
    for one in answer.daughters {
        daughters.push(Daughter {
            machine: Some(machine(one.machine)?),
            problem: None,
            hostname: Some(one.hostname).filter(|name| !name.is_empty()),
            first_instruction_us: one.first_instruction_us,
            confirmed_us: one.confirmed_us,
        });
    }
    daughters.extend(answer.missing.into_iter().map(|why| Daughter {
        problem: Some(*refusal(Code::Failed, why)),
        ..Daughter::default()
    }));
    let answer = ForkAnswer {
        intent: answer.intent,
        requested,
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        daughters,
        warnings: answer.warnings,
        timing,
    };
    Ok((answer, stages))
}

pub(crate) fn exec(row: ExecRow) -> Exec {
    Exec {
        id: row.exec,
        machine: row.machine,
        argv: row.argv,
        state: match row.state {
            ExecState::Running => wire::ExecState::Running,
            ExecState::Exited => wire::ExecState::Exited,
            ExecState::Signaled => wire::ExecState::Signaled,
            ExecState::TimedOut => wire::ExecState::TimedOut,
            ExecState::Lost => wire::ExecState::Lost,
        },
        code: row.code,
        signal: row.signal,
        created_at: Time(row.created),
        ended_at: row.ended.map(Time),
    }
}

pub(crate) fn started(started: Started) -> StartedExec {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = started.ran;
    StartedExec {
        exec: exec(started.exec),
        stdout: ran.as_ref().map(|ran| text(&ran.stdout)),
        stderr: ran.as_ref().map(|ran| text(&ran.stderr)),
        lost: ran.map(|ran| ran.lost),
    }
}

pub(crate) fn stream(stream: Stream) -> wire::Stream {
    match stream {
        Stream::Stdout => wire::Stream::Stdout,
        Stream::Stderr => wire::Stream::Stderr,
    }
}

pub(crate) fn offset(from: From) -> Offset {
    match from {
        From::One(_, offset) => Offset::One(offset),
        From::Both(place) => Offset::Both(place.stdout, place.stderr),
    }
}

pub(crate) fn piece(piece: Piece) -> OutputPiece {
    OutputPiece {
        stream: stream(piece.stream),
        offset: piece.offset,
        lost: piece.lost,
        data: Base64(piece.bytes),
    }
}

pub(crate) fn output(answer: OutputAnswer) -> Output {
    Output {
        pieces: answer.pieces.into_iter().map(piece).collect(),
        next: offset(answer.next),
        ended: answer.ended,
    }
}

pub(crate) fn tty_size(size: wire::TtySize) -> TtySize {
    TtySize {
        rows: size.rows,
        cols: size.cols,
    }
}
