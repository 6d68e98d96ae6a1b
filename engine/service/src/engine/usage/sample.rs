//! Windows that end because their time is over.
//!
//! Invariant: all machines are read first and written in one job; who ends meanwhile has her last window already, and a
//! reading of before it changes nothing.

use std::time::Duration;

use brood_meter::{Cause, Period, Reading};
use brood_store::{StoreError, Write};
use brood_units::MachineId;

use super::super::{Engine, EngineError, now};

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
        if read.is_empty() {
            return Ok(0);
        }
        let write = move |write: &mut Write<'_>| -> Result<usize, StoreError> {
            let mut closed = 0;
            for (machine, reading) in &read {
                let record = write.count(*machine, reading, Cause::Tick)?;
                closed += usize::from(record.is_some());
            }
            Ok(closed)
        };
        Ok(self.store().write(write).await?)
    }

    fn read_all(&self) -> Vec<(MachineId, Reading)> {
        let metered = self.metered();
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
