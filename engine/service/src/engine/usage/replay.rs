//! A period rated once more, beside what was committed.
//!
//! Invariant: it changes nothing. Each batch is asked with what it was asked with the first time, as far as that follows from
//! the records and the batches before it, so that the same component with the same settings says the same.

use std::collections::{BTreeMap, HashMap};

use brood_meter::{Before, Dimension, Period, PricedLine};
use brood_store::{BatchRow, BatchState, StoreError};

use super::super::{Caller, Engine, EngineError, Scope};

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayAnswer {
    /// Batches that came to the same lines.
    pub identical: u64,
    /// Lines of those.
    pub lines: u64,
    /// Those that did not, and why.
    pub different: Vec<(i64, String)>,
    /// Those that were never rated.
    pub open: u64,
}

impl Engine {
    /// Has a period rated once more, and compares.
    ///
    /// # Errors
    /// The caller is no operator, nobody bills, or the store cannot be read.
    pub async fn replay_usage(
        &self,
        caller: &Caller,
        period: Period,
    ) -> Result<ReplayAnswer, EngineError> {
        caller.may(Scope::Operator)?;
        let Some(biller) = self.biller() else {
            let words = "no policy is bound to billing: bind the one that rated the period";
            return Err(EngineError::Conflict(words.to_owned()));
        };
        let _alone = self.inner.rating.lock().await;
        let mut answer = ReplayAnswer::default();
        let mut totals: HashMap<String, BTreeMap<Dimension, i64>> = HashMap::new();
        for row in self.rated(period, &mut answer.open)? {
            let before = Before {
                totals: totals.get(&row.batch.tenant).cloned().unwrap_or_default(),
                balances: row.balances.clone(),
            };
            let told = match self.ask(&row, &before, &biller).await {
                Ok(told) => told,
                Err(error) => {
                    answer.different.push((row.sequence, error.to_string()));
                    continue;
                }
            };
            let (settlement, draft) = told;
            let sums = totals.entry(row.batch.tenant.clone()).or_default();
            for (dimension, quantity) in settlement.totals {
                let sum = sums.entry(dimension).or_insert(0);
                *sum = sum.saturating_add(quantity);
            }
            for (dimension, quantity) in draft.replaced() {
                let sum = sums.entry(dimension).or_insert(0);
                *sum = sum.saturating_sub(quantity);
            }
            let committed = self.committed(&row)?;
            if committed == settlement.lines {
                answer.identical += 1;
                answer.lines += committed.len() as u64;
                continue;
            }
            let by = Self::revision(&biller);
            let why = match row.revision == by {
                true => "other lines from the same component and settings".to_owned(),
                false => format!("it was rated by {}, and {by} bills now", row.revision),
            };
            answer.different.push((row.sequence, why));
        }
        Ok(answer)
    }

    /// The batches of a period in the order in which they were rated; `open` counts those that were not.
    fn rated(&self, period: Period, open: &mut u64) -> Result<Vec<BatchRow>, StoreError> {
        let mut all = Vec::new();
        self.each_batch(None, period, |row| {
            match row.state {
                BatchState::Done => all.push(row),
                _ => *open += 1,
            }
            Ok(())
        })?;
        all.sort_by_key(|row: &BatchRow| row.place);
        Ok(all)
    }

    /// The lines that a batch brought, without those that take others back.
    fn committed(&self, row: &BatchRow) -> Result<Vec<PricedLine>, StoreError> {
        let mut all = Vec::new();
        self.each_line_of(row.sequence, |line| {
            if line.reverses.is_none() {
                all.push(line.priced);
            }
            Ok(())
        })?;
        Ok(all)
    }
}
