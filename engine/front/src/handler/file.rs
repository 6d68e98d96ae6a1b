//! Files of a machine.
//!
//! Invariant: contents pass through a chunk at a time. What goes wrong before the first chunk is a problem; after it, a
//! connection that breaks off, since the status has been sent.

use std::io;

use axum::body::{Body, Bytes};
use brood_api::Time;
use brood_api::file::{
    Directory, DirectoryEntry, FileKind, FileStat, FileWritten, PathQuery, RemoveQuery, WriteQuery,
};
use brood_service::engine::{self, RemoveDepth};
use brood_units::{MachineId, Timestamp};
use futures_util::stream;

use super::machine::{MACHINE, known};
use crate::answer::Answer;
use crate::call::Call;
use crate::fault::{Refusal, problem};

/// Whom a request is about, and which path of hers.
fn place(call: &Call) -> Result<(MachineId, String), Refusal> {
    let id = known(call, MACHINE)?.id;
    Ok((id, format!("/{}", call.text("path")?)))
}

pub(super) async fn read(call: &Call) -> Result<Answer, Refusal> {
    let (id, path) = place(call)?;
    let chunks = call.engine().read_file(call.caller()?, id, &path).await;
    let chunks = chunks.map_err(problem)?;
    let chunks = stream::unfold(chunks, |mut chunks| async move {
        let next = chunks.next().await?;
        let next = next.map(Bytes::from);
        Some((
            next.map_err(|error| io::Error::other(error.to_string())),
            chunks,
        ))
    });
    Ok(Answer::Bytes(Body::from_stream(chunks)))
}

pub(super) async fn write(mut call: Call) -> Result<Answer, Refusal> {
    let query: WriteQuery = call.query()?;
    let (id, path) = place(&call)?;
    let sink = call
        .engine()
        .write_file(call.caller()?, id, &path, query.mode)
        .await;
    let sink = sink.map_err(problem)?;
    while let Some(chunk) = call.chunk().await? {
        if !sink.send(chunk.into()).await {
            break;
        }
    }
    let bytes = sink.finish().await.map_err(problem)?;
    Answer::of(&FileWritten { bytes })
}

pub(super) async fn remove(call: &Call) -> Result<Answer, Refusal> {
    let query: RemoveQuery = call.query()?;
    let (id, path) = place(call)?;
    let depth = match query.recursive.unwrap_or(false) {
        true => RemoveDepth::Recursive,
        false => RemoveDepth::Single,
    };
    let removed = call
        .engine()
        .remove_file(call.caller()?, id, &path, depth)
        .await;
    removed.map(|()| Answer::Done).map_err(problem)
}

pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let query: PathQuery = call.query()?;
    let id = known(call, MACHINE)?.id;
    let entries = call
        .engine()
        .directory(call.caller()?, id, &query.path)
        .await;
    let items = entries.map_err(problem)?.into_iter();
    let items = items.map(|entry| DirectoryEntry {
        name: entry.name,
        kind: kind(entry.kind),
    });
    Answer::of(&Directory {
        items: items.collect(),
    })
}

pub(super) async fn stat(call: &Call) -> Result<Answer, Refusal> {
    let query: PathQuery = call.query()?;
    let id = known(call, MACHINE)?.id;
    let stat = call
        .engine()
        .file_stat(call.caller()?, id, &query.path)
        .await;
    let stat = stat.map_err(problem)?;
    Answer::of(&FileStat {
        kind: kind(stat.kind),
        mode: stat.mode,
        size: stat.size,
        uid: stat.uid,
        gid: stat.gid,
        modified_at: Time(Timestamp::from_millis(stat.mtime_ns.div_euclid(1_000_000))),
        link: stat.link,
    })
}

const fn kind(kind: engine::FileKind) -> FileKind {
    match kind {
        engine::FileKind::Regular => FileKind::Regular,
        engine::FileKind::Directory => FileKind::Directory,
        engine::FileKind::Symlink => FileKind::Symlink,
        engine::FileKind::Other => FileKind::Other,
    }
}
