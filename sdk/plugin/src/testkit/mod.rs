//! A host without an engine, for `cargo test` on any machine: settings, clock, state, and what was logged and emitted.
//!
//! Invariant: as in the engine, a call sees one instant; what it wrote to the state is kept only if it returned an answer;
//! and a metric that the plugin did not declare is not counted as emitted.
//!
//! ```no_run
//! # use brood_plugin::testkit::{Host, item}; use brood_plugin::Admission;
//! # fn test<Quota: Admission>() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::with_settings::<Quota>(r#"{"most": 2}"#)?;
//! let verdicts = host.call(|| Quota::review(vec![item(3)]))?;
//! # Ok(()) }
//! ```

pub(crate) mod backend;
mod fixture;
mod schema;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::rc::Rc;

pub use fixture::{brief, candidate, facts, fork_request, id, item, labels, question, sample};

pub use schema::undocumented;

use crate::Plugin;
use crate::glue;
use crate::log::Level;
use crate::plugin::Diagnostic;
use crate::types::HookError;
use backend::{Entry, Scope};

/// The plugin refused its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Vec<Diagnostic>);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the plugin refused its settings")?;
        for Diagnostic { at, message } in &self.0 {
            write!(formatter, "; {at}: {message}")?;
        }
        Ok(())
    }
}

impl Error for Refused {}

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How important it is.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(String, String)>,
}

/// A host with the settings of one plugin.
#[derive(Clone)]
pub struct Host {
    inner: Rc<Inner>,
}

pub(crate) struct Inner {
    document: String,
    prepared: BTreeMap<String, Vec<u8>>,
    declared: &'static [&'static str],
    now_ns: Cell<u64>,
    least: Cell<Level>,
    state: RefCell<BTreeMap<String, Entry>>,
    lines: RefCell<Vec<Line>>,
    metrics: RefCell<Vec<(String, i64)>>,
}

impl Host {
    /// A host whose settings are this document, prepared by the plugin.
    ///
    /// # Errors
    ///
    /// The plugin refuses the document.
    pub fn with_settings<P: Plugin>(document: &str) -> Result<Self, Refused> {
        let prepared = glue::prepare::<P>(document).map_err(Refused)?;
        let inner = Inner {
            document: document.to_owned(),
            prepared: prepared.into_iter().collect(),
            declared: P::METRICS,
            now_ns: Cell::new(1_800_000_000_000_000_000),
            least: Cell::new(Level::Info),
            state: RefCell::default(),
            lines: RefCell::default(),
            metrics: RefCell::default(),
        };
        let inner = Rc::new(inner);
        Ok(Self { inner })
    }

    /// Sets the clock, in nanoseconds since the Unix epoch. State that has expired by then is gone.
    pub fn set_now(&self, now_ns: u64) {
        self.inner.now_ns.set(now_ns);
    }

    /// Keeps log lines of this level and above; `Info` if never set.
    pub fn keep_lines_from(&self, least: Level) {
        self.inner.least.set(least);
    }

    /// Runs one call of a hook in this host. State is kept if it returns an answer, and not if it errs or panics.
    ///
    /// # Errors
    ///
    /// Those of the hook.
    pub fn call<T>(&self, hook: impl FnOnce() -> Result<T, HookError>) -> Result<T, HookError> {
        let scope = Scope::enter(Rc::clone(&self.inner));
        let answer = hook();
        if answer.is_ok() {
            scope.commit();
        }
        answer
    }

    /// The settings document.
    #[must_use]
    pub fn document(&self) -> &str {
        &self.inner.document
    }

    /// The log lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.inner.lines.borrow().clone()
    }

    /// The metrics emitted so far, in order: name and value.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, i64)> {
        self.inner.metrics.borrow().clone()
    }

    /// The counter under a key of the state; none if there is no such counter.
    #[must_use]
    pub fn counter(&self, key: &str) -> Option<i64> {
        let state = self.inner.state.borrow();
        state.get(key).and_then(Entry::counter)
    }
}

#[cfg(test)]
mod tests;
