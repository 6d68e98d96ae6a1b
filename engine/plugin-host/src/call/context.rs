//! What a component's imports work on during one call.
//!
//! Invariant: everything that a component can make grow is bounded here: host calls, bytes handed over, log, metrics,
//! memories and tables. What is dropped is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brood_hooks::Now;
use brood_policy::{Limits, LogLevel};
use wasmtime::ResourceLimiter;

use super::journal::Journal;
use crate::Digest;
use crate::state::StateView;

/// A plugin's settings as its calls see them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The document, JSON.
    pub(crate) document: Arc<str>,
    /// What `plugin.prepare` made of it.
    pub(crate) prepared: Arc<BTreeMap<String, Vec<u8>>>,
    /// Of the document.
    pub(crate) digest: Digest,
}

impl Settings {
    pub(crate) fn none() -> Self {
        let (document, digest) = (Arc::from("{}"), Digest::of(b"{}"));
        Self {
            document,
            prepared: Arc::default(),
            digest,
        }
    }
}

/// One log line of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How severe.
    pub level: LogLevel,
    /// What it says.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(String, String)>,
}

/// One measurement of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricPoint {
    /// One of the names that it declared.
    pub name: String,
    /// The measurement.
    pub value: i64,
    /// Its labels.
    pub labels: Vec<(String, String)>,
}

/// A limit that a host call went over; ends the call.
#[derive(Debug, thiserror::Error)]
#[error("more than {limit} {what}")]
pub(crate) struct Excess {
    pub(crate) what: &'static str,
    pub(crate) limit: u64,
}

/// Memories and tables of one call.
#[derive(Debug)]
pub(crate) struct Bounds {
    memory: usize,
    tables: usize,
    /// Whether it wanted more.
    pub(crate) denied: Option<&'static str>,
}

impl ResourceLimiter for Bounds {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory;
        if !fits {
            self.denied = Some("memory");
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= self.tables;
        if !fits {
            self.denied = Some("tables");
        }
        Ok(fits)
    }

    fn instances(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        4
    }

    fn tables(&self) -> usize {
        64
    }
}

/// Most metric points of one call.
const MOST_POINTS: usize = 256;

/// One call's world.
pub(crate) struct Context {
    pub(crate) now: Now,
    pub(crate) settings: Settings,
    pub(crate) state: StateView,
    pub(crate) journal: Journal,
    pub(crate) log: Vec<LogLine>,
    pub(crate) log_dropped: u64,
    pub(crate) metrics: Vec<MetricPoint>,
    pub(crate) metrics_dropped: u64,
    pub(super) bounds: Bounds,
    pub(super) log_level: LogLevel,
    declared: Arc<BTreeSet<String>>,
    limits: Limits,
    host_calls: u32,
    host_bytes: u64,
    log_bytes: u64,
}

/// What a call begins with.
pub(crate) struct Beginning {
    pub(crate) now: Now,
    pub(crate) settings: Settings,
    pub(crate) state: StateView,
    pub(crate) journal: Journal,
    pub(crate) log_level: LogLevel,
    pub(crate) declared: Arc<BTreeSet<String>>,
}

impl Context {
    pub(crate) fn new(limits: &Limits, beginning: Beginning) -> Self {
        let Beginning {
            now,
            settings,
            state,
            journal,
            log_level,
            declared,
        } = beginning;
        Self {
            now,
            settings,
            state,
            journal,
            log: Vec::new(),
            log_dropped: 0,
            metrics: Vec::new(),
            metrics_dropped: 0,
            bounds: Bounds {
                memory: (limits.memory_mib as usize) << 20,
                tables: limits.table_elements as usize,
                denied: None,
            },
            log_level,
            declared,
            limits: *limits,
            host_calls: 0,
            host_bytes: 0,
            log_bytes: 0,
        }
    }

    /// For a warm instance between calls.
    pub(crate) fn idle() -> Self {
        let limits = Limits {
            memory_mib: 0,
            host_calls: 0,
            ..Limits::of(brood_hooks::HookName::Admission)
        };
        Self::bare(&limits)
    }

    /// Without settings and state: for `describe` and `prepare`.
    pub(crate) fn bare(limits: &Limits) -> Self {
        Self::new(
            limits,
            Beginning {
                now: Now::default(),
                settings: Settings::none(),
                state: StateView::empty(),
                journal: Journal::recording(),
                log_level: LogLevel::Info,
                declared: Arc::default(),
            },
        )
    }

    /// Counts a host call.
    pub(super) fn enter(&mut self) -> wasmtime::Result<()> {
        self.host_calls = self.host_calls.saturating_add(1);
        let limit = self.limits.host_calls;
        if self.host_calls > limit {
            return Err(Excess {
                what: "host calls",
                limit: limit.into(),
            }
            .into());
        }
        Ok(())
    }

    /// Counts bytes that the host hands over.
    pub(super) fn hand_over(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.host_bytes = self.host_bytes.saturating_add(bytes as u64);
        let limit = u64::from(self.limits.host_answer_kib) << 10;
        if self.host_bytes > limit {
            return Err(Excess {
                what: "bytes read of settings and state",
                limit,
            }
            .into());
        }
        Ok(())
    }

    pub(super) fn log(&mut self, line: LogLine) {
        let fields: usize = line
            .fields
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        let bytes = (line.message.len() + fields) as u64;
        let full = self.log.len() >= self.limits.log_lines as usize
            || self.log_bytes + bytes > u64::from(self.limits.log_kib) << 10;
        if full {
            self.log_dropped += 1;
        } else if line.level >= self.log_level {
            self.log_bytes += bytes;
            self.log.push(line);
        }
    }

    pub(super) fn measure(&mut self, point: MetricPoint) {
        if self.metrics.len() < MOST_POINTS && self.declared.contains(&point.name) {
            self.metrics.push(point);
        } else {
            self.metrics_dropped += 1;
        }
    }

    /// A trap's message with what the component said last and what it was denied.
    pub(super) fn explain(&self, trap: &str) -> String {
        let mut message: String = trap.chars().take(2000).collect();
        let said = self
            .log
            .iter()
            .rev()
            .find(|line| line.level == LogLevel::Error);
        if let Some(line) = said {
            let said: String = line.message.chars().take(1000).collect();
            message = format!("{said} ({message})");
        }
        match self.bounds.denied {
            Some("memory") => {
                format!(
                    "{message}; it was denied memory over its limit of {} MiB",
                    self.limits.memory_mib
                )
            }
            Some(what) => format!("{message}; it was denied {what} over its limit"),
            None => message,
        }
    }
}
