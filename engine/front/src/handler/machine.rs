//! Machines and checkpoints.

use brood_api::fork::{self as wire, ForkSpec as WireFork};
use brood_api::machine::{
    EndAnswer, EndQuery, Machine, MachineListQuery, MachineSpec, NamedMachineSpec, State, Tree,
    TreeQuery, TtlSpec,
};
use brood_api::{Code, Page as WirePage, Span};
use brood_service::ask::{ForkSpec, Secret, SecretTarget, Secrets, StampFile};
use brood_service::engine::{
    Change, CreateMachine, ForkMachine, MachineKind, MachineQuery, OnError, Page,
};
use brood_units::MachineId;
use futures_util::future::join_all;

use crate::answer::Answer;
use crate::call::Call;
use crate::convert;
use crate::fault::{Refusal, problem, refusal};

/// Permission bits of a file if nobody says.
const FILE_MODE: u32 = 0o644;

/// A kind of object, as paths name it.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub(super) parameter: &'static str,
    kind: MachineKind,
}

pub(super) const MACHINE: Named = Named {
    parameter: "machine",
    kind: MachineKind::Machine,
};
pub(super) const CHECKPOINT: Named = Named {
    parameter: "checkpoint",
    kind: MachineKind::Checkpoint,
};

pub(super) fn list(call: &Call, named: Named) -> Result<Answer, Refusal> {
    let query: MachineListQuery = call.query()?;
    let page = query.page();
    let wanted = MachineQuery {
        tenant: call.caller()?.tenant().to_owned(),
        kind: named.kind,
        label: query
            .label()
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        ended: query.ended.unwrap_or(false),
    };
    let page = Page {
        after: page.after(),
        limit: page.limit(),
    };
    let found = call.engine().machines(call.caller()?, wanted, page);
    let page: WirePage<Machine> = convert::page(found.map_err(problem)?, convert::machine)?;
    Answer::of(&page)
}

pub(super) fn show(call: &Call, named: Named) -> Result<Answer, Refusal> {
    Answer::of(&known(call, named)?)
}

/// The one that the path names, if it is of the kind that the path says.
pub(super) fn known(call: &Call, named: Named) -> Result<Machine, Refusal> {
    let id: MachineId = call.id(named.parameter)?;
    let found = call.engine().machine(call.caller()?, id).map_err(problem)?;
    if found.kind != named.kind.as_str() {
        let words = format!("there is no {} {id}", named.parameter);
        return Err(refusal(Code::NotFound, words));
    }
    convert::machine(found)
}

pub(super) async fn tree(call: &Call) -> Result<Answer, Refusal> {
    let query: TreeQuery = call.query()?;
    let id: MachineId = call.id(MACHINE.parameter)?;
    let family = call.engine().tree(call.caller()?, id).map_err(problem)?;
    let nodes = family.into_iter().map(convert::machine);
    let mut nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    if query.stats.unwrap_or(false) {
        cost(call, &mut nodes).await?;
    }
    let lineage = nodes.first().map_or(id, |first| first.lineage);
    Answer::of(&Tree { lineage, nodes })
}

/// Says what each costs who lives.
async fn cost(call: &Call, nodes: &mut [Machine]) -> Result<(), Refusal> {
    let (engine, caller) = (call.engine(), call.caller()?);
    let living = nodes.iter_mut().filter(|one| one.state != State::Ended);
    let looks = living.map(|one| async move {
        // She may have ended meanwhile.
        let stats = engine.stats(caller, one.id).await.ok();
        one.stats = stats.as_ref().map(convert::stats);
    });
    join_all(looks).await;
    Ok(())
}

pub(super) async fn set_ttl(call: &Call) -> Result<Answer, Refusal> {
    let spec: TtlSpec = call.body()?;
    let id = known(call, MACHINE)?.id;
    let ttl_ms = spec.ttl.map(Span::as_millis);
    let changed = call.engine().set_ttl(call.caller()?, id, ttl_ms).await;
    Answer::of(&convert::machine(changed.map_err(problem)?)?)
}

pub(super) async fn stats(call: &Call) -> Result<Answer, Refusal> {
    let id = known(call, MACHINE)?.id;
    let stats = call.engine().stats(call.caller()?, id).await;
    let stats = stats.map_err(problem)?;
    Answer::of(&convert::stats(&stats))
}

