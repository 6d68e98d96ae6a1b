//! The small state of a plugin.
//!
//! Invariant: a call sees the state as it was when the call began and its own writes; nobody sees those before they are
//! committed, and they are committed whole or not at all. Calls of one plugin do not overlap: [`crate::lane`] sees to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use brood_policy::StateOptions;
use serde::{Deserialize, Serialize};

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateValue {
    /// Bytes that the plugin set.
    Bytes(Vec<u8>),
    /// A counter that the plugin added to. Read with `get` it is eight bytes, little-endian.
    Counter(i64),
}

impl StateValue {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Counter(count) => count.to_le_bytes().to_vec(),
        }
    }

    const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Counter(_) => 8,
        }
    }
}

/// A value and when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// What is held.
    pub value: StateValue,
    /// Milliseconds since the epoch; none is for ever.
    pub expires_at_ms: Option<u64>,
}

/// One key's new entry; none removes it.
pub type StateChange = (String, Option<StateEntry>);

/// The state could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StateStoreError {
    /// Why.
    pub message: String,
}

/// Where state is durable. Changes that belong into one transaction with what else the caller writes, as a batch's rated
/// lines do, do not come this way: see [`crate::Draft`].
pub trait StateStore: Send + Sync {
    /// All entries of a plugin.
    fn load(&self, plugin: &str) -> Result<Vec<(String, StateEntry)>, StateStoreError>;
    /// Makes changes durable, all or none. What is removed for having expired is among them.
    fn commit(&self, plugin: &str, changes: &[StateChange]) -> Result<(), StateStoreError>;
}

/// State that ends with the process: for tools, benches and tests.
#[derive(Debug, Default)]
pub struct VolatileState(Mutex<BTreeMap<(String, String), StateEntry>>);

impl StateStore for VolatileState {
    fn load(&self, plugin: &str) -> Result<Vec<(String, StateEntry)>, StateStoreError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.iter().filter(|((owner, _), _)| owner == plugin);
        Ok(own
            .map(|((_, key), entry)| (key.clone(), entry.clone()))
            .collect())
    }

    fn commit(&self, plugin: &str, changes: &[StateChange]) -> Result<(), StateStoreError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, entry) in changes {
            let place = (plugin.to_owned(), key.clone());
            match entry {
                Some(entry) => all.insert(place, entry.clone()),
                None => all.remove(&place),
            };
        }
        Ok(())
    }
}

/// Why a plugin's write was refused; the plugin is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StateRefusal {
    TooLarge,
    Quota,
    TypeMismatch,
    Other(String),
}

/// All entries of one plugin.
pub(crate) struct PluginState {
    plugin: String,
    options: StateOptions,
    store: Arc<dyn StateStore>,
    entries: Mutex<Arc<BTreeMap<String, StateEntry>>>,
}

impl PluginState {
    pub(crate) fn load(
        plugin: &str,
        options: StateOptions,
        store: Arc<dyn StateStore>,
    ) -> Result<Self, StateStoreError> {
        let entries = store.load(plugin)?.into_iter().collect();
        let entries = Mutex::new(Arc::new(entries));
        Ok(Self {
            plugin: plugin.to_owned(),
            options,
            store,
            entries,
        })
    }

    /// The state as a call sees it.
    pub(crate) fn view(&self, now_ms: u64) -> StateView {
        let base = Arc::clone(&self.entries.lock().unwrap_or_else(PoisonError::into_inner));
        StateView::new(base, self.options, now_ms)
    }

    /// What a call's writes come to, with the removal of what has expired.
    pub(crate) fn changes(view: StateView) -> Vec<StateChange> {
        if view.written.is_empty() {
            return Vec::new();
        }
        let StateView {
            base,
            written,
            now_ms,
            ..
        } = view;
        let expired: Vec<String> = base
            .iter()
            .filter(|(key, entry)| ended(entry, now_ms) && !written.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        let mut changes: Vec<StateChange> = written.into_iter().collect();
        changes.extend(expired.into_iter().map(|key| (key, None)));
        changes
    }

    /// Makes a call's writes everybody's.
    pub(crate) fn commit(&self, view: StateView) -> Result<(), StateStoreError> {
        let changes = Self::changes(view);
        if !changes.is_empty() {
            self.store.commit(&self.plugin, &changes)?;
            self.apply(changes);
        }
        Ok(())
    }

    /// Shows what the store has committed to the calls that follow.
    pub(crate) fn apply(&self, changes: Vec<StateChange>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Copied only while a shadow call still looks at it.
        let entries = Arc::make_mut(&mut entries);
        for (key, entry) in changes {
            match entry {
                Some(entry) => entries.insert(key, entry),
                None => entries.remove(&key),
            };
        }
    }

    /// Bytes of all entries.
    pub(crate) fn bytes(&self) -> u64 {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|(key, entry)| size(key, entry) as u64)
            .sum()
    }
}

