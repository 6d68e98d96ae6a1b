//! Events: a page of them, or a stream.
//!
//! Invariant: a follower gives out what the server sent, in its order; a gap and a server's last words are given out like
//! events, and a stream that breaks ends with an error.

use std::marker::PhantomData;

use brood_api::OperationId as Id;
use brood_api::event::{Event, EventQuery, Events, Gap};
use brood_api::policy::{DecisionLog, DecisionQuery, LoggedDecision};
use serde::de::DeserializeOwned;

use crate::ask::Ask;
use crate::frames::{Frames, STREAM};
use crate::{Client, ClientError};

/// What a follower is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed<T = Event> {
    /// Something happened.
    Event(T),
    /// Events are gone that were not seen.
    Gap(Gap),
}

/// Events as they happen. It ends with the error that ended it: the server's last words, or that it cannot be reached.
pub struct Follower<T = Event> {
    frames: Frames,
    over: bool,
    of: PhantomData<fn() -> T>,
}

impl Client {
    /// A page of events.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn events(&self, query: &EventQuery) -> Result<Events, ClientError> {
        let ask = Ask::to(Id::Events).query("after", query.after);
        self.call(ask.query("limit", query.limit))
    }

    /// Events behind a number, and all that happen from then on.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn follow(&self, after: u64) -> Result<Follower, ClientError> {
        let ask = Ask::to(Id::Events);
        self.follow_from(ask.header("Last-Event-ID", Some(after)))
    }

    /// A part of the log of decisions.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn decision_log(&self, query: &DecisionQuery) -> Result<DecisionLog, ClientError> {
        self.call(logged(query).query("limit", query.limit))
    }

    /// Decisions behind a number, or from now on, and all that are made from then on.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn follow_decisions(
        &self,
        query: &DecisionQuery,
    ) -> Result<Follower<LoggedDecision>, ClientError> {
        self.follow_from(logged(query))
    }

    fn follow_from<T>(&self, ask: Ask) -> Result<Follower<T>, ClientError> {
        let response = self.send(ask.accept(STREAM))?;
        Ok(Follower {
            frames: Frames::of(self, response),
            over: false,
            of: PhantomData,
        })
    }
}

fn logged(query: &DecisionQuery) -> Ask {
    Ask::to(Id::DecisionLog)
        .query("after", query.after)
        .query("machine", query.machine)
        .query("denied", query.denied)
        .query("tenant", query.tenant.as_ref())
}

impl<T: DeserializeOwned> Follower<T> {
    fn told(&mut self) -> Result<Followed<T>, ClientError> {
        let (kind, data) = self.frames.next()?;
        match kind.as_str() {
            "gap" => self.frames.read(&data).map(Followed::Gap),
            _ => self.frames.read(&data).map(Followed::Event),
        }
    }
}

impl<T: DeserializeOwned> Iterator for Follower<T> {
    type Item = Result<Followed<T>, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let told = self.told();
        self.over = told.is_err();
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use brood_api::Problem;

    use super::*;

    fn follower(text: &str) -> Follower {
        let address = "http://127.0.0.1:1".parse().expect("an address");
        let lines = Cursor::new(text.to_owned().into_bytes());
        Follower {
            frames: Frames::new(Client::new(address, None), lines),
            over: false,
            of: PhantomData,
        }
    }

    #[test]
    fn a_stream_is_read_frame_by_frame_and_ends_with_the_servers_last_words() {
        let event = r#"{"number":7,"kind":"machine.born","subject":"00000000000000000000000000000001","at":"2026-11-27T02:03:04Z","data":{}}"#;
        let problem = serde_json::to_string(&Problem::new(brood_api::Code::Stopping, "soon"));
        let problem = problem.expect("JSON");
        let text = format!(
            ":\n\nid: 6\nevent: gap\ndata: {{\"until\":6}}\n\n:\r\n\r\nid: 7\r\nevent: machine.born\r\ndata: {event}\r\n\r\nevent: problem\ndata: {problem}\n\nid: 8\n"
        );
        let mut told = follower(&text);
        let gap = told.next().expect("a gap").expect("good");
        assert_eq!(gap, Followed::Gap(Gap { until: 6 }));
        let Some(Ok(Followed::Event(seen))) = told.next() else {
            unreachable!("an event comes next");
        };
        assert_eq!((seen.number, seen.kind.as_str()), (7, "machine.born"));
        let last = told.next().expect("last words").expect_err("a problem");
        let code = last.problem().map(|problem| problem.code);
        assert_eq!(code, Some(brood_api::Code::Stopping));
        assert!(told.next().is_none());
    }

    #[test]
    fn a_stream_that_breaks_or_is_none_ends_with_an_error() {
        let broken = follower("id: 6\nevent: gap\ndata: {\"un").next();
        assert!(matches!(broken, Some(Err(ClientError::Unreachable { .. }))));
        let odd = follower("data: <html>\n\n").next();
        assert!(matches!(odd, Some(Err(ClientError::NotUnderstood { .. }))));
    }
}
