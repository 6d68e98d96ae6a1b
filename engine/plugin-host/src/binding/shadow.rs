//! A shadow against what was decided without it.
//!
//! Invariant: a fork waits for no shadow. The comparison is made on a policy thread, by whichever comes last: the shadow's
//! answer or the decision. A shadow that failed, and a decision that was given up, are compared with nothing.

use std::sync::{Arc, Mutex, PoisonError};

use brood_hooks::{Checked, Heard, Now, Said};

use super::{Asked, Binding};
use crate::host::BindableHook;

enum Stage<H: BindableHook> {
    Neither,
    Answered(Checked<H::Answer>),
    Decided(Vec<Said<H>>),
}

/// One shadow's answer to one ask, and what the others said to it.
pub(super) struct Comparison<H: BindableHook> {
    binding: Arc<Binding<H>>,
    asked: Arc<Asked<H>>,
    // A leaf lock.
    stage: Mutex<Stage<H>>,
}

impl<H: BindableHook> Comparison<H> {
    /// Asks the shadow.
    pub(super) fn begin(binding: &Arc<Binding<H>>, now: Now, asked: &Arc<Asked<H>>) -> Arc<Self> {
        let comparison = Arc::new(Self {
            binding: Arc::clone(binding),
            asked: Arc::clone(asked),
            stage: Mutex::new(Stage::Neither),
        });
        let own = Arc::clone(&comparison);
        binding.launch(now, asked, move |answered, _| {
            if let Ok(answer) = answered
                && let Stage::Decided(said) = own.put(Stage::Answered(answer.clone()))
            {
                own.compare(&said, answer);
            }
        });
        comparison
    }

    /// The stage before this one.
    fn put(&self, stage: Stage<H>) -> Stage<H> {
        let mut place = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut place, stage)
    }

    /// What the others said.
    pub(super) fn heard(self: Arc<Self>, said: &[Said<H>]) {
        if let Stage::Answered(answer) = self.put(Stage::Decided(said.to_vec())) {
            let (queue, said) = (Arc::clone(&self.binding.queue), said.to_vec());
            queue.push(Box::new(move || self.compare(&said, answer)));
        }
    }

    fn compare(&self, said: &[Said<H>], answer: Checked<H::Answer>) {
        let spec = &self.binding.spec;
        let shadow = Said {
            binding: spec.name(),
            plugin: spec.plugin.clone(),
            weight: spec.weight,
            heard: Heard::Enforced(answer),
            stands_in: None,
            spent: None,
        };
        let agrees = H::agrees(self.asked.ask(), said, &shadow);
        let mut counters = self.binding.counters.lock();
        if agrees {
            counters.agreed += 1;
        } else {
            counters.disagreed += 1;
        }
    }
}
