//! What the edge measures, and everything that is measured as text.
//!
//! Invariant: an operation of the table is a label, a path never; who asks is none. A scrape is written on a thread that
//! may stand still.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use brood_api::Code;
use brood_service::engine::{Engine, TenantLabels};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::fault::{Refusal, refusal};

/// Seconds: a look takes less than a millisecond, a fork a few, a program that is waited for a minute.
const SECONDS: [f64; 10] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0,
];

/// A request by its operation and its answer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    status: u16,
}

/// What the edge counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    times: Family<[(&'static str, &'static str); 1], Histogram>,
    problems: Family<[(&'static str, &'static str); 1], Counter>,
    connections: Gauge,
}

impl Metrics {
    pub(crate) fn new(engine: &Engine, tenants: TenantLabels) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            times: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            problems: Family::default(),
            connections: Gauge::default(),
        };
        for code in Code::ALL {
            let labels = [("code", code.as_str())];
            drop(metrics.problems.get_or_create(&labels));
        }
        metrics.register();
        engine.register(&mut metrics.registry, tenants);
        metrics
    }

    fn register(&mut self) {
        let brood = self.registry.sub_registry_with_prefix("brood");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        brood.register("build", "The engine", Info::new(version));
        let begun = Gauge::<f64, AtomicU64>::default();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        begun.set(since.map_or(0.0, |since| since.as_secs_f64()));
        brood.register_with_unit(
            "start_time",
            "When the server started, since the epoch",
            Unit::Seconds,
            begun,
        );
        brood.register(
            "http_requests",
            "Answered requests, by operation and status",
            self.requests.clone(),
        );
        brood.register_with_unit(
            "http_request",
            "Time from the head of a request until its answer begins; a stream's answer begins at once",
            Unit::Seconds,
            self.times.clone(),
        );
        brood.register(
            "http_problems",
            "Requests that were refused, by the code of the problem: denied by a policy, rate_limited, busy and so on",
            self.problems.clone(),
        );
        brood.register(
            "http_connections",
            "Connections that are open",
            self.connections.clone(),
        );
    }

    /// A request is answered.
    pub(crate) fn answered(
        &self,
        operation: &'static str,
        status: StatusCode,
        problem: Option<Code>,
        since: Instant,
    ) {
        let status = status.as_u16();
        self.requests
            .get_or_create(&Request { operation, status })
            .inc();
        let took = since.elapsed().as_secs_f64();
        self.times
            .get_or_create(&[("operation", operation)])
            .observe(took);
        if let Some(code) = problem {
            let labels = [("code", code.as_str())];
            self.problems.get_or_create(&labels).inc();
        }
    }

    /// Counts a connection for as long as what is given out is kept.
    pub(crate) fn connection(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    /// Everything, as text.
    pub(crate) async fn scrape(self: Arc<Self>) -> Result<String, Refusal> {
        let written = tokio::task::spawn_blocking(move || {
            let mut page = String::new();
            text::encode(&mut page, &self.registry).map(|()| page)
        });
        let written = written.await.unwrap_or(Err(std::fmt::Error));
        written
            .map_err(|error| refusal(Code::Failed, format!("metrics cannot be written: {error}")))
    }
}

/// A connection that is open.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
