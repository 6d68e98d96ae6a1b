//! Rating a batch: each sample in order, then the budgets.
//!
//! Invariant: every sample has a line or is waived, each index of the batch is checked before it is used, and an amount,
//! a position or a sum beyond 64 bits fails the batch.

use brood_plugin::billing::{Batch, Line, Rated, Sample, Sku};
use brood_plugin::types::HookError;

use crate::budget;
use crate::charge::{Charge, charge};
use crate::money::round_half_even;
use crate::plan::{Customer, Plan, Price};

/// Rates a batch: `customers` are those of its accounts, `plans` the ones they have, sorted by name.
pub(crate) fn rate(
    batch: &Batch,
    customers: &[Customer],
    plans: &[(String, Plan)],
) -> Result<Rated, HookError> {
    let mut rating = Rating::new(batch, customers, plans)?;
    for (index, sample) in batch.samples.iter().enumerate() {
        rating.sample(index, sample)?;
    }
    let budgets = budget::verdicts(batch, &rating.accounts)?;
    Ok(Rated {
        skus: rating.skus,
        lines: rating.lines,
        waived: rating.waived,
        budgets,
    })
}

/// An error of the batch.
pub(crate) fn malformed(words: String) -> HookError {
    HookError::Other(words)
}

/// An account of the batch, and how far it is.
pub(crate) struct Standing<'a> {
    pub(crate) customer: &'a Customer,
    pub(crate) currency: &'a str,
    /// Index into the plans.
    plan: usize,
    /// Quantity of each dimension so far in this period, as measured; empty as long as all are 0.
    positions: Vec<i64>,
    /// Whether this period's fees are charged.
    has_fees: bool,
    /// What this batch costs.
    pub(crate) cost: i64,
}

struct Rating<'a> {
    batch: &'a Batch,
    accounts: Vec<Standing<'a>>,
    plans: Vec<Prices<'a>>,
    skus: Vec<Sku>,
    lines: Vec<Line>,
    waived: Vec<u32>,
}

/// A plan, and what was looked up in it for this batch.
struct Prices<'a> {
    plan: &'a Plan,
    /// The price of each pair of dimension and group, once it was looked up.
    found: Vec<Option<Option<usize>>>,
    /// The SKU of each price, once it has a line.
    skus: Vec<Option<u32>>,
}

impl<'a> Rating<'a> {
    fn new(
        batch: &'a Batch,
        customers: &'a [Customer],
        plans: &'a [(String, Plan)],
    ) -> Result<Self, HookError> {
        let mut accounts = Vec::with_capacity(customers.len());
        for customer in customers {
            let found = plans.binary_search_by(|(name, _)| name.cmp(&customer.plan));
            let missing = |_| HookError::Misconfigured(format!("no plan {}", customer.plan));
            let plan = found.map_err(missing)?;
            accounts.push(Standing {
                customer,
                currency: plans
                    .get(plan)
                    .map_or("", |(_, plan)| plan.currency.as_str()),
                plan,
                positions: Vec::new(),
                has_fees: false,
                cost: 0,
            });
        }
        let plans = plans.iter().map(|(_, plan)| Prices {
            plan,
            found: Vec::new(),
            skus: vec![None; plan.prices.len()],
        });
        let mut rating = Self {
            batch,
            accounts,
            plans: plans.collect(),
            skus: Vec::new(),
            lines: Vec::with_capacity(batch.samples.len()),
            waived: Vec::new(),
        };
        rating.add_totals()?;
        Ok(rating)
    }

    /// Starts each account where the committed totals leave it. An account that has one has paid this period's fees.
    fn add_totals(&mut self) -> Result<(), HookError> {
        for (index, total) in self.batch.totals.iter().enumerate() {
            let at = |what: &str| malformed(format!("total {index}: {what}"));
            let account = self.accounts.get_mut(as_index(total.account));
            let account = account.ok_or_else(|| at("no such account"))?;
            account.has_fees = true;
            if total.quantity < 0 {
                return Err(at("a negative quantity"));
            }
            let position = account.position(total.dimension, self.batch.dimensions.len());
            let position = position.ok_or_else(|| at("no such dimension"))?;
            let sum = position.checked_add(total.quantity);
            *position = sum.ok_or_else(|| at("the quantity exceeds 64 bits"))?;
        }
        Ok(())
    }

