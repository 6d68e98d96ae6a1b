//! Records into batches, batches through the billing policy, and what it says into lines: exactly once.
//!
//! ```text
//!  records ─ seal ─► held ─ ask (as often as it takes) ─► settle: lines, totals, spending, verdict, done (one commit) ─► act
//!                     ▲ tried in vain: later, then dead ──┘
//! ```
//!
//! Invariant: whoever asks a policy twice bills once, as a batch that is done is not settled again. Batches of a tenant are
//! rated in order; a dead one does not hold up others, and is not forgotten: it says so until an operator puts it back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use brood_hooks::billing::{Action, Rated};
use brood_hooks::{Bound, Heard, Now};
use brood_meter::{Item, Period, Settlement, action_word, by_period, drafts, settle};
use brood_store::{
    BatchRow, BatchState, NewBatch, NewEvent, SealedRow, Settled, StoreError, UsageRow, Write,
};
use brood_units::MachineId;

use super::super::{Caller, Engine, EngineError, Scope, now};
use super::UsageOptions;
use super::batch::MakeError;
use crate::fork::wall_clock_ns;

/// Records of a stretch of the chain: a machine has at most six samples in it, and a policy's answer has its limits.
const STRETCH: u32 = 1000;
/// Batches looked at in one go.
const BATCHES: u32 = 1000;
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(300);

/// What became of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateAnswer {
    /// Rated and committed.
    pub settled: u64,
    /// Tried in vain, to be tried again.
    pub held: u64,
    /// Tried in vain too often.
    pub dead: u64,
}

/// Why a batch was tried in vain.
#[derive(Debug, thiserror::Error)]
pub(super) enum RateError {
    #[error(transparent)]
    Make(#[from] MakeError),
    #[error("{0}")]
    Policy(String),
    #[error(transparent)]
    Sum(#[from] brood_meter::SettleError),
    #[error(transparent)]
    Settle(#[from] brood_store::SettleFailure),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Who bills: the binding that is enforced, or else the first that only shows what it would come to.
    pub(in crate::engine) fn biller(&self) -> Option<Bound> {
        let bound = self.inner.panels.billing.bound();
        let of = |mode: &str| bound.iter().find(|bound| bound.mode == mode).cloned();
        of("enforce").or_else(|| of("warn"))
    }

    /// Component and settings of whoever bills, in a word: batches of one are not batches of another.
    pub(super) fn revision(bound: &Bound) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!(
            "{} {} {}",
            bound.plugin,
            part(&bound.digest),
            part(&bound.settings)
        )
    }

    /// Puts all records that are in no batch into batches. Where nobody bills they stay as they are.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn seal(&self) -> Result<(), EngineError> {
        let Some(biller) = self.biller() else {
            return Ok(());
        };
        let revision = Self::revision(&biller);
        loop {
            let (sealed, _) = self.store().read(|read| read.sealed())?;
            let rows = self.store().read(|read| read.usage(sealed, STRETCH))?;
            let Some(to_seq) = rows.last().map(|row| row.seq) else {
                return Ok(());
            };
            let items = rows.iter().map(|row| Item {
                seq: row.seq,
                meter: row.meter,
                subject: &row.subject,
                record: row.record,
                stands: row.record,
            });
            let new = drafts(items).into_iter().map(|draft| NewBatch {
                tenant: draft.tenant,
                period_ms: draft.period.start_ms(),
                from_seq: sealed,
                to_seq,
                origin: None,
            });
            let new: Vec<_> = new.collect();
            let corrected: Vec<_> = rows
                .iter()
                .filter_map(|row| Some((row.subject.tenant.clone(), row.record.corrects?)))
                .collect();
            let records = records_by_month(&rows);
            let revision = revision.clone();
            let write = move |write: &mut Write<'_>| -> Result<(), StoreError> {
                // After the others, as what they correct may be among those.
                write.seal(&new, &records, (to_seq, &revision), now())?;
                let mut origins = BTreeSet::new();
                for (tenant, seq) in &corrected {
                    for batch in write.batches_with(tenant, *seq)? {
                        origins.insert((batch.sequence, tenant.clone(), batch.batch.period_ms));
                    }
                }
                for (origin, tenant, period_ms) in origins {
                    let batch = NewBatch {
                        tenant,
                        period_ms,
                        from_seq: sealed,
                        to_seq,
                        origin: Some(origin),
                    };
                    write.add_batch(&batch, now())?;
                }
                Ok(())
            };
            self.store().write(write).await?;
        }
    }

