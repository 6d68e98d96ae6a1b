//! Requests that are safe to repeat.
//!
//! Invariant: a key is claimed with its intent and answered with what came of it, each in one commit, so that a repetition
//! finds the answer or the intent that will have one, and never starts a second one.

use brood_units::{IntentId, Timestamp};
use rusqlite::OptionalExtension;

use crate::row::{bytes, get};
use crate::{Read, StoreError, Write};

/// What a caller sent with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// Who.
    pub tenant: String,
    /// Where to.
    pub route: String,
    /// The caller's key.
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_hash: [u8; 32],
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The same request was answered so.
    Answered(String),
    /// The same request is being worked on.
    InFlight(IntentId),
    /// Another request came with this key.
    Mismatch,
}

impl Read<'_> {
    /// What is known of a key; nothing if it is new.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn claim_of(&self, row: &IdempotencyRow) -> Result<Option<Claim>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT body_hash, intent, answer FROM idempotency
             WHERE tenant = ?1 AND route = ?2 AND key = ?3",
        )?;
        let found = statement
            .query_row((&row.tenant, &row.route, &row.key), |found| {
                Ok(claim(row, found))
            })
            .optional()?;
        found.transpose()
    }
}

fn claim(row: &IdempotencyRow, found: &rusqlite::Row<'_>) -> Result<Claim, StoreError> {
    let hash: [u8; 32] = get(found, "body_hash")?;
    let answer: Option<String> = get(found, "answer")?;
    let intent = IntentId::from_bytes(bytes(found, "intent")?);
    Ok(match answer {
        _ if hash != row.body_hash => Claim::Mismatch,
        Some(answer) => Claim::Answered(answer),
        None => Claim::InFlight(intent),
    })
}

impl Write<'_> {
    /// Claims a key for an intent of the same commit, or says what is known of it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn claim(
        &mut self,
        row: &IdempotencyRow,
        intent: IntentId,
        now: Timestamp,
    ) -> Result<Option<Claim>, StoreError> {
        let known = self.claim_of(row)?;
        if known.is_none() {
            self.execute(
                "INSERT INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)",
                (
                    &row.tenant,
                    &row.route,
                    &row.key,
                    row.body_hash,
                    intent.as_bytes(),
                    now.as_millis(),
                ),
            )?;
        }
        Ok(known)
    }

    /// The answer to the request of an intent, if it came with a key.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn answer(&mut self, intent: IntentId, answer: &str) -> Result<(), StoreError> {
        let update = "UPDATE idempotency SET answer = ?2 WHERE intent = ?1 AND answer IS NULL";
        self.execute(update, (intent.as_bytes(), answer))?;
        Ok(())
    }

    /// Frees the key of an intent that came to nothing, so that the request can be sent again.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn forget_claim(&mut self, intent: IntentId) -> Result<(), StoreError> {
        let delete = "DELETE FROM idempotency WHERE intent = ?1 AND answer IS NULL";
        self.execute(delete, [intent.as_bytes()])?;
        Ok(())
    }

    /// Forgets answered keys that are older; how many.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn forget_keys(&mut self, before: Timestamp) -> Result<usize, StoreError> {
        let delete = "DELETE FROM idempotency WHERE created_ms < ?1 AND answer IS NOT NULL";
        self.execute(delete, [before.as_millis()])
    }
}
