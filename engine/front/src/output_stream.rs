//! A program's output as a stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! ```text
//!  id: 120-7        id: 120-7              id: 131-7          id: 131-7
//!  event: lost      …                      event: output      event: end
//!  data: {stream, offset, bytes}           data: {…}          data: the program
//! ```
//!
//! Invariant: an id is the place from which to read on, so that whoever comes back with the last one misses nothing that is
//! still there and gets nothing twice. A piece is asked for when the one before was read; the stream ends with the program,
//! with its key, or with the server.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use brood_api::exec::{Lost, Offset};
use brood_api::{Code, Problem};
use brood_service::engine::exec::{ExecRow, Followed, Follower, Piece};
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::convert;
use crate::fault::{Refusal, problem, refusal};
use crate::state::{Shared, stop};
use crate::stream::last_words;

struct OutputStream {
    shared: Shared,
    key: String,
    follower: Follower,
    beat: Interval,
    last: Option<Offset>,
    over: bool,
}

/// The stream.
pub(crate) fn stream(shared: Shared, key: String, follower: Follower) -> Body {
    let output = OutputStream {
        beat: beat(&shared),
        shared,
        key,
        follower,
        last: None,
        over: false,
    };
    Body::from_stream(stream::unfold(output, |mut output| async move {
        let chunk = output.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), output))
    }))
}

/// When something is said though there is nothing to say, and the key is looked at.
pub(crate) fn beat(shared: &Shared) -> Interval {
    let every = shared.options.heartbeat;
    let mut beat = interval_at(tokio::time::Instant::now() + every, every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

impl OutputStream {
    /// What is sent next; none at the end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let chunk = match self.hear().await {
            Ok(chunk) => chunk,
            Err(problem) => {
                self.over = true;
                last_words(&problem)
            }
        };
        Some(chunk)
    }

    async fn hear(&mut self) -> Result<String, Refusal> {
        let mut stopping = std::pin::pin!(stop(self.shared.stopping.clone()));
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => return Err(stops()),
                _ = self.beat.tick() => {
                    let held = self.shared.engine.authenticate(&self.key);
                    held.map_err(problem)?;
                    return Ok(":\n\n".to_owned());
                }
                () = self.follower.ready() => {}
            }
            match self.follower.take().await.map_err(problem)? {
                None => {}
                Some(Followed::Piece(piece)) => return self.piece(piece),
                Some(Followed::Ended(row)) => {
                    self.over = true;
                    return end(self.last, row);
                }
            }
        }
    }

    fn piece(&mut self, piece: Piece) -> Result<String, Refusal> {
        let next = convert::offset(piece.next);
        self.last = Some(next);
        pieces(next, piece)
    }
}

pub(crate) fn stops() -> Refusal {
    refusal(Code::Stopping, "the server is about to stop")
}

/// A piece, and what was lost before it.
fn pieces(next: Offset, piece: Piece) -> Result<String, Refusal> {
    let lost = piece.lost;
    let mut piece = convert::piece(piece);
    let mut frames = String::new();
    if lost > 0 {
        // Without an id: whoever is cut off here comes back to before the loss, and is told of it again.
        let lost = Lost {
            stream: piece.stream,
            offset: piece.offset.saturating_sub(lost),
            bytes: lost,
        };
        frames.push_str(&frame(None, "lost", &lost)?);
    }
    piece.lost = 0;
    frames.push_str(&frame(Some(next), "output", &piece)?);
    Ok(frames)
}

fn end(last: Option<Offset>, row: ExecRow) -> Result<String, Refusal> {
    frame(last, "end", &convert::exec(row))
}

/// JSON has no line breaks of its own, so that one `data` line holds it.
fn frame(id: Option<Offset>, event: &str, data: &impl Serialize) -> Result<String, Refusal> {
    let data = serde_json::to_string(data);
    let data =
        data.map_err(|error| -> Box<Problem> { refusal(Code::Failed, error.to_string()) })?;
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Ok(format!("{id}event: {event}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use brood_service::engine::exec::{From, Place, Stream};

    use super::*;

    #[test]
    fn a_piece_carries_the_place_behind_it_and_says_first_what_was_lost() {
        let piece = |lost| Piece {
            stream: Stream::Stderr,
            offset: 40,
            lost,
            bytes: b"two\nlines\r".to_vec(),
            next: From::Both(Place {
                stdout: 7,
                stderr: 50,
            }),
        };
        let frames = |lost| {
            let piece = piece(lost);
            pieces(convert::offset(piece.next), piece).expect("frames")
        };
        let output = "id: 7-50\nevent: output\n\
            data: {\"stream\":\"stderr\",\"offset\":40,\"data\":\"dHdvCmxpbmVzDQ==\"}\n\n";
        assert_eq!(frames(0), output);
        let lost = "event: lost\ndata: {\"stream\":\"stderr\",\"offset\":30,\"bytes\":10}\n\n";
        assert_eq!(frames(10), format!("{lost}{output}"));
    }
}
