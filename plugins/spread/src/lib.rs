//! Placement: spread daughters or pack them, near warm shells and resident pages, by labels and taints.
//!
//! A candidate is filtered first (labels, taints, load, pressure, reserve, limits), each refusal with its reason. What
//! remains is scored by parts of 0 to 10000; a score is their mean, by weight. When spreading, the
//! most daughters for each candidate is the lowest level at which all of them find a place, so that no domain gets more
//! than it must.
//!
//! Labels of a request speak too: `node/zone = a` asks for candidates whose label `zone` is `a`; `tolerate/gpu = *` lets
//! daughters go where the label `taint/gpu` is, whatever its value.

mod filter;
mod level;
mod rank;
mod score;
mod settings;
#[cfg(test)]
mod tests;

pub use rank::rank;
pub use settings::{ColumnRule, Direction, Numa, Preference, Reserve, Settings, Strategy, Weights};

use brood_plugin::placement::{Answer, Question};
use brood_plugin::settings::{Diagnostics, Prepared, prepared};
use brood_plugin::types::HookError;

/// The plugin.
#[derive(Debug)]
pub struct Spread;

impl brood_plugin::Plugin for Spread {
    const NAME: &'static str = "spread";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn prepare(settings: &Settings, prepared: &mut Prepared, wrong: &mut Diagnostics) {
        settings.check(wrong);
        prepared.put(POLICY, &settings.policy());
    }
}

impl brood_plugin::Placement for Spread {
    fn rank(question: Question) -> Result<Answer, HookError> {
        rank(&prepared(POLICY)?, &question)
    }
}

/// Under this the policy is prepared.
const POLICY: &str = "policy";

brood_plugin::export!(Spread: placement);
