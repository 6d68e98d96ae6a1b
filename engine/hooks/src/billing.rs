//! Billing: usage in, rated lines and budget verdicts out.
//!
//! Invariant: money is integers of 1e-9 currency units. The engine recomputes every amount; a policy chooses quantities
//! and prices, not sums.

mod keep;

use serde::{Deserialize, Serialize};

use crate::{Id128, Labels};

pub(crate) use keep::keeps_to;
pub use keep::{line_account, product};

/// Who pays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The customer.
    pub tenant: String,
    /// A part of the customer.
    pub project: String,
    /// Labels of both.
    pub labels: Labels,
}

/// One measured interval of one daughter, or of one snapshot at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The same id is the same sample, for ever.
    pub id: Id128,
    /// The sample that this one replaces.
    pub corrects: Option<Id128>,
    /// Whose it is.
    pub daughter: Id128,
    /// Index into `accounts`.
    pub account: u32,
    /// Index into `dimensions`.
    pub dimension: u32,
    /// How much, in base units of the dimension.
    pub quantity: i64,
    /// Begin of the interval, milliseconds since the epoch.
    pub start_ms: u64,
    /// End of the interval.
    pub end_ms: u64,
    /// When the daughter began.
    pub born_ms: u64,
    /// Index into `groups`.
    pub group: u32,
}

/// What was committed in the period before this batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Index into `accounts`.
    pub account: u32,
    /// Index into `dimensions`.
    pub dimension: u32,
    /// Begin of the period, milliseconds since the epoch.
    pub period_start_ms: u64,
    /// How much.
    pub quantity: i64,
}

/// What an account has spent and has left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Index into `accounts`.
    pub account: u32,
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// Spent in the period, 1e-9 units.
    pub spent_nanos: i64,
    /// Prepaid, 1e-9 units.
    pub credit_nanos: i64,
}

/// What is to be rated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Dense for each billing binding.
    pub sequence: u64,
    /// Who pays.
    pub accounts: Vec<Account>,
    /// What is measured.
    pub dimensions: Vec<String>,
    /// The usage.
    pub samples: Vec<Sample>,
    /// Labels of samples, interned.
    pub groups: Vec<Labels>,
    /// What was committed before.
    pub totals: Vec<Total>,
    /// What is left.
    pub balances: Vec<Balance>,
}

/// What is sold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sku {
    /// Its name.
    pub name: String,
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// The dimension that it prices.
    pub unit: String,
    /// How many base units a price is for.
    pub per: u64,
}

/// One rated line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Index into `samples`; none for fees and credits.
    pub sample: Option<u32>,
    /// Index into `skus`.
    pub sku: u32,
    /// After minimum, free tier and rounding.
    pub quantity: i64,
    /// Price of `per` base units, 1e-9 units.
    pub unit_price_nanos: i64,
    /// Quantity × unit price ÷ per, rounded half to even.
    pub amount_nanos: i64,
}

/// What a budget asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Nothing.
    #[default]
    None,
    /// Tell the tenant.
    Warn,
    /// No new daughters.
    RefuseForks,
    /// Pause what runs.
    Pause,
    /// Stop what runs.
    Stop,
    /// Something that later versions know.
    Other(String),
}

impl Action {
    /// Whether it takes something away from the tenant.
    pub const fn is_harsh(&self) -> bool {
        matches!(self, Self::RefuseForks | Self::Pause | Self::Stop)
    }
}

/// Verdict on an account's budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Index into `accounts`.
    pub account: u32,
    /// Left, 1e-9 units; negative is overdrawn.
    pub left_nanos: i64,
    /// What to do.
    pub action: Action,
    /// For the tenant.
    pub message: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rated {
    /// What is sold.
    pub skus: Vec<Sku>,
    /// What is charged.
    pub lines: Vec<Line>,
    /// Samples deliberately not charged.
    pub waived: Vec<u32>,
    /// Budgets.
    pub budgets: Vec<Budget>,
}
