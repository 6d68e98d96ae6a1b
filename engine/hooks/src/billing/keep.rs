//! Whether lines add up and account for every sample.
//!
//! Invariant: an answer that passes can be committed without arithmetic that fails: every amount is the rounded product
//! of its line, and no account's spending leaves 64 bits.

use std::collections::BTreeMap;

use super::{Action, Batch, Budget, Line, Rated, Sku};
use crate::check::{Flaw, Malformed, at_most, in_range};
use crate::text;

const MOST_SKUS: usize = 4096;
/// Tiers split a sample into several lines; this many more than samples is too much.
const MOST_LINES_PER_SAMPLE: usize = 16;
const MOST_FREE_LINES: usize = 1024;

pub(crate) fn keeps_to(batch: &Batch, rated: &Rated) -> Result<(), Malformed> {
    at_most("skus", MOST_SKUS, rated.skus.len())?;
    let most_lines = batch.samples.len().saturating_mul(MOST_LINES_PER_SAMPLE);
    at_most(
        "lines",
        most_lines.saturating_add(MOST_FREE_LINES),
        rated.lines.len(),
    )?;
    at_most("waived", batch.samples.len(), rated.waived.len())?;
    at_most("budgets", batch.accounts.len(), rated.budgets.len())?;
    for (index, sku) in rated.skus.iter().enumerate() {
        sku_is_right(sku).map_err(|flaw| flaw.within(format_args!("skus[{index}]")))?;
    }
    let mut spent = BTreeMap::new();
    for balance in &batch.balances {
        spent.insert(
            (balance.account, balance.currency.as_str()),
            i128::from(balance.spent_nanos),
        );
    }
    for (index, line) in rated.lines.iter().enumerate() {
        line_adds_up(batch, rated, line, &mut spent)
            .map_err(|flaw| flaw.within(format_args!("lines[{index}]")))?;
    }
    every_sample_counts_once(batch, rated)?;
    for (index, budget) in rated.budgets.iter().enumerate() {
        let place = format!("budgets[{index}]");
        budget_is_right(batch, budget).map_err(|flaw| flaw.within(&place))?;
        if rated
            .budgets
            .iter()
            .take(index)
            .any(|earlier| earlier.account == budget.account)
        {
            let name = format!("account {}", budget.account);
            return Err(Flaw::Duplicate { name }.at(place));
        }
    }
    Ok(())
}

/// Quantity × unit price ÷ per, rounded half to even. `None` where `per` is zero or the result leaves 64 bits.
pub fn product(quantity: i64, unit_price_nanos: i64, per: u64) -> Option<i64> {
    let (product, per) = (
        i128::from(quantity) * i128::from(unit_price_nanos),
        i128::from(per),
    );
    let (floor, rest) = (
        product.checked_div_euclid(per)?,
        product.checked_rem_euclid(per)?,
    );
    let up = match (rest * 2).cmp(&per) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => floor % 2 != 0,
    };
    i64::try_from(floor + i128::from(up)).ok()
}

/// The account that pays a line: its sample's, or the only one of the batch.
pub fn line_account(batch: &Batch, line: &Line) -> Option<u32> {
    match line.sample {
        Some(sample) => batch
            .samples
            .get(sample as usize)
            .map(|sample| sample.account),
        None if batch.accounts.len() == 1 => Some(0),
        None => None,
    }
}

