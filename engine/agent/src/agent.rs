//! What all connections share. Invariant: the fork protocol's steps happen one at a time, under [`Agent::freezer`];
//! every other lock is a leaf below it.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use brood_agent_proto::blob::EnvMap;

use crate::exec::Sessions;
use crate::freezer::Freezer;
use crate::gate::Gate;
use crate::options::Options;
use crate::stamp::env_file;
use crate::system::System;

/// Connections served at a time.
pub(crate) const MAX_CONNECTIONS: usize = 128;

/// One connection of one agent; never used twice, not even across a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// The agent.
pub struct Agent {
    pub(crate) options: Options,
    pub(crate) system: Box<dyn System>,
    pub(crate) freezer: Mutex<Freezer>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) sessions: Sessions,
    /// What stamps have put into the environment of exec sessions.
    pub(crate) env: Mutex<EnvMap>,
    connections: AtomicUsize,
    next_connection: AtomicU64,
}

impl Agent {
    /// An agent whose workload lives below `options.cgroup_root`, which must be a cgroup2 directory.
    ///
    /// # Errors
    /// If the workload's cgroup cannot be made.
    pub fn new(options: Options, system: Box<dyn System>) -> io::Result<Arc<Self>> {
        let freezer = Freezer::new(&options.cgroup_root)?;
        let gate = Arc::new(Gate::default());
        let sessions = Sessions::new(freezer.workload(), Arc::clone(&gate));
        let env = env_file::load(&options.root_prefix);
        Ok(Arc::new(Self {
            options,
            system,
            freezer: Mutex::new(freezer),
            gate,
            sessions,
            env: Mutex::new(env),
            connections: AtomicUsize::new(0),
            next_connection: AtomicU64::new(0),
        }))
    }

    /// Moves the calling process into the agent's own cgroup, which is never frozen. A program that is the agent
    /// calls this before it serves.
    ///
    /// # Errors
    /// If the cgroup cannot be made or joined.
    pub fn enter_own_cgroup(&self) -> io::Result<()> {
        crate::serial::enter(&self.freezer).adopt_self()
    }
}

/// The right to serve one connection; given back when dropped.
pub(crate) struct ConnectionSlot {
    pub(crate) agent: Arc<Agent>,
    pub(crate) id: ConnectionId,
}

impl ConnectionSlot {
    /// A slot, unless all are taken.
    pub(crate) fn take(agent: &Arc<Agent>) -> Option<Self> {
        agent
            .connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < MAX_CONNECTIONS).then_some(taken + 1)
            })
            .ok()?;
        Some(Self {
            agent: Arc::clone(agent),
            id: ConnectionId(agent.next_connection.fetch_add(1, Ordering::Relaxed)),
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.agent.gate.ended(self.id);
        self.agent.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
