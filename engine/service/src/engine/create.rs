//! Templates, and machines made of them.
//!
//! Invariant: a machine of a template goes the same way as any other daughter: admitted, placed, planned and stamped.

use std::collections::BTreeMap;

use brood_store::{Page, StoreError, TemplateRow, Visibility, Write};
use brood_units::MachineId;

use super::once::Deed;
use super::{
    Caller, Engine, EngineError, ForkAnswer, ForkMachine, GuestKind, Idempotency, MachineAnswer,
    OnError, PageAnswer, Scope, now,
};
use crate::ask::ForkSpec;
use crate::identity;

/// The least and the most RAM of a machine, MiB.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=1 << 20;
/// The most vCPUs.
const MOST_VCPUS: u32 = 8;

/// A template to be.
#[derive(Clone, Debug)]
pub struct CreateTemplate {
    /// Its name, one of its kind in the tenant.
    pub name: String,
    /// What it starts.
    pub guest: GuestKind,
    /// vCPUs.
    pub vcpus: u32,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// Whether everybody may use it. Only an operator says so.
    pub public: bool,
}

/// A machine to be.
#[derive(Clone, Debug)]
pub struct CreateMachine {
    /// The id or the name of a template.
    pub template: String,
    /// Its name, one of its kind among the tenant's living.
    pub name: Option<String>,
    /// Whether the machine that lives under the name already is the answer, instead of a conflict.
    pub reuse: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How long it lives, milliseconds; none is for ever.
    pub ttl_ms: Option<u64>,
    /// How long nobody may ask anything of it before it ends, milliseconds; none is for ever.
    pub idle_ms: Option<u64>,
}

/// Whether a name can be one: it goes into paths and commands.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), EngineError> {
    let right = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let begins = name
        .bytes()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && name.len() <= 63 && name.bytes().all(right) {
        return Ok(());
    }
    let name = name.escape_debug();
    Err(EngineError::Invalid(format!(
        "{what} '{name}' is not [a-z0-9][a-z0-9._-]{{0,62}}"
    )))
}

