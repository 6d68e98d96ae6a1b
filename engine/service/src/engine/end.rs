//! A machine's end, written down.
//!
//! Invariant: whoever has ended is written down as ended once, at the time when she did and with the reading that was taken of her
//! then, however long the database has no room for it: until then it is tried again, or the next engine finds it with the
//! supervisor.

use std::sync::Arc;
use std::time::Duration;

use brood_meter::{Cause, Reading};
use brood_store::{MachineKind, StoreError, Write};
use brood_units::MachineId;

use super::life::Living;
use super::{Engine, EngineError, report};

/// How long one that could not be written down waits the first time; then twice as long each time.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(30);

/// How a machine or checkpoint has ended.
#[derive(Clone)]
pub(super) struct Ended {
    pub(super) living: Living,
    /// In words.
    pub(super) how: String,
    /// Under which id a supervisor keeps her cell.
    pub(super) cell: Option<MachineId>,
    /// What was read of her at last.
    pub(super) last: Reading,
}

impl Ended {
    /// Whether she was alive before that.
    fn write(self, write: &mut Write<'_>) -> Result<bool, EngineError> {
        let id = self.living.id;
        let kind = match self.living.kind {
            MachineKind::Machine => "machine.ended",
            MachineKind::Checkpoint => "checkpoint.ended",
        };
        let was_alive = write.end_machine(id, &self.how, self.last.at)?;
        if was_alive {
            write.count(id, &self.last, Cause::End)?;
            let data = serde_json::json!({ "how": self.how });
            report(write, &self.living.tenant, kind, id, &data)?;
        }
        Ok(was_alive)
    }
}

impl Engine {
    /// Writes an end down, on a thread that may stand still.
    ///
    /// # Errors
    /// It cannot be written now. It is as soon as it can be.
    pub(super) fn write_end(&self, ended: Ended) -> Result<(), EngineError> {
        self.inner.deadlines.forget(ended.living.id);
        self.metered().remove(&ended.living.id);
        let own = ended.clone();
        match self.store().write(move |write| own.write(write)).wait() {
            Ok(was_alive) => {
                self.let_go(&ended, was_alive);
                Ok(())
            }
            Err(error) => {
                tracing::error!(machine = %ended.living.id, %error, "an end cannot be written down; it is tried again");
                self.write_later(ended);
                Err(error)
            }
        }
    }

    fn write_later(&self, ended: Ended) {
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            let mut pause = FIRST;
            loop {
                tokio::time::sleep(pause).await;
                let Some(inner) = inner.upgrade() else {
                    return;
                };
                let (engine, own) = (Self { inner }, ended.clone());
                match engine.store().write(move |write| own.write(write)).await {
                    Ok(was_alive) => {
                        engine.let_go(&ended, was_alive);
                        return;
                    }
                    Err(EngineError::Store(StoreError::Closed)) => return,
                    Err(_) => pause = (pause * 2).min(LONGEST),
                }
            }
        });
    }

    /// What she held is others'.
    fn let_go(&self, ended: &Ended, was_alive: bool) {
        if was_alive {
            // Checkpoints hold nothing, and are not known there.
            self.holds().machine_ended(ended.living.id);
            self.metrics().ended(ended.living.kind.as_str());
            self.call_next();
        }
        if let Some(cell) = ended.cell {
            self.kept().remove(&cell);
        }
        self.note(ended.cell);
    }
}
