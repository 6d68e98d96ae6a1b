//! The plugin host: policy components in WebAssembly, at the hooks of `brood-hooks`. The only crate that sees wasmtime.
//!
//! ```text
//!  bytes ─ compile (limited child) ─► PluginVersion ─ Plugin ──┬── Binding ── lane ── policy thread ── call
//!                                     describe, schema,        │                                        │
//!                                     prepare                  └ state: one call at a time              ▼
//!                                                                        check ─ commit ─ record ─► heard
//! ```
//!
//! A component gets no ambient authority: no WASI, and of the five imports of `wit/host.wit` those that it asks for and
//! the operator grants. It runs in an instance of its own, under limits of fuel, time, memory and output, on threads that
//! nothing else uses. What it answers is checked before anybody hears it.
//!
//! Invariant: whatever a component or a file that claims to be one does, the engine goes on, and the call, the counters
//! and the record say what happened.

mod absent;
mod binding;
mod bindings;
mod breaker;
mod call;
pub mod child;
mod compile;
mod convert;
mod counter;
mod digest;
mod engine;
mod host;
mod lane;
mod pending;
mod plugin;
mod policies;
mod record;
mod replay;
mod shown;
mod state;
mod thread;
mod ticker;
mod trial;
mod version;
mod wit;

pub use absent::Absent;
pub use binding::{About, Asked, Binding, Decider, Draft, Fallback, hear_all};
pub use call::{HostAnswer, LogLine, MetricPoint};
pub use compile::{CompileError, CompileOptions};
pub use counter::{Counters, HostCounters};
pub use digest::{Digest, ParseDigestError};
pub use engine::{Allocation, EngineError, PoolOptions};
pub use host::{
    AddError, BindError, BindableHook, Host, HostOptions, Observer, Silent, StartError,
};
pub use pending::{Pending, block_on};
pub use plugin::{Plugin, RollbackError};
pub use policies::{Bindings, Builtins, MissingComponent, OpenError, OpenErrors, Policies};
pub use record::{
    RECORD_VERSION, ReadRecordError, Record, RecordLog, RecordNotKept, RecordOptions, RecordSink,
    Retention, WriteRecordError,
};
pub use replay::ReplayError;
pub use state::{StateChange, StateEntry, StateStore, StateStoreError, StateValue, VolatileState};
pub use version::{Description, LoadError, PluginVersion, SERVED};