    fn sample(&mut self, index: usize, sample: &Sample) -> Result<(), HookError> {
        let at = |what: &str| malformed(format!("sample {index}: {what}"));
        let number = u32::try_from(index).map_err(|_| at("too many samples"))?;
        let account = self.accounts.get(as_index(sample.account));
        let account = account.ok_or_else(|| at("no such account"))?;
        if account.customer.internal {
            self.waived.push(number);
            return Ok(());
        }
        let mut has_line = !account.has_fees && self.fees(number, sample)?;
        let Some((plan, price)) = self.price(sample).map_err(at)? else {
            self.unpriced(number, sample)?;
            if !has_line {
                self.waived.push(number);
            }
            return Ok(());
        };
        let Some(account) = self.accounts.get_mut(as_index(sample.account)) else {
            return Err(at("no such account"));
        };
        let position = account.position(sample.dimension, self.batch.dimensions.len());
        let position = position.ok_or_else(|| at("no such dimension"))?;
        let Some(prices) = self.plans.get_mut(plan) else {
            return Err(at("no such plan"));
        };
        let Some(terms) = prices.plan.prices.get(price) else {
            return Err(at("no such price"));
        };
        let charged = charge(terms, *position, sample).map_err(at)?;
        *position = position
            .checked_add(sample.quantity)
            .ok_or_else(|| at("the total of the period exceeds 64 bits"))?;
        for Charge {
            quantity,
            unit_price,
        } in charged
        {
            let amount = round_half_even(quantity, unit_price, terms.per);
            let amount = amount.ok_or_else(|| at("the amount exceeds 64 bits"))?;
            let cost = account.cost.checked_add(amount);
            account.cost = cost.ok_or_else(|| at("the account's sum exceeds 64 bits"))?;
            let slot = prices.skus.get_mut(price);
            let sku = sku_of(slot, &mut self.skus, || Sku {
                name: terms.sku.clone(),
                currency: prices.plan.currency.clone(),
                unit: terms.dimension.clone(),
                per: terms.per,
            });
            self.lines.push(Line {
                sample: Some(number),
                sku,
                quantity,
                unit_price_nanos: unit_price,
                amount_nanos: amount,
            });
            has_line = true;
        }
        if !has_line {
            self.waived.push(number);
        }
        Ok(())
    }

    /// Charges the fees of an account with the sample that is its first of the period, and says whether the sample has a
    /// line by that. In a batch of several accounts only a sample says whose a line is, and the line's unit is then the
    /// sample's dimension.
    fn fees(&mut self, sample: u32, of: &Sample) -> Result<bool, HookError> {
        let alone = self.batch.accounts.len() == 1;
        let dimension = self.batch.dimensions.get(as_index(of.dimension));
        let unit = if alone {
            Some("fee")
        } else {
            dimension.map(String::as_str)
        };
        let unit = unit.ok_or_else(|| malformed(format!("sample {sample}: no such dimension")))?;
        let Some(account) = self.accounts.get_mut(as_index(of.account)) else {
            return Ok(false);
        };
        account.has_fees = true;
        let Some(plan) = self.plans.get(account.plan).map(|prices| prices.plan) else {
            return Ok(false);
        };
        for (name, amount) in &plan.fees {
            let known = self
                .skus
                .iter()
                .position(|sku| sku.name == *name && sku.unit == unit);
            let sku = known.unwrap_or(self.skus.len());
            if known.is_none() {
                self.skus.push(Sku {
                    name: name.clone(),
                    currency: plan.currency.clone(),
                    unit: unit.to_owned(),
                    per: 1,
                });
            }
            let cost = account.cost.checked_add(amount.0);
            let exceeds = || malformed(format!("fee {name}: the account's sum exceeds 64 bits"));
            account.cost = cost.ok_or_else(exceeds)?;
            self.lines.push(Line {
                sample: (!alone).then_some(sample),
                sku: u32::try_from(sku).unwrap_or(u32::MAX),
                quantity: 1,
                unit_price_nanos: amount.0,
                amount_nanos: amount.0,
            });
        }
        Ok(!alone && !plan.fees.is_empty())
    }

