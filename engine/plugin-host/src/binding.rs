//! A binding: one plugin at one hook, with its mode, limits and fail mode.
//!
//! Invariant: every call is checked, counted and recorded, and its state committed, before anybody hears its answer; a
//! shadow is heard by nobody and commits nothing.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use brood_hooks::{Checked, Decide, Failure, Heard, HookName, Now, Said, Spent, check};
use brood_policy::{BindingSpec, Mode, OnFailure, Reuse};

use crate::breaker::Breaker;
use crate::call::{self, Beginning, Context, Journal, Live, Place, Ran};
use crate::counter::{self, Counters};
use crate::host::{BindableHook, Shared};
use crate::lane::{Full, Lane};
use crate::pending::{Pending, block_on, pending};
use crate::record::Record;
use crate::state::StateView;
use crate::thread::Queue;
use crate::{Plugin, PluginVersion};

/// Whose lines and measurements these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The plugin.
    pub plugin: String,
    /// The hook.
    pub hook: HookName,
    /// The binding's mode.
    pub mode: Mode,
}

/// Who is asked when a component fails.
pub enum Fallback<H: BindableHook> {
    /// A decider of the engine: a plain function, asked on the caller's thread.
    Builtin(Arc<dyn Decide<H>>),
    /// Another binding.
    Binding(Arc<Binding<H>>),
}

/// What is asked, written down once for all bindings.
pub struct Asked<H: BindableHook> {
    ask: H::Ask,
    encoded: Arc<[u8]>,
}

impl<H: BindableHook> Asked<H> {
    /// An ask.
    pub fn new(ask: H::Ask) -> Arc<Self> {
        // Our own records encode; one that did not would only lose its replay.
        let encoded = postcard::to_allocvec(&ask).unwrap_or_default().into();
        Arc::new(Self { ask, encoded })
    }

    /// What is asked.
    pub const fn ask(&self) -> &H::Ask {
        &self.ask
    }

    /// The same as a record holds it, in postcard.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

type Answered<H> = Result<Checked<<H as brood_hooks::Hook>::Answer>, Failure>;

/// A call that has begun.
pub(crate) struct Launched<H: BindableHook> {
    pending: Pending<Answered<H>>,
    /// There before the answer is, if the component was called at all.
    spent: Arc<OnceLock<Spent>>,
}

/// A plugin at a hook.
pub struct Binding<H: BindableHook> {
    spec: BindingSpec,
    plugin: Arc<Plugin>,
    fallback: Option<Fallback<H>>,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    lane: Arc<Lane>,
    // Leaf locks, each held for lines.
    breaker: Mutex<Breaker>,
    counters: counter::Shared,
    warm: Mutex<Vec<(Arc<PluginVersion>, Live)>>,
}

impl<H: BindableHook> Binding<H> {
    pub(crate) fn new(
        spec: BindingSpec,
        plugin: Arc<Plugin>,
        fallback: Option<Fallback<H>>,
        shared: Arc<Shared>,
        queue: Arc<Queue>,
    ) -> Self {
        let lane = Lane::new(spec.concurrency);
        let breaker = Mutex::new(Breaker::new(spec.breaker));
        Self {
            spec,
            plugin,
            fallback,
            shared,
            queue,
            lane,
            breaker,
            counters: counter::Shared::default(),
            warm: Mutex::default(),
        }
    }

    /// What the operator set.
    pub const fn spec(&self) -> &BindingSpec {
        &self.spec
    }

    /// Its counters as they are now.
    pub fn counters(&self) -> Counters {
        self.counters.lock().clone()
    }

    /// Whether its breaker is open.
    pub fn is_broken(&self) -> bool {
        self.breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_open()
    }

    /// Starts a call on a policy thread. The answer is `None` if the host ended meanwhile.
    pub fn start(self: &Arc<Self>, now: Now, asked: &Arc<Asked<H>>) -> Pending<Answered<H>> {
        self.launch(now, asked).pending
    }

    fn launch(self: &Arc<Self>, now: Now, asked: &Arc<Asked<H>>) -> Launched<H> {
        let (reply, pending) = pending();
        let spent = Arc::new(OnceLock::new());
        let launched = Launched {
            pending,
            spent: Arc::clone(&spent),
        };
        if let Err(failure) = self.admit(now) {
            reply.send(Err(failure));
            return launched;
        }
        let version = self.plugin.current();
        let lane = Arc::clone(self.lane_of(&version));
        let (binding, asked) = (Arc::clone(self), Arc::clone(asked));
        let (slot, taken) = (Arc::new(Mutex::new(Some(reply))), Arc::clone(self));
        let own = Arc::clone(&slot);
        let job = Box::new(move || {
            let (answered, used) = binding.run(now, &asked, &version);
            spent.get_or_init(|| used);
            let reply = own.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(reply) = reply {
                reply.send(answered);
            }
        });
        if let Err(full) = lane.submit(&self.queue, job) {
            let failure = taken.overloaded(now, &full);
            let reply = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(reply) = reply {
                reply.send(Err(failure));
            }
        }
        launched
    }

