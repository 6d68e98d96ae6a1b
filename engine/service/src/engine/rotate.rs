//! Rotation of keys: a new one in the place of an old one.
//!
//! Invariant: the new key allows what the old one does and no more, and both changes are one commit. Nobody gets a key of
//! more scopes than their own by rotating somebody else's.

use brood_store::{KeyRow, Write};
use brood_units::KeyId;
use sha2::{Digest, Sha256};

use super::caller::{Token, key_id};
use super::once::Deed;
use super::{Caller, Engine, EngineError, Idempotency, KeyAnswer, Scope, now};

impl Engine {
    /// Makes a key like another one, which stays good for `grace_ms` or ends at once. Where the old one was made for a
    /// time, the new one is made for as long.
    ///
    /// # Errors
    /// There is no such key, it has ended, the caller may not, or the store cannot be written.
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        id: KeyId,
        grace_ms: Option<u64>,
        idempotency: Option<Idempotency>,
    ) -> Result<(KeyAnswer, Token), EngineError> {
        caller.may(Scope::Keys)?;
        let (rotator, token, new_id) = (caller.clone(), Token::draw()?, key_id()?);
        let hash = Sha256::digest(token.reveal()).into();
        let rotate = move |write: &mut Write<'_>| -> Result<KeyAnswer, EngineError> {
            let tenant = rotator.tenant();
            let found = write.keys(tenant)?.into_iter().find(|key| key.id == id);
            let old = found.ok_or_else(|| EngineError::NotFound {
                what: "key",
                which: id.to_string(),
            })?;
            let now = now();
            if old.revoked.is_some() || old.expires.is_some_and(|expires| expires <= now) {
                let words = format!("key {id} has ended: make a new one");
                return Err(EngineError::Conflict(words));
            }
            for scope in &old.scopes {
                rotator.may(scope.parse()?)?;
            }
            match grace_ms.map(|grace| now.after(grace)) {
                None => write.revoke_key(tenant, id, now)?,
                Some(until) => {
                    let until = old.expires.map_or(until, |expires| expires.min(until));
                    write.expire_key(tenant, id, until)?
                }
            };
            let new = KeyRow {
                id: new_id,
                hash,
                created: now,
                expires: old
                    .expires
                    .map(|expires| now.after(old.created.millis_until(expires))),
                ..old
            };
            write.add_key(&new)?;
            Ok(KeyAnswer::from(new))
        };
        let deed = Deed {
            operation: "rotate-key",
            subject: *id.as_bytes(),
            idempotency,
        };
        self.key_once(caller, deed, token, rotate).await
    }
}
