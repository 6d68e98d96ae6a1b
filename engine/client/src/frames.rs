//! Frames of a stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Invariant: a frame is given out whole or not at all; a server's last words, and a stream that breaks, are errors.

use std::io::{BufRead, BufReader, Read};

use brood_api::Problem;
use serde::de::DeserializeOwned;
use ureq::Body;
use ureq::http::Response;

use crate::client::refused;
use crate::{Client, ClientError};

pub(crate) const STREAM: &str = "text/event-stream";
/// The longest line of a stream, bytes. What is sent at once is one line.
const LONGEST_LINE: u64 = 16 << 20;

/// A stream that is read frame by frame.
pub(crate) struct Frames {
    client: Client,
    lines: Box<dyn BufRead + Send>,
}

impl Frames {
    pub(crate) fn of(client: &Client, response: Response<Body>) -> Self {
        let reader = BufReader::new(response.into_body().into_reader());
        Self::new(client.clone(), reader)
    }

    pub(crate) fn new(client: Client, lines: impl BufRead + Send + 'static) -> Self {
        let lines = Box::new(lines);
        Self { client, lines }
    }

    /// The next one: what it is called, and its data.
    pub(crate) fn next(&mut self) -> Result<(String, String), ClientError> {
        let (kind, data) = self.frame()?;
        if kind == "problem" {
            let problem: Problem = self.read(&data)?;
            return Err(refused(problem, data));
        }
        Ok((kind, data))
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, data: &str) -> Result<T, ClientError> {
        let read = serde_json::from_str(data);
        read.map_err(|error| self.odd(&error.to_string(), data.as_bytes()))
    }

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

    fn line(&mut self) -> Result<String, ClientError> {
        let mut line = Vec::new();
        let read = (&mut self.lines)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line);
        read.map_err(|error| self.client.unreachable(error))?;
        if line.pop() != Some(b'\n') {
            return Err(self.client.unreachable("the stream ended"));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|error| self.odd(&error.to_string(), error.as_bytes()))
    }

    fn odd(&self, why: &str, data: &[u8]) -> ClientError {
        self.client.not_understood(200, why, data)
    }
}
