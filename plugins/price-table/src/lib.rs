//! Billing: tiered prices, minimum durations, rounding, free allowances, fees, credits and prepaid budgets.
//!
//! Money is a whole number of 1e-9 currency units, a quantity a whole number of base units, and a price is for a stated
//! number of base units, so that the price of a nanosecond does not round to nothing. Each line is
//! `round-half-even(quantity × price / per)` and nothing else. What does not fit 64 bits is an error of the batch, never
//! a wrong amount.
//!
//! Rating is a function of the batch and the settings. Where an account stands in its tiers and free allowance comes
//! from the batch's committed totals: the position of a sample is the total of its account and dimension, as measured,
//! plus the samples before it. A sample of quantity `q` at position `p` is charged for the units from `round-up(p)` to
//! `round-up(p + q)`, so that rounding happens once for an account and period, however usage is cut into samples.

mod budget;
mod charge;
mod money;
mod plan;
mod rate;
mod settings;
#[cfg(test)]
mod tests;

pub use money::Money;
pub use plan::{Customer, Level, Plan, Price};
pub use settings::{
    Account, Action, Budget, Currency, Fee, LevelSettings, PlanSettings, PriceSettings, Settings,
    Step, Tier, Unpriced,
};

use brood_plugin::billing::{Batch, Rated};
use brood_plugin::config;
use brood_plugin::settings::{Diagnostics, Prepared, decode};
use brood_plugin::types::HookError;

/// The plugin.
#[derive(Debug)]
pub struct PriceTable;

impl brood_plugin::Plugin for PriceTable {
    const NAME: &'static str = "price-table";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn prepare(settings: &Settings, prepared: &mut Prepared, wrong: &mut Diagnostics) {
        settings.check(wrong);
        if !wrong.is_empty() {
            return;
        }
        for (name, plan) in &settings.plans {
            prepared.put(plan_key(name), &Plan::new(name, plan, &settings.currency.0));
        }
        for (tenant, account) in &settings.accounts {
            prepared.put(account_key(tenant), &Customer::new(settings, account));
        }
        let others = settings.others.as_deref();
        if let Some(plan) = others.or_else(|| settings.plans.is_empty().then_some(NO_PLAN)) {
            prepared.put(OTHERS, &Customer::of_plan(settings, plan));
        }
        if settings.plans.is_empty() {
            let plan = Plan::new(NO_PLAN, &PlanSettings::empty(), &settings.currency.0);
            prepared.put(plan_key(NO_PLAN), &plan);
        }
    }
}

impl brood_plugin::Billing for PriceTable {
    fn rate(batch: Batch) -> Result<Rated, HookError> {
        let keys = batch
            .accounts
            .iter()
            .map(|account| account_key(&account.tenant));
        let keys: Vec<String> = keys.chain([OTHERS.to_owned()]).collect();
        let mut found = config::prepared(&keys);
        let others = found.pop().flatten();
        let mut customers = Vec::with_capacity(found.len());
        for (account, own) in batch.accounts.iter().zip(&found) {
            let bytes = own.as_ref().or(others.as_ref()).ok_or_else(|| {
                let tenant = &account.tenant;
                HookError::Misconfigured(format!(
                    "no plan for tenant {tenant}, and none for others"
                ))
            })?;
            customers.push(decode::<Customer>(bytes)?);
        }
        let plans = plans_of(&customers)?;
        rate::rate(&batch, &customers, &plans)
    }
}

/// The plans these customers have, by name.
fn plans_of(customers: &[Customer]) -> Result<Vec<(String, Plan)>, HookError> {
    let mut names: Vec<&str> = customers.iter().map(|one| one.plan.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let keys: Vec<String> = names.iter().copied().map(plan_key).collect();
    let found = config::prepared(&keys);
    let plans = names.iter().zip(found).map(|(name, bytes)| {
        let missing = || HookError::Misconfigured(format!("plan {name} is not prepared"));
        let plan = decode::<Plan>(&bytes.ok_or_else(missing)?)?;
        Ok(((*name).to_owned(), plan))
    });
    plans.collect()
}

/// Under this the customer is prepared that tenants are who have no account of their own.
const OTHERS: &str = "others";

/// The plan of everybody where there is none.
const NO_PLAN: &str = "";

fn account_key(tenant: &str) -> String {
    ["account/", tenant].concat()
}

fn plan_key(name: &str) -> String {
    ["plan/", name].concat()
}

brood_plugin::export!(PriceTable: billing);
