//! The traits a plugin implements: [`Plugin`] always, and a hook trait for each decision it makes.
//!
//! Invariant: a refusal is an answer and not an error. An `Err` of a hook means that it could not decide, and the
//! binding's fail mode takes over, exactly as after a panic.

use crate::settings::{Diagnostics, Prepared, Settings};
use crate::types::HookError;
use crate::{admission, billing, mutation, placement};

/// What the plugin is, and what it makes of its settings.
pub trait Plugin {
    /// Name in logs and listings.
    const NAME: &'static str;
    /// Version; usually `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// Names of the metrics it emits.
    const METRICS: &'static [&'static str] = &[];
    /// The settings document; see [`settings!`](crate::settings!).
    type Settings: Settings;

    /// Checks what one field cannot say alone, and stores what the hooks read on each call. Runs once for each change
    /// of the settings. Anything added to `wrong` refuses the settings; the old ones stay.
    fn prepare(settings: &Self::Settings, prepared: &mut Prepared, wrong: &mut Diagnostics);
}

/// May a fork happen, now, in this shape?
pub trait Admission: Plugin {
    /// One verdict for each item, in their order.
    ///
    /// # Errors
    ///
    /// The plugin cannot decide.
    fn review(items: Vec<admission::Item>) -> Result<Vec<admission::Verdict>, HookError>;
}

/// Where may daughters go, and where would they do best?
pub trait Placement: Plugin {
    /// One ranking for each candidate, in their order.
    ///
    /// # Errors
    ///
    /// The plugin cannot decide.
    fn rank(question: placement::Question) -> Result<placement::Answer, HookError>;
}

/// What differs between daughters?
pub trait Mutation: Plugin {
    /// A plan for all daughters of the brief, or a refusal.
    ///
    /// # Errors
    ///
    /// The plugin cannot decide.
    fn plan_daughters(brief: mutation::Brief) -> Result<mutation::Outcome, HookError>;
}

/// What does usage cost?
pub trait Billing: Plugin {
    /// Lines and waived samples that together account for every sample of the batch.
    ///
    /// # Errors
    ///
    /// The plugin cannot rate the batch; the host keeps it.
    fn rate(batch: billing::Batch) -> Result<billing::Rated, HookError>;
}
