//! The state of plugins in the one database.
//!
//! Invariant: what a plugin's call commits is durable before the call is answered.

use brood_plugin_host::{StateChange, StateEntry, StateStore, StateStoreError, StateValue};
use brood_store::{PluginEntry, PluginValue, Store, StoreError};
use brood_units::Timestamp;

/// Plugin state in a store.
pub(super) struct Durable(pub(super) Store);

impl StateStore for Durable {
    fn load(&self, plugin: &str) -> Result<Vec<(String, StateEntry)>, StateStoreError> {
        let rows = self.0.read(|read| read.plugin_state(plugin));
        let rows = rows.map_err(|error| failed(&error))?;
        Ok(rows
            .into_iter()
            .map(|(key, row)| (key, entry(row)))
            .collect())
    }

    fn commit(&self, plugin: &str, changes: &[StateChange]) -> Result<(), StateStoreError> {
        let plugin = plugin.to_owned();
        let rows: Vec<_> = changes
            .iter()
            .map(|(key, entry)| (key.clone(), entry.as_ref().map(row)))
            .collect();
        let write = self
            .0
            .write(move |write| write.change_plugin_state(&plugin, &rows));
        write.wait().map_err(|error| failed(&error))
    }
}

fn failed(error: &StoreError) -> StateStoreError {
    StateStoreError {
        message: error.to_string(),
    }
}

fn entry(row: PluginEntry) -> StateEntry {
    StateEntry {
        value: match row.value {
            PluginValue::Bytes(bytes) => StateValue::Bytes(bytes),
            PluginValue::Counter(count) => StateValue::Counter(count),
        },
        expires_at_ms: row
            .expires
            .map(|at| u64::try_from(at.as_millis()).unwrap_or(0)),
    }
}

fn row(entry: &StateEntry) -> PluginEntry {
    PluginEntry {
        value: match &entry.value {
            StateValue::Bytes(bytes) => PluginValue::Bytes(bytes.clone()),
            StateValue::Counter(count) => PluginValue::Counter(*count),
        },
        expires: entry
            .expires_at_ms
            .map(|at| Timestamp::from_millis(i64::try_from(at).unwrap_or(i64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_commits_is_there_after_a_restart_and_what_it_removes_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Store::open(directory.path(), &brood_store::StoreOptions::default());
        let entry = |value, expires_at_ms| StateEntry {
            value,
            expires_at_ms,
        };
        let kept = [
            ("a".to_owned(), entry(StateValue::Bytes(vec![0, 255]), None)),
            (
                "b".to_owned(),
                entry(StateValue::Counter(-7), Some(1_700_000_000_000)),
            ),
        ];
        {
            let state = Durable(open().expect("opens"));
            let mut changes: Vec<StateChange> = kept
                .iter()
                .cloned()
                .map(|(key, entry)| (key, Some(entry)))
                .collect();
            changes.push(("c".to_owned(), Some(entry(StateValue::Counter(1), None))));
            state.commit("quota", &changes).expect("commits");
            state
                .commit("quota", &[("c".to_owned(), None)])
                .expect("removes");
        }
        let state = Durable(open().expect("opens again"));
        assert_eq!(state.load("quota").expect("loads"), kept);
        assert_eq!(state.load("other").expect("loads"), []);
    }
}
