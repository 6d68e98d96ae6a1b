//! Requests whose whole work is one commit, made safe to repeat.
//!
//! Invariant: a caller's key, what was done and the answer are one commit, so that a repetition finds all of it or nothing,
//! and none finds it half done. What an answer tells a caller once, a key, is sealed where it is kept.

use brood_store::{IntentRow, Write};
use brood_units::MachineId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::intent::{forget_old, intent_id, known, row, to_json};
use super::{Caller, Engine, EngineError, Idempotency, KeyAnswer, Token, now};
use crate::secret::{Label, Value};

/// What such a request is about.
pub(super) struct Deed {
    pub(super) operation: &'static str,
    /// The object that it makes or changes.
    pub(super) subject: [u8; 16],
    /// The caller's own key for it.
    pub(super) idempotency: Option<Idempotency>,
}

/// A key that was made, as its answer is kept.
#[derive(Serialize, Deserialize)]
struct KeptKey {
    key: KeyAnswer,
    sealed: Vec<u8>,
}

impl Engine {
    /// Does it, or answers as it was answered.
    pub(super) async fn once<T>(
        &self,
        caller: &Caller,
        deed: Deed,
        work: impl FnOnce(&mut Write<'_>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let claimed = deed.idempotency.as_ref();
        let claimed = claimed.map(|idempotency| row(caller, idempotency));
        let intent = done(caller, &deed)?;
        let write = move |write: &mut Write<'_>| -> Result<T, EngineError> {
            let Some(claimed) = claimed else {
                return work(write);
            };
            if let Some(claim) = write.claim_of(&claimed)? {
                return known(claim);
            }
            let answer = work(write)?;
            forget_old(write, intent.created)?;
            write.add_intent(&intent)?;
            write.claim(&claimed, intent.id, intent.created)?;
            write.answer(intent.id, &to_json(&answer)?)?;
            Ok(answer)
        };
        self.store().write(write).await
    }

    /// The same for a key, of which nothing but its hash is kept in the open. Who repeats the request has to be allowed what
    /// the key allows.
    pub(super) async fn key_once(
        &self,
        caller: &Caller,
        deed: Deed,
        token: Token,
        work: impl FnOnce(&mut Write<'_>) -> Result<KeyAnswer, EngineError> + Send + 'static,
    ) -> Result<(KeyAnswer, Token), EngineError> {
        let Some(idempotency) = &deed.idempotency else {
            let answer = self.once(caller, deed, work).await?;
            return Ok((answer, token));
        };
        // No secret has a name with a space.
        let name = format!("{} {}", idempotency.route, idempotency.key);
        let label = Label {
            tenant: caller.tenant(),
            name: &name,
            version: 0,
        };
        let cipher = self.secret_key()?;
        let value = Value::from(token.reveal().to_owned());
        let sealed = cipher.seal(label, &value)?;
        let keep = move |write: &mut Write<'_>| {
            let key = work(write)?;
            Ok(KeptKey { key, sealed })
        };
        let kept = self.once(caller, deed, keep).await?;
        for scope in &kept.key.scopes {
            caller.may(scope.parse()?)?;
        }
        let opened = cipher.open(label, &kept.sealed);
        let opened = opened.map_err(|error| {
            EngineError::Failed(format!("the kept answer does not open: {error}"))
        })?;
        Ok((kept.key, Token::of(&opened)))
    }
}

/// An intent that was carried out as it was written down.
fn done(caller: &Caller, deed: &Deed) -> Result<IntentRow, EngineError> {
    let at = now();
    Ok(IntentRow {
        id: intent_id()?,
        tenant: caller.tenant().to_owned(),
        operation: deed.operation.to_owned(),
        subject: MachineId::from_bytes(deed.subject),
        body: "{}".to_owned(),
        holds: Vec::new(),
        units: 0,
        created: at,
        closed: Some(at),
        outcome: Some("done".to_owned()),
    })
}
