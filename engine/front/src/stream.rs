//! Events and decisions as a stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Invariant: a follower gets every event of its tenant behind the number it named, in order, or is told of the gap. It is
//! asked for only as fast as it reads; its stream ends when its key does, or the server.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use brood_api::event::Events;
use brood_api::{Code, Problem};
use brood_service::engine::DecisionQuery;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;

use crate::fault::{Refusal, problem, refusal};
use crate::handler::{decisions_behind, events_behind};
use crate::state::Shared;

/// Events that are sent together.
const BATCH: u32 = 256;

/// From where somebody follows.
pub(crate) struct Follow {
    pub(crate) shared: Shared,
    pub(crate) key: String,
    pub(crate) after: i64,
    pub(crate) source: Source,
}

/// What somebody follows.
pub(crate) enum Source {
    /// Events of the caller's tenant.
    Events,
    /// Decisions, which are committed with an event.
    Decisions(DecisionQuery),
}

struct Follower {
    follow: Follow,
    last: watch::Receiver<i64>,
    over: bool,
}

/// The stream.
pub(crate) fn follow(follow: Follow) -> Body {
    let last = follow.shared.engine.last_event();
    let follower = Follower {
        follow,
        last,
        over: false,
    };
    Body::from_stream(stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), follower))
    }))
}

impl Follower {
    /// What is sent next; none at the end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let shared = self.follow.shared.clone();
        let mut stopping = shared.stopping.clone();
        loop {
            // Seen before it is looked for, so that nothing falls between the look and the wait.
            self.last.borrow_and_update();
            match self.look() {
                Ok(Some(chunk)) => return Some(chunk),
                Ok(None) => {}
                Err(problem) => {
                    self.over = true;
                    return Some(last_words(&problem));
                }
            }
            tokio::select! {
                changed = self.last.changed() => changed.ok()?,
                stopped = stopping.wait_for(|stopping| *stopping) => {
                    self.over = true;
                    return stopped.ok().map(|_| {
                        last_words(&refusal(Code::Stopping, "the server is about to stop"))
                    });
                }
                () = tokio::time::sleep(shared.options.heartbeat) => {
                    return self.lives();
                }
            }
        }
    }

    fn look(&mut self) -> Result<Option<String>, Refusal> {
        let engine = &self.follow.shared.engine;
        let caller = engine.authenticate(&self.follow.key).map_err(problem)?;
        let chunk = match &self.follow.source {
            Source::Events => {
                let page = events_behind(engine, &caller, self.follow.after, BATCH)?;
                self.passes(&page);
                frames(&page)?
            }
            Source::Decisions(query) => {
                let after = Some(self.follow.after);
                let log = decisions_behind(engine, &caller, query, after, BATCH)?;
                if let Some(last) = log.items.last() {
                    self.follow.after = last.number;
                }
                let each = log
                    .items
                    .iter()
                    .map(|one| frame(one.number, "decision", one));
                each.collect::<Result<String, Refusal>>()?
            }
        };
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn passes(&mut self, page: &Events) {
        if let Some(gap) = &page.gap {
            self.follow.after = self.follow.after.max(gap.until);
        }
        if let Some(last) = page.items.last() {
            self.follow.after = last.number;
        }
    }

    /// A comment, which clients pass over, as long as the key holds.
    fn lives(&mut self) -> Option<String> {
        let held = self.follow.shared.engine.authenticate(&self.follow.key);
        match held {
            Ok(_) => Some(":\n\n".to_owned()),
            Err(error) => {
                self.over = true;
                Some(last_words(&problem(error)))
            }
        }
    }
}

/// What a stream says at its end, if that is no good one.
pub(crate) fn last_words(problem: &Problem) -> String {
    let data = serde_json::to_string(problem).unwrap_or_default();
    format!("event: problem\ndata: {data}\n\n")
}

/// A page as frames.
fn frames(page: &Events) -> Result<String, Refusal> {
    let mut frames = String::new();
    if let Some(gap) = &page.gap {
        frames.push_str(&frame(gap.until, "gap", gap)?);
    }
    for event in &page.items {
        frames.push_str(&frame(event.number, &event.kind, event)?);
    }
    Ok(frames)
}

/// JSON has no line breaks of its own, so that one `data` line holds it.
fn frame(id: i64, kind: &str, data: &impl Serialize) -> Result<String, Refusal> {
    let data = serde_json::to_string(data);
    let data = data.map_err(|error| refusal(Code::Failed, error.to_string()))?;
    Ok(format!("id: {id}\nevent: {kind}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use brood_api::Time;
    use brood_api::event::{Event, Gap};
    use brood_units::{MachineId, Timestamp};

    use super::*;

    #[test]
    fn a_frame_has_its_number_its_kind_and_one_line_of_data() {
        let page = Events {
            gap: Some(Gap { until: 6 }),
            items: vec![Event {
                number: 7,
                kind: "machine.born".to_owned(),
                subject: MachineId::from_bytes([1; 16]),
                at: Time(Timestamp::from_millis(0)),
                data: serde_json::json!({ "words": "two\nlines\r" }),
            }],
        };
        let frames = frames(&page).expect("frames");
        let lines: Vec<_> = frames.split('\n').collect();
        assert_eq!(
            lines[..4],
            ["id: 6", "event: gap", "data: {\"until\":6}", ""]
        );
        assert_eq!(lines[4..6], ["id: 7", "event: machine.born"]);
        assert!(lines[6].starts_with("data: {\"number\":7"), "{frames}");
        assert_eq!(lines[7..], ["", ""]);
        assert!(!frames.contains('\r'));
    }
}
