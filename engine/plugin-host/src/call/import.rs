//! The five imports: log, config, clock, state, metrics.
//!
//! Invariant: none of them waits, and none of them knows anything that the call was not begun with.

use brood_policy::LogLevel;

use super::context::{Context, LogLine, MetricPoint};
use super::journal::{Differs, HostAsk, HostTold};
use crate::bindings::brood::policy::{clock, config, log, metrics, placement_types, state, types};
use crate::state::StateRefusal;

impl types::Host for Context {}
impl placement_types::Host for Context {}

const fn level(level: log::Level) -> LogLevel {
    match level {
        log::Level::Trace => LogLevel::Trace,
        log::Level::Debug => LogLevel::Debug,
        log::Level::Info => LogLevel::Info,
        log::Level::Warn => LogLevel::Warn,
        log::Level::Error => LogLevel::Error,
    }
}

impl log::Host for Context {
    fn write(
        &mut self,
        severity: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.enter()?;
        self.log(LogLine {
            level: level(severity),
            message,
            fields,
        });
        Ok(())
    }

    fn enabled(&mut self, severity: log::Level) -> wasmtime::Result<bool> {
        self.enter()?;
        Ok(level(severity) >= self.log_level)
    }
}

impl config::Host for Context {
    fn document(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        self.hand_over(self.settings.document.len())?;
        Ok(self.settings.document.to_string())
    }

    fn prepared(&mut self, keys: Vec<String>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        self.enter()?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let bytes = self.settings.prepared.get(&key).cloned();
            self.hand_over(bytes.as_ref().map_or(0, Vec::len))?;
            found.push(bytes);
        }
        Ok(found)
    }

    fn revision(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self.settings.digest.prefix())
    }
}

impl clock::Host for Context {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self.now.as_unix_nanos())
    }
}

impl Context {
    /// Asks the state, or the record of it.
    fn ask_state(&mut self, asked: HostAsk) -> wasmtime::Result<HostTold> {
        self.enter()?;
        let told = match self.journal.recorded(&asked) {
            Some(recorded) => recorded?,
            None => match asked.clone() {
                HostAsk::Get(keys) => {
                    let mut got = Vec::with_capacity(keys.len());
                    for key in &keys {
                        let bytes = self.state.get(key);
                        self.hand_over(bytes.as_ref().map_or(0, Vec::len))?;
                        got.push(bytes);
                    }
                    HostTold::Got(got)
                }
                HostAsk::Set(entries, lasts) => HostTold::Set(self.state.set(entries, lasts)),
                HostAsk::Add(deltas) => HostTold::Added(self.state.add(deltas)),
            },
        };
        self.journal.record(asked, told.clone());
        Ok(told)
    }
}

fn refused(refusal: StateRefusal) -> state::Error {
    match refusal {
        StateRefusal::TooLarge => state::Error::TooLarge,
        StateRefusal::Quota => state::Error::Quota,
        StateRefusal::TypeMismatch => state::Error::TypeMismatch,
        StateRefusal::Other(text) => state::Error::Other(text),
    }
}

/// A recorded answer of another kind than its question, which only a damaged record has.
fn damaged() -> wasmtime::Error {
    Differs("a question whose recorded answer is damaged").into()
}

impl state::Host for Context {
    fn get(&mut self, keys: Vec<String>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        match self.ask_state(HostAsk::Get(keys))? {
            HostTold::Got(got) => Ok(got),
            _ => Err(damaged()),
        }
    }

    fn set(
        &mut self,
        entries: Vec<(String, Option<Vec<u8>>)>,
        expires_ms: Option<u64>,
    ) -> wasmtime::Result<Result<(), state::Error>> {
        match self.ask_state(HostAsk::Set(entries, expires_ms))? {
            HostTold::Set(result) => Ok(result.map_err(refused)),
            _ => Err(damaged()),
        }
    }

    fn add(
        &mut self,
        deltas: Vec<(String, i64)>,
    ) -> wasmtime::Result<Result<Vec<i64>, state::Error>> {
        match self.ask_state(HostAsk::Add(deltas))? {
            HostTold::Added(result) => Ok(result.map_err(refused)),
            _ => Err(damaged()),
        }
    }
}

impl metrics::Host for Context {
    fn emit(&mut self, points: Vec<metrics::Point>) -> wasmtime::Result<()> {
        self.enter()?;
        for metrics::Point {
            name,
            value,
            labels,
        } in points
        {
            self.measure(MetricPoint {
                name,
                value,
                labels,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
