//! Why a call gave no answer, and how a binding's answer is heard by those who combine.
//!
//! Invariant: a refusal is an answer. What is here is the absence of one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Malformed};
use crate::{Hook, HookError};

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The policy says that it cannot answer.
    #[error("the policy could not answer: {0}")]
    Hook(HookError),
    /// The component trapped.
    #[error("the component trapped: {message}")]
    Trap {
        /// The trap, with what the component logged last if it logged an error.
        message: String,
    },
    /// The component used up its fuel.
    #[error("the component used up its fuel of {fuel}; raise `fuel` or simplify the policy")]
    OutOfFuel {
        /// The budget, in units of wasmtime.
        fuel: u64,
    },
    /// The component ran past its deadline.
    #[error("the component ran past its deadline of {deadline_ms} ms")]
    Deadline {
        /// The budget, milliseconds.
        deadline_ms: u64,
    },
    /// The component moved more bytes or made more host calls than it may.
    #[error("the component went over its limit of {limit} {what}")]
    Excess {
        /// What there was too much of.
        what: String,
        /// How much there may be.
        limit: u64,
    },
    /// The answer breaks the rules of its hook.
    #[error("the answer is malformed: {0}")]
    Malformed(Malformed),
    /// Too many calls of this binding are under way or waiting.
    #[error("{waiting} calls of this binding are already waiting")]
    Overloaded {
        /// Calls that wait.
        waiting: u64,
    },
    /// The breaker is open after repeated failures.
    #[error("the breaker is open after {failures} failures; it is tried again in {retry_ms} ms")]
    BreakerOpen {
        /// Failures in the window.
        failures: u32,
        /// Until the next trial call, milliseconds.
        retry_ms: u64,
    },
    /// What the call wrote could not be made durable.
    #[error("the state of the plugin could not be committed: {message}")]
    State {
        /// Why.
        message: String,
    },
    /// The engine could not run the call at all.
    #[error("the component could not be run: {message}")]
    Host {
        /// Why.
        message: String,
    },
}

/// The kinds of [`Failure`], for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "one for one the cases of Failure, documented there"
)]
pub enum FailureKind {
    Hook,
    Trap,
    OutOfFuel,
    Deadline,
    Excess,
    Malformed,
    Overloaded,
    BreakerOpen,
    State,
    Host,
}

impl FailureKind {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Trap => "trap",
            Self::OutOfFuel => "out-of-fuel",
            Self::Deadline => "deadline",
            Self::Excess => "excess",
            Self::Malformed => "malformed",
            Self::Overloaded => "overloaded",
            Self::BreakerOpen => "breaker-open",
            Self::State => "state",
            Self::Host => "host",
        }
    }
}

impl Failure {
    /// Its kind.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Hook(_) => FailureKind::Hook,
            Self::Trap { .. } => FailureKind::Trap,
            Self::OutOfFuel { .. } => FailureKind::OutOfFuel,
            Self::Deadline { .. } => FailureKind::Deadline,
            Self::Excess { .. } => FailureKind::Excess,
            Self::Malformed(_) => FailureKind::Malformed,
            Self::Overloaded { .. } => FailureKind::Overloaded,
            Self::BreakerOpen { .. } => FailureKind::BreakerOpen,
            Self::State { .. } => FailureKind::State,
            Self::Host { .. } => FailureKind::Host,
        }
    }

    /// Whether the component itself is to blame, so that the breaker counts it.
    pub const fn is_components(&self) -> bool {
        !matches!(
            self.kind(),
            FailureKind::Overloaded | FailureKind::BreakerOpen
        )
    }
}

/// What one binding said, as the combination hears it. A shadow binding is not heard at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard<A> {
    /// It counts.
    Enforced(Checked<A>),
    /// It is shown to the caller and does not count.
    Warned(Checked<A>),
    /// It failed, and its binding fails open: shown, and does not count.
    Ignored(Failure),
    /// It failed, and its binding fails closed.
    Failed(Failure),
}

/// What a call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Time, nanoseconds, instance and all.
    pub took_nanos: u64,
    /// Fuel, in units of wasmtime.
    pub fuel: u64,
}

/// One binding's part in a decision.
pub struct Said<H: Hook> {
    /// The binding, for messages.
    pub binding: String,
    /// The plugin: the owner of hold counters.
    pub plugin: String,
    /// Weight of its scores; only placement reads it.
    pub weight: u32,
    /// What it said.
    pub heard: Heard<H::Answer>,
    /// Why its component gave no answer, where what was heard is the answer of its fallback.
    pub stands_in: Option<Failure>,
    /// What its call used; none of a decider of the engine, and of a call that never began.
    pub spent: Option<Spent>,
}

impl<H: Hook> Said<H> {
    /// What the caller is told where the answer was made without this binding's component.
    pub fn warning(&self) -> Option<String> {
        let binding = &self.binding;
        match (&self.heard, &self.stands_in) {
            (Heard::Ignored(failure), _) => {
                Some(format!("{binding}: not asked, fails open: {failure}"))
            }
            (_, Some(failure)) => Some(format!(
                "{binding}: its fallback answered in its place: {failure}"
            )),
            (_, None) => None,
        }
    }
}

impl<H: Hook> fmt::Debug for Said<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said")
            .field("binding", &self.binding)
            .field("plugin", &self.plugin)
            .field("weight", &self.weight)
            .field("heard", &self.heard)
            .field("stands_in", &self.stands_in)
            .field("spent", &self.spent)
            .finish()
    }
}

impl<H: Hook> Clone for Said<H> {
    fn clone(&self) -> Self {
        Self {
            binding: self.binding.clone(),
            plugin: self.plugin.clone(),
            weight: self.weight,
            heard: self.heard.clone(),
            stands_in: self.stands_in.clone(),
            spent: self.spent,
        }
    }
}
