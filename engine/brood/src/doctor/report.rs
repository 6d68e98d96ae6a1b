//! What the doctor says: a line, a table, or one JSON object.
//!
//! ```text
//! {"verdict":"linux"|"bare"|"none","reason":…,"checks":[{"name","status","found","why","remedy"}…],
//!  "guest_kernel_mips":number|null,"guest_user_mips":number|null}
//! ```
//!
//! Invariant: both forms come from the same values, and the first line is the verdict.

use std::fmt;

use anyhow::Context;
use serde::Serialize;

use super::check::{Check, Status};
use super::verdict::Verdict;

/// The outcome of an examination.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the host runs.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
    /// Guest kernel mode, millions of instructions a second; none where it did not run.
    pub guest_kernel_mips: Option<f64>,
    /// Guest user mode, likewise.
    pub guest_user_mips: Option<f64>,
    /// What to do about the verdict; empty where it is the best.
    #[serde(skip)]
    pub advice: &'static str,
}

impl Report {
    /// One JSON object in one line.
    ///
    /// # Errors
    /// None for the values a report has.
    pub fn to_json(&self) -> anyhow::Result<String> {
        serde_json::to_string(self).context("cannot write the report as JSON")
    }

    fn headline(&self) -> String {
        match self.verdict {
            Verdict::Linux => "This host runs Linux guests.".to_owned(),
            Verdict::Bare => format!("This host runs only bare-metal guests: {}.", self.reason),
            Verdict::None => format!("This host runs no guests: {}.", self.reason),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        if !self.advice.is_empty() {
            writeln!(f, "What to do: {}.", self.advice)?;
        }
        let width = self
            .checks
            .iter()
            .map(|check| check.name.len())
            .max()
            .unwrap_or(0);
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            write!(f, "\n{status}  {:width$}  {}", check.name, check.found)?;
            if check.status != Status::Ok {
                write!(f, "\n      {:width$}  why: {}", "", check.why)?;
                write!(f, "\n      {:width$}  do:  {}", "", check.remedy)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let check = |name, status, remedy: &str| Check {
            name,
            status,
            found: "found".to_owned(),
            why: "because",
            remedy: remedy.to_owned(),
        };
        Report {
            verdict: Verdict::Bare,
            reason: "kernel mode is slow".to_owned(),
            checks: vec![
                check("a", Status::Ok, ""),
                check("longer", Status::Warn, "do it"),
            ],
            guest_kernel_mips: Some(0.7),
            guest_user_mips: None,
            advice: "use the lab",
        }
    }

    #[test]
    fn first_line_is_the_verdict_and_columns_are_aligned() {
        let text = report().to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "This host runs only bare-metal guests: kernel mode is slow."
        );
        assert_eq!(lines[1], "What to do: use the lab.");
        assert_eq!(lines[3], "ok    a       found");
        assert_eq!(lines[4], "warn  longer  found");
        assert_eq!(lines[6].trim_start(), "do:  do it");
    }

    #[test]
    fn json_is_one_line_with_exactly_the_documented_keys() {
        let json = report().to_json().expect("JSON");
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).expect("an object");
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value
                .as_object()
                .map(|object| object.keys().cloned().collect())
                .unwrap_or_default()
        };
        let mut found = keys(&value);
        found.sort();
        assert_eq!(
            found,
            [
                "checks",
                "guest_kernel_mips",
                "guest_user_mips",
                "reason",
                "verdict"
            ]
        );
        assert_eq!(value["verdict"], "bare");
        assert_eq!(value["guest_user_mips"], serde_json::Value::Null);
        let mut row = keys(&value["checks"][1]);
        row.sort();
        assert_eq!(row, ["found", "name", "remedy", "status", "why"]);
        assert_eq!(value["checks"][1]["status"], "warn");
    }
}
