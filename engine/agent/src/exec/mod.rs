//! Exec sessions as objects that outlive connections and forks. Invariant: at most [`MOST_SESSIONS`] exist; an ended
//! one keeps its status and last output until it is removed, or until a new one needs its place.

mod attach;
mod command;
mod defaults;
mod pump;
mod ring;
mod session;
pub(crate) mod spawn;
pub(crate) mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use brood_agent_proto::blob::EnvMap;
use brood_agent_proto::exec::{ExecId, ExecSpec, ExecState, ExecStatus, Removal};
use brood_agent_proto::{AgentError, SpawnStep};

pub(crate) use attach::{Attached, attach};
pub(crate) use command::Command;
pub(crate) use session::Session;

use crate::cgroup;
use crate::fail;
use crate::gate::Gate;
use crate::serial::enter;
use brood_agent_proto::errno::Errno;

/// Sessions kept, running and ended.
pub(crate) const MOST_SESSIONS: usize = 256;

/// All exec sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    workload: PathBuf,
    gate: Arc<Gate>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u32,
    sessions: BTreeMap<ExecId, Arc<Session>>,
    /// Cgroups of removed sessions in which something still lives.
    leftovers: Vec<PathBuf>,
}

impl Sessions {
    pub(crate) fn new(workload: PathBuf, gate: Arc<Gate>) -> Self {
        Self {
            workload,
            gate,
            table: Mutex::default(),
        }
    }

    /// Starts a program. `base` is the environment under the one of `spec`.
    pub(crate) fn start(
        &self,
        spec: &ExecSpec,
        base: &EnvMap,
        root: &Path,
    ) -> Result<Arc<Session>, AgentError> {
        let permit = self.gate.spawn_permit()?;
        let command = Command::prepare(spec, &defaults::load(root)?, base, root)?;
        let exec = self.reserve()?;
        let path = self.workload.join(format!("exec-{exec}"));
        let cgroup = cgroup::make(&path)
            .and_then(|()| cgroup::open(&path))
            .map_err(|error| AgentError::Spawn {
                step: SpawnStep::Cgroup,
                errno: Errno::from(&error),
            })?;
        let started = Session::start(exec, spec, &command, (path.clone(), cgroup), &self.gate);
        // From here on the process executes its program, or there is none.
        drop(permit);
        let session = started.inspect_err(|_| enter(&self.table).leave(path))?;
        enter(&self.table)
            .sessions
            .insert(exec, Arc::clone(&session));
        Ok(session)
    }

    /// An id, and a place for its session.
    fn reserve(&self) -> Result<ExecId, AgentError> {
        let mut table = enter(&self.table);
        table.sweep();
        if table.sessions.len() >= MOST_SESSIONS {
            let ended = table
                .sessions
                .values()
                .find(|session| session.state() != ExecState::Running)
                .map(Arc::clone);
            match ended {
                Some(session) => table.forget(&session),
                None => {
                    return Err(AgentError::Limit {
                        what: "exec sessions".to_owned(),
                        limit: u64::try_from(MOST_SESSIONS).unwrap_or(u64::MAX),
                    });
                }
            }
        }
        table.next = table.next.wrapping_add(1);
        while table.sessions.contains_key(&ExecId(table.next)) {
            table.next = table.next.wrapping_add(1);
        }
        Ok(ExecId(table.next))
    }

    pub(crate) fn session(&self, exec: ExecId) -> Result<Arc<Session>, AgentError> {
        enter(&self.table)
            .sessions
            .get(&exec)
            .map(Arc::clone)
            .ok_or(AgentError::NoSuchExec { exec })
    }

    pub(crate) fn list(&self) -> Vec<ExecStatus> {
        enter(&self.table)
            .sessions
            .values()
            .map(|session| session.status())
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        enter(&self.table).sessions.len()
    }

    /// Forgets a session.
    pub(crate) fn remove(&self, exec: ExecId, removal: Removal) -> Result<(), AgentError> {
        let session = self.session(exec)?;
        match (session.state(), removal) {
            (ExecState::Running, Removal::EndedOnly) => {
                return Err(AgentError::StillRunning { exec });
            }
            (_, Removal::Kill) => session
                .kill_all()
                .map_err(|error| fail::os("killing a session's processes", &error))?,
            (_, Removal::EndedOnly) => {}
        }
        enter(&self.table).forget(&session);
        Ok(())
    }
}

impl Table {
    fn forget(&mut self, session: &Session) {
        session.close();
        self.sessions.remove(&session.exec);
        self.leave(session.cgroup.clone());
    }

    /// Removes a session's cgroup, now or as soon as the last process in it has ended.
    fn leave(&mut self, cgroup: PathBuf) {
        self.leftovers.push(cgroup);
        self.sweep();
    }

    fn sweep(&mut self) {
        self.leftovers.retain(
            |cgroup| matches!(std::fs::remove_dir(cgroup), Err(error) if !cgroup::is_gone(&error)),
        );
    }
}
