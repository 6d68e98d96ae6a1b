//! Snapshots, and machines that sleep in them.
//!
//! Invariant: exported bytes pass through a chunk at a time. What goes wrong before the first is a problem; after it, a
//! connection that breaks off, since the status has been sent.

use std::io;

use axum::body::{Body, Bytes};
use brood_api::fork::ForkSpec;
use brood_api::snapshot::{ImportQuery, Snapshot, SnapshotSpec};
use brood_api::{ListQuery, Page as WirePage};
use brood_service::engine::{Page, TakeSnapshot};
use futures_util::stream;

use super::machine::{MACHINE, Named, fork_of, known};
use crate::answer::Answer;
use crate::call::Call;
use crate::convert;
use crate::fault::{Refusal, problem};

pub(super) async fn take(mut call: Call, of: Named) -> Result<Answer, Refusal> {
    let spec: SnapshotSpec = call.body()?;
    let id = known(&call, of)?.id;
    let idempotency = call.idempotency();
    let wanted = TakeSnapshot {
        name: spec.name,
        labels: spec.labels,
    };
    let taken = call
        .engine()
        .take_snapshot(call.caller()?, id, wanted, idempotency);
    Answer::of(&convert::snapshot(taken.await.map_err(problem)?)?)
}

pub(super) fn list(call: &Call) -> Result<Answer, Refusal> {
    let query: ListQuery = call.query()?;
    let page = Page {
        after: query.after(),
        limit: query.limit(),
    };
    let found = call.engine().snapshots(call.caller()?, page);
    let page: WirePage<Snapshot> = convert::page(found.map_err(problem)?, convert::snapshot)?;
    Answer::of(&page)
}

pub(super) fn show(call: &Call) -> Result<Answer, Refusal> {
    let found = call
        .engine()
        .show_snapshot(call.caller()?, call.text("snapshot")?);
    Answer::of(&convert::snapshot(found.map_err(problem)?)?)
}

pub(super) async fn remove(call: &Call) -> Result<Answer, Refusal> {
    let which = call.text("snapshot")?;
    let removed = call.engine().remove_snapshot(call.caller()?, which).await;
    removed.map(|()| Answer::Done).map_err(problem)
}

pub(super) async fn fork(mut call: Call) -> Result<Answer, Refusal> {
    let spec: ForkSpec = call.body()?;
    let requested = spec.count;
    let idempotency = call.idempotency();
    let which = call.text("snapshot")?;
    let forked = call
        .engine()
        .fork_snapshot(call.caller()?, which, fork_of(spec), idempotency);
    let (answer, stages) = convert::fork(requested, forked.await.map_err(problem)?)?;
    Answer::timed(&answer, stages)
}

pub(super) async fn export(call: &Call) -> Result<Answer, Refusal> {
    let which = call.text("snapshot")?;
    let bytes = call.engine().export_snapshot(call.caller()?, which).await;
    let bytes = stream::unfold(bytes.map_err(problem)?, |mut bytes| async move {
        let next = bytes.next().await?;
        let next = next.map(Bytes::from);
        Some((
            next.map_err(|error| io::Error::other(error.to_string())),
            bytes,
        ))
    });
    Ok(Answer::Bytes(Body::from_stream(bytes)))
}

pub(super) async fn import(mut call: Call) -> Result<Answer, Refusal> {
    let query: ImportQuery = call.query()?;
    let sink = call.engine().import_snapshot(call.caller()?, query.name);
    let sink = match sink.await {
        Ok(sink) => sink,
        Err(error) => {
            while call.chunk().await?.is_some() {}
            return Err(problem(error));
        }
    };
    // Many clients hear no answer before all that they have is sent: what nobody wants any more is read all the same.
    while let Some(chunk) = call.chunk().await? {
        sink.send(chunk.into()).await;
    }
    let imported = sink.finish().await.map_err(problem)?;
    Answer::of(&convert::snapshot(imported)?)
}

pub(super) async fn hibernate(call: &Call) -> Result<Answer, Refusal> {
    let id = known(call, MACHINE)?.id;
    let slept = call.engine().hibernate(call.caller()?, id).await;
    Answer::of(&convert::machine(slept.map_err(problem)?)?)
}

pub(super) async fn wake(call: &Call) -> Result<Answer, Refusal> {
    let id = known(call, MACHINE)?.id;
    let woken = call.engine().wake(call.caller()?, id).await;
    Answer::of(&convert::machine(woken.map_err(problem)?)?)
}
