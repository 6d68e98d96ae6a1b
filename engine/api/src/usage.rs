//! Usage: what was counted, what it came to, and the ledger.
//!
//! Invariant: amounts and summed quantities are text, so that no reader rounds them; money is a decimal of currency units, a
//! quantity a whole number of its dimension's base unit.

use std::collections::BTreeMap;

use brood_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::mistake::Mistakes;
use crate::page::from_text;
use crate::shape::{whole, whole_or_none};
use crate::{IdText, Request, Time};

/// How usage is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageFormat {
    /// One object, as for an invoice.
    #[default]
    Summary,
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180.
    Csv,
}

/// What there is a line of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageRows {
    /// A window of a machine.
    #[default]
    Records,
    /// A rated line.
    Lines,
}

/// Which usage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// The calendar month in UTC, `2026-11`; this one if not said. Records are those that ended in it.
    #[param(pattern = "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])$")]
    pub period: Option<String>,
    /// `summary`, `ndjson` or `csv`; `summary` if not said.
    #[param(inline)]
    pub format: Option<UsageFormat>,
    /// What there is a line of, `records` or `lines`, where the format has lines.
    #[param(inline)]
    pub rows: Option<UsageRows>,
    /// A tenant's, or `*` for all: an operator asks. The key's own if not said.
    pub tenant: Option<String>,
    /// Only of this project.
    pub project: Option<String>,
    /// Only of this lineage.
    #[param(value_type = Option<IdText>)]
    pub lineage: Option<MachineId>,
    /// Only of machines of this template.
    #[param(value_type = Option<IdText>)]
    pub template: Option<MachineId>,
    /// Only of this machine.
    #[param(value_type = Option<IdText>)]
    pub machine: Option<MachineId>,
    /// Only of machines with this label, `key=value`.
    #[param(pattern = "=")]
    pub label: Option<String>,
    /// What a summary has apart: `tenant`, `project`, `lineage`, `template`, `machine` or `label:KEY`.
    #[param(pattern = "^(tenant|project|lineage|template|machine|label:.+)$")]
    pub by: Option<String>,
    /// Lines of the format begin behind this record or batch.
    #[serde(default, deserialize_with = "from_text")]
    #[param(value_type = Option<i64>, minimum = 0)]
    pub after: Option<i64>,
}

impl UsageQuery {
    /// The label's key and value.
    pub fn label(&self) -> Option<(&str, &str)> {
        self.label
            .as_deref()
            .and_then(|label| label.split_once('='))
    }
}

impl Request for UsageQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        if self.label.is_some() && self.label().is_none() {
            mistakes.out_of_range("label", "a label is written key=value");
        }
        if self.after.is_some_and(|after| after < 0) {
            mistakes.out_of_range("after", "numbers begin at 1: leave it out for all");
        }
        let words = ["tenant", "project", "lineage", "template", "machine"];
        if let Some(by) = &self.by
            && !words.contains(&by.as_str())
            && by.strip_prefix("label:").is_none_or(str::is_empty)
        {
            let words = words.join(", ");
            mistakes.out_of_range(
                "by",
                format!("a summary is grouped by one of {words}, or label:KEY"),
            );
        }
    }
}

/// One window of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageRecord {
    /// Its number; they follow one another.
    pub record: i64,
    /// Whose it is.
    #[schema(value_type = IdText)]
    pub machine: MachineId,
    /// `machine` or `checkpoint`.
    pub kind: String,
    /// Who pays.
    pub tenant: String,
    /// A part of the tenant.
    pub project: String,
    /// The first machine of her lineage.
    #[schema(value_type = IdText)]
    pub lineage: MachineId,
    /// The template at the root.
    #[schema(value_type = IdText)]
    pub template: MachineId,
    /// Her labels.
    pub labels: BTreeMap<String, String>,
    /// What ended it: `tick`, `fork`, `pause`, `resume`, `end`, or `correction`.
    pub cause: String,
    /// What she did in it: `running`, `paused` or `frozen`.
    pub motion: String,
    /// Its begin, by the clock at its end.
    pub start: Time,
    /// Its end.
    pub end: Time,
    /// Its length by the clock that does not jump, microseconds.
    pub span_us: u64,
    /// CPU time that her process used in it, nanoseconds.
    pub cpu_ns: u64,
    /// Memory that nobody shared with her at its end, KiB.
    pub private_kib: u64,
    /// Allocated, 1/1000 vCPU.
    pub vcpu_milli: u32,
    /// Allocated, MiB.
    pub memory_mib: u32,
    /// Nobody saw her end: CPU time since the record before is not known, and not in it.
    #[serde(default)]
    pub estimated: bool,
    /// The memory is that of the record before.
    #[serde(default)]
    pub memory_carried: bool,
    /// The record that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrects: Option<i64>,
    /// The hash of this record and all before it.
    pub hash: String,
}

