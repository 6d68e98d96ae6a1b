//! The decision: what this host runs, out of what was measured. A plain function of values.
//!
//! Invariant: Linux needs guest *kernel* mode at speed, whatever the CPU's flags say; the bare guest needs only guest
//! user mode.

use serde::Serialize;

/// Guest kernel mode below this, in millions of instructions a second, does not carry Linux.
///
/// The loop of the probe runs at 1 to 2 million where KVM emulates guest kernel mode (Linux does not boot there), at
/// about 400 million in the lab, where a stock kernel takes 2 s to its first program, and at thousands on hardware. The
/// border is five times above the fastest emulation seen and forty times below the slowest host that boots Linux.
pub const LINUX_MIPS: f64 = 10.0;
/// Guest user mode below this does not even carry the bare guest within its tests' patience.
pub const BARE_MIPS: f64 = 0.1;

const FIX_FIRST: &str = "see what the rows marked FAIL say; meanwhile Linux guests run in the lab, an emulated machine on \
                         this host: `cargo xtask lab -- COMMAND`, `cargo xtask demo`";
const USE_LAB: &str = "Linux guests run in the lab, an emulated machine on this host: `cargo xtask lab -- COMMAND`, `cargo xtask demo`";

/// What a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Linux guests.
    Linux,
    /// Only bare-metal guests, for tests and benches of the fork.
    Bare,
    /// No guests.
    None,
}

impl Verdict {
    /// The exit code of `brood doctor`: 0, 3 or 4. It is not 1 or 2, which mean that the program itself failed.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Linux => 0,
            Self::Bare => 3,
            Self::None => 4,
        }
    }
}

/// How fast guests run in one mode.
#[derive(Clone, Debug, PartialEq)]
pub enum SpeedResult {
    /// Millions of instructions a second.
    Mips(f64),
    /// The guest did not run, and why.
    Failed(String),
    /// There was no KVM to ask.
    Unknown,
}

impl SpeedResult {
    /// Millions of instructions a second, if the guest ran.
    pub fn mips(&self) -> Option<f64> {
        match self {
            Self::Mips(mips) => Some(*mips),
            Self::Failed(_) | Self::Unknown => None,
        }
    }
}

/// What decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurements {
    /// Why there is no usable KVM, if there is none.
    pub no_kvm: Option<String>,
    /// Guest kernel mode.
    pub kernel: SpeedResult,
    /// Guest user mode.
    pub user: SpeedResult,
}

/// A verdict with its grounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the host runs.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// What to do; empty where nothing is to be done.
    pub advice: &'static str,
}

/// Decides what a host runs.
pub fn judge(measured: &Measurements) -> Finding {
    let none = |reason: String| Finding {
        verdict: Verdict::None,
        reason,
        advice: FIX_FIRST,
    };
    if let Some(reason) = &measured.no_kvm {
        return none(reason.clone());
    }
    let kernel = match &measured.kernel {
        SpeedResult::Mips(mips) if *mips >= LINUX_MIPS => {
            let reason = format!(
                "guest kernel mode runs {} instructions a second",
                rate(*mips)
            );
            return Finding {
                verdict: Verdict::Linux,
                reason,
                advice: "",
            };
        }
        SpeedResult::Mips(mips) => format!(
            "guest kernel mode runs only {} instructions a second, so KVM emulates it; Linux needs at least {}",
            rate(*mips),
            rate(LINUX_MIPS)
        ),
        SpeedResult::Failed(why) => format!("guest kernel mode does not run ({why})"),
        SpeedResult::Unknown => "guest kernel mode was not measured".to_owned(),
    };
    match &measured.user {
        SpeedResult::Mips(mips) if *mips >= BARE_MIPS => Finding {
            verdict: Verdict::Bare,
            reason: kernel,
            advice: USE_LAB,
        },
        SpeedResult::Mips(mips) => none(format!(
            "{kernel}; guest user mode runs only {} instructions a second",
            rate(*mips)
        )),
        SpeedResult::Failed(why) => none(format!(
            "{kernel}; guest user mode does not run either ({why})"
        )),
        SpeedResult::Unknown => none(format!("{kernel}, nor was guest user mode")),
    }
}

/// A speed for people.
pub(super) fn rate(mips: f64) -> String {
    if mips >= 10.0 {
        format!("{mips:.0} million")
    } else {
        format!("{mips:.1} million")
    }
}

#[cfg(test)]
mod tests {
    use super::SpeedResult::{Failed, Mips, Unknown};
    use super::*;

    fn finding(kernel: SpeedResult, user: SpeedResult) -> Finding {
        judge(&Measurements {
            no_kvm: None,
            kernel,
            user,
        })
    }

    #[test]
    fn kernel_mode_decides_linux_and_user_mode_decides_bare() {
        let broken = || Failed("FailEntry".to_owned());
        let table = [
            (Mips(5000.0), Mips(5000.0), Verdict::Linux),
            (Mips(20.0), Mips(20.0), Verdict::Linux),
            (Mips(LINUX_MIPS), Mips(5000.0), Verdict::Linux),
            (Mips(5000.0), broken(), Verdict::Linux),
            (Mips(LINUX_MIPS - 0.1), Mips(5000.0), Verdict::Bare),
            (Mips(0.7), Mips(3000.0), Verdict::Bare),
            (broken(), Mips(3000.0), Verdict::Bare),
            (Mips(0.7), Mips(0.01), Verdict::None),
            (Mips(0.7), broken(), Verdict::None),
            (broken(), broken(), Verdict::None),
            (Mips(f64::NAN), Mips(f64::NAN), Verdict::None),
            (Unknown, Unknown, Verdict::None),
        ];
        for (kernel, user, verdict) in table {
            assert_eq!(
                finding(kernel.clone(), user.clone()).verdict,
                verdict,
                "{kernel:?} {user:?}"
            );
        }
    }

    #[test]
    fn no_kvm_is_none_whatever_else_is_known() {
        let measured = Measurements {
            no_kvm: Some("there is no /dev/kvm".to_owned()),
            kernel: Mips(5000.0),
            user: Mips(5000.0),
        };
        let finding = judge(&measured);
        assert_eq!(finding.verdict, Verdict::None);
        assert_eq!(finding.reason, "there is no /dev/kvm");
        assert!(finding.advice.contains("cargo xtask lab"));
    }

    #[test]
    fn reason_names_both_the_speed_and_the_border() {
        let reason = finding(Mips(0.71), Mips(3000.0)).reason;
        assert!(
            reason.contains("0.7 million") && reason.contains("10 million"),
            "{reason}"
        );
    }

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        let codes = [Verdict::Linux, Verdict::Bare, Verdict::None].map(Verdict::exit_code);
        assert_eq!(codes, [0, 3, 4]);
    }
}
