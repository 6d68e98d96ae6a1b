//! Instants and lengths of time for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brood_api::Time;

/// Milliseconds since the epoch, by this side's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// How long ago it was, or will be.
pub(super) fn between(now: i64, time: Time) -> String {
    short(now.abs_diff(time.0.as_millis()))
}

/// A length of time, milliseconds, in its largest unit.
fn short(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// The time of day, UTC.
pub(super) fn clock(time: Time) -> String {
    let millis = u64::try_from(time.0.as_millis()).unwrap_or(0);
    let instant = UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_millis(instant).to_string()
}

/// Microseconds in a unit that suits them.
pub(super) fn micros(micros: f64) -> String {
    match micros {
        _ if micros < 1000.0 => format!("{micros:.0} us"),
        _ if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_said_in_their_largest_unit() {
        let said = [0, 59_999, 60_000, 3_600_000, 86_400_000].map(short);
        assert_eq!(said, ["0s", "59s", "1m", "1h", "1d"]);
        assert_eq!(micros(999.4), "999 us");
        assert_eq!(micros(1500.0), "1.5 ms");
        assert_eq!(micros(2.5e6), "2.5 s");
    }
}