pub(super) async fn create(mut call: Call) -> Result<Answer, Refusal> {
    let spec: MachineSpec = call.body()?;
    let idempotency = call.idempotency();
    let made = call
        .engine()
        .create_machine(call.caller()?, wanted(spec, false), idempotency);
    Answer::of(&convert::machine(made.await.map_err(problem)?)?)
}

pub(super) async fn named(call: Call) -> Result<Answer, Refusal> {
    let spec: NamedMachineSpec = call.body()?;
    let name = call.text("name")?.to_owned();
    let wanted = wanted(spec.named(name), true);
    let made = call.engine().create_machine(call.caller()?, wanted, None);
    Answer::of(&convert::machine(made.await.map_err(problem)?)?)
}

fn wanted(spec: MachineSpec, reuse: bool) -> CreateMachine {
    CreateMachine {
        template: spec.template,
        name: spec.name,
        reuse,
        labels: spec.labels,
        ttl_ms: spec.ttl.map(Span::as_millis),
        idle_ms: spec.idle.map(Span::as_millis),
    }
}

pub(super) async fn end(call: Call, named: Named) -> Result<Answer, Refusal> {
    let query = match named.kind {
        MachineKind::Machine => call.query::<EndQuery>()?,
        MachineKind::Checkpoint => EndQuery::default(),
    };
    let id = known(&call, named)?.id;
    let subtree = query.cascade.unwrap_or(false);
    let ended = call.engine().end(call.caller()?, id, subtree).await;
    Answer::of(&EndAnswer {
        ended: ended.map_err(problem)?,
    })
}

pub(super) async fn pause(call: &Call) -> Result<Answer, Refusal> {
    change(call, Change::Pause).await
}

pub(super) async fn resume(call: &Call) -> Result<Answer, Refusal> {
    change(call, Change::Resume).await
}

async fn change(call: &Call, change: Change) -> Result<Answer, Refusal> {
    let id: MachineId = call.id(MACHINE.parameter)?;
    let changed = call.engine().change(call.caller()?, id, change).await;
    Answer::of(&convert::machine(changed.map_err(problem)?)?)
}

pub(super) async fn checkpoint(mut call: Call) -> Result<Answer, Refusal> {
    let id: MachineId = call.id(MACHINE.parameter)?;
    let idempotency = call.idempotency();
    let kept = call.engine().checkpoint(call.caller()?, id, idempotency);
    let kept = kept.await.map_err(problem)?;
    Answer::of(&convert::machine(kept.checkpoint)?)
}

pub(super) async fn fork(mut call: Call, named: Named) -> Result<Answer, Refusal> {
    let spec: WireFork = call.body()?;
    let id = known(&call, named)?.id;
    let requested = spec.count;
    let idempotency = call.idempotency();
    let forked = call
        .engine()
        .fork(call.caller()?, id, fork_of(spec), idempotency);
    let (answer, stages) = convert::fork(requested, forked.await.map_err(problem)?)?;
    Answer::timed(&answer, stages)
}

/// A secret with its place; each has one, or the request was refused.
fn secret(wanted: wire::GiveSecret) -> Option<Secret> {
    let env = wanted.env.map(SecretTarget::Env);
    Some(Secret {
        name: wanted.name,
        version: wanted.version.map(|version| version.to_string()),
        target: env.or(wanted.file.map(SecretTarget::File))?,
    })
}

/// A fork as the engine takes it.
pub(super) fn fork_of(spec: WireFork) -> ForkMachine {
    let files = spec.files.into_iter().map(|file| StampFile {
        path: file.path,
        mode: file.mode.unwrap_or(FILE_MODE),
        bytes: file.text.into_bytes().into(),
    });
    ForkMachine {
        on_error: match spec.on_error {
            wire::OnError::Keep => OnError::Keep,
            wire::OnError::End => OnError::EndAll,
        },
        name: None,
        idle_ms: spec.idle.map(Span::as_millis),
        spec: ForkSpec {
            min_count: spec.min_count.unwrap_or(spec.count),
            labels: spec.labels,
            ttl_ms: spec.ttl.map(Span::as_millis),
            env: spec.env,
            files: files.collect(),
            give: spec.give_secrets.into_iter().filter_map(secret).collect(),
            secrets: match spec.secrets {
                wire::Secrets::Drop => Secrets::Drop,
                wire::Secrets::Inherit => Secrets::Inherit,
            },
            priority: spec.priority,
            ..ForkSpec::of(spec.count)
        },
    }
}