fn line_adds_up<'a>(
    batch: &Batch,
    rated: &'a Rated,
    line: &Line,
    spent: &mut BTreeMap<(u32, &'a str), i128>,
) -> Result<(), Malformed> {
    let Some(sku) = rated.skus.get(line.sku as usize) else {
        return in_range("sku", 0..=rated.skus.len() as i128 - 1, line.sku.into());
    };
    if let Some(index) = line.sample {
        let Some(sample) = batch.samples.get(index as usize) else {
            return in_range("sample", 0..=batch.samples.len() as i128 - 1, index.into());
        };
        let dimension = batch.dimensions.get(sample.dimension as usize);
        if dimension != Some(&sku.unit) {
            return Err(text::not("the dimension of the sample", &sku.unit).at("sku"));
        }
    }
    let Some(account) = line_account(batch, line) else {
        let several = "a line with a sample: the batch has several accounts";
        return Err(text::not(several, "none").at("sample"));
    };
    match product(line.quantity, line.unit_price_nanos, sku.per) {
        None => return Err(Flaw::Overflow.at("amount-nanos")),
        Some(right) if right != line.amount_nanos => {
            let (expected, found) = (right.into(), line.amount_nanos);
            return Err(Flaw::Amount { expected, found }.at("amount-nanos"));
        }
        Some(_) => {}
    }
    let sum = spent.entry((account, sku.currency.as_str())).or_insert(0);
    *sum += i128::from(line.amount_nanos);
    match i64::try_from(*sum) {
        Ok(_) => Ok(()),
        Err(_) => Err(Flaw::Overflow.at("amount-nanos")),
    }
}

fn sku_is_right(sku: &Sku) -> Result<(), Malformed> {
    text::name("name", &sku.name)?;
    let iso = sku.currency.len() == 3 && sku.currency.bytes().all(|c| c.is_ascii_uppercase());
    if !iso && sku.currency != "credit" {
        return Err(text::not("an ISO 4217 code or 'credit'", &sku.currency).at("currency"));
    }
    in_range("per", 1..=u64::MAX.into(), sku.per.into())?;
    text::key("unit", &sku.unit)?;
    Ok(())
}

fn every_sample_counts_once(batch: &Batch, rated: &Rated) -> Result<(), Malformed> {
    let mut charged = vec![false; batch.samples.len()];
    let mut waived = charged.clone();
    for line in rated.lines.iter().filter_map(|line| line.sample) {
        if let Some(charged) = charged.get_mut(line as usize) {
            *charged = true;
        }
    }
    for (index, sample) in rated.waived.iter().enumerate() {
        let place = format!("waived[{index}]");
        let Some(waived) = waived.get_mut(*sample as usize) else {
            return in_range(
                &place,
                0..=batch.samples.len() as i128 - 1,
                (*sample).into(),
            );
        };
        if std::mem::replace(waived, true) {
            return Err(Flaw::Duplicate {
                name: format!("sample {sample}"),
            }
            .at(place));
        }
    }
    for (sample, (charged, waived)) in (0..).zip(charged.into_iter().zip(waived)) {
        let fate = match (charged, waived) {
            (true, false) | (false, true) => continue,
            (false, false) => "neither charged nor waived".to_owned(),
            (true, true) => "both charged and waived".to_owned(),
        };
        return Err(Flaw::Unaccounted { sample, fate }.at("lines"));
    }
    Ok(())
}

