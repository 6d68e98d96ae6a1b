//! Windows that end because their time is over.
//!
//! Invariant: machines are read first and written then, some at a time; who ends meanwhile has her last window already, and a
//! reading of before it changes nothing.

use std::time::Duration;

use brood_meter::{Cause, Period, Reading};
use brood_store::{StoreError, Write};
use brood_units::MachineId;

use super::super::{Engine, EngineError, now};

/// Machines whose windows are written in one job: a millisecond's work, so that a fork's own commit waits no longer.
const TOGETHER: usize = 50;

impl Engine {
    /// Closes the windows of all machines; how many had one to close.
    ///
    /// # Errors
    /// The store cannot be written; nothing is lost, as the next windows begin where these would have.
    pub async fn count_all(&self) -> Result<usize, EngineError> {
        let engine = self.clone();
        let read = tokio::task::spawn_blocking(move || engine.read_all()).await;
        let read =
            read.map_err(|error| EngineError::Failed(format!("reading usage broke off: {error}")))?;
        let mut closed = 0;
        for some in read.chunks(TOGETHER) {
            let some = some.to_vec();
            let write = move |write: &mut Write<'_>| -> Result<usize, StoreError> {
                let mut closed = 0;
                for (machine, reading) in &some {
                    let record = write.count(*machine, reading, Cause::Tick)?;
                    closed += usize::from(record.is_some());
                }
                Ok(closed)
            };
            // One after the other: what else is to be written goes in between.
            closed += self.store().write(write).await?;
        }
        Ok(closed)
    }

    fn read_all(&self) -> Vec<(MachineId, Reading)> {
        // Reading walks page tables; a fork that has a machine added waits for none of that.
        let metered = self.metered().clone();
        let all = metered.iter();
        all.filter_map(|(id, metered)| Some((*id, metered.read()?)))
            .collect()
    }

    /// How long until the next windows are over: a window, or the end of the month if that comes first, so that what is billed
    /// in two months is counted in two windows.
    pub(super) fn until_tick(window: Duration) -> Duration {
        let at = now().as_millis();
        let left = Period::of(at).end_ms().saturating_sub(at);
        window.min(Duration::from_millis(left.unsigned_abs()))
    }
}
