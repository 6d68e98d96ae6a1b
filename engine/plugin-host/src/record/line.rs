//! A record as a line of text, to be kept in files and stores and replayed elsewhere.
//!
//! One JSON object a line, without line ends within, in this order:
//!
//! ```text
//! {"brood-record":1,"digest":"sha256:…","record":{"number":7,"now":…,"hook":"admission", … ,"ask":[…], … ,"answer":[…], … }}
//!  version of        SHA-256 of the bytes   everything of the record; ask and answer are the records of `brood-hooks`,
//!  this form         between "record": and  field by field, so that a person can read what was asked and answered
//!                    the last brace
//! ```
//!
//! Invariant: what is read is what was written, byte for byte, or is refused: the digest is of the text itself, so that a
//! changed byte, a number that another tool has rounded, or a reordering is found before anything is replayed. It is no
//! signature: who can write the file can write its digest.
//!
//! A change of what a record holds is a new version of the form; a reader refuses versions that it does not know.

use brood_hooks::{Admission, Billing, Failure, Hook, HookName, Mutation, Now, Permits, Placement};
use brood_policy::{Limits, LogLevel, Mode};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::Record;
use crate::Digest;
use crate::call::HostAnswer;

/// The version of the form that is written, and the only one that is read.
pub const RECORD_VERSION: u32 = 1;

/// A record could not be written as a line.
#[derive(Debug, thiserror::Error)]
pub enum WriteRecordError {
    /// It does not hold what a record of its hook holds.
    #[error("the record is damaged: its {part} cannot be read")]
    Damaged {
        /// Which part.
        part: &'static str,
    },
    /// A value that JSON cannot hold.
    #[error("the record cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// A line is not a record, or not what it was.
#[derive(Debug, thiserror::Error)]
pub enum ReadRecordError {
    /// It is something else.
    #[error(
        "this line is not a decision record; it is one JSON object with \"brood-record\", \"digest\" and \"record\""
    )]
    NotARecord(#[source] serde_json::Error),
    /// It is of a version that is not known here.
    #[error(
        "the record has version {found} of its form, and this engine reads version {RECORD_VERSION}"
    )]
    OtherVersion {
        /// Its version.
        found: u32,
    },
    /// It was changed since it was written.
    #[error("the record was changed since it was written: it says {recorded} and is {found}")]
    Changed {
        /// The digest that it says.
        recorded: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// It is whole, and not what a record holds.
    #[error("the record is damaged: its {part} cannot be read")]
    Damaged {
        /// Which part.
        part: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is whole, and a value in it is larger than a record can hold.
    #[error("the record is damaged: its {part} cannot be held")]
    TooLarge {
        /// Which part.
        part: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(rename = "brood-record")]
    version: u32,
    digest: Digest,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// What is read first: a later version may have other fields beside it.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "brood-record")]
    version: u32,
}

/// [`Record`], with ask and answer as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    number: u64,
    now: Now,
    hook: HookName,
    plugin: String,
    mode: Mode,
    component: Digest,
    settings: Digest,
    limits: Limits,
    permits: Permits,
    log_level: LogLevel,
    warm: bool,
    ask: Box<RawValue>,
    host_answers: Vec<HostAnswer>,
    answer: Option<Box<RawValue>>,
    failure: Option<Failure>,
    refuses: bool,
    fuel_used: u64,
    took_nanos: u64,
}

