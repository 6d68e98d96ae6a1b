//! The host's interfaces as the test kit answers them: the same names and signatures as the imports of a component.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Inner;

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// A call in progress, with a state of its own until it commits.
struct Call {
    host: Rc<Inner>,
    state: BTreeMap<String, Entry>,
}

/// A value of the state.
#[derive(Clone)]
pub(super) struct Entry {
    held: Held,
    /// Nanoseconds since the epoch.
    expires_ns: Option<u64>,
}

#[derive(Clone)]
enum Held {
    Bytes(Vec<u8>),
    Counter(i64),
}

impl Entry {
    pub(super) fn counter(&self) -> Option<i64> {
        match self.held {
            Held::Counter(value) => Some(value),
            Held::Bytes(_) => None,
        }
    }
}

/// While it lives, the host's functions reach its host; one call at a time on a thread.
pub(super) struct Scope;

impl Scope {
    pub(super) fn enter(host: Rc<Inner>) -> Self {
        let now = host.now_ns.get();
        let alive = |entry: &Entry| entry.expires_ns.is_none_or(|expires| expires > now);
        let state = host.state.borrow().clone().into_iter();
        let state = state.filter(|(_, entry)| alive(entry)).collect();
        CALL.with_borrow_mut(|call| {
            assert!(call.is_none(), "a hook is running in a host of this thread");
            *call = Some(Call { host, state });
        });
        Self
    }

    pub(super) fn commit(self) {
        with(|call| *call.host.state.borrow_mut() = call.state.clone());
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CALL.with_borrow_mut(|call| *call = None);
    }
}

#[expect(
    clippy::panic,
    reason = "a test that asks a host it does not have is wrong"
)]
fn with<T>(answer: impl FnOnce(&mut Call) -> T) -> T {
    CALL.with_borrow_mut(|call| match call {
        Some(call) => answer(call),
        None => panic!("no host: run the hook inside brood_plugin::testkit::Host::call"),
    })
}

pub(crate) mod log {
    use super::super::Line;
    use super::with;
    use crate::log::Level;

    pub(crate) fn write(level: Level, message: &str, fields: &[(String, String)]) {
        if enabled(level) {
            let line = Line {
                level,
                message: message.to_owned(),
                fields: fields.to_vec(),
            };
            with(|call| call.host.lines.borrow_mut().push(line));
        }
    }

    pub(crate) fn enabled(level: Level) -> bool {
        with(|call| level as u8 >= call.host.least.get() as u8)
    }
}

pub(crate) mod config {
    use super::with;

    pub(crate) fn document() -> String {
        with(|call| call.host.document.clone())
    }

    pub(crate) fn prepared(keys: &[String]) -> Vec<Option<Vec<u8>>> {
        with(|call| {
            keys.iter()
                .map(|key| call.host.prepared.get(key).cloned())
                .collect()
        })
    }

    pub(crate) fn revision() -> u64 {
        1
    }
}

pub(crate) mod clock {
    use super::with;

    pub(crate) fn now() -> u64 {
        with(|call| call.host.now_ns.get())
    }
}

pub(crate) mod state {
    use super::{Entry, Held, with};
    use crate::state::Error;

    pub(crate) fn get(keys: &[String]) -> Vec<Option<Vec<u8>>> {
        with(|call| {
            let value = |key| {
                call.state.get(key).map(|entry: &Entry| match &entry.held {
                    Held::Bytes(bytes) => bytes.clone(),
                    Held::Counter(value) => value.to_le_bytes().to_vec(),
                })
            };
            keys.iter().map(value).collect()
        })
    }

    pub(crate) fn set(
        entries: &[(String, Option<Vec<u8>>)],
        expires_ms: Option<u64>,
    ) -> Result<(), Error> {
        with(|call| {
            let now = call.host.now_ns.get();
            let expires_ns = expires_ms.map(|ms| now.saturating_add(ms.saturating_mul(1_000_000)));
            for (key, value) in entries {
                match value {
                    Some(bytes) => {
                        let held = Held::Bytes(bytes.clone());
                        call.state.insert(key.clone(), Entry { held, expires_ns });
                    }
                    None => {
                        call.state.remove(key);
                    }
                }
            }
        });
        Ok(())
    }

    pub(crate) fn add(deltas: &[(String, i64)]) -> Result<Vec<i64>, Error> {
        with(|call| {
            let mut values = Vec::with_capacity(deltas.len());
            let mut changed = call.state.clone();
            for (key, delta) in deltas {
                let entry = changed.entry(key.clone()).or_insert(Entry {
                    held: Held::Counter(0),
                    expires_ns: None,
                });
                let Held::Counter(value) = &mut entry.held else {
                    return Err(Error::TypeMismatch);
                };
                *value = value
                    .checked_add(*delta)
                    .ok_or_else(|| Error::Other(format!("{key} overflows")))?;
                values.push(*value);
            }
            call.state = changed;
            Ok(values)
        })
    }
}

pub(crate) mod metrics {
    use super::with;
    use crate::bindings::host::brood::policy::metrics::Point;

    pub(crate) fn emit(points: &[Point]) {
        with(|call| {
            let declared = points
                .iter()
                .filter(|point| call.host.declared.contains(&point.name.as_str()));
            let points = declared.map(|point| (point.name.clone(), point.value));
            call.host.metrics.borrow_mut().extend(points);
        });
    }
}
