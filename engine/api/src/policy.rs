//! Policies: who is bound to which decision, and what they said.

use std::collections::BTreeMap;

use brood_units::{IntentId, MachineId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::mistake::Mistakes;
use crate::page::{check_limit, from_text};
use crate::{IdText, Request, Time};

/// What one binding said at one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// The hook: `admission`, `placement`, `mutation` or `billing`.
    pub hook: String,
    /// The binding.
    pub binding: String,
    /// Its plugin.
    pub plugin: String,
    /// What it said, in words.
    pub verdict: String,
    /// Whether it counted.
    pub standing: Standing,
    /// Whether it stopped the request.
    #[serde(default)]
    pub denies: bool,
    /// Why its fallback answered, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Microseconds that the call took, rounded up; none where no component was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Fuel that it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
}

/// Whether what a binding said counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It counted.
    Enforced,
    /// It was shown, and did not count.
    Warned,
    /// It failed, and was passed over.
    FailedOpen,
    /// It failed, and that counted.
    FailedClosed,
    /// It was asked, and nobody waited for it.
    Shadow,
}

/// What all bindings said about one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decisions {
    /// In the order they were asked.
    pub items: Vec<Decision>,
}

/// Which part of the log of decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DecisionQuery {
    /// The number behind which to begin; the newest ones if not said. A `Last-Event-ID` header says the same.
    #[param(minimum = 0)]
    #[serde(default, deserialize_with = "from_text")]
    pub after: Option<u64>,
    /// The most of one answer, 100 if not said. A stream has no end, and takes no limit.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "from_text")]
    pub limit: Option<u32>,
    /// Only of requests that were about this machine, or that it came of.
    #[param(value_type = Option<IdText>, inline)]
    #[serde(default, deserialize_with = "from_text")]
    pub machine: Option<MachineId>,
    /// `true` for those alone that stopped their request.
    #[serde(default, deserialize_with = "from_text")]
    pub denied: Option<bool>,
    /// Another tenant's, or `*` for everybody's: for an operator.
    pub tenant: Option<String>,
}

impl Request for DecisionQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        check_limit(self.limit, mistakes);
        if self
            .after
            .is_some_and(|after| i64::try_from(after).is_err())
        {
            mistakes.out_of_range("after", "there is no decision with such a number");
        }
    }
}

/// An entry of the log of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoggedDecision {
    /// Its number; numbers grow and are never used twice.
    pub number: i64,
    /// When.
    pub at: Time,
    /// Whose request it was.
    pub tenant: String,
    /// The request: what came of it is under the same id.
    #[schema(value_type = IdText)]
    pub intent: IntentId,
    /// What was to be forked: a machine, a checkpoint or a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<IdText>)]
    pub subject: Option<MachineId>,
    /// What was said.
    #[serde(flatten)]
    pub decision: Decision,
}

/// A part of the log of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionLog {
    /// In order of their numbers.
    pub items: Vec<LoggedDecision>,
}

/// A plugin at a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Binding {
    /// The hook: `admission`, `placement`, `mutation` or `billing`.
    pub hook: String,
    /// Its name, as decisions and denials quote it.
    pub binding: String,
    /// The plugin.
    pub plugin: String,
    /// What its component says of its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The component's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `off`, `shadow`, `warn` or `enforce`.
    pub mode: String,
    /// Lower is asked first.
    pub order: u32,
    /// What a failed call means: `closed`, `open` or `fallback:NAME`.
    pub on_failure: String,
    /// The tenants about whose requests it is asked, where it is not all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// The tenants about whose requests it is not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except_tenants: Vec<String>,
    /// Why it is not asked, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What became of its calls since it was bound.
    pub calls: CallCounts,
}

/// Calls of a binding, of all tenants together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallCounts {
    /// Answered, and nothing refused.
    pub answered: u64,
    /// Answered with a refusal.
    pub refused: u64,
    /// Failed, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Failed, and passed over.
    pub failed_open: u64,
    /// Failed, and another was asked in its place.
    pub fell_back: u64,
    /// Of a shadow: would have changed nothing.
    pub agreed: u64,
    /// Of a shadow: would have changed the decision.
    pub disagreed: u64,
    /// Fuel of all of them.
    pub fuel: u64,
}

/// All bindings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bindings {
    /// By hook, in the order in which they are asked.
    pub items: Vec<Binding>,
}
