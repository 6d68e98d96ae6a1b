//! What remains of the settings for rating: one plan, one customer, as bytes under a key each.

use serde::{Deserialize, Serialize};

use crate::money::Money;
use crate::settings::{Account, Action, Budget, PlanSettings, PriceSettings, Settings, Unpriced};

/// A price list, ready to rate with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub(crate) currency: String,
    pub(crate) prices: Vec<Price>,
    /// Name and amount.
    pub(crate) fees: Vec<(String, Money)>,
    /// Whether a sample without a price is waived.
    pub(crate) waives: bool,
}

/// The price of a dimension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// `PLAN/NAME`
    pub(crate) sku: String,
    pub(crate) dimension: String,
    pub(crate) only: Vec<(String, String)>,
    pub(crate) per: u64,
    pub(crate) step: i64,
    pub(crate) minimum_ms: u64,
    /// Where each tier ends, and what `per` base units of it cost; rising, the last ends at the end of all quantities.
    pub(crate) tiers: Vec<(i64, i64)>,
}

/// Who pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    pub(crate) plan: String,
    pub(crate) internal: bool,
    pub(crate) limit: Option<Money>,
    /// From the lowest amount to the highest.
    pub(crate) levels: Vec<Level>,
}

/// What happens when less than an amount is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    pub(crate) below: Money,
    /// 0 warn, 1 refuse forks, 2 pause, 3 stop.
    pub(crate) action: u8,
}

impl Plan {
    pub(crate) fn new(name: &str, plan: &PlanSettings, currency: &str) -> Self {
        let fees = plan
            .fees
            .iter()
            .map(|fee| ([name, "/", &fee.name].concat(), fee.amount));
        Self {
            currency: currency.to_owned(),
            prices: plan
                .prices
                .iter()
                .map(|price| Price::new(name, price))
                .collect(),
            fees: fees.collect(),
            waives: plan.unpriced == Unpriced::Waive,
        }
    }
}

impl Price {
    fn new(plan: &str, price: &PriceSettings) -> Self {
        // Checked settings hold no quantity beyond 63 bits.
        let quantity = |quantity: u64| i64::try_from(quantity).unwrap_or(i64::MAX);
        let mut tiers = Vec::with_capacity(price.tiers.len() + 1);
        if price.free > 0 {
            tiers.push((quantity(price.free), 0));
        }
        let ends = price.tiers.iter().map(|tier| {
            let end = tier.up_to.map_or(i64::MAX, |end| quantity(end.get()));
            (end, tier.price.0)
        });
        tiers.extend(ends);
        Self {
            sku: [plan, "/", &price.name].concat(),
            dimension: price.dimension.clone(),
            only: price.only.clone().into_iter().collect(),
            per: price.per.get(),
            step: quantity(price.round_up_to.0.get()),
            minimum_ms: price.minimum_ms,
            tiers,
        }
    }
}

impl Customer {
    pub(crate) fn new(settings: &Settings, account: &Account) -> Self {
        let mut customer = Self::of_plan(settings, &account.plan);
        if let Some(budget) = &account.budget {
            customer.set_budget(budget);
        }
        customer.internal = account.internal;
        customer
    }

    pub(crate) fn of_plan(settings: &Settings, plan: &str) -> Self {
        let mut customer = Self {
            plan: plan.to_owned(),
            internal: false,
            limit: None,
            levels: Vec::new(),
        };
        let budget = settings
            .plans
            .get(plan)
            .and_then(|plan| plan.budget.as_ref());
        if let Some(budget) = budget {
            customer.set_budget(budget);
        }
        customer
    }

    fn set_budget(&mut self, budget: &Budget) {
        let levels = budget.levels.iter().map(|level| Level {
            below: level.below,
            action: match level.action {
                Action::Warn => 0,
                Action::RefuseForks => 1,
                Action::Pause => 2,
                Action::Stop => 3,
            },
        });
        self.levels = levels.collect();
        self.levels.sort_by_key(|level| level.below);
        self.limit = Some(budget.limit);
    }
}
