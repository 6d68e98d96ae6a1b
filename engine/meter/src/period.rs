//! Months of UTC, in which usage is totalled and billed.

use std::fmt;
use std::str::FromStr;

const DAY_MS: i64 = 86_400_000;

/// A calendar month of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    year: i64,
    /// From 1.
    month: i64,
}

/// The text is no month.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a period: a calendar month of UTC is written like 2026-11", text.escape_debug())]
pub struct ParsePeriodError {
    /// What was given.
    pub text: String,
}

impl Period {
    /// The month of an instant, milliseconds since the epoch.
    pub fn of(millis: i64) -> Self {
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
        let days = millis.div_euclid(DAY_MS).saturating_add(719_468);
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let year = year + era * 400 + i64::from(month <= 2);
        Self { year, month }
    }

    /// Its begin, milliseconds since the epoch.
    pub fn start_ms(self) -> i64 {
        // The same, days_from_civil, of the first day of the month.
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let shifted = (self.month + 9).rem_euclid(12);
        let of_year = (153 * shifted + 2) / 5;
        let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        (era * 146_097 + days - 719_468) * DAY_MS
    }

    /// The month after it.
    pub fn next(self) -> Self {
        match self.month {
            12 => Self {
                year: self.year + 1,
                month: 1,
            },
            month => Self {
                month: month + 1,
                ..self
            },
        }
    }

    /// Its end, milliseconds since the epoch: the begin of the next.
    pub fn end_ms(self) -> i64 {
        self.next().start_ms()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Period {
    type Err = ParsePeriodError;

    fn from_str(text: &str) -> Result<Self, ParsePeriodError> {
        let wrong = || ParsePeriodError {
            text: text.to_owned(),
        };
        let is_plain = text.len() == 7 && text.bytes().filter(u8::is_ascii_digit).count() == 6;
        let (year, month) = text
            .split_once('-')
            .filter(|_| is_plain)
            .ok_or_else(wrong)?;
        let year = year.parse().map_err(|_| wrong())?;
        let month = month.parse().map_err(|_| wrong())?;
        if !(1..=12).contains(&month) || !(1970..=9999).contains(&year) {
            return Err(wrong());
        }
        Ok(Self { year, month })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_is_in_the_month_that_begins_before_it_and_ends_behind_it() {
        let first: Period = "1970-01".parse().expect("a month");
        assert_eq!(first.start_ms(), 0);
        let mut period = first;
        for day in 0..146_097_i64 {
            let start = day * DAY_MS;
            if start == period.end_ms() {
                period = period.next();
            }
            assert_eq!(Period::of(start), period);
            assert_eq!(Period::of(start + DAY_MS - 1), period);
        }
        assert_eq!(period.to_string(), "2369-12");
        assert_eq!(Period::of(-1).to_string(), "1969-12");
    }

    #[test]
    fn nothing_but_a_month_is_one() {
        let known: Period = "2026-11".parse().expect("a month");
        assert_eq!(known, Period::of(1_795_745_045_678));
        for text in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "2026-1",
            "26-11",
            "2026-+1",
            "+026-11",
            "2026-11-01",
            "20261-1",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
