//! Instants and spans as text: `2026-11-27T02:03:04.005Z`, `90s`, `1h 30m`.
//!
//! Invariant: a span carries its unit, so that nobody takes seconds for milliseconds. A bare number is refused.

use std::time::{Duration, UNIX_EPOCH};

use brood_units::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// The last instant that RFC 3339 can write: the end of the year 9999, milliseconds since the epoch.
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// An instant of the wall clock, RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-27T02:03:04.005Z")]
pub struct Time(pub Timestamp);

/// A length of time with its unit: `1500ms`, `90s`, `10m`, `2h`, `1h 30m`, `7days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, pattern = "^([1-9][0-9]{0,5} ?(ms|s|m|h|days?|weeks?|months?|years?) ?)+$", example = "90s")]
pub struct Span(u64);

impl Span {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Its milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What the format cannot write, a clock before 1970 or after 9999, is shown as the nearest it can.
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(0);
        let time = UNIX_EPOCH + Duration::from_millis(millis.min(LAST_MILLIS));
        serializer.collect_str(&humantime::format_rfc3339_millis(time))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refuse = || {
            let text = text.escape_debug();
            D::Error::custom(format!(
                "'{text}' is not a time: write it like 2026-11-27T02:03:04Z"
            ))
        };
        let time = humantime::parse_rfc3339(&text).map_err(|_| refuse())?;
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| refuse())?;
        let millis = i64::try_from(since.as_millis()).map_err(|_| refuse())?;
        Ok(Self(Timestamp::from_millis(millis)))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let duration = Duration::from_millis(self.0);
        serializer.collect_str(&humantime::format_duration(duration))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a length of time with its unit, such as \"90s\" or \"1500ms\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                let millis = humantime::parse_duration(text)
                    .ok()
                    .and_then(|duration| u64::try_from(duration.as_millis()).ok());
                millis.map(Span).ok_or_else(|| {
                    let text = text.escape_debug();
                    E::custom(format!(
                        "'{text}' is not a length of time: write it like 90s, 1500ms or 1h 30m"
                    ))
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_both_ways() {
        let time = Time(Timestamp::from_millis(1_795_745_045_678));
        let text = serde_json::to_string(&time).expect("a string");
        assert_eq!(text, "\"2026-11-27T02:04:05.678Z\"");
        assert_eq!(serde_json::from_str::<Time>(&text).expect("a time"), time);
        let early = Time(Timestamp::from_millis(-1));
        let late = Time(Timestamp::from_millis(i64::MAX));
        for time in [early, late] {
            assert!(serde_json::to_string(&time).is_ok());
        }
    }

    #[test]
    fn a_span_without_a_unit_is_refused_in_words() {
        let span = serde_json::from_str::<Span>("\"1h 30m\"").expect("a span");
        assert_eq!(span.as_millis(), 5_400_000);
        let text = serde_json::to_string(&Span::from_millis(1500)).expect("a string");
        assert_eq!(text, "\"1s 500ms\"");
        for bare in [
            "90",
            "\"90\"",
            "\"\"",
            "\"-1s\"",
            "\"99999999999999999999s\"",
        ] {
            let refusal = serde_json::from_str::<Span>(bare).expect_err(bare);
            assert!(refusal.to_string().contains("90s"), "{refusal}");
        }
    }
}
