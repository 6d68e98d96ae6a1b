//! What the engine measures of itself, in the format of <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
//!
//! ```text
//!  where it happens ─► Metrics: counters, histograms ──────────────┐
//!  store, panels, processes ─► Gauges: looked at with each scrape ─┴─► registry of whoever serves it
//! ```
//!
//! Invariant: no label has values that a caller or a guest can choose, so that the number of series is bounded by what an
//! operator has bound; a tenant is a label only where an operator asks for it. A metric whose labels are few is there with
//! its zeros from the start, so that its first change is seen as one.

mod gauge;
mod hook;
mod memory;
mod page;
mod usage;
mod watch;

use brood_meter::Settlement;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Engine, EngineError};
use gauge::Gauges;
pub(super) use memory::Costs;
pub(super) use watch::{Laps, Step};

/// Names and values of labels.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram>;
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// Seconds: a decision takes tens of microseconds, the boot of a template tens of seconds.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    15.0, 60.0,
];

/// What daughters are made of, as a label.
const SOURCES: [&str; 4] = ["machine", "checkpoint", "template", "snapshot"];
/// What became of a fork, as a label.
const OUTCOMES: [&str; 4] = ["done", "denied", "busy", "failed"];

/// Whether tenants are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TenantLabels {
    /// All are counted together.
    #[default]
    Together,
    /// Machines are counted for each: as many series as there are tenants.
    Apart,
}

/// Counters and histograms of what happened since the engine was opened.
pub(super) struct Metrics {
    forks: Counters<2>,
    fork: Histograms<1>,
    steps: Histograms<2>,
    daughters: Counters<1>,
    missing: Counters<1>,
    mother_pause: Histograms<1>,
    first_instruction: Histograms<1>,
    confirmed: Histograms<1>,
    ended: Counters<1>,
    execs: Counters<1>,
    claims: Counters<1>,
    rated: usage::Rated,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> _);
        let metrics = Self {
            forks: Family::default(),
            fork: seconds(),
            steps: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            daughters: Family::default(),
            missing: Family::default(),
            mother_pause: seconds(),
            first_instruction: seconds(),
            confirmed: seconds(),
            ended: Family::default(),
            execs: Family::default(),
            claims: Family::default(),
            rated: usage::Rated::default(),
        };
        metrics.begin_with_zeros();
        metrics
    }
}

impl Metrics {
    fn begin_with_zeros(&self) {
        for source in SOURCES {
            for outcome in OUTCOMES {
                drop(self.forks.get_or_create(&of_fork(source, outcome)));
            }
            drop(self.daughters.get_or_create(&of(source)));
            drop(self.missing.get_or_create(&of(source)));
            let times = [
                &self.fork,
                &self.mother_pause,
                &self.first_instruction,
                &self.confirmed,
            ];
            for times in times {
                drop(times.get_or_create(&of(source)));
            }
        }
        for kind in ["machine", "checkpoint"] {
            drop(self.ended.get_or_create(&[("kind", kind)]));
        }
        for from in ["pool", "loaded"] {
            drop(self.claims.get_or_create(&[("from", from)]));
        }
        self.rated.begin_with_zeros();
        drop(self.execs.get_or_create(&[("change", "started")]));
        drop(self.execs.get_or_create(&[("change", "ended")]));
    }

    /// What became of a fork.
    pub(super) fn forked<T>(&self, source: &'static str, done: &Result<T, EngineError>) {
        let outcome = match done {
            Ok(_) => "done",
            Err(EngineError::Denied { .. }) => "denied",
            Err(EngineError::Busy { .. }) => "busy",
            Err(_) => "failed",
        };
        self.forks.get_or_create(&of_fork(source, outcome)).inc();
    }

    /// A machine or checkpoint that has ended.
    pub(super) fn ended(&self, kind: &'static str) {
        self.ended.get_or_create(&[("kind", kind)]).inc();
    }

    /// What a batch of usage came to is committed.
    pub(super) fn settled(&self, settlement: &Settlement) {
        self.rated.settled(settlement);
    }

    /// A batch of usage was tried in vain.
    pub(super) fn not_rated(&self) {
        self.rated.failed();
    }

    /// A program that was started, or whose end was seen.
    pub(super) fn exec(&self, change: &'static str) {
        self.execs.get_or_create(&[("change", change)]).inc();
    }

    /// Warm daughters that were claimed: those who waited in the pool, and those who had to be loaded for it.
    pub(super) fn claimed(&self, from: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.claims.get_or_create(&[("from", from)]).inc_by(count);
    }

    fn register(&self, registry: &mut Registry) {
        self.register_forks(registry);
        self.rated.register(registry);
        registry.register(
            "machines_ended",
            "Machines and checkpoints that have ended, by whatever cause",
            self.ended.clone(),
        );
        registry.register(
            "execs",
            "Programs in guests that were started, and whose ends were seen",
            self.execs.clone(),
        );
        registry.register(
            "warm_claims",
            "Daughters of templates: out of the warm pool, or loaded because it was empty",
            self.claims.clone(),
        );
    }

    fn register_forks(&self, registry: &mut Registry) {
        registry.register(
            "forks",
            "Requests to fork a machine, a checkpoint, a template or a snapshot, by what became of them",
            self.forks.clone(),
        );
        registry.register(
            "daughters",
            "Daughters that were born and committed",
            self.daughters.clone(),
        );
        registry.register(
            "daughters_missing",
            "Daughters of forks that are committed without them",
            self.missing.clone(),
        );
        let times: [(&str, &str, &Histograms<1>); 4] = [
            (
                "fork",
                "Time of a fork that was done, from its decision to its commit",
                &self.fork,
            ),
            (
                "fork_mother_pause",
                "Time that the mother's vCPUs stood still for a fork",
                &self.mother_pause,
            ),
            (
                "daughter_first_instruction",
                "Time from the fork call to a daughter's first instruction",
                &self.first_instruction,
            ),
            (
                "daughter_confirmed",
                "Time from the fork call until a daughter confirmed her identity; none without an agent",
                &self.confirmed,
            ),
        ];
        for (name, help, metric) in times {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        }
        registry.register_with_unit(
            "fork_step",
            "Time of each step of a fork: admission, line (of who waits for room), placement, mutation, intent (commit), queue (for the mother), \
             fork, stamp, commit",
            Unit::Seconds,
            self.steps.clone(),
        );
    }
}

fn of(source: &'static str) -> Labels<1> {
    [("source", source)]
}

fn of_fork(source: &'static str, outcome: &'static str) -> Labels<2> {
    [("source", source), ("outcome", outcome)]
}

impl Engine {
    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Has everything that this engine measures shown in a registry, under its own prefix. What a scrape looks at is looked
    /// at then: database and processes, so it is not for a thread that others wait on.
    pub fn register(&self, registry: &mut Registry, tenants: TenantLabels) {
        let brood = registry.sub_registry_with_prefix("brood");
        self.metrics().register(brood);
        self.store().metrics().register(brood);
        brood.register_collector(Box::new(Gauges {
            engine: self.clone(),
            tenants,
        }));
    }
}