    /// Seals, and has all batches rated that are due.
    ///
    /// # Errors
    /// The store cannot be read or written. A policy that fails is no error: its batches wait.
    pub async fn rate_due(&self) -> Result<RateAnswer, EngineError> {
        let _alone = self.inner.rating.lock().await;
        self.seal().await?;
        let mut answer = RateAnswer::default();
        let Some(biller) = self.biller() else {
            return Ok(answer);
        };
        let (mut held_up, mut tried) = (HashSet::new(), HashSet::new());
        loop {
            let due = now();
            let open = self
                .store()
                .read(|read| read.open_batches(BatchState::Held, BATCHES))?;
            let mut has_new = false;
            for row in open {
                if row.due > due {
                    held_up.insert(row.batch.tenant.clone());
                }
                if held_up.contains(&row.batch.tenant) || !tried.insert(row.sequence) {
                    continue;
                }
                has_new = true;
                match self.rate(&row, &biller).await {
                    Ok(()) => answer.settled += 1,
                    Err(error) => match self.hold(&row, &error).await? {
                        BatchState::Dead => answer.dead += 1,
                        _ => {
                            held_up.insert(row.batch.tenant.clone());
                            answer.held += 1;
                        }
                    },
                }
            }
            if !has_new {
                return Ok(answer);
            }
        }
    }

    /// The same, for an operator who does not want to wait.
    ///
    /// # Errors
    /// The caller is no operator, or the store cannot be read or written.
    pub async fn rate_at_once(&self, caller: &Caller) -> Result<RateAnswer, EngineError> {
        caller.may(Scope::Operator)?;
        self.count_all().await?;
        self.rate_due().await
    }

