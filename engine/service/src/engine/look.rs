//! What callers look at.
//!
//! Invariant: looking changes nothing, and shows a tenant its own objects alone.

use brood_hooks::{Bound, HookName};
use brood_store::{
    DecisionEntry, DecisionQuery, DecisionRow, Life, MachineQuery, MachineRow, Page, TenantRow,
};
use brood_units::{IntentId, MachineId};
use tokio::sync::watch;

use super::{Caller, Engine, EngineError, EventsAnswer, MachineAnswer, PageAnswer, Scope};

impl Engine {
    /// A machine or checkpoint, alive or ended.
    ///
    /// # Errors
    /// There is none, or the caller may not look.
    pub fn machine(&self, caller: &Caller, id: MachineId) -> Result<MachineAnswer, EngineError> {
        Ok(MachineAnswer::from(self.row(caller, id)?))
    }

    /// A page of machines or checkpoints, oldest first.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn machines(
        &self,
        caller: &Caller,
        query: MachineQuery,
        page: Page,
    ) -> Result<PageAnswer<MachineAnswer>, EngineError> {
        caller.may(Scope::Read)?;
        let query = MachineQuery {
            tenant: caller.tenant().to_owned(),
            ..query
        };
        let rows = self.store().read(|read| read.machines(&query, page))?;
        let full = rows.len() >= usize::try_from(page.limit).unwrap_or(usize::MAX);
        let next = rows.last().filter(|_| full).map(|row| row.seq);
        let items = rows.into_iter().map(MachineAnswer::from).collect();
        Ok(PageAnswer { items, next })
    }

    /// Everybody of a machine's lineage, alive and ended, mothers before daughters.
    ///
    /// # Errors
    /// There is no such machine, or the caller may not look.
    pub fn tree(&self, caller: &Caller, id: MachineId) -> Result<Vec<MachineAnswer>, EngineError> {
        let lineage = self.row(caller, id)?.born.lineage;
        let family = self
            .store()
            .read(|read| read.lineage(caller.tenant(), lineage))?;
        Ok(family.into_iter().map(MachineAnswer::from).collect())
    }

    /// Events behind a number, at most `limit`.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn events(
        &self,
        caller: &Caller,
        after: i64,
        limit: u32,
    ) -> Result<EventsAnswer, EngineError> {
        caller.may(Scope::Read)?;
        let page = self
            .store()
            .read(|read| read.events(caller.tenant(), after, limit))?;
        Ok(EventsAnswer {
            gap: page.gap,
            events: page.events,
        })
    }

    /// The number of the last event that is committed, of whichever tenant, for those who wait for more.
    pub fn last_event(&self) -> watch::Receiver<i64> {
        self.store().last_event()
    }

    /// What policies said about an intent, in order.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn decisions(
        &self,
        caller: &Caller,
        intent: IntentId,
    ) -> Result<Vec<DecisionRow>, EngineError> {
        caller.may(Scope::Read)?;
        Ok(self
            .store()
            .read(|read| read.decisions(caller.tenant(), intent))?)
    }

    /// Everything that policies said of the caller's requests, behind a number or the newest, at most `limit`. An operator
    /// looks at another tenant's or everybody's.
    ///
    /// # Errors
    /// The caller may not look, or the store cannot be read.
    pub fn decision_log(
        &self,
        caller: &Caller,
        query: &DecisionQuery,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DecisionEntry>, EngineError> {
        caller.may(Scope::Read)?;
        if query.tenant.as_deref() != Some(caller.tenant()) {
            caller.may(Scope::Operator)?;
        }
        Ok(self
            .store()
            .read(|read| read.decision_log(query, after, limit))?)
    }

    /// All tenants, oldest first. An operator looks.
    ///
    /// # Errors
    /// The caller may not, or the store cannot be read.
    pub fn tenants(
        &self,
        caller: &Caller,
        page: Page,
    ) -> Result<PageAnswer<TenantRow>, EngineError> {
        caller.may(Scope::Operator)?;
        let items = self.store().read(|read| read.tenants(page))?;
        let full = items.len() >= usize::try_from(page.limit).unwrap_or(usize::MAX);
        let next = items.last().filter(|_| full).map(|row| row.seq);
        Ok(PageAnswer { items, next })
    }

    /// Who is bound to which hook. Counts are over all tenants, so that an operator looks.
    ///
    /// # Errors
    /// The caller may not.
    pub fn policies(&self, caller: &Caller) -> Result<Vec<(HookName, Bound)>, EngineError> {
        caller.may(Scope::Operator)?;
        Ok(self.bound())
    }

    pub(super) fn bound(&self) -> Vec<(HookName, Bound)> {
        let panels = &self.inner.panels;
        let all = [
            (HookName::Admission, panels.admission.bound()),
            (HookName::Placement, panels.placement.bound()),
            (HookName::Mutation, panels.mutation.bound()),
            (HookName::Billing, panels.billing.bound()),
        ];
        let each = all
            .into_iter()
            .flat_map(|(hook, bound)| bound.into_iter().map(move |bound| (hook, bound)));
        each.collect()
    }

    fn row(&self, caller: &Caller, id: MachineId) -> Result<MachineRow, EngineError> {
        caller.may(Scope::Read)?;
        let found = self
            .store()
            .read(|read| read.machine(caller.tenant(), id))?;
        found.ok_or_else(|| EngineError::no_machine(id))
    }

    /// One that is alive.
    pub(super) fn living(&self, caller: &Caller, id: MachineId) -> Result<MachineRow, EngineError> {
        let row = self.row(caller, id)?;
        match row.life {
            Life::Alive => Ok(row),
            Life::Ended { how, .. } => Err(EngineError::Ended { id, how }),
        }
    }
}
