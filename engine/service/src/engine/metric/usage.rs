//! Metering and rating: how far they have come, and what was rated.
//!
//! Invariant: what the database keeps is looked at with each scrape and survives a restart; what is counted here began with the
//! engine. Dimensions and verdicts are the labels, tenants are none.

use std::fmt;

use brood_meter::{Dimension, Settlement};
use brood_store::UsageState;
use brood_units::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::Labels;
use super::page::{About, NONE, Page, about};

/// Verdicts on what tenants have left, as a label.
const VERDICTS: [&str; 5] = ["none", "warn", "refuse-forks", "pause", "stop"];

/// What rating has done since the engine was opened.
#[derive(Default)]
pub(super) struct Rated {
    quantity: Family<Labels<1>, Counter>,
    lines: Counter,
    failures: Counter,
}

impl Rated {
    pub(super) fn begin_with_zeros(&self) {
        for dimension in Dimension::ALL {
            drop(self.quantity.get_or_create(&of(dimension)));
        }
    }

    /// What a batch came to is committed.
    pub(super) fn settled(&self, settlement: &Settlement) {
        for (dimension, quantity) in &settlement.totals {
            let quantity = u64::try_from(*quantity).unwrap_or(0);
            self.quantity
                .get_or_create(&of(*dimension))
                .inc_by(quantity);
        }
        self.lines.inc_by(settlement.lines.len() as u64);
    }

    /// A batch was tried in vain.
    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "usage_rated",
            "Quantities that were rated, in base units of their dimension; what a correction brings is counted as well",
            self.quantity.clone(),
        );
        registry.register(
            "usage_lines",
            "Lines that rating has brought",
            self.lines.clone(),
        );
        registry.register(
            "usage_rating_failures",
            "Tries to rate a batch that came to nothing",
            self.failures.clone(),
        );
    }
}

fn of(dimension: Dimension) -> Labels<1> {
    [("dimension", dimension.as_str())]
}

/// How far metering and rating have come; nothing waits where nobody bills.
pub(super) fn write(
    state: &UsageState,
    now: Timestamp,
    is_billed: bool,
    page: &mut Page<'_>,
) -> fmt::Result {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let counts = [
        (
            "usage_windows",
            "Usage records, one for each window, that were written since the database was made",
            state.written,
        ),
        (
            "usage_batches_rated",
            "Batches of usage that were rated since the database was made",
            state.done,
        ),
        (
            "usage_credits",
            "Credits that were posted since the database was made",
            state.credits,
        ),
    ];
    for (name, help, number) in counts {
        page.counter(about(name, help), [(NONE, count(number))])?;
    }
    let unsealed = if is_billed { state.unsealed } else { 0 };
    let gauges = [
        (
            "usage_windows_kept",
            "Usage records that are kept",
            state.kept,
        ),
        (
            "usage_windows_unsealed",
            "Usage records that are in no batch yet; 0 where nobody bills",
            unsealed,
        ),
    ];
    for (name, help, number) in gauges {
        page.gauge(about(name, help), [(NONE, number as f64)])?;
    }
    let open = [
        ([("state", "held")], state.held as f64),
        ([("state", "dead")], state.dead as f64),
    ];
    let help = "Batches of usage that are not rated: held ones are tried again, dead ones wait for an operator";
    page.gauge(about("usage_batches", help), open)?;
    let oldest = state.oldest_unrated.filter(|_| is_billed);
    let age_ms = oldest.map_or(0, |end| now.as_millis() - end.as_millis());
    let age = About {
        unit: Some(Unit::Seconds),
        ..about(
            "usage_unrated_age",
            "Since the end of the oldest usage record that is not rated; 0 where all are",
        )
    };
    page.gauge(age, [(NONE, age_ms.max(0) as f64 / 1000.0)])?;
    let verdicts = VERDICTS.map(|verdict| {
        let tenants = state.verdicts.get(verdict).copied().unwrap_or(0);
        ([("verdict", verdict)], tenants as f64)
    });
    let help = "Tenants whose budget is kept, by the last verdict on what they have left";
    page.gauge(about("usage_budgets", help), verdicts)
}