    async fn rate(&self, row: &BatchRow, biller: &Bound) -> Result<(), RateError> {
        let before = self.before(row)?;
        let (settlement, draft) = self.ask(row, &before, biller).await?;
        let settled = Settled {
            sequence: row.sequence,
            reversed: draft
                .reversed()
                .into_iter()
                .map(|(meter, dimension)| brood_meter::Origin { meter, dimension })
                .collect(),
            replaced: draft.replaced(),
            settlement,
            revision: Self::revision(biller),
            balances: before.balances,
        };
        let verdict = settled.settlement.budget.clone();
        let (tenant, sequence) = (row.batch.tenant.clone(), row.sequence);
        let write = move |write: &mut Write<'_>| -> Result<Option<Settlement>, RateError> {
            let told = write.budget(&tenant)?.map(|budget| budget.action);
            if !write.settle(&settled, now())? {
                return Ok(None);
            }
            if let Some((left_nanos, action, message)) = &settled.settlement.budget
                && told.unwrap_or_else(|| "none".to_owned()) != action_word(action)
            {
                let data = serde_json::json!({
                    "left_nanos": left_nanos, "action": action_word(action), "message": message, "batch": sequence,
                });
                tell(write, &tenant, "budget.changed", &data)?;
            }
            Ok(Some(settled.settlement))
        };
        if let Some(settlement) = self.store().write(write).await? {
            self.metrics().settled(&settlement);
        }
        if let Some((_, action, message)) = verdict {
            self.act(&row.batch.tenant, &action, &message).await;
        }
        Ok(())
    }

    /// What whoever bills makes of a batch. One that only shows what it would come to takes nothing away from anybody.
    pub(super) async fn ask(
        &self,
        row: &BatchRow,
        before: &brood_meter::Before,
        biller: &Bound,
    ) -> Result<(Settlement, brood_meter::Draft), RateError> {
        let draft = self.draft(row)?;
        let (batch, origins) = draft
            .batch(row.sequence.unsigned_abs(), before)
            .map_err(MakeError::from)?;
        let at = Now::from_unix_nanos(wall_clock_ns());
        let said = self.inner.panels.billing.hear(at, batch.clone()).await;
        let said = said.into_iter().find(|said| said.binding == biller.binding);
        let (rated, counts): (Rated, bool) = match said.map(|said| said.heard) {
            Some(Heard::Enforced(answer)) => (answer.answer().clone(), true),
            Some(Heard::Warned(answer)) => (answer.answer().clone(), false),
            Some(Heard::Ignored(failure) | Heard::Failed(failure)) => {
                return Err(RateError::Policy(failure.to_string()));
            }
            None => {
                return Err(RateError::Policy(format!(
                    "{} was not heard",
                    biller.binding
                )));
            }
        };
        let mut settlement = settle(&batch, &origins, &rated)?;
        if let Some((_, action, _)) = &mut settlement.budget
            && !counts
            && action.is_harsh()
        {
            *action = Action::Warn;
        }
        Ok((settlement, draft))
    }

    /// A batch waits for its next try, or for an operator.
    async fn hold(&self, row: &BatchRow, error: &RateError) -> Result<BatchState, EngineError> {
        self.metrics().not_rated();
        let UsageOptions {
            backoff, attempts, ..
        } = self.inner.usage;
        let pause = backoff
            .saturating_mul(1 << row.attempts.min(16))
            .min(LONGEST);
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let is_dead = row.attempts + 1 >= attempts;
        let state = if is_dead {
            BatchState::Dead
        } else {
            BatchState::Held
        };
        let (sequence, trouble) = (row.sequence, error.to_string());
        let tenant = row.batch.tenant.clone();
        if is_dead {
            tracing::error!(
                batch = sequence,
                tenant,
                trouble,
                "usage is not billed: a batch was tried in vain too often; put right what it says, then `brood usage put-back`"
            );
        } else {
            tracing::warn!(batch = sequence, tenant, trouble, "a batch of usage waits");
        }
        let write = move |write: &mut Write<'_>| -> Result<(), StoreError> {
            write.hold_batch(sequence, &trouble, now().after(millis), state)?;
            if is_dead {
                let data = serde_json::json!({ "batch": sequence, "trouble": trouble });
                tell(write, &tenant, "usage.batch-dead", &data)?;
            }
            Ok(())
        };
        self.store().write(write).await?;
        Ok(state)
    }
}

/// How many of these records have a part in which month, by tenant.
fn records_by_month(rows: &[UsageRow]) -> Vec<SealedRow> {
    let mut found: BTreeMap<(&str, Period), i64> = BTreeMap::new();
    for row in rows {
        for (period, _) in by_period(&row.subject, &row.record, &row.record) {
            *found.entry((&row.subject.tenant, period)).or_default() += 1;
        }
    }
    let sealed = |((tenant, period), records): ((&str, Period), i64)| SealedRow {
        tenant: tenant.to_owned(),
        period,
        records,
    };
    found.into_iter().map(sealed).collect()
}

/// Reports something that is about a tenant and no machine.
fn tell(
    write: &mut Write<'_>,
    tenant: &str,
    kind: &str,
    data: &serde_json::Value,
) -> Result<(), StoreError> {
    write.report(&NewEvent {
        tenant: tenant.to_owned(),
        kind: kind.to_owned(),
        subject: MachineId::from_bytes([0; 16]),
        at: now(),
        data: data.to_string(),
    })?;
    Ok(())
}
