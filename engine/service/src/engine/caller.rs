//! Who calls: keys, and what they allow.
//!
//! Invariant: a key is shown once, when it is made; what is kept is its SHA-256. It has 256 random bits, so that a fast
//! hash is enough: there is nothing to guess.

use std::fmt;
use std::str::FromStr;

use brood_hooks::Principal;
use brood_store::{KeyRow, Write};
use brood_units::{KeyId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::create::check_name;
use super::once::Deed;
use super::{Engine, EngineError, Idempotency, now};
use crate::identity;
use crate::secret::Value;

/// What every key begins with, so that people and scanners of leaked secrets know it.
pub const KEY_PREFIX: &str = "brood_";

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// To look.
    Read,
    /// To make, fork, change and end machines, and to run programs in them.
    Write,
    /// To give out and revoke keys of the tenant.
    Keys,
    /// To do what concerns all tenants.
    Operator,
    /// To read what the engine measures of itself, and nothing else.
    Metrics,
}

impl Scope {
    const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Keys,
        Self::Operator,
        Self::Metrics,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Keys => "keys",
            Self::Operator => "operator",
            Self::Metrics => "metrics",
        }
    }
}

impl FromStr for Scope {
    type Err = EngineError;

    fn from_str(word: &str) -> Result<Self, EngineError> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == word);
        known.ok_or_else(|| {
            let word = word.escape_debug();
            EngineError::Invalid(format!(
                "'{word}' is no scope: there are read, write, keys, operator and metrics"
            ))
        })
    }
}

/// Somebody with a key.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The tenant, its project, and the key as the subject.
    pub principal: Principal,
    scopes: Vec<String>,
}

impl Caller {
    /// The tenant.
    pub fn tenant(&self) -> &str {
        &self.principal.tenant
    }

    /// Whether the key allows it. An operator may read what the engine measures as well.
    ///
    /// # Errors
    /// It does not.
    pub fn may(&self, scope: Scope) -> Result<(), EngineError> {
        let has = |wanted: Scope| self.scopes.iter().any(|own| own == wanted.as_str());
        let implied = scope == Scope::Metrics && has(Scope::Operator);
        let (is_allowed, scope) = (has(scope) || implied, scope.as_str());
        match is_allowed {
            true => Ok(()),
            false => Err(EngineError::Forbidden { scope }),
        }
    }
}

/// A key to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its name for people.
    pub name: String,
    /// A part of the tenant.
    pub project: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
}

/// A key, without what authenticates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// Its id.
    pub id: KeyId,
    /// Its name for people.
    pub name: String,
    /// A part of the tenant.
    pub project: String,
    /// What it allows.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl From<KeyRow> for KeyAnswer {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            project: row.project,
            scopes: row.scopes,
            created: row.created,
            expires: row.expires,
            revoked: row.revoked,
        }
    }
}

/// A key as its holder has it. It is not for logs.
pub struct Token(String);

impl Token {
    /// One that nobody knows.
    pub(super) fn draw() -> Result<Self, EngineError> {
        let mut token = KEY_PREFIX.to_owned();
        for half in [identity::machine_id(), identity::machine_id()] {
            let half = half.map_err(|error| EngineError::failed(&error))?;
            token.push_str(&half.to_string());
        }
        Ok(Self(token))
    }

    /// One that was kept sealed.
    pub(super) fn of(value: &Value) -> Self {
        Self(value.reveal().to_owned())
    }