/// One rated line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageLine {
    /// The batch that brought it.
    pub batch: i64,
    /// Its place in that.
    pub line: i64,
    /// Who pays.
    pub tenant: String,
    /// A part of the tenant; none of a fee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Whose usage it is; none of a fee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<IdText>)]
    pub machine: Option<MachineId>,
    /// What is sold.
    pub item: String,
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// The dimension that is priced.
    pub unit: String,
    /// How many base units a price is for.
    pub per: u64,
    /// Base units.
    pub quantity: i64,
    /// The price of `per` base units.
    #[schema(example = "0.02")]
    pub unit_price: String,
    /// What it comes to.
    #[schema(example = "0.000025")]
    pub amount: String,
    /// The batch whose line it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverses: Option<i64>,
}

/// What was measured, in units that people know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Measured {
    /// vCPU time given.
    #[schema(example = "1.5")]
    pub vcpu_hours: String,
    /// CPU time used.
    pub cpu_hours: String,
    /// RAM given.
    pub gib_hours: String,
    /// RAM that nobody shared.
    pub private_gib_hours: String,
    /// Disk given.
    pub disk_gib_hours: String,
    /// Machines that were made.
    pub forks: String,
}

/// What one thing that is sold comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageCharge {
    /// What is sold.
    pub item: String,
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// The dimension that is priced.
    pub unit: String,
    /// How many base units a price is for.
    pub per: u64,
    /// Base units.
    pub quantity: String,
    /// The same in units of the price.
    pub units: String,
    /// The sum of its lines.
    pub amount: String,
    /// How many those are.
    pub lines: u64,
}

/// One part of a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageGroup {
    /// What it is grouped by; empty for all, and for fees.
    pub group: String,
    /// What was measured, rated or not.
    pub measured: Measured,
    /// What is charged.
    pub charges: Vec<UsageCharge>,
}

/// A sum in a currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sum {
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// How much.
    pub amount: String,
}

/// What usage of a month comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageSummary {
    /// The month.
    pub period: String,
    /// Its parts.
    pub groups: Vec<UsageGroup>,
    /// The sum of all charges.
    pub totals: Vec<Sum>,
    /// Records of the month that are not in a batch yet.
    pub unsealed: u64,
    /// Batches that wait to be rated.
    pub held: u64,
    /// Batches that wait for an operator.
    pub dead: u64,
}

/// A credit to post. The `Idempotency-Key` names it for ever: the same key is the same credit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreditSpec {
    /// ISO 4217, or `credit`.
    #[schema(pattern = "^([A-Z]{3}|credit)$", example = "EUR")]
    pub currency: String,
    /// How much, a decimal of at most nine places; negative takes it back.
    #[schema(pattern = "^-?[0-9]{1,9}(\\.[0-9]{1,9})?$", example = "25.00")]
    pub amount: String,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 255)]
    pub note: String,
}

impl CreditSpec {
    /// The amount in 1e-9 units; none if it is no amount.
    pub fn nanos(&self) -> Option<i64> {
        let (negative, digits) = match self.amount.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, self.amount.as_str()),
        };
        let (whole, places) = digits.split_once('.').unwrap_or((digits, "0"));
        let are_digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole) || !are_digits(places) || places.len() > 9 {
            return None;
        }
        let nanos: i128 = format!("{places:0<9}").parse().ok()?;
        let nanos = whole
            .parse::<i128>()
            .ok()?
            .checked_mul(1_000_000_000)?
            .checked_add(nanos)?;
        i64::try_from(if negative { -nanos } else { nanos }).ok()
    }
}

impl Request for CreditSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        if self.nanos().is_none() {
            let words = "an amount is a decimal in a string with at most nine places, such as \"25.00\", below nine billion";
            mistakes.out_of_range("/amount", words);
        }
        if self.note.len() > 255 {
            mistakes.out_of_range("/note", "a note has at most 255 bytes");
        }
    }
}

/// A credit that was posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Credit {
    /// Its place in the ledger.
    pub entry: i64,
    /// Who has it.
    pub tenant: String,
    /// The key that it was posted with.
    pub key: String,
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// How much.
    pub amount: String,
    /// What it is for.
    pub note: String,
    /// When it was posted.
    pub at: Time,
}

/// What a tenant has of one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Purse {
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// Spent this month.
    pub spent: String,
    /// Left of what was paid in advance, before this month's spending.
    pub credit: String,
}

/// The last verdict on a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetVerdict {
    /// What is left.
    pub left: String,
    /// What follows: `none`, `warn`, `refuse-forks`, `pause` or `stop`.
    pub action: String,
    /// In the policy's words.
    pub message: String,
    /// When it was said.
    pub at: Time,
}

