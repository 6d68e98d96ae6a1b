//! What an answer of a billing policy comes to: lines by whom they are of, totals, spending.
//!
//! Invariant: an answer was checked against its batch before it comes here (`brood_hooks::check`), so that every line adds up;
//! what it comes to fits 64 bits or is an error, and then nothing of it is committed.

use std::collections::BTreeMap;

use brood_hooks::billing::{Action, Batch, Rated, Sku};

use crate::quantity::dimension_of;
use crate::{Dimension, Origin};

/// A line, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PricedLine {
    /// The sample's machine and dimension; none for a fee or a credit.
    pub origin: Option<Origin>,
    /// What is sold.
    pub sku: Sku,
    /// After minimum, free tier and rounding.
    pub quantity: i64,
    /// Price of `sku.per` base units, 1e-9 units.
    pub unit_price_nanos: i64,
    /// What it comes to, 1e-9 units.
    pub amount_nanos: i64,
}

/// What is committed with a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// In the order of the answer.
    pub lines: Vec<PricedLine>,
    /// Added to the totals of the period, as measured: waived samples too.
    pub totals: BTreeMap<Dimension, i64>,
    /// Spent by this batch, by currency, 1e-9 units.
    pub spent: BTreeMap<String, i64>,
    /// What is left, what follows and in which words; none where no budget is kept.
    pub budget: Option<(i64, Action, String)>,
}

/// An answer comes to more than can be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum of {what} exceeds 64 bits")]
pub struct SettleError {
    /// Of what.
    pub what: String,
}

/// What an answer comes to.
///
/// # Errors
/// A sum that cannot be kept.
pub fn settle(batch: &Batch, origins: &[Origin], rated: &Rated) -> Result<Settlement, SettleError> {
    let mut settlement = Settlement::default();
    for sample in &batch.samples {
        if let Some(dimension) = dimension_of(sample) {
            add(&mut settlement.totals, dimension, sample.quantity, || {
                dimension.as_str().to_owned()
            })?;
        }
    }
    for line in &rated.lines {
        let Some(sku) = rated.skus.get(line.sku as usize) else {
            continue;
        };
        let currency = sku.currency.clone();
        add(&mut settlement.spent, currency, line.amount_nanos, || {
            format!("amounts in {}", sku.currency)
        })?;
        settlement.lines.push(PricedLine {
            origin: line.sample.and_then(|at| origins.get(at as usize).copied()),
            sku: sku.clone(),
            quantity: line.quantity,
            unit_price_nanos: line.unit_price_nanos,
            amount_nanos: line.amount_nanos,
        });
    }
    settlement.budget = rated.budgets.first().map(|budget| {
        (
            budget.left_nanos,
            budget.action.clone(),
            budget.message.clone(),
        )
    });
    Ok(settlement)
}

fn add<K: Ord>(
    sums: &mut BTreeMap<K, i64>,
    key: K,
    amount: i64,
    what: impl FnOnce() -> String,
) -> Result<(), SettleError> {
    let sum = sums.entry(key).or_insert(0);
    *sum = sum
        .checked_add(amount)
        .ok_or_else(|| SettleError { what: what() })?;
    Ok(())
}

/// What a budget asks for, in a word.
pub fn action_word(action: &Action) -> &str {
    match action {
        Action::None => "none",
        Action::Warn => "warn",
        Action::RefuseForks => "refuse-forks",
        Action::Pause => "pause",
        Action::Stop => "stop",
        Action::Other(kind) => kind,
    }
}

/// What is left, at the begin of spending in the last of these periods, of what was paid in advance: credits and spending of
/// each period, in order. What was spent beyond the credit of its time is on a limit and takes nothing from later credits.
pub fn credit_left(periods: impl IntoIterator<Item = (i64, i64)>) -> i64 {
    let (mut left, mut spent_last) = (0_i64, 0_i64);
    for (credits, spent) in periods {
        left = left
            .saturating_sub(spent_last)
            .max(0)
            .saturating_add(credits);
        spent_last = spent;
    }
    left
}

#[cfg(test)]
mod tests {
    use brood_hooks::billing::{Budget, Line, Sample};

