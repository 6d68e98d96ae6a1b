//! How a binding is heard: mode, fail mode, fallback.
//!
//! Invariant: whatever was not the answer of the binding's own component says so: a failure that is passed over, and a
//! fallback's answer, both with the reason.

use std::sync::Arc;

use brood_hooks::{Checked, Decide, Failure, Heard, Now, Said, Spent, check};
use brood_policy::{BindingSpec, Mode, OnFailure};

use super::shadow::Comparison;
use super::{Answered, Asked, Binding, Fallback, ended};
use crate::counter;
use crate::host::BindableHook;
use crate::pending::{Pending, block_on, pending};

/// What a call answered, and what it used if it began.
type Ran<H> = (Answered<H>, Option<Spent>);

impl<H: BindableHook> Binding<H> {
    /// Starts the call, if the mode says that it is heard.
    pub(crate) fn begin(
        self: &Arc<Self>,
        now: Now,
        asked: &Arc<Asked<H>>,
    ) -> Option<Pending<Ran<H>>> {
        match self.spec.mode {
            // A shadow is asked where it can be compared, by `hear_all`.
            Mode::Off | Mode::Shadow => None,
            Mode::Warn | Mode::Enforce => {
                let (reply, pending) = pending();
                self.launch(now, asked, move |answered, spent| {
                    reply.send((answered, spent));
                });
                Some(pending)
            }
        }
    }

    /// Applies mode and fail mode to what became of a call.
    pub(crate) async fn said(
        &self,
        now: Now,
        asked: &Arc<Asked<H>>,
        ran: Option<Ran<H>>,
    ) -> Said<H> {
        let (answered, spent) = ran.unwrap_or_else(|| (Err(ended()), None));
        let voice = Voice {
            spec: &self.spec,
            fallback: self.fallback.as_ref(),
            counters: &self.counters,
        };
        voice.say(now, asked, answered, spent).await
    }
}

/// What mode and fail mode make of an answer, or of none.
pub(crate) struct Voice<'a, H: BindableHook> {
    pub(crate) spec: &'a BindingSpec,
    pub(crate) fallback: Option<&'a Fallback<H>>,
    pub(crate) counters: &'a counter::Shared,
}

impl<H: BindableHook> Voice<'_, H> {
    pub(crate) async fn say(
        &self,
        now: Now,
        asked: &Arc<Asked<H>>,
        answered: Answered<H>,
        spent: Option<Spent>,
    ) -> Said<H> {
        let mut stands_in = None;
        let heard = match (answered, &self.spec.on_failure) {
            (Ok(answer), _) => self.counted(answer),
            (Err(failure), OnFailure::Open) => {
                self.counters.lock().failed_open += 1;
                Heard::Ignored(failure)
            }
            (Err(failure), OnFailure::Closed) => self.failed(failure),
            (Err(failure), OnFailure::Fallback(_)) => {
                self.counters.lock().fell_back += 1;
                match self.fall_back(now, asked).await {
                    Some(Ok(answer)) => {
                        stands_in = Some(failure);
                        self.counted(answer)
                    }
                    Some(Err(_)) | None => self.failed(failure),
                }
            }
        };
        Said {
            binding: self.spec.name(),
            plugin: self.spec.plugin.clone(),
            weight: self.spec.weight,
            heard,
            stands_in,
            spent,
        }
    }

    fn counted(&self, answer: Checked<H::Answer>) -> Heard<H::Answer> {
        match self.spec.mode {
            Mode::Enforce => Heard::Enforced(answer),
            Mode::Warn | Mode::Shadow | Mode::Off => Heard::Warned(answer),
        }
    }

    /// A binding that only warns cannot fail a fork.
    fn failed(&self, failure: Failure) -> Heard<H::Answer> {
        match self.spec.mode {
            Mode::Enforce => Heard::Failed(failure),
            Mode::Warn | Mode::Shadow | Mode::Off => Heard::Ignored(failure),
        }
    }

    async fn fall_back(&self, now: Now, asked: &Arc<Asked<H>>) -> Option<Answered<H>> {
        match self.fallback? {
            Fallback::Builtin(decider) => {
                let answer = decider.decide(now, asked.ask());
                Some(answer.and_then(|answer| {
                    check::<H>(asked.ask(), &self.spec.permits, answer).map_err(Failure::Malformed)
                }))
            }
            Fallback::Binding(binding) => binding.start(now, asked).await,
        }
    }
}

/// A component where a decider is wanted.
pub struct Decider<H: BindableHook>(pub Arc<Binding<H>>);

impl<H: BindableHook> Decide<H> for Decider<H> {
    fn decide(&self, now: Now, ask: &H::Ask) -> Result<H::Answer, Failure> {
        let asked = Asked::new(ask.clone());
        let answered = block_on(self.0.start(now, &asked)).unwrap_or_else(|| Err(ended()));
        answered.map(|answer| answer.answer().clone())
    }
}

/// Asks all bindings of a hook that its tenant has, at once, and hears them in their order. The calls begin here, not when it is awaited.
pub fn hear_all<H: BindableHook>(
    bindings: &[Arc<Binding<H>>],
    now: Now,
    asked: Arc<Asked<H>>,
) -> impl Future<Output = Vec<Said<H>>> + Send {
    let bindings: Vec<_> = bindings
        .iter()
        .filter(|binding| asked.concerns(binding.spec()))
        .collect();
    let begun: Vec<_> = bindings
        .iter()
        .map(|binding| (Arc::clone(binding), binding.begin(now, &asked)))
        .collect();
    let shadows = bindings
        .into_iter()
        .filter(|binding| binding.spec().mode == Mode::Shadow);
    let shadows: Vec<_> = shadows
        .map(|binding| Comparison::begin(binding, now, &asked))
        .collect();
    async move {
        let mut said = Vec::with_capacity(begun.len());
        for (binding, pending) in begun {
            if let Some(pending) = pending {
                let ran = pending.await;
                said.push(binding.said(now, &asked, ran).await);
            }
        }
        for shadow in shadows {
            shadow.heard(&said);
        }
        said
    }
}
