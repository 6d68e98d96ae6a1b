//! The settings, and what one field of them cannot say alone.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use brood_plugin::settings::{Diagnostics, Node, Schema, Value};

use crate::money::Money;

brood_plugin::settings! {
    /// Prices and who has which. Amounts are decimals in strings, of one currency; quantities are whole numbers of the
    /// base unit of their dimension. Without a plan, nobody is charged.
    pub struct Settings {
        /// ISO 4217 code of every amount here, or `credit`.
        currency: Currency,
        /// Price lists, by name.
        plans: BTreeMap<String, PlanSettings> = BTreeMap::new(),
        /// Tenants, by name.
        accounts: BTreeMap<String, Account> = BTreeMap::new(),
        /// The plan of tenants that `accounts` does not list. Where there are plans and not this, a batch with such a tenant is
        /// not rated.
        others: Option<String> = None,
    }
}

brood_plugin::settings! {
    /// A price list.
    pub struct PlanSettings {
        /// Prices. The first that fits a sample's dimension and group is its price.
        prices: Vec<PriceSettings> = Vec::new(),
        /// What is charged or credited once for each account and period.
        fees: Vec<Fee> = Vec::new(),
        /// What happens to samples that no price fits.
        unpriced: Unpriced = Unpriced::Waive,
        /// The budget of accounts of this plan that have none of their own.
        budget: Option<Budget> = None,
    }
}

brood_plugin::settings! {
    /// What happens to samples that no price fits.
    pub enum Unpriced {
        /// They are not charged.
        Waive = "waive",
        /// The batch is not rated, and waits for a price.
        Refuse = "refuse",
    }
}

brood_plugin::settings! {
    /// The price of a dimension.
    pub struct PriceSettings {
        /// Name on the bill.
        name: String,
        /// The dimension: `vcpu-ns`, `memory-mib-ms`, `forks`, and so on.
        dimension: String,
        /// Only for groups (template, shape, labels) that have all these labels.
        only: BTreeMap<String, String> = BTreeMap::new(),
        /// How many base units a price is for: 3600000000000 where `vcpu-ns` is priced by the hour.
        per: NonZeroU64,
        /// Quantities are rounded up to multiples of this, once for an account and period.
        round_up_to: Step = Step(NonZeroU64::MIN),
        /// Shortest life that is charged, milliseconds: a machine's first sample is charged as if it had lived so long at that
        /// rate, and what it uses until then is not charged again.
        minimum_ms: u64 = 0,
        /// The first so many base units of an account and period are not charged.
        free: u64 = 0,
        /// Prices by quantity, rising. One without `up-to` is the last.
        tiers: Vec<Tier>,
    }
}

brood_plugin::settings! {
    /// A price up to a quantity.
    pub struct Tier {
        /// Up to so many base units of an account and period, free ones included.
        up_to: Option<NonZeroU64> = None,
        /// The price of `per` base units.
        price: Money,
    }
}

brood_plugin::settings! {
    /// What is charged once for each account and period, with its first samples; a credit if it is negative.
    pub struct Fee {
        /// Name on the bill.
        name: String,
        /// How much.
        amount: Money,
    }
}

brood_plugin::settings! {
    /// A tenant.
    pub struct Account {
        /// Its plan.
        plan: String,
        /// Its budget; that of the plan if absent.
        budget: Option<Budget> = None,
        /// Nothing is charged, not even fees: an account of the house.
        internal: bool = false,
    }
}

brood_plugin::settings! {
    /// What an account may spend: its credit and `limit`. Of the levels that what is left has fallen below, the lowest
    /// counts.
    pub struct Budget {
        /// How much may be spent beyond the account's credit; 0 is prepaid.
        limit: Money = Money(0),
        /// What happens when less than an amount is left.
        levels: Vec<LevelSettings>,
    }
}

brood_plugin::settings! {
    /// What happens below an amount.
    pub struct LevelSettings {
        /// When less than this is left.
        below: Money,
        /// What happens.
        action: Action,
    }
}

brood_plugin::settings! {
    /// What happens when a budget runs out.
    pub enum Action {
        /// The tenant is told.
        Warn = "warn",
        /// Nothing new begins.
        RefuseForks = "refuse-forks",
        /// Machines are paused.
        Pause = "pause",
        /// Machines are ended.
        Stop = "stop",
    }
}

/// An ISO 4217 code or `credit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency(pub String);

impl Value for Currency {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let text = node.text(wrong)?;
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if is_code || text == "credit" {
            Some(Self(text.to_owned()))
        } else {
            node.refuse(
                wrong,
                format!("`{text}` is no ISO 4217 code such as EUR, nor `credit`"),
            )
        }
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "string");
        schema.text("pattern", "^([A-Z]{3}|credit)$");
    }
}

/// What quantities are rounded up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(pub NonZeroU64);

impl Value for Step {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        NonZeroU64::read(node, wrong).map(Self)
    }

    fn schema(schema: &mut Schema) {
        NonZeroU64::schema(schema);
        schema.raw("default", "1");
    }
}

/// Most tiers of a price, and most fees of a plan: the engine takes 16 lines for a sample.
const MOST_LINES: usize = 8;

