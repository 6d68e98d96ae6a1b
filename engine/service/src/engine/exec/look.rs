//! What is known of programs.
//!
//! Invariant: an end that is written down is the answer; where none is, the guest is asked, and what it says is written
//! down. A program whose guest is gone, or has forgotten it, is lost and not said to run.

use std::collections::BTreeMap;

use brood_agent_proto::exec::{ExecId, ExecStatus};
use brood_agent_proto::{AgentError, Client, ClientError};
use brood_store::{Life, MachineKind, MachineRow, MachineState, Write};
use brood_units::MachineId;

use super::talk::{on_thread, refused};
use super::{ExecRow, ExecState, Which, new_row, seen};
use crate::engine::{Caller, Engine, EngineError, Scope, now, report};

/// The most programs of a list. The agent has fewer.
const LISTED: u32 = 1000;

impl Engine {
    /// A program of a machine, which may have ended.
    ///
    /// # Errors
    /// There is none, the caller may not look, or the agent does not answer.
    pub async fn exec(&self, caller: &Caller, which: Which) -> Result<ExecRow, EngineError> {
        let Which { machine: id, exec } = which;
        let machine = self.with_programs(caller, id)?;
        let known = self
            .store()
            .read(|read| read.exec(caller.tenant(), id, exec))?;
        let none = || EngineError::NotFound {
            what: "exec",
            which: exec.to_string(),
        };
        if let Some(row) = known.as_ref().filter(|row| row.ended.is_some()) {
            return Ok(row.clone());
        }
        if !answers(&machine) {
            return known.map(|row| left(row, &machine)).ok_or_else(none);
        }
        let agent = match (self.talk(&machine).await, known.is_some()) {
            (Ok(agent), _) => agent,
            // A guest without an agent has no programs.
            (Err(EngineError::Conflict(_)), false) => return Err(none()),
            (Err(error), _) => return Err(error),
        };
        let status = on_thread(move || ask(agent, |agent| agent.exec_status(ExecId(exec)))).await?;
        let row = match (status, known) {
            (Ok(status), known) => merge(&machine, &status, known),
            (Err(ClientError::Agent(AgentError::NoSuchExec { .. })), Some(row)) => lost(row),
            (Err(error), _) => return Err(refused(&error)),
        };
        self.keep_execs(vec![row.clone()]).await?;
        Ok(row)
    }

    /// The programs of a machine, those of her mother that she has included, by id; the newest thousand.
    ///
    /// # Errors
    /// There is no such machine, the caller may not look, or the agent does not answer.
    pub async fn execs(&self, caller: &Caller, id: MachineId) -> Result<Vec<ExecRow>, EngineError> {
        let machine = self.with_programs(caller, id)?;
        let known = self
            .store()
            .read(|read| read.execs(caller.tenant(), id, LISTED))?;
        if !answers(&machine) {
            return Ok(known.into_iter().map(|row| left(row, &machine)).collect());
        }
        let agent = match self.talk(&machine).await {
            Ok(agent) => agent,
            Err(EngineError::Conflict(_)) => return Ok(known),
            Err(error) => return Err(error),
        };
        let listed = on_thread(move || ask(agent, Client::exec_list)).await?;
        let listed = listed.map_err(|error| refused(&error))?;
        let mut rows: BTreeMap<u32, ExecRow> =
            known.into_iter().map(|row| (row.exec, row)).collect();
        let mut news = Vec::new();
        let in_guest: Vec<u32> = listed.iter().map(|status| status.exec.0).collect();
        for status in &listed {
            let before = rows.get(&status.exec.0);
            if before.is_some_and(|row| row.ended.is_some()) {
                continue;
            }
            let row = merge(&machine, status, before.cloned());
            if before != Some(&row) {
                news.push(row.clone());
            }
            rows.insert(row.exec, row);
        }
        for row in rows.values_mut() {
            if row.ended.is_none() && !in_guest.contains(&row.exec) {
                *row = lost(row.clone());
                news.push(row.clone());
            }
        }
        self.keep_execs(news).await?;
        Ok(rows.into_values().collect())
    }

    /// A machine, which may have ended, as one that programs run in.
    fn with_programs(&self, caller: &Caller, id: MachineId) -> Result<MachineRow, EngineError> {
        caller.may(Scope::Read)?;
        let found = self
            .store()
            .read(|read| read.machine(caller.tenant(), id))?;
        let found = found.filter(|row| row.born.kind == MachineKind::Machine);
        found.ok_or_else(|| EngineError::no_machine(id))
    }

    /// Writes down what is news, and reports ends.
    pub(super) async fn keep_execs(&self, rows: Vec<ExecRow>) -> Result<(), EngineError> {
        if rows.is_empty() {
            return Ok(());
        }
        let write = move |write: &mut Write<'_>| -> Result<u32, EngineError> {
            let mut ended = 0;
            for row in rows {
                if !write.put_exec(&row)? || row.state == ExecState::Running {
                    continue;
                }
                let data = serde_json::json!({
                    "exec": row.exec,
                    "state": row.state.as_str(),
                    "code": row.code,
                    "signal": row.signal,
                });
                report(write, &row.tenant, "exec.ended", row.machine, &data)?;
                ended += 1;
            }
            Ok(ended)
        };
        let ended = self.store().write(write).await?;
        (0..ended).for_each(|_| self.metrics().exec("ended"));
        Ok(())
    }
}

/// Whether its agent can be asked.
fn answers(machine: &MachineRow) -> bool {
    machine.life == Life::Alive && machine.born.state == MachineState::Running
}

/// What is left of a program where nobody can be asked.
fn left(row: ExecRow, machine: &MachineRow) -> ExecRow {
    match (&machine.life, row.ended) {
        (Life::Ended { at, .. }, None) => ExecRow {
            state: ExecState::Lost,
            ended: Some(*at),
            ..row
        },
        _ => row,
    }
}

fn lost(row: ExecRow) -> ExecRow {
    ExecRow {
        state: ExecState::Lost,
        ended: Some(now()),
        ..row
    }
}

fn merge(machine: &MachineRow, status: &ExecStatus, known: Option<ExecRow>) -> ExecRow {
    let row = known.unwrap_or_else(|| {
        let argv = [status.program.clone()];
        let born = &machine.born;
        new_row(born.id, &born.tenant, status.exec.0, &argv, now())
    });
    seen(row, status.state, now())
}

/// One question, and the conversation is over.
fn ask<T>(
    mut agent: Client,
    question: impl FnOnce(&mut Client) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    question(&mut agent)
}
