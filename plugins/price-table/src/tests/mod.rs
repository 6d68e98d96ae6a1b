//! Amounts, tiers, minimums, budgets, and what must not be rated.

mod amounts;
mod budgets;
mod minimum;
mod refusals;
mod settings;

use brood_plugin::Billing;
use brood_plugin::billing::{Account, Balance, Batch, Rated, Sample, Total};
use brood_plugin::testkit::{Host, labels, sample};
use brood_plugin::types::HookError;

use crate::PriceTable;

/// A batch of account `acme`, dimensions `vcpu-ns` and `forks`, and groups without and with a label.
fn batch(samples: Vec<Sample>) -> Batch {
    Batch {
        sequence: 1,
        accounts: vec![Account {
            tenant: "acme".to_owned(),
            project: "web".to_owned(),
            labels: Vec::new(),
        }],
        dimensions: vec!["vcpu-ns".to_owned(), "forks".to_owned()],
        samples,
        groups: vec![Vec::new(), labels(&[("shape", "large")])],
        totals: Vec::new(),
        balances: Vec::new(),
    }
}

fn total(quantity: i64) -> Total {
    Total {
        account: 0,
        dimension: 0,
        period_start_ms: 0,
        quantity,
    }
}

fn balance(currency: &str, spent_nanos: i64, credit_nanos: i64) -> Balance {
    Balance {
        account: 0,
        currency: currency.to_owned(),
        spent_nanos,
        credit_nanos,
    }
}

fn try_rate(settings: &str, batch: Batch) -> Result<Rated, HookError> {
    let host = Host::with_settings::<PriceTable>(settings).unwrap();
    host.call(|| PriceTable::rate(batch))
}

fn rate(settings: &str, batch: Batch) -> Rated {
    try_rate(settings, batch).unwrap()
}

/// Settings with one plan for everybody.
fn plan(plan: &str) -> String {
    format!(r#"{{"currency": "EUR", "plans": {{"p": {plan}}}, "others": "p"}}"#)
}

/// Settings with one price of `vcpu-ns`.
fn price(price: &str) -> String {
    plan(&format!(
        r#"{{"prices": [{{"name": "cpu", "dimension": "vcpu-ns", {price}}}]}}"#
    ))
}

/// Quantity, unit price and amount of each line.
fn lines(rated: &Rated) -> Vec<(i64, i64, i64)> {
    let lines = rated.lines.iter();
    lines
        .map(|line| (line.quantity, line.unit_price_nanos, line.amount_nanos))
        .collect()
}
