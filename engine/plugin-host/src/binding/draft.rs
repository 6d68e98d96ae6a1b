//! An answer whose state is not committed yet.
//!
//! Invariant: the caller commits answer and state changes in one transaction of its own, or neither: until
//! [`Draft::committed`] nobody sees the changes, and a draft that is dropped has changed nothing. Meanwhile no other call
//! that may touch the plugin's state runs, so the changes fit the state that they were made from.

use std::fmt;
use std::sync::Arc;

use brood_hooks::Checked;

use crate::Plugin;
use crate::host::BindableHook;
use crate::lane::Leaves;
use crate::state::StateChange;

/// A checked answer, and what its call has written. Hold it for as long as a commit takes and no longer.
#[must_use = "dropped, its state changes are gone"]
pub struct Draft<H: BindableHook> {
    answer: Checked<H::Answer>,
    changes: Vec<StateChange>,
    plugin: Arc<Plugin>,
    /// Left last: the next call begins with what this one has committed.
    place: Leaves,
}

impl<H: BindableHook> Draft<H> {
    pub(super) fn new(
        answer: Checked<H::Answer>,
        changes: Vec<StateChange>,
        plugin: &Arc<Plugin>,
        place: Leaves,
    ) -> Self {
        Self {
            answer,
            changes,
            plugin: Arc::clone(plugin),
            place,
        }
    }

    /// The answer.
    pub const fn answer(&self) -> &H::Answer {
        self.answer.answer()
    }

    /// Whose state it is, as [`crate::StateStore`] names it.
    pub fn plugin(&self) -> &str {
        self.plugin.id()
    }

    /// What is to be made durable together with the answer: all of it, or the answer neither.
    pub fn changes(&self) -> &[StateChange] {
        &self.changes
    }

    /// Tells that answer and changes are durable. The plugin's next call sees the changes.
    pub fn committed(self) -> Checked<H::Answer> {
        let Self {
            answer,
            changes,
            plugin,
            place,
        } = self;
        if !changes.is_empty() {
            plugin.state.apply(changes);
        }
        drop(place);
        answer
    }
}

impl<H: BindableHook> fmt::Debug for Draft<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("plugin", &self.plugin.id())
            .field("answer", &self.answer)
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}