fn ended(entry: &StateEntry, now_ms: u64) -> bool {
    entry.expires_at_ms.is_some_and(|end| end <= now_ms)
}

fn size(key: &str, entry: &StateEntry) -> usize {
    key.len() + entry.value.len()
}

const LONGEST_KEY: usize = 256;

/// The state during one call: what was, and what the call has written.
#[derive(Clone, Debug)]
pub(crate) struct StateView {
    base: Arc<BTreeMap<String, StateEntry>>,
    written: BTreeMap<String, Option<StateEntry>>,
    options: StateOptions,
    now_ms: u64,
    /// Of what has not ended, with what was written; counted at the first write.
    used: Option<(usize, usize)>,
}

impl StateView {
    fn new(base: Arc<BTreeMap<String, StateEntry>>, options: StateOptions, now_ms: u64) -> Self {
        Self {
            base,
            written: BTreeMap::new(),
            options,
            now_ms,
            used: None,
        }
    }

    /// A view of nothing, for calls that have no state.
    pub(crate) fn empty() -> Self {
        Self::new(
            Arc::default(),
            StateOptions {
                keys: 0,
                kib: 0,
                value_kib: 0,
            },
            0,
        )
    }

    fn entry(&self, key: &str) -> Option<&StateEntry> {
        match self.written.get(key) {
            Some(written) => written.as_ref(),
            None => self
                .base
                .get(key)
                .filter(|entry| !ended(entry, self.now_ms)),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entry(key).map(|entry| entry.value.bytes())
    }

    /// All entries or none.
    pub(crate) fn set(
        &mut self,
        entries: Vec<(String, Option<Vec<u8>>)>,
        expires_ms: Option<u64>,
    ) -> Result<(), StateRefusal> {
        let expires_at_ms = expires_ms.map(|lasts| self.now_ms.saturating_add(lasts));
        let entries = entries.into_iter().map(|(key, bytes)| {
            let entry = bytes.map(|bytes| StateEntry {
                value: StateValue::Bytes(bytes),
                expires_at_ms,
            });
            (key, entry)
        });
        self.write(entries.collect())
    }

    /// All counters or none.
    pub(crate) fn add(&mut self, deltas: Vec<(String, i64)>) -> Result<Vec<i64>, StateRefusal> {
        let mut sums: BTreeMap<String, StateEntry> = BTreeMap::new();
        let mut values = Vec::with_capacity(deltas.len());
        for (key, delta) in deltas {
            let was = sums.get(&key).or_else(|| self.entry(&key));
            let (count, expires_at_ms) = match was {
                None => (0, None),
                Some(StateEntry {
                    value: StateValue::Counter(count),
                    expires_at_ms,
                }) => (*count, *expires_at_ms),
                Some(_) => return Err(StateRefusal::TypeMismatch),
            };
            let overflow = || StateRefusal::Other(format!("counter {key} overflows 64 bits"));
            let count = count.checked_add(delta).ok_or_else(overflow)?;
            values.push(count);
            sums.insert(
                key,
                StateEntry {
                    value: StateValue::Counter(count),
                    expires_at_ms,
                },
            );
        }
        self.write(
            sums.into_iter()
                .map(|(key, entry)| (key, Some(entry)))
                .collect(),
        )?;
        Ok(values)
    }

    fn write(&mut self, entries: Vec<StateChange>) -> Result<(), StateRefusal> {
        let (mut keys, mut bytes) = self.used.unwrap_or_else(|| self.count());
        let mut before = self.written.clone();
        for (key, entry) in entries {
            if key.is_empty() || key.len() > LONGEST_KEY {
                let message = format!("a key has 1 to {LONGEST_KEY} bytes");
                return self.undo(before, StateRefusal::Other(message));
            }
            if let Some(was) = self.entry(&key) {
                (keys, bytes) = (
                    keys.saturating_sub(1),
                    bytes.saturating_sub(size(&key, was)),
                );
            }
            if let Some(entry) = &entry {
                if entry.value.len() > (self.options.value_kib as usize) << 10 {
                    return self.undo(before, StateRefusal::TooLarge);
                }
                (keys, bytes) = (keys + 1, bytes + size(&key, entry));
            }
            self.written.insert(key, entry);
        }
        if keys > self.options.keys as usize || bytes > (self.options.kib as usize) << 10 {
            return self.undo(before, StateRefusal::Quota);
        }
        before.clear();
        self.used = Some((keys, bytes));
        Ok(())
    }

    fn undo(
        &mut self,
        before: BTreeMap<String, Option<StateEntry>>,
        refusal: StateRefusal,
    ) -> Result<(), StateRefusal> {
        self.written = before;
        Err(refusal)
    }

    fn count(&self) -> (usize, usize) {
        let live = self
            .base
            .iter()
            .filter(|(_, entry)| !ended(entry, self.now_ms));
        live.fold((0, 0), |(keys, bytes), (key, entry)| {
            (keys + 1, bytes + size(key, entry))
        })
    }
}

#[cfg(test)]
mod tests;