    /// Calls the component on this very thread, which is the caller's to block: policy threads, tools, benches.
    pub fn call_here(&self, now: Now, asked: &Asked<H>) -> Answered<H> {
        self.admit(now)?;
        let version = self.plugin.current();
        let _place = match self.lane_of(&version).enter() {
            Ok(place) => place,
            Err(full) => return Err(self.overloaded(now, &full)),
        };
        self.run(now, asked, &version).0
    }

    /// What the combination hears of this binding; `None` of one that is off or a shadow.
    pub async fn hear(self: &Arc<Self>, now: Now, asked: &Arc<Asked<H>>) -> Option<Said<H>> {
        let launched = self.begin(now, asked)?;
        Some(self.said(now, asked, launched).await)
    }

    /// Starts the call, and waits for it only if the mode says that it is heard.
    pub(crate) fn begin(self: &Arc<Self>, now: Now, asked: &Arc<Asked<H>>) -> Option<Launched<H>> {
        match self.spec.mode {
            Mode::Off => None,
            Mode::Shadow => {
                drop(self.start(now, asked));
                None
            }
            Mode::Warn | Mode::Enforce => Some(self.launch(now, asked)),
        }
    }

    /// Applies mode and fail mode to what became of a call.
    pub(crate) async fn said(
        &self,
        now: Now,
        asked: &Arc<Asked<H>>,
        launched: Launched<H>,
    ) -> Said<H> {
        let answered = launched.pending.await.unwrap_or_else(|| Err(ended()));
        let mut instead_of = None;
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
                        instead_of = Some(failure);
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
            instead_of,
            spent: launched.spent.get().copied(),
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
        match self.fallback.as_ref()? {
            Fallback::Builtin(decider) => {
                let answer = decider.decide(now, asked.ask());
                Some(answer.and_then(|answer| self.checked(asked, answer)))
            }
            Fallback::Binding(binding) => binding.start(now, asked).await,
        }
    }

    fn checked(&self, asked: &Asked<H>, answer: H::Answer) -> Answered<H> {
        check::<H>(&asked.ask, &self.spec.permits, answer).map_err(Failure::Malformed)
    }

    fn admit(&self, now: Now) -> Result<(), Failure> {
        let admitted = self
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(now);
        admitted.inspect_err(|failure| self.counters.lock().fail(failure))
    }

    fn overloaded(&self, now: Now, full: &Full) -> Failure {
        let failure = Failure::Overloaded {
            waiting: full.waiting,
        };
        self.breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(now, Some(&failure));
        self.counters.lock().fail(&failure);
        failure
    }

    /// Calls that may change a plugin's state go one by one, over all its bindings.
    fn lane_of(&self, version: &PluginVersion) -> &Arc<Lane> {
        if version.has_state() && self.spec.mode != Mode::Shadow {
            &self.plugin.lane
        } else {
            &self.lane
        }
    }

    /// The call itself.
    fn run(
        &self,
        now: Now,
        asked: &Asked<H>,
        version: &Arc<PluginVersion>,
    ) -> (Answered<H>, Spent) {
        let began = Instant::now();
        let live = self.take_warm(version);
        let warm = live.is_some();
        let state = if version.has_state() {
            self.plugin.state.view(now.as_unix_millis())
        } else {
            StateView::empty()
        };
        let context = Context::new(
            &self.spec.limits,
            Beginning {
                now,
                settings: version.settings.clone(),
                state,
                journal: Journal::recording(),
                log_level: self.plugin.log_level,
                declared: Arc::clone(&version.declared),
            },
        );
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
        if answered.is_ok() && self.spec.mode != Mode::Shadow {
            let state = std::mem::replace(&mut context.state, StateView::empty());
            if let Err(error) = self.plugin.state.commit(state) {
                answered = Err(Failure::State {
                    message: error.message,
                });
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
        if let (Some(live), true) = (live, answered.is_ok()) {
            self.keep_warm(version, live);
        }
        let fuel = fuel_used;
        (answered, Spent { took_nanos, fuel })
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
        self.breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(now, failure);
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
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        warm.retain(|(of, _)| Arc::ptr_eq(of, version));
        warm.pop().map(|(_, live)| live)
    }

    fn keep_warm(&self, version: &Arc<PluginVersion>, live: Live) {
        if self.spec.reuse == Reuse::Fresh {
            return;
        }
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        if warm.len() < self.spec.concurrency.running as usize {
            warm.push((Arc::clone(version), live));
        }
    }
}

fn ended() -> Failure {
    Failure::Host {
        message: "the plugin host ended, or the call panicked".to_owned(),
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

/// Asks all bindings of a hook at once, and hears them in their order. The calls begin here, not when it is awaited.
pub fn hear_all<H: BindableHook>(
    bindings: &[Arc<Binding<H>>],
    now: Now,
    asked: Arc<Asked<H>>,
) -> impl Future<Output = Vec<Said<H>>> + Send {
    let begun: Vec<_> = bindings
        .iter()
        .map(|binding| (Arc::clone(binding), binding.begin(now, &asked)))
        .collect();
    async move {
        let mut said = Vec::with_capacity(begun.len());
        for (binding, launched) in begun {
            if let Some(launched) = launched {
                said.push(binding.said(now, &asked, launched).await);
            }
        }
        said
    }
}
