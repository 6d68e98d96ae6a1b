//! Credits, corrections, batches that are put back, and what follows from a verdict on a budget.
//!
//! Invariant: an operator's word is an entry that stays; nothing here changes a record or a line. What a verdict takes away is
//! new machines first; whoever runs is paused or ended only where the policy says so.

use brood_hooks::Denial;
use brood_hooks::billing::Action;
use brood_meter::Period;
use brood_store::{
    BatchRow, BatchState, BudgetRow, CorrectError, Correction, CreditRow, MachineKind,
    MachineState, NewBatch, NewCredit, Posted, StoreError, Write,
};
use brood_units::Timestamp;

use super::super::life::{Living, is_awake};
use super::super::owner::After;
use super::super::{Caller, Engine, EngineError, Scope, now};
use super::Whose;

/// Batches shown in one answer.
const MOST: u32 = 1000;

/// What is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Begin {
    /// New machines.
    New,
    /// One that is paused runs on.
    Again,
}

/// A credit as it is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostCredit {
    /// Who gets it.
    pub tenant: String,
    /// The poster's own key: the same key is the same credit.
    pub key: String,
    /// ISO 4217, or `credit`.
    pub currency: String,
    /// How much, 1e-9 units; negative takes it back.
    pub nanos: i64,
    /// What it is for.
    pub note: String,
}

/// What a tenant has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceAnswer {
    /// By currency: spent this month, left of what was paid in advance before this month's spending.
    pub balances: brood_store::Balances,
    /// The last verdict on it; none where no budget is kept.
    pub budget: Option<BudgetRow>,
    /// All credits, oldest first.
    pub credits: Vec<CreditRow>,
}

