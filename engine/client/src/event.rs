//! Events: a page of them, or a stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Invariant: a follower gives out what the server sent, in its order; a gap and a server's last words are given out like
//! events, and a stream that breaks ends with an error.

use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;

use brood_api::event::{Event, EventQuery, Events, Gap};
use brood_api::policy::{DecisionLog, DecisionQuery, LoggedDecision};
use brood_api::{OperationId as Id, Problem};
use serde::de::DeserializeOwned;

use crate::ask::Ask;
use crate::client::refused;
use crate::{Client, ClientError};

/// The longest line of a stream, bytes. An event is one line.
const LONGEST_LINE: u64 = 16 << 20;

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
    client: Client,
    lines: Box<dyn BufRead + Send>,
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
        let response = self.send(ask.accept("text/event-stream"))?;
        let reader = response.into_body().into_reader();
        Ok(Follower {
            client: self.clone(),
            lines: Box::new(BufReader::new(reader)),
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
    fn line(&mut self) -> Result<String, ClientError> {
        let mut line = Vec::new();
        let read = (&mut self.lines)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line);
        read.map_err(|error| self.client.unreachable(error))?;
        if line.pop() != Some(b'\n') {
            let words = "the stream of events ended";
            return Err(self.client.unreachable(words));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|error| self.odd(&error.to_string(), error.as_bytes()))
    }

    /// The next frame: what it is called, and its data.
    fn frame(&mut self) -> Result<(String, String), ClientError> {
        let (mut kind, mut data) = (String::new(), Vec::new());
        loop {
            let line = self.line()?;
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (line.is_empty(), field) {
                (true, _) if data.is_empty() => kind.clear(),
                (true, _) => return Ok((kind, data.join("\n"))),
                (false, "event") => value.clone_into(&mut kind),
                (false, "data") => data.push(value.to_owned()),
                // A number is in the data as well; a comment says that the server lives.
                (false, _) => {}
            }
        }
    }

    fn told(&mut self) -> Result<Followed<T>, ClientError> {
        let (kind, data) = self.frame()?;
        match kind.as_str() {
            "problem" => {
                let problem: Problem = self.read(&data)?;
                Err(refused(problem, data))
            }
            "gap" => self.read(&data).map(Followed::Gap),
            _ => self.read(&data).map(Followed::Event),
        }
    }

    fn read<V: DeserializeOwned>(&self, data: &str) -> Result<V, ClientError> {
        let read = serde_json::from_str(data);
        read.map_err(|error| self.odd(&error.to_string(), data.as_bytes()))
    }

    fn odd(&self, why: &str, data: &[u8]) -> ClientError {
        self.client.not_understood(200, why, data)
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

    use super::*;

    fn follower(text: &str) -> Follower {
        let address = "http://127.0.0.1:1".parse().expect("an address");
        Follower {
            client: Client::new(address, None),
            lines: Box::new(Cursor::new(text.to_owned().into_bytes())),
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
