//! A plugin of the configuration: the version that is current, the one before, and the state that both work on.
//!
//! Invariant: a call keeps the version that it began with. Replacing a version therefore waits for nobody and fails no
//! call; a version that is not ready never becomes current.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brood_hooks::{HookName, Permits};
use brood_policy::{Concurrency, Limits, LogLevel};

use crate::PluginVersion;
use crate::lane::Lane;
use crate::state::PluginState;

struct Versions {
    current: Arc<PluginVersion>,
    previous: Option<Arc<PluginVersion>>,
}

/// A loaded plugin.
pub struct Plugin {
    id: String,
    pub(crate) log_level: LogLevel,
    pub(crate) state: PluginState,
    /// Where calls that may touch the state go: one at a time.
    pub(crate) lane: Arc<Lane>,
    // Leaf locks.
    versions: Mutex<Versions>,
    bound: Mutex<BTreeMap<HookName, Bound>>,
}

/// How a hook is bound: what a version must do with before it becomes current.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) limits: Limits,
    pub(crate) permits: Permits,
}

/// There is no version to go back to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin} has no previous version")]
pub struct RollbackError {
    /// The plugin.
    pub plugin: String,
}

impl Plugin {
    pub(crate) fn new(
        id: &str,
        log_level: LogLevel,
        state: PluginState,
        version: PluginVersion,
    ) -> Self {
        let alone = Concurrency {
            running: 1,
            ..Concurrency::default()
        };
        Self {
            id: id.to_owned(),
            log_level,
            state,
            lane: Lane::new(alone),
            versions: Mutex::new(Versions {
                current: Arc::new(version),
                previous: None,
            }),
            bound: Mutex::default(),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn lock(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that calls begin with.
    pub fn current(&self) -> Arc<PluginVersion> {
        Arc::clone(&self.lock().current)
    }

    /// Bytes of its state.
    pub fn state_bytes(&self) -> u64 {
        self.state.bytes()
    }

    /// Notes that a hook is bound; of several bindings the latest.
    pub(crate) fn note_bound(&self, hook: HookName, bound: Bound) {
        self.lock_bound().insert(hook, bound);
    }

    /// The hooks that are bound.
    pub(crate) fn bound(&self) -> BTreeMap<HookName, Bound> {
        self.lock_bound().clone()
    }

    fn lock_bound(&self) -> MutexGuard<'_, BTreeMap<HookName, Bound>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a version current; calls under way finish in the one they began with.
    pub(crate) fn replace(&self, version: Arc<PluginVersion>) {
        let gone = {
            let mut versions = self.lock();
            let was = std::mem::replace(&mut versions.current, version);
            versions.previous.replace(was)
        };
        // Freeing machine code takes a moment, which is not spent under the lock.
        drop(gone);
    }

    /// Makes the previous version current, and the current one previous.
    pub fn roll_back(&self) -> Result<(), RollbackError> {
        let mut versions = self.lock();
        let Some(previous) = versions.previous.take() else {
            let plugin = self.id.clone();
            return Err(RollbackError { plugin });
        };
        let was = std::mem::replace(&mut versions.current, previous);
        versions.previous = Some(was);
        Ok(())
    }
}