impl Engine {
    /// Posts a credit to a tenant; what was posted under its key before is answered the same.
    ///
    /// # Errors
    /// The caller is no operator, there is no such tenant or currency, or another credit came with this key.
    pub async fn post_credit(
        &self,
        caller: &Caller,
        post: PostCredit,
    ) -> Result<CreditRow, EngineError> {
        caller.may(Scope::Operator)?;
        if !self.store().read(|read| read.has_tenant(&post.tenant))? {
            return Err(EngineError::NotFound {
                what: "tenant",
                which: post.tenant,
            });
        }
        let is_iso =
            post.currency.len() == 3 && post.currency.bytes().all(|c| c.is_ascii_uppercase());
        if !is_iso && post.currency != "credit" {
            let words = format!(
                "'{}' is no currency: write three capital letters of ISO 4217, or 'credit'",
                post.currency.escape_debug()
            );
            return Err(EngineError::Invalid(words));
        }
        let at = now();
        let period_ms = Period::of(at.as_millis()).start_ms();
        let new = NewCredit {
            tenant: post.tenant.clone(),
            key: post.key,
            currency: post.currency,
            nanos: post.nanos,
            note: post.note,
            period_ms,
        };
        let write = move |write: &mut Write<'_>| -> Result<Posted, StoreError> {
            let posted = write.post_credit(&new, at)?;
            if let Posted::New(_) = posted {
                // Without a record in it: whoever bills says what is left now.
                let (sealed, _) = write.sealed()?;
                let batch = NewBatch {
                    tenant: new.tenant.clone(),
                    period_ms,
                    from_seq: sealed,
                    to_seq: sealed,
                    origin: None,
                };
                write.add_batch(&batch, at)?;
            }
            Ok(posted)
        };
        match self.store().write(write).await? {
            Posted::New(row) => {
                // The verdict comes with the next rating at the latest.
                self.rate_due().await?;
                Ok(row)
            }
            Posted::Known(row) => Ok(row),
            Posted::Mismatch(_) => Err(EngineError::KeyReused),
        }
    }

    /// What a tenant has paid in advance, has spent and has left.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn balance(&self, caller: &Caller, whose: &Whose) -> Result<BalanceAnswer, EngineError> {
        caller.may(Scope::Read)?;
        let tenant = match whose {
            Whose::Tenant(tenant) if tenant != caller.tenant() => {
                caller.may(Scope::Operator)?;
                tenant.as_str()
            }
            _ => caller.tenant(),
        };
        let period_ms = Period::of(now().as_millis()).start_ms();
        Ok(self
            .store()
            .read(|read| -> Result<BalanceAnswer, StoreError> {
                Ok(BalanceAnswer {
                    balances: read.balances(tenant, period_ms)?,
                    budget: read.budget(tenant)?,
                    credits: read.credits(tenant, 0, MOST)?,
                })
            })?)
    }

    /// Puts a record right by another one; the number of that. What was rated of it is taken back and rated anew.
    ///
    /// # Errors
    /// The caller is no operator, or there is no such record.
    pub async fn correct_usage(
        &self,
        caller: &Caller,
        seq: i64,
        correction: Correction,
    ) -> Result<i64, EngineError> {
        caller.may(Scope::Operator)?;
        let corrected = self
            .store()
            .write(move |write| write.correct(seq, correction))
            .await;
        corrected.map_err(|error| match error {
            CorrectError::Unknown(_) => EngineError::NotFound {
                what: "usage record",
                which: seq.to_string(),
            },
            CorrectError::OfCorrection { .. } => EngineError::Conflict(error.to_string()),
            CorrectError::Store(error) => error.into(),
        })
    }

    /// Batches that wait for an operator.
    ///
    /// # Errors
    /// The caller is no operator, or the store cannot be read.
    pub fn dead_batches(&self, caller: &Caller) -> Result<Vec<BatchRow>, EngineError> {
        caller.may(Scope::Operator)?;
        Ok(self
            .store()
            .read(|read| read.open_batches(BatchState::Dead, MOST))?)
    }

    /// Puts a batch that waits for an operator back, or all of them; how many.
    ///
    /// # Errors
    /// The caller is no operator, or the store cannot be written.
    pub async fn put_back(
        &self,
        caller: &Caller,
        sequence: Option<i64>,
    ) -> Result<usize, EngineError> {
        caller.may(Scope::Operator)?;
        let put = self
            .store()
            .write(move |write| write.put_back(sequence, now()));
        Ok(put.await?)
    }

    /// Lets go of the records that ended before an instant and are rated, and keeps the hash of the last; how many went.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn trim_usage(&self, before: Timestamp) -> Result<usize, EngineError> {
        let trim = move |write: &mut Write<'_>| -> Result<usize, StoreError> {
            let upto = write.trimmable(before)?;
            write.trim_usage(upto, now())
        };
        Ok(self.store().write(trim).await?)
    }

    /// What is left of a tenant's budget, if one is kept; an error where the last verdict does not let `what` begin.
    pub(in crate::engine) fn budget_left(
        &self,
        tenant: &str,
        what: Begin,
    ) -> Result<Option<i64>, EngineError> {
        let Some(budget) = self.store().read(|read| read.budget(tenant))? else {
            return Ok(None);
        };
        let stops = matches!(
            (budget.action.as_str(), what),
            ("pause" | "stop", _) | ("refuse-forks", Begin::New)
        );
        if !stops {
            return Ok(Some(budget.left_nanos));
        }
        Err(EngineError::Denied {
            by: "billing".to_owned(),
            denial: Denial {
                code: "budget".to_owned(),
                message: budget.message,
                retry_after_ms: None,
            },
        })
    }

    /// Does what a verdict asks for with the machines that run. What cannot be done now is asked for again with the next.
    pub(super) async fn act(&self, tenant: &str, action: &Action, message: &str) {
        if !matches!(action, Action::Pause | Action::Stop) {
            return;
        }
        let alive = self.store().read(|read| read.alive());
        let alive = alive.unwrap_or_else(|error| {
            tracing::error!(tenant, %error, "a budget is used up and nobody was stopped");
            Vec::new()
        });
        // Who is hibernated costs nothing and stays as she is.
        let of_tenant = alive
            .into_iter()
            .filter(|row| row.born.tenant == tenant && is_awake(row));
        for row in of_tenant.filter(|row| row.born.kind == MachineKind::Machine) {
            let (living, id) = (Living::of(&row.born), row.born.id);
            let done = match action {
                Action::Stop => self.end_one(living, "the budget is used up").await,
                _ if row.born.state == MachineState::Paused => Ok(()),
                _ => self.pause_one(living).await,
            };
            match done {
                Ok(()) | Err(EngineError::NotFound { .. }) => {}
                Err(error) => {
                    tracing::error!(machine = %id, %error, message, "a budget is used up and she runs on")
                }
            }
        }
    }

    async fn pause_one(&self, living: Living) -> Result<(), EngineError> {
        let engine = self.clone();
        self.work_with(living.clone(), move |mut guest| {
            let told = match guest.pause() {
                Ok(()) => engine.write_state(&living, MachineState::Paused, &guest),
                Err(error) => Err(EngineError::Failed(error.to_string())),
            };
            (told, After::back(guest))
        })
        .await
    }
}
