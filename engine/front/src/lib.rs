//! The HTTP edge of the engine.
//!
//! ```text
//!  socket ─► connection ─► route (table of brood-api) ─► Call: key, path, query, body ─► handler: one call of the engine
//!                                                            │                              │
//!                                                            └────────── Problem ───────────┴─► answer ─► response
//! ```
//!
//! Invariant: a handler decodes, calls the engine once for what it is about, and encodes; whatever goes wrong leaves as a
//! problem of the registry. Status codes and headers are known here and nowhere else. Nothing is decided here.

mod answer;
mod call;
mod convert;
mod fault;
mod handler;
mod metric;
mod options;
mod output_stream;
mod rate;
mod route;
mod server;
mod state;
mod status;
mod stream;
mod terminal;
mod ui;
mod usage;

pub use options::{Bucket, Options, TenantLabels};
pub use server::serve;