impl Engine {
    /// Makes a template; it is booted and sealed when it is first used.
    ///
    /// # Errors
    /// Something in it means nothing, the name is taken, or the caller may not.
    pub async fn create_template(
        &self,
        caller: &Caller,
        wanted: CreateTemplate,
        idempotency: Option<Idempotency>,
    ) -> Result<TemplateRow, EngineError> {
        caller.may(Scope::Write)?;
        if wanted.public {
            caller.may(Scope::Operator)?;
        }
        check_name("name", &wanted.name)?;
        let (vcpus, memory_mib) = (wanted.vcpus, wanted.memory_mib);
        if vcpus == 0 || vcpus > MOST_VCPUS {
            let words = format!("vcpus {vcpus} is not in 1 ..= {MOST_VCPUS}");
            return Err(EngineError::Invalid(words));
        }
        if !MEMORY_MIB.contains(&memory_mib) {
            let (least, most) = (MEMORY_MIB.start(), MEMORY_MIB.end());
            let words = format!("memory_mib {memory_mib} is not in {least} ..= {most}");
            return Err(EngineError::Invalid(words));
        }
        let row = TemplateRow {
            seq: 0,
            id: identity::machine_id().map_err(|error| EngineError::failed(&error))?,
            tenant: caller.tenant().to_owned(),
            name: wanted.name,
            visibility: if wanted.public {
                Visibility::Public
            } else {
                Visibility::Private
            },
            guest: wanted.guest.as_str().to_owned(),
            vcpus,
            memory_mib,
            created: now(),
        };
        let deed = Deed {
            operation: "create-template",
            subject: *row.id.as_bytes(),
            idempotency,
        };
        let (tenant, id, name) = (row.tenant.clone(), row.id, row.name.clone());
        let add = move |write: &mut Write<'_>| match write.add_template(&row) {
            Ok(()) => write.template(&tenant, id)?.ok_or_else(|| lost(&name)),
            Err(StoreError::Exists(_)) => Err(EngineError::Conflict(format!(
                "{tenant} has a template '{name}': choose another name, or remove that one"
            ))),
            Err(error) => Err(error.into()),
        };
        self.once(caller, deed, add).await
    }

    /// A template that the caller may use, by id or name.
    ///
    /// # Errors
    /// There is none, or the caller may not look.
    pub fn template(&self, caller: &Caller, which: &str) -> Result<TemplateRow, EngineError> {
        caller.may(Scope::Read)?;
        let tenant = caller.tenant();
        let found = self.store().read(|read| match which.parse::<MachineId>() {
            Ok(id) => read.template(tenant, id),
            Err(_) => read.template_by_name(tenant, which),
        })?;
        found.ok_or_else(|| EngineError::NotFound {
            what: "template",
            which: which.escape_debug().to_string(),
        })
    }

    /// Templates that the caller may use.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn templates(
        &self,
        caller: &Caller,
        page: Page,
    ) -> Result<PageAnswer<TemplateRow>, EngineError> {
        caller.may(Scope::Read)?;
        let items = self
            .store()
            .read(|read| read.templates(caller.tenant(), page))?;
        let full = items.len() >= usize::try_from(page.limit).unwrap_or(usize::MAX);
        let next = items.last().filter(|_| full).map(|row| row.seq);
        Ok(PageAnswer { items, next })
    }

    /// Removes a template of the caller's. Machines that were made of it live on.
    ///
    /// # Errors
    /// There is none of the caller's, or the caller may not.
    pub async fn remove_template(&self, caller: &Caller, which: &str) -> Result<(), EngineError> {
        caller.may(Scope::Write)?;
        let row = self.template(caller, which)?;
        let (tenant, id) = (caller.tenant().to_owned(), row.id);
        let removed = self
            .store()
            .write(move |write| write.remove_template(&tenant, id))
            .await?;
        if !removed {
            let words = format!("template {which} is public and not yours: its owner removes it");
            return Err(EngineError::Conflict(words));
        }
        // One that is just being made is waited for, but not by the caller.
        let engine = self.clone();
        tokio::task::spawn_blocking(move || engine.inner.templates.forget(id));
        Ok(())
    }

    /// Makes a machine of a template, or finds the one of that name.
    ///
    /// # Errors
    /// Those of a fork; the name is taken.
    pub async fn create_machine(
        &self,
        caller: &Caller,
        wanted: CreateMachine,
        idempotency: Option<Idempotency>,
    ) -> Result<MachineAnswer, EngineError> {
        caller.may(Scope::Write)?;
        if let Some(name) = &wanted.name {
            check_name("name", name)?;
            let (tenant, name) = (caller.tenant(), name.as_str());
            let living = self
                .store()
                .read(|read| read.machine_by_name(tenant, name))?;
            if let Some(row) = living.filter(|_| wanted.reuse) {
                return Ok(MachineAnswer::from(row));
            }
        }
        let spec = ForkSpec {
            labels: wanted.labels,
            ttl_ms: wanted.ttl_ms,
            ..ForkSpec::of(1)
        };
        let fork = ForkMachine {
            spec,
            on_error: OnError::EndAll,
            name: wanted.name,
            idle_ms: wanted.idle_ms,
        };
        let answer = self
            .fork_template(caller, &wanted.template, fork, idempotency)
            .await?;
        only(answer)
    }
}

fn lost(name: &str) -> EngineError {
    EngineError::Failed(format!("template '{name}' was lost"))
}

fn only(answer: ForkAnswer) -> Result<MachineAnswer, EngineError> {
    let missing = answer.missing.join("; ");
    let daughter = answer.daughters.into_iter().next();
    daughter
        .map(|daughter| daughter.machine)
        .ok_or(EngineError::Failed(missing))
}
