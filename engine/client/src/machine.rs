//! Machines, checkpoints and forks of them.

use brood_api::fork::{ForkAnswer, ForkSpec};
use brood_api::machine::{
    EndAnswer, EndQuery, Machine, MachineListQuery, MachineSpec, MachineStats, NamedMachineSpec,
    Tree, TreeQuery, TtlSpec,
};
use brood_api::{OperationId as Id, Page};
use brood_units::MachineId;

use crate::ask::Ask;
use crate::{Client, ClientError};

impl Client {
    /// Has a machine end sooner, or as late as it was admitted to.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn set_ttl(&self, id: MachineId, spec: &TtlSpec) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::SetTtl).at(id).json(spec)?)
    }

    /// What a machine costs its host at this moment.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn machine_stats(&self, id: MachineId) -> Result<MachineStats, ClientError> {
        self.call(Ask::to(Id::MachineStats).at(id))
    }

    /// A page of machines.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_machines(&self, query: &MachineListQuery) -> Result<Page<Machine>, ClientError> {
        self.call(listed(Id::ListMachines, query))
    }

    /// A page of checkpoints.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_checkpoints(&self, query: &MachineListQuery) -> Result<Page<Machine>, ClientError> {
        self.call(listed(Id::ListCheckpoints, query))
    }

    /// A machine, alive or ended.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_machine(&self, id: MachineId) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::ShowMachine).at(id))
    }

    /// A checkpoint, there or ended.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_checkpoint(&self, id: MachineId) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::ShowCheckpoint).at(id))
    }

    /// The whole lineage of a machine.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_tree(&self, id: MachineId, query: TreeQuery) -> Result<Tree, ClientError> {
        let ask = Ask::to(Id::ShowTree).at(id);
        self.call(ask.query("stats", query.stats))
    }

    /// Makes a machine of a template; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn create_machine(
        &self,
        spec: &MachineSpec,
        once: Option<&str>,
    ) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::CreateMachine).json(spec)?.once(once))
    }

    /// Finds the machine of this name, or makes it.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn named_machine(
        &self,
        name: &str,
        spec: &NamedMachineSpec,
    ) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::NamedMachine).at(name).json(spec)?)
    }

    /// Forks a running machine; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn fork_machine(
        &self,
        id: MachineId,
        spec: &ForkSpec,
        once: Option<&str>,
    ) -> Result<ForkAnswer, ClientError> {
        self.call(Ask::to(Id::ForkMachine).at(id).json(spec)?.once(once))
    }

    /// Forks a checkpoint; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn fork_checkpoint(
        &self,
        id: MachineId,
        spec: &ForkSpec,
        once: Option<&str>,
    ) -> Result<ForkAnswer, ClientError> {
        self.call(Ask::to(Id::ForkCheckpoint).at(id).json(spec)?.once(once))
    }

    /// Keeps a checkpoint of a machine; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn create_checkpoint(
        &self,
        id: MachineId,
        once: Option<&str>,
    ) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::CreateCheckpoint).at(id).once(once))
    }

    /// Has a machine's vCPUs stand still.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn pause_machine(&self, id: MachineId) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::PauseMachine).at(id))
    }

    /// Has them run again.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn resume_machine(&self, id: MachineId) -> Result<Machine, ClientError> {
        self.call(Ask::to(Id::ResumeMachine).at(id))
    }

    /// Ends a machine, and all its descendants if asked to.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn end_machine(&self, id: MachineId, how: &EndQuery) -> Result<EndAnswer, ClientError> {
        let ask = Ask::to(Id::EndMachine).at(id);
        self.call(ask.query("cascade", how.cascade))
    }

    /// Ends a checkpoint.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn end_checkpoint(&self, id: MachineId) -> Result<EndAnswer, ClientError> {
        self.call(Ask::to(Id::EndCheckpoint).at(id))
    }
}

fn listed(id: Id, query: &MachineListQuery) -> Ask {
    Ask::to(id)
        .query("limit", query.limit)
        .query("cursor", query.cursor)
        .query("label", query.label.as_deref())
        .query("ended", query.ended)
}
