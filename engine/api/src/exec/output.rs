//! What comes of a program.
//!
//! Invariant: every byte of a stream has a number, which neither a lost connection nor a fork changes; bytes that are not
//! there any more are counted, never passed over.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{IntoParams, ToSchema};

use super::Exec;
use crate::mistake::Mistakes;
use crate::page::from_text;
use crate::{Problem, Request};

/// Most bytes of output of one answer.
const MAX_OUTPUT: u32 = 1 << 20;

/// Bytes, in base64 (RFC 4648 §4).
#[derive(Clone, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = Byte, example = "aGVsbG8K")]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text);
        bytes.map(Self).map_err(|error| {
            D::Error::custom(format!("not base64 as in RFC 4648 section 4: {error}"))
        })
    }
}

/// An output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which output streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// Both of them.
    #[default]
    Both,
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Streams {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A place in the output: the number of the next byte, of one stream `120`, of both `120-7`, standard output first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// Of one stream.
    One(u64),
    /// Of standard output and standard error.
    Both(u64, u64),
}

/// A place in the output: the number of the next byte, of one stream `120`, of both `120-7`, standard output first.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9]{1,19}(-[0-9]{1,19})?$", example = "120-7")]
struct OffsetText(#[expect(dead_code, reason = "only its schema is used")] String);

/// The text is no place in the output.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the output: of one stream it is written 120, of both 120-7")]
pub struct ParseOffsetError;

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(offset) => write!(f, "{offset}"),
            Self::Both(stdout, stderr) => write!(f, "{stdout}-{stderr}"),
        }
    }
}

impl FromStr for Offset {
    type Err = ParseOffsetError;

    fn from_str(text: &str) -> Result<Self, ParseOffsetError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.ok_or(ParseOffsetError)
        };
        match text.split_once('-') {
            None => number(text).map(Self::One),
            Some((stdout, stderr)) => Ok(Self::Both(number(stdout)?, number(stderr)?)),
        }
    }
}

impl Serialize for Offset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// From where output is read or followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OutputQuery {
    /// Which streams; both if not said.
    #[param(inline)]
    #[serde(default)]
    pub stream: Streams,
    /// The place from which to begin: the beginning if not said. It is written as `next` and the ids of events are, and
    /// `0` is the beginning of both streams as well. A `Last-Event-ID` header says the same.
    #[param(value_type = Option<OffsetText>, inline)]
    pub offset: Option<Offset>,
    /// The most bytes of one answer, a MiB if not said. A stream has no end, and takes no limit.
    #[param(minimum = 1, maximum = 1_048_576)]
    #[serde(default, deserialize_with = "from_text")]
    pub limit: Option<u32>,
}

impl OutputQuery {
    /// The most bytes of one answer.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(MAX_OUTPUT)
    }

    /// Whether a place is one in the streams that are asked for.
    pub fn fits(&self, offset: Offset) -> bool {
        match (self.stream, offset) {
            (Streams::Both, Offset::Both(..) | Offset::One(0)) => true,
            (Streams::Stdout | Streams::Stderr, Offset::One(_)) => true,
            (Streams::Both, Offset::One(_)) => false,
            (Streams::Stdout | Streams::Stderr, Offset::Both(..)) => false,
        }
    }
}

impl Request for OutputQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        if self.offset.is_some_and(|offset| !self.fits(offset)) {
            mistakes.out_of_range(
                "offset",
                "of one stream a place is written 120, of both 120-7: write it so, or choose another stream",
            );
        }
        if self
            .limit
            .is_some_and(|limit| limit == 0 || limit > MAX_OUTPUT)
        {
            mistakes.out_of_range("limit", format!("an answer has 1 to {MAX_OUTPUT} bytes"));
        }
    }
}

/// From where a terminal is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TerminalQuery {
    /// The number of the byte to begin with; 0 if not said. Who comes back counts the bytes of binary frames, and those
    /// that were said to be lost.
    #[param(minimum = 0)]
    #[serde(default, deserialize_with = "from_text")]
    pub offset: Option<u64>,
}

impl Request for TerminalQuery {
    fn check(&self, _: &mut Mistakes) {}
}

/// A piece of output. In a stream it is the data of an `output` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputPiece {
    /// Its stream.
    pub stream: Stream,
    /// The number of its first byte.
    pub offset: u64,
    /// Bytes before it that were overwritten before they were read. In a stream, a `lost` event says so.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// The bytes.
    pub data: Base64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Bytes that were overwritten before they were read: the data of a `lost` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// Their stream.
    pub stream: Stream,
    /// The number of the first of them.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// Output that was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Output {
    /// Pieces, in order within each stream.
    pub pieces: Vec<OutputPiece>,
    /// From where to read on.
    #[schema(value_type = OffsetText)]
    pub next: Offset,
    /// Whether the program has ended and this is all of it.
    pub ended: bool,
}

/// What a server says on a terminal's WebSocket in a text frame; output comes in binary frames.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TerminalWord {
    /// Bytes were overwritten before they were read.
    Lost(Lost),
    /// The program has ended; nothing follows.
    End(Exec),
    /// Something went wrong.
    Problem(Box<Problem>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode_parameters;

    #[test]
    fn a_place_round_trips_and_nothing_else_is_one() {
        for offset in [Offset::One(0), Offset::One(u64::MAX), Offset::Both(120, 7)] {
            assert_eq!(offset.to_string().parse(), Ok(offset));
        }
        for text in [
            "",
            "-",
            "1-",
            "-1",
            "+1",
            "1-2-3",
            "x",
            "18446744073709551616",
        ] {
            assert_eq!(text.parse::<Offset>(), Err(ParseOffsetError), "{text}");
        }
    }

    #[test]
    fn a_place_of_one_stream_is_none_of_both() {
        let query = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
            decode_parameters::<OutputQuery>(pairs).is_ok()
        };
        for good in [
            &[][..],
            &[("offset", "0")],
            &[("offset", "5-0")],
            &[("stream", "stderr"), ("offset", "5")],
            &[("limit", "1")],
        ] {
            assert!(query(good), "{good:?}");
        }
        for bad in [
            &[("offset", "5")][..],
            &[("stream", "stdout"), ("offset", "5-0")],
            &[("stream", "stdin")],
            &[("limit", "0")],
            &[("limit", "1048577")],
        ] {
            assert!(!query(bad), "{bad:?}");
        }
    }
}