fn budget_is_right(batch: &Batch, budget: &Budget) -> Result<(), Malformed> {
    in_range(
        "account",
        0..=batch.accounts.len() as i128 - 1,
        budget.account.into(),
    )?;
    match &budget.action {
        Action::None if budget.message.is_empty() => Ok(()),
        Action::Other(kind) => Err(text::not("an action of this engine", kind).at("action")),
        _ => text::words("message", &budget.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{Account, Sample};

    #[test]
    fn product_rounds_half_to_even_on_both_sides_of_zero() {
        let rounded = [
            (1, 0),
            (3, 2),
            (5, 2),
            (7, 4),
            (-1, 0),
            (-3, -2),
            (-5, -2),
            (-7, -4),
        ];
        for (quantity, expected) in rounded {
            assert_eq!(product(quantity, 1, 2), Some(expected), "{quantity} / 2");
        }
        assert_eq!(product(2, 1, 3), Some(1));
        assert_eq!(product(-2, 1, 3), Some(-1));
        assert_eq!(
            product(i64::MAX, i64::MAX, u64::MAX),
            Some(4_611_686_018_427_387_903)
        );
    }

    #[test]
    fn product_that_leaves_64_bits_or_divides_by_zero_is_none() {
        assert_eq!(product(i64::MAX, 2, 1), None);
        assert_eq!(product(i64::MIN, -1, 1), None);
        assert_eq!(product(1, 1, 0), None);
    }

    fn batch() -> Batch {
        Batch {
            accounts: vec![Account::default()],
            dimensions: vec!["vcpu-ns".into(), "forks".into()],
            samples: vec![
                Sample {
                    quantity: 10,
                    ..Sample::default()
                };
                2
            ],
            ..Batch::default()
        }
    }

    fn rated() -> Rated {
        let sku = Sku {
            name: "cpu".into(),
            currency: "EUR".into(),
            unit: "vcpu-ns".into(),
            per: 4,
        };
        let line = Line {
            sample: Some(0),
            sku: 0,
            quantity: 10,
            unit_price_nanos: 3,
            amount_nanos: 8,
        };
        Rated {
            skus: vec![sku],
            lines: vec![line],
            waived: vec![1],
            budgets: vec![],
        }
    }

    fn flaw_of(change: impl FnOnce(&mut Batch, &mut Rated)) -> Option<Malformed> {
        let (mut batch, mut rated) = (batch(), rated());
        change(&mut batch, &mut rated);
        keeps_to(&batch, &rated).err()
    }

    #[test]
    fn amount_that_is_not_the_rounded_product_is_malformed() {
        assert_eq!(flaw_of(|_, _| ()), None, "30 / 4 = 7.5 rounds to 8");
        let wrong = flaw_of(|_, rated| rated.lines[0].amount_nanos = 7).map(|flaw| flaw.flaw);
        assert_eq!(
            wrong,
            Some(Flaw::Amount {
                expected: 8,
                found: 7
            })
        );
    }

    #[test]
    fn price_that_overflows_alone_or_in_sum_is_malformed() {
        let alone = flaw_of(|_, rated| {
            rated.lines[0].quantity = i64::MAX;
            rated.lines[0].unit_price_nanos = i64::MAX;
        });
        assert_eq!(alone.map(|flaw| flaw.flaw), Some(Flaw::Overflow));
        let in_sum = flaw_of(|batch, rated| {
            batch.balances.push(crate::billing::Balance {
                account: 0,
                currency: "EUR".into(),
                spent_nanos: i64::MAX - 7,
                credit_nanos: 0,
            });
            assert_eq!(rated.lines[0].amount_nanos, 8);
        });
        assert_eq!(in_sum.map(|flaw| flaw.flaw), Some(Flaw::Overflow));
    }

    #[test]
    fn every_sample_is_charged_or_waived_and_never_both() {
        assert!(flaw_of(|_, rated| rated.waived.clear()).is_some());
        assert!(flaw_of(|_, rated| rated.waived.push(0)).is_some());
        assert!(flaw_of(|_, rated| rated.waived.push(1)).is_some());
        assert!(flaw_of(|_, rated| rated.waived[0] = 2).is_some());
        let tiers = flaw_of(|_, rated| {
            let second = rated.lines[0].clone();
            rated.lines.push(second);
        });
        assert_eq!(tiers, None, "one sample may have a line in each tier");
    }

    #[test]
    fn index_outside_the_batch_or_the_answer_is_malformed() {
        assert!(flaw_of(|_, rated| rated.lines[0].sample = Some(2)).is_some());
        assert!(flaw_of(|_, rated| rated.lines[0].sku = 1).is_some());
        assert!(flaw_of(|_, rated| rated.skus[0].unit = "forks".into()).is_some());
        let budget = Budget {
            account: 1,
            ..Budget::default()
        };
        assert!(flaw_of(|_, rated| rated.budgets.push(budget)).is_some());
    }

    #[test]
    fn fee_without_a_sample_needs_a_batch_of_one_account() {
        let fee = |rated: &mut Rated| {
            let line = Line {
                sample: None,
                ..rated.lines[0].clone()
            };
            rated.lines.push(line);
        };
        assert_eq!(flaw_of(|_, rated| fee(rated)), None);
        let several = flaw_of(|batch, rated| {
            batch.accounts.push(Account::default());
            fee(rated);
        });
        assert!(several.is_some());
    }
}
