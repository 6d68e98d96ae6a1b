//! What goes to a running program.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Base64;
use crate::Request;
use crate::mistake::Mistakes;
use crate::shape::whole;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TtySize {
    /// Columns.
    #[schema(minimum = 1, maximum = 65535, example = 80)]
    #[serde(deserialize_with = "whole")]
    pub cols: u16,
    /// Lines.
    #[schema(minimum = 1, maximum = 65535, example = 24)]
    #[serde(deserialize_with = "whole")]
    pub rows: u16,
}

impl TtySize {
    pub(super) fn look(self, pointer: &str, mistakes: &mut Mistakes) {
        for (name, value) in [("cols", self.cols), ("rows", self.rows)] {
            if value == 0 {
                mistakes.out_of_range(
                    format!("{pointer}/{name}"),
                    "a terminal has 1 to 65535 of them",
                );
            }
        }
    }
}

impl Request for TtySize {
    fn check(&self, mistakes: &mut Mistakes) {
        self.look("", mistakes);
    }
}

/// Something for a program's stdin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StdinSpec {
    /// Text.
    pub text: Option<String>,
    /// Bytes.
    pub data: Option<Base64>,
    /// Whether stdin is closed behind it; on a terminal, the end-of-file character is typed.
    #[serde(default)]
    pub close: bool,
}

impl StdinSpec {
    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        let text = self.text.map(String::into_bytes);
        text.or(self.data.map(|data| data.0)).unwrap_or_default()
    }
}

impl Request for StdinSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        match (&self.text, &self.data) {
            (Some(_), Some(_)) => {
                mistakes.out_of_range("/data", "there is text as well: send one of them");
            }
            (None, None) if !self.close => {
                mistakes.out_of_range(
                    "/text",
                    "there is nothing to write: send text or data, or close",
                );
            }
            _ => {}
        }
    }
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignalTarget {
    /// The program's process group.
    #[default]
    Group,
    /// The program alone.
    Leader,
}

/// A signal for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalSpec {
    /// Its number, as in signal(7): 2 interrupts, 15 asks to end, 9 ends.
    #[schema(minimum = 1, maximum = 64, example = 15)]
    #[serde(deserialize_with = "whole")]
    pub signal: i32,
    /// Whom it is for.
    #[serde(default)]
    pub target: SignalTarget,
}

impl Request for SignalSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        if !(1..=64).contains(&self.signal) {
            mistakes.out_of_range("/signal", "signals have the numbers 1 to 64");
        }
    }
}

/// What a client says on a terminal's WebSocket in a text frame; what is typed comes in binary frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TerminalAsk {
    /// The terminal has another size.
    Resize {
        /// Columns.
        cols: u16,
        /// Lines.
        rows: u16,
    },
}

impl Request for TerminalAsk {
    fn check(&self, mistakes: &mut Mistakes) {
        let Self::Resize { cols, rows } = *self;
        TtySize { cols, rows }.look("", mistakes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    #[test]
    fn stdin_is_text_or_bytes_or_an_end() {
        let bytes = |body: &str| {
            let spec: StdinSpec = decode(body.as_bytes()).expect("stdin");
            (spec.close, spec.into_bytes())
        };
        assert_eq!(bytes(r#"{"text": "é\n"}"#), (false, "é\n".into()));
        assert_eq!(bytes(r#"{"data": "/wA="}"#), (false, vec![0xff, 0]));
        assert_eq!(bytes(r#"{"close": true}"#), (true, Vec::new()));
        for bad in [
            "{}",
            r#"{"text": "a", "data": "YQ=="}"#,
            r#"{"data": "not base64"}"#,
        ] {
            assert!(decode::<StdinSpec>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_terminal_is_asked_for_what_it_can_do() {
        let asked = decode(br#"{"type": "resize", "cols": 100, "rows": 30}"#);
        let resize = TerminalAsk::Resize {
            cols: 100,
            rows: 30,
        };
        assert_eq!(asked, Ok(resize));
        for bad in [
            r#"{"type": "resize", "cols": 0, "rows": 30}"#,
            r#"{"type": "resize", "cols": 1}"#,
            r#"{"type": "sing"}"#,
            "{}",
        ] {
            assert!(decode::<TerminalAsk>(bad.as_bytes()).is_err(), "{bad}");
        }
        for (signal, good) in [(0, false), (1, true), (64, true), (65, false)] {
            let body = format!(r#"{{"signal": {signal}}}"#);
            assert_eq!(
                decode::<SignalSpec>(body.as_bytes()).is_ok(),
                good,
                "{signal}"
            );
        }
    }
}