fn is_key(key: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    (1..=63).contains(&key.len()) && key.bytes().all(allowed)
}

impl Settings {
    /// Checks what one field cannot say alone.
    pub(crate) fn check(&self, wrong: &mut Diagnostics) {
        for (name, plan) in &self.plans {
            plan.check(&["plans", name], wrong);
        }
        for (tenant, account) in &self.accounts {
            self.check_plan(&account.plan, &["accounts", tenant, "plan"], wrong);
            if let Some(budget) = &account.budget {
                budget.check(&["accounts", tenant, "budget"], wrong);
            }
        }
        if let Some(plan) = &self.others {
            self.check_plan(plan, &["others"], wrong);
        }
    }

    fn check_plan(&self, plan: &str, place: &[&str], wrong: &mut Diagnostics) {
        if !self.plans.contains_key(plan) {
            wrong.add(place, &format!("there is no plan `{plan}`"));
        }
    }
}

impl PlanSettings {
    /// A plan that charges nothing.
    pub(crate) fn empty() -> Self {
        Self {
            prices: Vec::new(),
            fees: Vec::new(),
            unpriced: Unpriced::Waive,
            budget: None,
        }
    }

    fn check(&self, place: &[&str], wrong: &mut Diagnostics) {
        let [_, plan] = place else { return };
        let names = self.prices.iter().map(|price| ("prices", &price.name));
        let fees = self.fees.iter().map(|fee| ("fees", &fee.name));
        let mut seen = BTreeMap::new();
        for (list, name) in names.chain(fees) {
            let sku = [plan, "/", name].concat();
            let printable = sku.bytes().all(|byte| byte.is_ascii_graphic());
            let at = [place, &[list]].concat();
            if sku.len() > 128 || name.is_empty() || !printable {
                wrong.add(
                    &at,
                    &format!("`{sku}` is no name of 1 to 128 printable characters"),
                );
            }
            if seen.insert(sku, ()).is_some() {
                wrong.add(&at, &format!("two are named `{name}`"));
            }
        }
        if self.fees.len() > MOST_LINES {
            let at = [place, &["fees"]].concat();
            wrong.add(&at, &format!("more than {MOST_LINES}"));
        }
        for (index, price) in self.prices.iter().enumerate() {
            let index = index.to_string();
            let place: Vec<&str> = place.iter().chain(&["prices", &index]).copied().collect();
            price.check(&place, wrong);
        }
        if let Some(budget) = &self.budget {
            let place: Vec<&str> = place.iter().chain(&["budget"]).copied().collect();
            budget.check(&place, wrong);
        }
    }
}

impl PriceSettings {
    fn check(&self, place: &[&str], wrong: &mut Diagnostics) {
        let mut add = |rest: &[&str], message: &str| {
            let place: Vec<&str> = place.iter().chain(rest).copied().collect();
            wrong.add(&place, message);
        };
        let wide = |quantity: u64| i64::try_from(quantity).is_err();
        for (key, quantity) in [
            ("per", self.per.get()),
            ("round-up-to", self.round_up_to.0.get()),
            ("free", self.free),
            ("minimum-ms", self.minimum_ms),
        ] {
            if wide(quantity) {
                add(&[key], "more than a quantity can be (2^63)");
            }
        }
        if !is_key(&self.dimension) {
            add(&["dimension"], "1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`");
        }
        if self.tiers.len() > MOST_LINES {
            add(&["tiers"], &format!("more than {MOST_LINES}"));
        }
        if self.tiers.is_empty() {
            add(&["tiers"], "a price has at least one tier");
        }
        let mut before = self.free;
        for (index, tier) in self.tiers.iter().enumerate() {
            let last = index + 1 == self.tiers.len();
            let index = index.to_string();
            match tier.up_to.map(NonZeroU64::get) {
                Some(_) if last => {
                    add(&["tiers", &index, "up-to"], "the last tier has no end");
                }
                Some(up_to) if wide(up_to) => {
                    add(
                        &["tiers", &index, "up-to"],
                        "more than a quantity can be (2^63)",
                    );
                }
                Some(up_to) if up_to <= before => {
                    let message = format!("not above {before}, where the tier before ends");
                    add(&["tiers", &index, "up-to"], &message);
                }
                Some(up_to) => before = up_to,
                None if last => {}
                None => add(&["tiers", &index], "only the last tier has no `up-to`"),
            }
            if tier.price.0 < 0 {
                add(
                    &["tiers", &index, "price"],
                    "a price is not negative; a fee may be",
                );
            }
        }
    }
}

impl Budget {
    fn check(&self, place: &[&str], wrong: &mut Diagnostics) {
        let mut levels: Vec<Money> = self.levels.iter().map(|level| level.below).collect();
        levels.sort_unstable();
        let twice = levels
            .windows(2)
            .find(|pair| matches!(pair, [one, other] if one == other));
        if let Some([below, _]) = twice {
            let place: Vec<&str> = place.iter().chain(&["levels"]).copied().collect();
            wrong.add(&place, &format!("two levels below {below}"));
        }
    }
}
