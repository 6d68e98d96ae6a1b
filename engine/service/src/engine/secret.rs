//! Secrets of tenants: put, listed by name, removed, and opened for stamps.
//!
//! Invariant: no answer holds a value; one leaves the engine in the stamp of a daughter of its tenant alone. An engine
//! that was given no key keeps none, and one whose key does not open what is kept does not start with it.

use brood_hooks::mutation::SecretTarget;
use brood_store::{GivenRow, GivenTarget, SecretSummary, Write};
use brood_units::Timestamp;

use super::create::check_name;
use super::{Caller, Engine, EngineError, Scope, now};
use crate::secret::{Given, Label, OpenError, Opened, SealError, SecretKey, Value, Vault};

/// The most secrets of a tenant: all of them are one list.
const MOST_SECRETS: usize = 1000;
/// The most bytes of a value: several fit in one stamp.
const MOST_BYTES: usize = 64 * 1024;

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretAnswer {
    /// Its name.
    pub name: String,
    /// The newest version.
    pub version: u32,
    /// How many versions are kept.
    pub versions: u32,
    /// When the oldest of these was made.
    pub created: Timestamp,
    /// When the newest was made.
    pub updated: Timestamp,
}

impl From<SecretSummary> for SecretAnswer {
    fn from(row: SecretSummary) -> Self {
        Self {
            name: row.name,
            version: row.newest,
            versions: row.versions,
            created: row.created,
            updated: row.updated,
        }
    }
}

impl From<SealError> for EngineError {
    fn from(error: SealError) -> Self {
        Self::failed(&anyhow::Error::from(error))
    }
}

impl Engine {
    /// Gives the engine the key that secrets are sealed with, once, before it is asked for any.
    ///
    /// # Errors
    /// The store has secrets that another key sealed, or cannot be read.
    pub fn unlock_secrets(&self, key: SecretKey) -> Result<(), EngineError> {
        if let Some((tenant, row)) = self.store().read(|read| read.some_secret())? {
            let label = Label {
                tenant: &tenant,
                name: &row.name,
                version: row.version,
            };
            let opened = key.open(label, &row.sealed);
            opened.map_err(|error| {
                EngineError::Failed(format!(
                    "the secrets in the database do not open with this key: {error}"
                ))
            })?;
        }
        // Who was given one already keeps it.
        self.inner.secret_key.set(key).ok();
        Ok(())
    }

    pub(super) fn secret_key(&self) -> Result<&SecretKey, EngineError> {
        self.inner.secret_key.get().ok_or_else(|| {
            let words = "this engine keeps no secrets: it was started without a key for them";
            EngineError::Conflict(words.to_owned())
        })
    }

    /// Puts a new version of a secret.
    ///
    /// # Errors
    /// The name or the value cannot be one, the tenant has too many, the caller may not, or the store cannot be written.
    pub async fn put_secret(
        &self,
        caller: &Caller,
        name: &str,
        value: Value,
    ) -> Result<SecretAnswer, EngineError> {
        caller.may(Scope::Write)?;
        check_name("secret", name)?;
        let bytes = value.reveal().len();
        if bytes > MOST_BYTES || value.reveal().contains('\0') {
            let words = format!(
                "a secret is text of at most {MOST_BYTES} bytes without NUL; this one has {bytes} bytes"
            );
            return Err(EngineError::Invalid(words));
        }
        let key = self.secret_key()?.clone();
        let (tenant, name) = (caller.tenant().to_owned(), name.to_owned());
        let put = move |write: &mut Write<'_>| -> Result<SecretAnswer, EngineError> {
            let version = write.add_secret(&tenant, &name, now(), |version| {
                let label = Label {
                    tenant: &tenant,
                    name: &name,
                    version,
                };
                Ok::<_, EngineError>(key.seal(label, &value)?)
            })?;
            let all = write.secrets(&tenant)?;
            if all.len() > MOST_SECRETS {
                return Err(EngineError::Conflict(format!(
                    "{tenant} has {MOST_SECRETS} secrets, the most there can be: remove one"
                )));
            }
            let mine = all.into_iter().find(|row| row.name == name);
            mine.map(SecretAnswer::from).ok_or_else(|| {
                EngineError::Failed(format!("secret '{name}' version {version} was lost"))
            })
        };
        self.store().write(put).await
    }

    /// The caller's secrets, by name, without values.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn secrets(&self, caller: &Caller) -> Result<Vec<SecretAnswer>, EngineError> {
        caller.may(Scope::Read)?;
        let rows = self.store().read(|read| read.secrets(caller.tenant()))?;
        Ok(rows.into_iter().map(SecretAnswer::from).collect())
    }

    /// Removes all versions of a secret. Machines that were given it keep what they have.
    ///
    /// # Errors
    /// There is none, the caller may not, or the store cannot be written.
    pub async fn remove_secret(&self, caller: &Caller, name: &str) -> Result<(), EngineError> {
        caller.may(Scope::Write)?;
        let (tenant, which) = (caller.tenant().to_owned(), name.to_owned());
        let removed = self
            .store()
            .write(move |write| write.remove_secret(&tenant, &which));
        match removed.await? {
            0 => Err(EngineError::NotFound {
                what: "secret",
                which: name.escape_debug().to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Who opens the secrets of a tenant.
    pub(super) const fn vault<'a>(&'a self, tenant: &'a str) -> TenantVault<'a> {
        TenantVault {
            engine: self,
            tenant,
        }
    }
}

/// The secrets of a tenant, open for stamps.
pub(super) struct TenantVault<'a> {
    engine: &'a Engine,
    tenant: &'a str,
}

impl Vault for TenantVault<'_> {
    fn open(&self, name: &str, wanted: Option<&str>) -> Result<Opened, OpenError> {
        let unknown = || OpenError::Unknown {
            name: name.to_owned(),
            wanted: wanted.map(str::to_owned),
        };
        let version = wanted.map(str::parse::<u32>).transpose();
        let version = version.map_err(|_| unknown())?;
        let key = self.engine.inner.secret_key.get();
        let key = key.ok_or_else(|| OpenError::NoKey {
            name: name.to_owned(),
        })?;
        let found = self
            .engine
            .store()
            .read(|read| read.secret(self.tenant, name, version));
        let found = found.map_err(|error: brood_store::StoreError| OpenError::Store {
            name: name.to_owned(),
            why: error.to_string(),
        })?;
        let row = found.ok_or_else(unknown)?;
        let label = Label {
            tenant: self.tenant,
            name,
            version: row.version,
        };
        let value = key.open(label, &row.sealed);
        let value = value.map_err(|why| OpenError::Sealed {
            name: name.to_owned(),
            version: row.version,
            why,
        })?;
        Ok(Opened {
            version: row.version,
            value,
        })
    }
}

/// What a machine was given, as it is written down.
pub(super) fn given_row(given: &Given) -> GivenRow {
    let (target, place) = match &given.target {
        SecretTarget::Env(name) => (GivenTarget::Env, name),
        SecretTarget::File(path) => (GivenTarget::File, path),
    };
    GivenRow {
        target,
        place: place.clone(),
        name: given.name.clone(),
        version: given.version,
    }
}

/// The same, read again.
pub(super) fn given(row: GivenRow) -> Given {
    Given {
        name: row.name,
        version: row.version,
        target: match row.target {
            GivenTarget::Env => SecretTarget::Env(row.place),
            GivenTarget::File => SecretTarget::File(row.place),
        },
    }
}