    /// Its text, for the one who gets it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Engine {
    /// Who has this key.
    ///
    /// # Errors
    /// [`EngineError::Unauthenticated`], or the store cannot be read.
    pub fn authenticate(&self, token: &str) -> Result<Caller, EngineError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let found = self.store().read(|read| read.key_by_hash(&hash))?;
        let row = found.ok_or(EngineError::Unauthenticated("not known"))?;
        if row.revoked.is_some() {
            return Err(EngineError::Unauthenticated("revoked"));
        }
        if row.expires.is_some_and(|expires| expires <= now()) {
            return Err(EngineError::Unauthenticated("expired"));
        }
        Ok(Caller {
            principal: Principal {
                tenant: row.tenant,
                project: row.project,
                subject: row.id.to_string(),
                labels: Vec::new(),
            },
            scopes: row.scopes,
        })
    }

    /// The first key of an engine that has none: it may do everything. None if there is a key already. It is shown before
    /// it is written down, so that an engine that dies in between locks nobody out: the next one shows another.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn first_key(
        &self,
        tenant: &str,
        show: impl FnOnce(&Token),
    ) -> Result<Option<Token>, EngineError> {
        if self.store().read(|read| read.has_keys())? {
            return Ok(None);
        }
        let key = NewKey {
            name: "first".to_owned(),
            project: "default".to_owned(),
            scopes: Scope::ALL.to_vec(),
            expires: None,
        };
        let token = Token::draw()?;
        show(&token);
        self.write_key(tenant, key, &token).await?;
        Ok(Some(token))
    }

    /// Makes a key of the caller's tenant. Nobody gives more than they have.
    ///
    /// # Errors
    /// The caller may not, or the store cannot be written.
    pub async fn create_key(
        &self,
        caller: &Caller,
        key: NewKey,
        idempotency: Option<Idempotency>,
    ) -> Result<(KeyAnswer, Token), EngineError> {
        caller.may(Scope::Keys)?;
        key.scopes.iter().try_for_each(|scope| caller.may(*scope))?;
        let token = Token::draw()?;
        let row = key_row(caller.tenant(), key, &token)?;
        let deed = Deed {
            operation: "create-key",
            subject: *row.id.as_bytes(),
            idempotency,
        };
        let work = move |write: &mut Write<'_>| add_key(write, row);
        self.key_once(caller, deed, token, work).await
    }

    /// The keys of the caller's tenant.
    ///
    /// # Errors
    /// The caller may not, or the store cannot be read.
    pub fn keys(&self, caller: &Caller) -> Result<Vec<KeyAnswer>, EngineError> {
        caller.may(Scope::Keys)?;
        let rows = self.store().read(|read| read.keys(caller.tenant()))?;
        Ok(rows.into_iter().map(KeyAnswer::from).collect())
    }

    /// Ends a key.
    ///
    /// # Errors
    /// There is none that has not ended, the caller may not, or the store cannot be written.
    pub async fn revoke_key(&self, caller: &Caller, id: KeyId) -> Result<(), EngineError> {
        caller.may(Scope::Keys)?;
        let tenant = caller.tenant().to_owned();
        let revoked = self
            .store()
            .write(move |write| write.revoke_key(&tenant, id, now()))
            .await?;
        match revoked {
            true => Ok(()),
            false => Err(EngineError::NotFound {
                what: "key",
                which: id.to_string(),
            }),
        }
    }

    /// Makes a tenant, with its first key. An operator does.
    ///
    /// # Errors
    /// The name cannot be one or is taken, the caller may not, or the store cannot be written.
    pub async fn create_tenant(
        &self,
        caller: &Caller,
        name: &str,
        key: NewKey,
        idempotency: Option<Idempotency>,
    ) -> Result<(KeyAnswer, Token), EngineError> {
        caller.may(Scope::Operator)?;
        check_name("tenant", name)?;
        let token = Token::draw()?;
        let row = key_row(name, key, &token)?;
        let deed = Deed {
            operation: "create-tenant",
            subject: *row.id.as_bytes(),
            idempotency,
        };
        let name = name.to_owned();
        let work = move |write: &mut Write<'_>| {
            if write.has_tenant(&name)? {
                let words = format!("there is a tenant '{name}': choose another name");
                return Err(EngineError::Conflict(words));
            }
            add_key(write, row)
        };
        self.key_once(caller, deed, token, work).await
    }

    async fn write_key(
        &self,
        tenant: &str,
        key: NewKey,
        token: &Token,
    ) -> Result<KeyAnswer, EngineError> {
        let row = key_row(tenant, key, token)?;
        self.store().write(move |write| add_key(write, row)).await
    }
}

fn key_row(tenant: &str, key: NewKey, token: &Token) -> Result<KeyRow, EngineError> {
    Ok(KeyRow {
        id: key_id()?,
        tenant: tenant.to_owned(),
        project: key.project,
        name: key.name,
        hash: Sha256::digest(token.reveal()).into(),
        scopes: key
            .scopes
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect(),
        created: now(),
        expires: key.expires,
        revoked: None,
    })
}

fn add_key(write: &mut Write<'_>, row: KeyRow) -> Result<KeyAnswer, EngineError> {
    write.put_tenant(&row.tenant, row.created)?;
    write.add_key(&row)?;
    Ok(KeyAnswer::from(row))
}

pub(super) fn key_id() -> Result<KeyId, EngineError> {
    let id = identity::machine_id().map_err(|error| EngineError::failed(&error))?;
    Ok(KeyId::from_bytes(*id.as_bytes()))
}
