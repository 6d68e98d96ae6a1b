//! A binding: one plugin at one hook, with its mode, limits and fail mode.
//!
//! Invariant: every call is checked, counted and recorded, and its state committed, before anybody hears its answer; a
//! shadow is heard by nobody and commits nothing.

mod draft;
mod hear;
mod run;
mod shadow;

use std::sync::{Arc, Mutex, PoisonError};

use brood_hooks::{Checked, Decide, Failure, HookName, Now, Spent, check};
use brood_policy::{BindingSpec, Mode, Tenants};

use self::run::Commit;
use crate::breaker::Breaker;
use crate::call::Live;
use crate::counter::{self, Counters};
use crate::host::{BindableHook, Shared};
use crate::lane::{Full, Lane, Leaves};
use crate::pending::{Pending, pending};
use crate::thread::Queue;
use crate::{Plugin, PluginVersion};

pub use draft::Draft;
pub(crate) use hear::Voice;
pub use hear::{Decider, hear_all};

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

    /// Whether a binding is asked about it: about a batch if about any of its tenants, since most hooks only tighten.
    pub(crate) fn concerns(&self, spec: &BindingSpec) -> bool {
        let any = || {
            let mut tenants = H::tenants(&self.ask).into_iter();
            tenants.any(|tenant| spec.tenants.includes(tenant))
        };
        spec.tenants == Tenants::All || any()
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
    /// For the next call of a binding that has a new instance for each.
    prepared: Mutex<Option<(Arc<PluginVersion>, Live)>>,
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
            prepared: Mutex::default(),
        }
    }

    /// What the operator set.
    pub const fn spec(&self) -> &BindingSpec {
        &self.spec
    }

    pub(crate) const fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
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
        let (reply, pending) = pending();
        self.launch(now, asked, move |answered, _| reply.send(answered));
        pending
    }

    /// Starts a call whose state changes are the caller's to make durable, together with whatever else it writes.
    pub fn start_draft(
        self: &Arc<Self>,
        now: Now,
        asked: &Arc<Asked<H>>,
    ) -> Pending<Result<Draft<H>, Failure>> {
        let (reply, pending) = pending();
        let own = Arc::clone(self);
        let job = move |version: Arc<PluginVersion>, asked: &Asked<H>, place| {
            let done = own.run(now, asked, &version, Commit::ByCaller);
            let (state, plugin) = (done.left, &own.plugin);
            done.answered
                .map(|answer| Draft::new(answer, state, plugin, place))
        };
        self.enqueue(now, asked, job, move |draft| reply.send(draft));
        pending
    }

    /// Runs a call on a policy thread, and then what is to happen with its answer and what it used.
    pub(crate) fn launch(
        self: &Arc<Self>,
        now: Now,
        asked: &Arc<Asked<H>>,
        then: impl FnOnce(Answered<H>, Option<Spent>) + Send + 'static,
    ) {
        let own = Arc::clone(self);
        let job = move |version: Arc<PluginVersion>, asked: &Asked<H>, place| {
            let done = own.run(now, asked, &version, Commit::WithCall);
            drop::<Leaves>(place);
            Ok((done, own, version))
        };
        self.enqueue(now, asked, job, |ran| match ran {
            Ok((done, own, version)) => {
                then(done.answered, Some(done.spent));
                drop(done.used);
                own.prepare_next(&version);
            }
            Err(failure) => then(Err(failure), None),
        });
    }

    fn enqueue<T: Send + 'static>(
        self: &Arc<Self>,
        now: Now,
        asked: &Arc<Asked<H>>,
        job: impl FnOnce(Arc<PluginVersion>, &Asked<H>, Leaves) -> Result<T, Failure> + Send + 'static,
        then: impl FnOnce(Result<T, Failure>) + Send + 'static,
    ) {
        if let Err(failure) = self.admit(now) {
            return then(Err(failure));
        }
        let version = self.plugin.current();
        let lane = Arc::clone(self.lane_of(&version));
        let asked = Arc::clone(asked);
        // Taken by the job, or by the refusal of a full lane.
        let slot = Arc::new(Mutex::new(Some(then)));
        let own = Arc::clone(&slot);
        let submitted = lane.submit(&self.queue, move |place| {
            let result = job(version, &asked, place);
            if let Some(then) = taken(&own) {
                then(result);
            }
        });
        if let Err(full) = submitted
            && let Some(then) = taken(&slot)
        {
            then(Err(self.overloaded(now, &full)));
        }
    }

    /// Calls the component on this very thread, which is the caller's to block: policy threads, tools, benches.
    pub fn call_here(&self, now: Now, asked: &Asked<H>) -> Answered<H> {
        self.admit(now)?;
        let version = self.plugin.current();
        let _place = match self.lane_of(&version).enter() {
            Ok(place) => place,
            Err(full) => return Err(self.overloaded(now, &full)),
        };
        self.run(now, asked, &version, Commit::WithCall).answered
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
    pub(crate) fn lane_of(&self, version: &PluginVersion) -> &Arc<Lane> {
        if version.has_state() && self.spec.mode != Mode::Shadow {
            &self.plugin.lane
        } else {
            &self.lane
        }
    }
}

fn taken<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn ended() -> Failure {
    Failure::Host {
        message: "the plugin host ended, or the call panicked".to_owned(),
    }
}