    fn unpriced(&mut self, number: u32, sample: &Sample) -> Result<(), HookError> {
        let account = self.accounts.get(as_index(sample.account));
        let plan = account.and_then(|account| self.plans.get(account.plan));
        if plan.is_some_and(|prices| prices.plan.waives) {
            // It counts all the same, for a price that another of the dimension's groups may have.
            return self.advance(sample);
        }
        let dimension = self.batch.dimensions.get(as_index(sample.dimension));
        let dimension = dimension.map_or("", String::as_str);
        let plan = account.map_or("", |account| account.customer.plan.as_str());
        let words = format!("sample {number}: plan {plan} has no price for {dimension}");
        Err(HookError::Misconfigured(words))
    }

    fn advance(&mut self, sample: &Sample) -> Result<(), HookError> {
        let dimensions = self.batch.dimensions.len();
        let account = self.accounts.get_mut(as_index(sample.account));
        let position = account.and_then(|account| account.position(sample.dimension, dimensions));
        if let Some(position) = position {
            let sum = position.checked_add(sample.quantity.max(0));
            *position =
                sum.ok_or_else(|| malformed("the total of a period exceeds 64 bits".to_owned()))?;
        }
        Ok(())
    }

    /// Which price of which plan a sample has.
    fn price(&mut self, sample: &Sample) -> Result<Option<(usize, usize)>, &'static str> {
        let account = self.accounts.get(as_index(sample.account));
        let plan = account.ok_or("no such account")?.plan;
        let (dimension, group) = (as_index(sample.dimension), as_index(sample.group));
        let dimensions = &self.batch.dimensions;
        let name = dimensions.get(dimension).ok_or("no such dimension")?;
        let labels = self.batch.groups.get(group).ok_or("no such group")?;
        let prices = self.plans.get_mut(plan).ok_or("no such plan")?;
        if prices.found.is_empty() {
            let pairs = dimensions.len().checked_mul(self.batch.groups.len());
            let pairs = pairs.filter(|pairs| *pairs <= MOST_PAIRS);
            prices.found = vec![None; pairs.ok_or("too many dimensions and groups")?];
        }
        let pair = group * dimensions.len() + dimension;
        let found = prices.found.get_mut(pair).ok_or("no such group")?;
        let price = *found.get_or_insert_with(|| {
            let fits = |price: &Price| {
                price.dimension == *name && price.only.iter().all(|label| labels.contains(label))
            };
            prices.plan.prices.iter().position(fits)
        });
        Ok(price.map(|price| (plan, price)))
    }
}

/// Pairs of dimension and group whose price is kept; 24 MiB at most.
const MOST_PAIRS: usize = 1 << 20;

impl Standing<'_> {
    /// The position in a dimension; none if there is no such dimension.
    fn position(&mut self, dimension: u32, dimensions: usize) -> Option<&mut i64> {
        if self.positions.is_empty() {
            self.positions = vec![0; dimensions];
        }
        self.positions.get_mut(as_index(dimension))
    }
}

/// The SKU in a slot, added to the list if it has none yet.
fn sku_of(slot: Option<&mut Option<u32>>, skus: &mut Vec<Sku>, new: impl FnOnce() -> Sku) -> u32 {
    if let Some(Some(sku)) = slot {
        return *sku;
    }
    // There are fewer SKUs than prices and fees, each of which is in a settings document.
    let index = u32::try_from(skus.len()).unwrap_or(u32::MAX);
    skus.push(new());
    if let Some(slot) = slot {
        *slot = Some(index);
    }
    index
}

/// An index of the batch: a component has 32-bit addresses, and a wider one has these indices too.
pub(crate) fn as_index(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