    use super::*;

    #[test]
    fn credit_is_used_up_once_and_what_a_limit_paid_for_is_not_paid_again() {
        assert_eq!(credit_left([]), 0);
        assert_eq!(
            credit_left([(100, 30)]),
            100,
            "this period's spending is told beside it"
        );
        assert_eq!(credit_left([(100, 30), (0, 0)]), 70);
        assert_eq!(credit_left([(100, 150), (20, 5)]), 20);
        assert_eq!(credit_left([(100, 0), (0, 60), (5, 60), (7, 0)]), 7);
    }

    fn answer() -> (Batch, Vec<Origin>, Rated) {
        let sample = |dimension, quantity| Sample {
            dimension,
            quantity,
            ..Sample::default()
        };
        let batch = Batch {
            samples: vec![sample(1, 10), sample(5, 1), sample(1, 5), sample(99, 7)],
            ..Batch::default()
        };
        let origin = |meter, dimension| Origin { meter, dimension };
        let origins = vec![
            origin(3, Dimension::VcpuActiveNs),
            origin(3, Dimension::Forks),
            origin(4, Dimension::VcpuActiveNs),
        ];
        let sku = |currency: &str| Sku {
            currency: currency.to_owned(),
            ..Sku::default()
        };
        let line = |sample, sku, amount_nanos| Line {
            sample,
            sku,
            quantity: 2,
            unit_price_nanos: 6,
            amount_nanos,
        };
        let rated = Rated {
            skus: vec![sku("EUR"), sku("credit")],
            lines: vec![
                line(Some(2), 0, 30),
                line(None, 1, -4),
                line(Some(0), 0, 12),
            ],
            waived: vec![1],
            budgets: vec![Budget {
                left_nanos: 9,
                action: Action::Warn,
                message: "soon".to_owned(),
                ..Budget::default()
            }],
        };
        (batch, origins, rated)
    }

    #[test]
    fn an_answer_comes_to_its_lines_by_whom_they_are_of_and_to_what_was_measured_waived_or_not() {
        let (batch, origins, rated) = answer();
        let settled = settle(&batch, &origins, &rated).expect("it fits");
        let of: Vec<_> = settled.lines.iter().map(|line| line.origin).collect();
        assert_eq!(of, [Some(origins[2]), None, Some(origins[0])]);
        let amounts: Vec<_> = settled.lines.iter().map(|line| line.amount_nanos).collect();
        assert_eq!(amounts, [30, -4, 12]);
        assert_eq!(settled.lines[1].sku, rated.skus[1]);
        let totals = [(Dimension::VcpuActiveNs, 15), (Dimension::Forks, 1)];
        assert_eq!(settled.totals, totals.into());
        let spent = [("EUR".to_owned(), 42), ("credit".to_owned(), -4)];
        assert_eq!(settled.spent, spent.into());
        assert_eq!(settled.budget, Some((9, Action::Warn, "soon".to_owned())));
    }

    #[test]
    fn a_sum_that_does_not_fit_is_an_error_that_says_of_what() {
        let (mut batch, origins, mut rated) = answer();
        rated.lines[0].amount_nanos = i64::MAX;
        let words = |batch: &Batch, rated: &Rated| {
            let refused = settle(batch, &origins, rated).expect_err("it does not fit");
            refused.to_string()
        };
        assert_eq!(
            words(&batch, &rated),
            "the sum of amounts in EUR exceeds 64 bits"
        );
        batch.samples[2].quantity = i64::MAX;
        assert_eq!(
            words(&batch, &rated),
            "the sum of vcpu-active-ns exceeds 64 bits"
        );
    }

    #[test]
    fn a_verdict_has_the_word_that_is_kept() {
        let actions = [
            (Action::None, "none"),
            (Action::Warn, "warn"),
            (Action::RefuseForks, "refuse-forks"),
            (Action::Pause, "pause"),
            (Action::Stop, "stop"),
            (Action::Other("dance".to_owned()), "dance"),
        ];
        for (action, word) in actions {
            assert_eq!(action_word(&action), word);
        }
    }
}
