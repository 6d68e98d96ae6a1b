//! Intents, and requests that are safe to repeat.
//!
//! Invariant: the caller's key commits with the intent, and the answer with what came of it.

use brood_store::{Claim, DecisionRow, HoldRow, IdempotencyRow, IntentRow, Write};
use brood_units::{IntentId, MachineId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Caller, Engine, EngineError, now, report};
use crate::decision::Decision;
use crate::hold::Units;
use crate::identity;
use crate::path::Stopped;

/// How long an answer is kept for whoever repeats its request, milliseconds: a day.
const REMEMBERED_MS: i64 = 24 * 60 * 60 * 1000;

/// A caller's own key for a request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Where it came in.
    pub route: String,
    /// The key.
    pub key: String,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
}

/// What an intent is about.
pub(super) struct Intention {
    pub(super) operation: &'static str,
    pub(super) subject: MachineId,
    pub(super) body: serde_json::Value,
    pub(super) holds: Vec<HoldRow>,
    pub(super) units: u32,
}

/// How a request begins.
pub(super) enum Begun<T> {
    /// It is new: here is its intent.
    New(IntentId),
    /// It was answered before.
    Replayed(T),
}

impl Engine {
    /// What is known of a request that came with a key, before anything is decided about it.
    pub(super) fn replay<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<T>, EngineError> {
        let Some(idempotency) = idempotency else {
            return Ok(None);
        };
        let row = row(caller, idempotency);
        match self.store().read(|read| read.claim_of(&row))? {
            Some(claim) => known(claim).map(Some),
            None => Ok(None),
        }
    }

    /// Writes the intent down, with the caller's key. A host that loses its power loses what an intent is for as well: the
    /// machines it was about.
    pub(super) async fn begin<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        intention: Intention,
        idempotency: Option<Idempotency>,
    ) -> Result<Begun<T>, EngineError> {
        let id = intent_id()?;
        let claimed = idempotency.map(|idempotency| row(caller, &idempotency));
        let intent = IntentRow {
            id,
            tenant: caller.tenant().to_owned(),
            operation: intention.operation.to_owned(),
            subject: intention.subject,
            body: intention.body.to_string(),
            holds: intention.holds,
            units: intention.units,
            created: now(),
            closed: None,
            outcome: None,
        };
        let claim = self
            .store()
            .write_for_process(move |write| begin(write, &intent, claimed.as_ref()))
            .await?;
        match claim {
            None => Ok(Begun::New(id)),
            Some(claim) => known(claim).map(Begun::Replayed),
        }
    }

    /// Closes an intent of which nothing came.
    pub(super) async fn give_up(&self, id: IntentId, why: String) -> Result<(), EngineError> {
        let close = move |write: &mut Write<'_>| {
            write.forget_claim(id)?;
            write.close_intent(id, &why, now())
        };
        self.store().write(close).await.map(|_| ())?;
        Ok(())
    }

    /// The same on a thread that may stand still.
    pub(super) fn give_up_now(&self, id: IntentId, why: String) -> Result<(), EngineError> {
        let close = move |write: &mut Write<'_>| write.close_intent(id, &why, now());
        self.store().write(close).wait().map(|_| ())?;
        Ok(())
    }

    /// Keeps what was said about a request that came to no intent, and reports that it was refused.
    pub(super) async fn keep_decisions(
        &self,
        caller: &Caller,
        subject: MachineId,
        stopped: &mut Stopped,
    ) -> Result<(), EngineError> {
        let (tenant, id) = (caller.tenant().to_owned(), intent_id()?);
        let decisions = std::mem::take(&mut stopped.decisions);
        let data = serde_json::json!({ "intent": id, "why": stopped.to_string() });
        let record = move |write: &mut Write<'_>| {
            let about = About {
                tenant: &tenant,
                intent: id,
                subject,
            };
            record(write, about, &decisions)?;
            report(write, &tenant, "fork.refused", subject, &data)
        };
        self.store().write(record).await
    }
}

fn begin(
    write: &mut Write<'_>,
    intent: &IntentRow,
    claimed: Option<&IdempotencyRow>,
) -> Result<Option<Claim>, EngineError> {
    if let Some(row) = claimed
        && let Some(claim) = write.claim_of(row)?
    {
        return Ok(Some(claim));
    }
    write.add_intent(intent)?;
    match claimed {
        Some(row) => {
            forget_old(write, intent.created)?;
            Ok(write.claim(row, intent.id, intent.created)?)
        }
        None => Ok(None),
    }
}

/// What something was said about.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) tenant: &'a str,
    pub(super) intent: IntentId,
    /// What was to be forked.
    pub(super) subject: MachineId,
}

/// A decision as it is kept.
#[derive(Serialize)]
struct Kept<'a> {
    subject: MachineId,
    #[serde(flatten)]
    decision: &'a Decision,
}

/// Forgets answers that nobody asks for any more.
pub(super) fn forget_old(write: &mut Write<'_>, now: Timestamp) -> Result<(), EngineError> {
    let before = Timestamp::from_millis(now.as_millis().saturating_sub(REMEMBERED_MS));
    write.forget_keys(before)?;
    Ok(())
}

/// Keeps each thing that was said.
pub(super) fn record(
    write: &mut Write<'_>,
    about: About<'_>,
    decisions: &[Decision],
) -> Result<(), EngineError> {
    let subject = about.subject;
    for decision in decisions {
        write.record(&DecisionRow {
            intent: about.intent,
            tenant: about.tenant.to_owned(),
            at: now(),
            body: to_json(&Kept { subject, decision })?,
        })?;
    }
    Ok(())
}

/// Closes an intent with its answer.
pub(super) fn close<T: Serialize>(
    write: &mut Write<'_>,
    id: IntentId,
    answer: &T,
) -> Result<(), EngineError> {
    write.answer(id, &to_json(answer)?)?;
    write.close_intent(id, "done", now())?;
    Ok(())
}

/// What is held, as rows.
pub(super) fn hold_rows(units: &[Units]) -> Vec<HoldRow> {
    let at = |millis| Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX));
    let row = |held: &Units| HoldRow {
        plugin: held.plugin.clone(),
        key: held.key.clone(),
        per_request: held.per_request,
        per_daughter: held.per_daughter,
        until: held.until_ms.map(at),
    };
    units.iter().map(row).collect()
}

pub(super) fn known<T: DeserializeOwned>(claim: Claim) -> Result<T, EngineError> {
    match claim {
        Claim::Answered(answer) => serde_json::from_str(&answer).map_err(|error| {
            EngineError::Failed(format!("the kept answer cannot be read: {error}"))
        }),
        Claim::InFlight(intent) => Err(EngineError::InFlight(intent)),
        Claim::Mismatch => Err(EngineError::KeyReused),
    }
}

pub(super) fn row(caller: &Caller, idempotency: &Idempotency) -> IdempotencyRow {
    IdempotencyRow {
        tenant: caller.tenant().to_owned(),
        route: idempotency.route.clone(),
        key: idempotency.key.clone(),
        body_hash: idempotency.body_hash,
    }
}

pub(super) fn intent_id() -> Result<IntentId, EngineError> {
    let id = identity::machine_id().map_err(|error| EngineError::failed(&error))?;
    Ok(IntentId::from_bytes(*id.as_bytes()))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, EngineError> {
    serde_json::to_string(value)
        .map_err(|error| EngineError::Failed(format!("an answer cannot be written: {error}")))
}
