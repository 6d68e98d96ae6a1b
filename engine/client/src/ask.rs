//! One request, before it is sent.
//!
//! Invariant: verb and path are the table's; what stands for a parameter of the path is one segment of it, whatever
//! characters it has.

use std::fmt::Display;

use brood_api::{Operation, OperationId, Verb};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::ClientError;

pub(crate) const JSON: &str = "application/json";

/// A request to one operation.
pub(crate) struct Ask {
    pub(crate) id: OperationId,
    at: Vec<String>,
    query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) accept: &'static str,
}

impl Ask {
    pub(crate) fn to(id: OperationId) -> Self {
        Self {
            id,
            at: Vec::new(),
            query: Vec::new(),
            body: None,
            headers: Vec::new(),
            accept: JSON,
        }
    }

    /// What stands for the next parameter of the path.
    pub(crate) fn at(mut self, parameter: impl Display) -> Self {
        self.at.push(parameter.to_string());
        self
    }

    /// A parameter of the query, if there is something to say.
    pub(crate) fn query(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        self.query
            .extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::NotSent {
            why: error.to_string(),
        })?;
        self.body = Some(body);
        Ok(self)
    }

    /// The caller's own key, under which a repeated request is done once.
    pub(crate) fn once(self, key: Option<&str>) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub(crate) fn header(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        self.headers
            .extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub(crate) fn accept(mut self, media: &'static str) -> Self {
        self.accept = media;
        self
    }

    /// How it is asked, and the path with its query.
    pub(crate) fn target(&self) -> Result<(Verb, String), ClientError> {
        let row = Operation::ALL.iter().find(|row| row.id == self.id);
        let row = row.ok_or_else(|| ClientError::NotSent {
            why: format!("{} is not in the table of operations", self.id.as_str()),
        })?;
        let mut values = self.at.iter();
        let segments = row.path.split('/').map(|segment| {
            if segment.starts_with('{') {
                let value = values.next().ok_or_else(|| ClientError::NotSent {
                    why: format!("nothing stands for {segment} in {}", row.path),
                })?;
                return Ok(encoded(value));
            }
            Ok(segment.to_owned())
        });
        let mut target = segments.collect::<Result<Vec<_>, ClientError>>()?.join("/");
        for (index, (name, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&format!("{name}={}", encoded(value)));
        }
        Ok((row.verb, target))
    }
}

/// RFC 3986 §2.1; more than has to be is encoded, so that `.` and `..` are names like any other.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_stays_one_segment_and_a_query_value_one_value() {
        let ask = Ask::to(OperationId::ShowTemplate).at("../a b?c");
        let (verb, target) = ask.target().expect("a target");
        assert_eq!(verb, Verb::Get);
        assert_eq!(target, "/v1/templates/%2E%2E%2Fa%20b%3Fc");
        let ask = Ask::to(OperationId::ListMachines)
            .query("label", Some("a=b&c"))
            .query("limit", Some(2))
            .query("cursor", None::<u8>);
        let (_, target) = ask.target().expect("a target");
        assert_eq!(target, "/v1/machines?label=a%3Db%26c&limit=2");
        let nothing = Ask::to(OperationId::ShowMachine).target();
        assert!(nothing.is_err());
    }
}
