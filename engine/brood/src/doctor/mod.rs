//! `brood doctor`: is this host able to run Linux guests, only bare guests, or none; why; what to do.
//!
//! ```text
//!  kvm::examine ─► checks, speeds ─► verdict::judge ─► Report ─► table | one JSON object
//!  host::examine ─► checks ───────────────────────────────┘
//! ```
//!
//! Exit code: 0 Linux guests run, 3 only bare guests, 4 none. Invariant: every check ends in bounded time and none ends
//! the program; what cannot be found out is a row of the table. Only the speeds and what keeps a machine from being made
//! decide the verdict; a warning never does.

mod check;
mod host;
mod kvm;
mod report;
mod verdict;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

pub use check::{Check, Status};
pub use report::Report;
pub use verdict::{BARE_MIPS, Finding, LINUX_MIPS, Measurements, SpeedResult, Verdict, judge};

/// What to examine.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// The KVM device.
    pub kvm_path: PathBuf,
    /// Where disk layers will be made.
    pub layer_directory: PathBuf,
}

impl Default for DoctorOptions {
    /// This host: `/dev/kvm`, and the directory for temporary files (`TMPDIR`).
    fn default() -> Self {
        Self {
            kvm_path: PathBuf::from("/dev/kvm"),
            layer_directory: std::env::temp_dir(),
        }
    }
}

/// Examines the host and prints what was found: a table, or with `json` one JSON object.
///
/// # Errors
/// Standard output is closed.
pub fn run(json: bool) -> anyhow::Result<ExitCode> {
    let report = examine(&DoctorOptions::default());
    let mut text = if json {
        report.to_json()?
    } else {
        report.to_string()
    };
    text.push('\n');
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")?;
    Ok(ExitCode::from(report.verdict.exit_code()))
}

/// Examines the host; takes about two seconds at most.
pub fn examine(options: &DoctorOptions) -> Report {
    let (mut checks, measurements) = kvm::examine(&options.kvm_path);
    checks.extend(host::examine(&options.layer_directory));
    let finding = judge(&measurements);
    Report {
        verdict: finding.verdict,
        reason: finding.reason,
        advice: finding.advice,
        guest_kernel_mips: measurements.kernel.mips(),
        guest_user_mips: measurements.user.mips(),
        checks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_device(path: &str) -> Report {
        let layer_directory = std::env::temp_dir();
        examine(&DoctorOptions {
            kvm_path: PathBuf::from(path),
            layer_directory,
        })
    }

    #[test]
    fn a_host_without_the_device_runs_nothing_and_is_told_what_to_load() {
        let report = with_device("/nonexistent/kvm");
        assert_eq!(report.verdict, Verdict::None);
        assert_eq!(report.verdict.exit_code(), 4);
        let check = &report.checks[0];
        assert_eq!((check.name, check.status), ("kvm device", Status::Fail));
        assert!(check.remedy.contains("modprobe"), "{}", check.remedy);
        assert!(
            report.reason.contains("/nonexistent/kvm"),
            "{}",
            report.reason
        );
    }

    #[test]
    fn a_device_that_is_not_kvm_runs_nothing() {
        let report = with_device("/dev/null");
        assert_eq!(report.verdict, Verdict::None);
        assert_eq!(
            (report.guest_kernel_mips, report.guest_user_mips),
            (None, None)
        );
        let failed: Vec<_> = report
            .checks
            .iter()
            .filter(|check| check.status == Status::Fail)
            .collect();
        assert!(
            failed.iter().any(|check| check.name == "kvm features"),
            "{failed:?}"
        );
    }

    #[test]
    fn a_directory_in_the_place_of_the_device_runs_nothing() {
        assert_eq!(with_device("/").verdict, Verdict::None);
    }

    #[test]
    fn a_layer_directory_that_is_not_there_is_a_row_and_not_the_end() {
        let report = examine(&DoctorOptions {
            kvm_path: PathBuf::from("/nonexistent/kvm"),
            layer_directory: PathBuf::from("/nonexistent"),
        });
        let check = report
            .checks
            .iter()
            .find(|check| check.name == "disk layers");
        assert_eq!(check.map(|check| check.status), Some(Status::Fail));
    }

    #[test]
    fn every_check_says_what_was_found_and_why_it_matters() {
        for check in with_device("/nonexistent/kvm").checks {
            assert!(
                !check.found.is_empty() && !check.why.is_empty(),
                "{check:?}"
            );
            let needs_remedy = check.status != Status::Ok;
            assert_eq!(needs_remedy, !check.remedy.is_empty(), "{check:?}");
        }
    }
}