impl Record {
    /// The record as one line, without a line end.
    pub fn to_line(&self) -> Result<String, WriteRecordError> {
        let (ask, answer) = match self.hook {
            HookName::Admission => self.spelled::<Admission>(),
            HookName::Placement => self.spelled::<Placement>(),
            HookName::Mutation => self.spelled::<Mutation>(),
            HookName::Billing => self.spelled::<Billing>(),
        }?;
        let body = Body {
            number: self.number,
            now: self.now,
            hook: self.hook,
            plugin: self.plugin.clone(),
            mode: self.mode,
            component: self.component,
            settings: self.settings,
            limits: self.limits,
            permits: self.permits.clone(),
            log_level: self.log_level,
            warm: self.warm,
            ask,
            host_answers: self.host_answers.clone(),
            answer,
            failure: self.failure.clone(),
            refuses: self.refuses,
            fuel_used: self.fuel_used,
            took_nanos: self.took_nanos,
        };
        let record = to_raw_value(&body).map_err(WriteRecordError::Json)?;
        let line = Line {
            version: RECORD_VERSION,
            digest: Digest::of(record.get().as_bytes()),
            record: &record,
        };
        serde_json::to_string(&line).map_err(WriteRecordError::Json)
    }

    fn spelled<H: Hook>(&self) -> Result<(Box<RawValue>, Option<Box<RawValue>>), WriteRecordError> {
        let ask: H::Ask = decoded("ask", &self.ask)?;
        let ask = to_raw_value(&ask).map_err(WriteRecordError::Json)?;
        let answer = match &self.answer {
            None => None,
            Some(bytes) => {
                let answer: H::Answer = decoded("answer", bytes)?;
                Some(to_raw_value(&answer).map_err(WriteRecordError::Json)?)
            }
        };
        Ok((ask, answer))
    }

    /// The record of a line that [`to_line`](Self::to_line) wrote.
    pub fn from_line(line: &str) -> Result<Self, ReadRecordError> {
        let Version { version } =
            serde_json::from_str(line).map_err(ReadRecordError::NotARecord)?;
        if version != RECORD_VERSION {
            return Err(ReadRecordError::OtherVersion { found: version });
        }
        let line: Line<'_> = serde_json::from_str(line).map_err(ReadRecordError::NotARecord)?;
        let (recorded, found) = (line.digest, Digest::of(line.record.get().as_bytes()));
        if recorded != found {
            return Err(ReadRecordError::Changed { recorded, found });
        }
        let body: Body = parsed("fields", line.record)?;
        let (ask, answer) = match body.hook {
            HookName::Admission => unspelled::<Admission>(&body),
            HookName::Placement => unspelled::<Placement>(&body),
            HookName::Mutation => unspelled::<Mutation>(&body),
            HookName::Billing => unspelled::<Billing>(&body),
        }?;
        Ok(Self {
            number: body.number,
            now: body.now,
            hook: body.hook,
            plugin: body.plugin,
            mode: body.mode,
            component: body.component,
            settings: body.settings,
            limits: body.limits,
            permits: body.permits,
            log_level: body.log_level,
            warm: body.warm,
            ask: ask.into(),
            host_answers: body.host_answers,
            answer,
            failure: body.failure,
            refuses: body.refuses,
            fuel_used: body.fuel_used,
            took_nanos: body.took_nanos,
        })
    }
}

fn decoded<T: serde::de::DeserializeOwned>(
    part: &'static str,
    bytes: &[u8],
) -> Result<T, WriteRecordError> {
    postcard::from_bytes(bytes).map_err(|_| WriteRecordError::Damaged { part })
}

fn parsed<T: serde::de::DeserializeOwned>(
    part: &'static str,
    json: &RawValue,
) -> Result<T, ReadRecordError> {
    serde_json::from_str(json.get()).map_err(|source| ReadRecordError::Damaged { part, source })
}

/// Ask and answer of a line, in postcard.
fn unspelled<H: Hook>(body: &Body) -> Result<(Vec<u8>, Option<Vec<u8>>), ReadRecordError> {
    let ask: H::Ask = parsed("ask", &body.ask)?;
    let answer: Option<H::Answer> = match &body.answer {
        None => None,
        Some(json) => Some(parsed("answer", json)?),
    };
    let encoded = |part| move |_| ReadRecordError::TooLarge { part };
    let ask = postcard::to_allocvec(&ask).map_err(encoded("ask"))?;
    let answer = answer.as_ref().map(postcard::to_allocvec).transpose();
    Ok((ask, answer.map_err(encoded("answer"))?))
}
