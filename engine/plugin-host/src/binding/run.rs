//! A call of a binding from its state to its record.
//!
//! Invariant: a call is checked, its state committed or handed over, and then counted and recorded, each once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use brood_hooks::{Failure, Now, Spent};
use brood_policy::{Mode, Reuse};

use super::{About, Answered, Asked, Binding};
use crate::PluginVersion;
use crate::call::{self, Beginning, Context, Journal, Live, Place, Ran};
use crate::host::BindableHook;
use crate::record::Record;
use crate::state::{PluginState, StateChange, StateStoreError, StateView};

/// Who makes a call's state durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// The call itself, before anybody hears its answer.
    WithCall,
    /// Whoever asked, together with the answer.
    ByCaller,
}

/// A call that is over.
pub(super) struct Done<H: BindableHook> {
    pub(super) answered: Answered<H>,
    /// State that is the caller's to commit.
    pub(super) left: Vec<StateChange>,
    pub(super) spent: Spent,
    /// What is to be freed once somebody has the answer.
    pub(super) used: Used,
}

/// The instance of a call that is over. To free one costs as much as to make one.
pub(super) struct Used(
    #[expect(dead_code, reason = "it is held until it is dropped")] Option<Live>,
);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: BindableHook> Binding<H> {
    /// The call itself. The changes are those that the caller is left to commit.
    pub(super) fn run(
        &self,
        now: Now,
        asked: &Asked<H>,
        version: &Arc<PluginVersion>,
        commit: Commit,
    ) -> Done<H> {
        let began = Instant::now();
        let live = self.take_warm(version);
        let warm = live.is_some();
        let live = live.or_else(|| self.take_prepared(version));
        let context = self.context(now, version);
        let Ran {
            result,
            fuel_used,
            mut context,
            live,
        } = {
            let _ticks = self.shared.ticker.watch();
            let (pre, hooks) = (&version.pre, &version.hooks);
            let place = Place {
                pre,
                hooks,
                limits: &self.spec.limits,
                live,
            };
            call::call::<H>(place, context, &asked.ask)
        };
        let answer = result
            .as_ref()
            .ok()
            .and_then(|answer| postcard::to_allocvec(answer).ok());
        let mut answered = result.and_then(|answer| self.checked(asked, answer));
        let mut left = Vec::new();
        if answered.is_ok() && self.spec.mode != Mode::Shadow {
            let state = std::mem::replace(&mut context.state, StateView::empty());
            match commit {
                Commit::ByCaller => left = PluginState::changes(state),
                Commit::WithCall => {
                    if let Err(StateStoreError { message }) = self.plugin.state.commit(state) {
                        answered = Err(Failure::State { message });
                    }
                }
            }
        }
        let took_nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.note(now, &answered, &context, (fuel_used, took_nanos));
        let refuses = answered
            .as_ref()
            .is_ok_and(|answer| H::refuses(answer.answer()));
        self.shared.records.push(Record {
            number: 0,
            now,
            hook: H::NAME,
            plugin: self.spec.plugin.clone(),
            mode: self.spec.mode,
            component: version.digest,
            settings: version.settings.digest,
            limits: self.spec.limits,
            permits: self.spec.permits.clone(),
            log_level: self.plugin.log_level,
            warm,
            ask: Arc::clone(&asked.encoded),
            host_answers: context.journal.into_answers(),
            answer,
            failure: answered.as_ref().err().cloned(),
            refuses,
            fuel_used,
            took_nanos,
        });
        let used = match live {
            Some(live) if answered.is_ok() => self.keep_warm(version, live),
            other => other,
        };
        Done {
            answered,
            left,
            spent: Spent {
                took_nanos,
                fuel: fuel_used,
            },
            used: Used(used),
        }
    }

    /// Makes the instance of the next call, while nobody waits. It is as new then as one made for it would be: nothing of
    /// the component has run in it.
    pub(super) fn prepare_next(&self, version: &Arc<PluginVersion>) {
        if self.spec.reuse != Reuse::Fresh || lock(&self.prepared).is_some() {
            return;
        }
        if let Some(live) = Live::prepared(&version.pre, &self.spec.limits) {
            // Whom it takes the place of is freed outside of the lock.
            drop(lock(&self.prepared).replace((Arc::clone(version), live)));
        }
    }

    fn take_prepared(&self, version: &Arc<PluginVersion>) -> Option<Live> {
        let taken = lock(&self.prepared).take();
        taken
            .filter(|(of, _)| Arc::ptr_eq(of, version))
            .map(|(_, live)| live)
    }

    /// What the call begins with.
    fn context(&self, now: Now, version: &PluginVersion) -> Context {
        let state = if version.has_state() {
            self.plugin.state.view(now.as_unix_millis())
        } else {
            StateView::empty()
        };
        Context::new(
            &self.spec.limits,
            Beginning {
                now,
                settings: version.settings.clone(),
                state,
                journal: Journal::recording(),
                log_level: self.plugin.log_level,
                declared: Arc::clone(&version.declared),
            },
        )
    }

    /// Tells breaker, counters and observer.
    fn note(
        &self,
        now: Now,
        answered: &Answered<H>,
        context: &Context,
        (fuel_used, took_nanos): (u64, u64),
    ) {
        let failure = answered.as_ref().err();
        lock(&self.breaker).note(now, failure);
        {
            let mut counters = self.counters.lock();
            match answered {
                Ok(answer) if H::refuses(answer.answer()) => counters.refused += 1,
                Ok(_) => counters.answered += 1,
                Err(failure) => counters.fail(failure),
            }
            counters.fuel = counters.fuel.saturating_add(fuel_used);
            counters.time(took_nanos);
            counters.log_dropped += context.log_dropped;
            counters.metrics_dropped += context.metrics_dropped;
        }
        if context.log.is_empty() && context.metrics.is_empty() {
            return;
        }
        let about = About {
            plugin: self.spec.plugin.clone(),
            hook: H::NAME,
            mode: self.spec.mode,
        };
        self.shared.observer.log(&about, &context.log);
        self.shared.observer.measure(&about, &context.metrics);
    }

    fn take_warm(&self, version: &Arc<PluginVersion>) -> Option<Live> {
        if self.spec.reuse == Reuse::Fresh {
            return None;
        }
        let mut warm = lock(&self.warm);
        warm.retain(|(of, _)| Arc::ptr_eq(of, version));
        warm.pop().map(|(_, live)| live)
    }

    /// Gives it back where it is not wanted.
    fn keep_warm(&self, version: &Arc<PluginVersion>, live: Live) -> Option<Live> {
        if self.spec.reuse == Reuse::Fresh {
            return Some(live);
        }
        let mut warm = lock(&self.warm);
        if warm.len() >= self.spec.concurrency.running as usize {
            return Some(live);
        }
        warm.push((Arc::clone(version), live));
        None
    }
}