/// What a tenant has paid in advance, has spent and has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// By currency.
    pub purses: Vec<Purse>,
    /// The last verdict; none where no budget is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetVerdict>,
    /// All credits, oldest first.
    pub credits: Vec<Credit>,
}

/// What replaces a record; what is left out stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrectionSpec {
    /// The record.
    #[schema(minimum = 1)]
    #[serde(deserialize_with = "whole")]
    pub record: i64,
    /// Its length, microseconds.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub span_us: Option<u64>,
    /// CPU time in it, nanoseconds.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub cpu_ns: Option<u64>,
    /// Memory that nobody shared with her, KiB.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub private_kib: Option<u64>,
}

impl Request for CorrectionSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        let all = [
            ("/span_us", self.span_us),
            ("/cpu_ns", self.cpu_ns),
            ("/private_kib", self.private_kib),
        ];
        for (pointer, number) in all {
            if number.is_some_and(|number| i64::try_from(number).is_err()) {
                mistakes.out_of_range(pointer, "a quantity is at most 9223372036854775807");
            }
        }
        if all.iter().all(|(_, number)| number.is_none()) {
            mistakes.out_of_range(
                "",
                "nothing is put right: say span_us, cpu_ns or private_kib",
            );
        }
    }
}

/// A correction that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Corrected {
    /// Its own number.
    pub record: i64,
    /// The record that it replaces.
    pub corrects: i64,
}

/// What a look through the chain of records has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChainCheck {
    /// Records that were looked at.
    pub records: u64,
    /// The last of those that are no longer kept; 0 if all are.
    pub anchor: i64,
    /// The hash of the last record: keep it elsewhere to know later that nothing before it was changed.
    pub hash: String,
    /// Every break, in words.
    pub breaks: Vec<String>,
}

/// Which month is rated once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaySpec {
    /// The calendar month in UTC.
    #[schema(
        pattern = "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])$",
        example = "2026-11"
    )]
    pub period: String,
}

impl Request for ReplaySpec {
    fn check(&self, _: &mut Mistakes) {}
}

/// A batch that came to other lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Which.
    pub batch: i64,
    /// Why.
    pub why: String,
}

/// What came of rating a month once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Batches that came to the same lines.
    pub identical: u64,
    /// How many lines those are.
    pub lines: u64,
    /// Those that did not.
    pub different: Vec<Difference>,
    /// Those that were never rated.
    pub open: u64,
}

/// What became of batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rated {
    /// Rated.
    pub settled: u64,
    /// Tried in vain, to be tried again.
    pub held: u64,
    /// Tried in vain too often.
    pub dead: u64,
}

/// A batch that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadBatch {
    /// Which.
    pub batch: i64,
    /// Whose usage it is.
    pub tenant: String,
    /// Of which month.
    pub period: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why in vain.
    pub trouble: String,
}

/// Batches that wait for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadBatches {
    /// In order.
    pub items: Vec<DeadBatch>,
}

/// Which batches are put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutBackSpec {
    /// This one; all if left out.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub batch: Option<i64>,
}

impl Request for PutBackSpec {
    fn check(&self, _: &mut Mistakes) {}
}

/// How many were put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PutBack {
    /// Batches.
    pub batches: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(amount: &str) -> Option<i64> {
        let spec = CreditSpec {
            currency: "EUR".to_owned(),
            amount: amount.to_owned(),
            note: String::new(),
        };
        spec.nanos()
    }

    #[test]
    fn an_amount_is_a_decimal_of_nine_places_and_nothing_else_is_one() {
        let good = [
            ("25.00", 25_000_000_000),
            ("-0.5", -500_000_000),
            ("0.000000001", 1),
            ("7", 7_000_000_000),
        ];
        for (text, nanos) in good {
            assert_eq!(credit(text), Some(nanos), "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1e3",
            "+1",
            "1,5",
            "0.0000000001",
            "9223372037",
            "--1",
            "٣",
        ] {
            assert_eq!(credit(text), None, "{text}");
        }
    }

    #[test]
    fn a_quantity_that_is_negative_or_a_fraction_is_refused_where_it_stands() {
        for body in [
            r#"{"record": 1, "cpu_ns": -5}"#,
            r#"{"record": 1, "cpu_ns": 1.5}"#,
            r#"{"record": 1, "cpu_ns": 9223372036854775808}"#,
        ] {
            let refused = crate::decode::<CorrectionSpec>(body.as_bytes()).expect_err(body);
            assert!(refused.to_string().contains("/cpu_ns"), "{refused}");
        }
        assert!(crate::decode::<CorrectionSpec>(br#"{"record": 1}"#).is_err());
    }
}
