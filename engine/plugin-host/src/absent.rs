//! A binding whose component's file is not there.
//!
//! Invariant: nothing of the engine's own takes its place. Each ask is that binding's failure, which its fail mode
//! handles as it handles any other.

use std::sync::Arc;

use brood_hooks::{Failure, Now, Said};
use brood_policy::{BindingSpec, Mode};

use crate::binding::{Asked, Fallback, Voice};
use crate::counter::{self, Counters};
use crate::host::BindableHook;

/// A binding without a component.
pub struct Absent<H: BindableHook> {
    spec: BindingSpec,
    fallback: Option<Fallback<H>>,
    failure: Failure,
    counters: counter::Shared,
}

impl<H: BindableHook> Absent<H> {
    pub(crate) fn new(spec: BindingSpec, fallback: Option<Fallback<H>>, why: String) -> Self {
        Self {
            spec,
            fallback,
            failure: Failure::Host { message: why },
            counters: counter::Shared::default(),
        }
    }

    /// What the operator set.
    pub const fn spec(&self) -> &BindingSpec {
        &self.spec
    }

    /// Why there is none.
    pub const fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Its counters as they are now.
    pub fn counters(&self) -> Counters {
        self.counters.lock().clone()
    }

    /// What is heard of it, if its mode says that it is heard.
    pub(crate) async fn said(&self, now: Now, asked: &Arc<Asked<H>>) -> Option<Said<H>> {
        if self.spec.mode == Mode::Off {
            return None;
        }
        self.counters.lock().fail(&self.failure);
        if self.spec.mode == Mode::Shadow {
            return None;
        }
        let voice = Voice {
            spec: &self.spec,
            fallback: self.fallback.as_ref(),
            counters: &self.counters,
        };
        let failed = Err(self.failure.clone());
        Some(voice.say(now, asked, failed, None).await)
    }
}
