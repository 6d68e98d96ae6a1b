//! Secrets on their way into daughters.
//!
//! ```text
//!  plan: names ─ resolve (before the fork) ─► [`StampSecrets`] ─ apply (at her stamp) ─► her agent
//!                  └─ unknown: no fork
//! ```
//!
//! Invariant: a value is in nothing that is shown, recorded or written down, and joins the rest of an identity only as
//! that is sent to its daughter. What a policy or a caller puts somewhere wins over what the mother was given there.
//!
//! A fork copies memory and disk, so that *dropping* what the mother was given means: the variable is empty for later
//! programs, the file is empty before the workload runs. What a running program has read stays in its memory.

use std::collections::{BTreeMap, BTreeSet};

use brood_agent_proto::fork::StampFile;
use brood_hooks::mutation::{Secret, SecretTarget};

use crate::ask::Secrets;
use crate::fork::IdentitySpec;
use crate::secret::{Empty, Given, OpenError, Opened, Value, Vault};

/// Who reads a file with a secret: its owner, root.
const FILE_MODE: u32 = 0o600;

/// Where secrets come from.
#[derive(Clone, Copy)]
pub struct Safe<'a> {
    /// Those of the tenant.
    pub vault: &'a dyn Vault,
    /// What the mother was given.
    pub mother: &'a [Given],
}

impl Safe<'static> {
    /// There are none.
    pub const EMPTY: Self = Self {
        vault: &Empty,
        mother: &[],
    };
}

/// What becomes of secrets at the stamp of one daughter.
#[derive(Clone, Debug, Default)]
pub struct StampSecrets {
    handed: Vec<(Given, Value)>,
    emptied: Vec<SecretTarget>,
}

impl StampSecrets {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.handed.is_empty() && self.emptied.is_empty()
    }

    /// What she is given, without values.
    pub fn given(&self) -> impl Iterator<Item = &Given> {
        self.handed.iter().map(|(given, _)| given)
    }

    /// How much of a stamp they take.
    pub(super) fn bytes(&self) -> usize {
        let handed = self.handed.iter().map(|(given, value)| {
            let value = value.reveal().len();
            place(&given.target).len() + value
        });
        let emptied = self.emptied.iter().map(|target| place(target).len());
        handed.chain(emptied).sum()
    }

    /// Adds them to who a daughter shall be.
    pub(super) fn apply(&self, identity: &mut IdentitySpec) {
        let emptied = self.emptied.iter().map(|target| (target, ""));
        let handed = self.handed.iter();
        let handed = handed.map(|(given, value)| (&given.target, value.reveal()));
        for (target, text) in emptied.chain(handed) {
            match target {
                SecretTarget::Env(name) => {
                    identity.env.retain(|(known, _)| known != name);
                    identity.env.push((name.clone(), text.to_owned()));
                }
                SecretTarget::File(path) => {
                    identity.files.retain(|file| file.path != *path);
                    identity.files.push(StampFile {
                        path: path.clone(),
                        mode: FILE_MODE,
                        bytes: text.as_bytes().into(),
                    });
                }
            }
        }
    }
}

fn place(target: &SecretTarget) -> &str {
    match target {
        SecretTarget::Env(name) => name,
        SecretTarget::File(path) => path,
    }
}

/// Opens each secret once, however many daughters get it.
pub(super) struct Resolver<'a> {
    safe: Safe<'a>,
    choice: Secrets,
    opened: BTreeMap<(String, Option<String>), Opened>,
}

impl<'a> Resolver<'a> {
    pub(super) const fn new(safe: Safe<'a>, choice: Secrets) -> Self {
        Self {
            safe,
            choice,
            opened: BTreeMap::new(),
        }
    }

    /// Of one daughter: what the plan gives her, and what becomes of what her mother was given where nothing else was
    /// put, which `is_taken` says.
    pub(super) fn resolve(
        &mut self,
        planned: &[Secret],
        is_taken: impl Fn(&SecretTarget) -> bool,
    ) -> Result<StampSecrets, OpenError> {
        let mut secrets = StampSecrets::default();
        let mut places = BTreeSet::new();
        for secret in planned {
            places.insert(place(&secret.target));
            self.hand(
                &mut secrets,
                &secret.name,
                secret.version.clone(),
                &secret.target,
            )?;
        }
        for given in self.safe.mother {
            let target = &given.target;
            if places.contains(place(target)) || is_taken(target) {
                continue;
            }
            match self.choice {
                Secrets::Drop => secrets.emptied.push(target.clone()),
                // Hers, not a newer one: daughters go on with what their mother has.
                Secrets::Inherit => {
                    let version = Some(given.version.to_string());
                    self.hand(&mut secrets, &given.name, version, target)?;
                }
            }
        }
        Ok(secrets)
    }

    fn hand(
        &mut self,
        secrets: &mut StampSecrets,
        name: &str,
        version: Option<String>,
        target: &SecretTarget,
    ) -> Result<(), OpenError> {
        let key = (name.to_owned(), version);
        let opened = match self.opened.get(&key) {
            Some(opened) => opened.clone(),
            None => {
                let opened = self.safe.vault.open(name, key.1.as_deref())?;
                self.opened.insert(key, opened.clone());
                opened
            }
        };
        let given = Given {
            name: name.to_owned(),
            version: opened.version,
            target: target.clone(),
        };
        secrets.handed.push((given, opened.value));
        Ok(())
    }
}
