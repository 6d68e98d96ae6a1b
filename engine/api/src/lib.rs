//! What goes over the wire of `/v1`: requests, answers, problems, the table of operations and the OpenAPI document made
//! of them.
//!
//! Invariant: everything a caller sends is read by [`decode`], which refuses what it does not know and says where and what
//! to do; everything that goes wrong is an entry of [`Code`]. This crate knows no status code, no header and no socket.

mod code;
mod decode;
pub mod event;
pub mod exec;
pub mod file;
pub mod fork;
mod id;
pub mod info;
pub mod key;
mod limit;
pub mod machine;
mod mistake;
mod openapi;
mod operation;
mod page;
pub mod policy;
mod problem;
pub mod secret;
mod shape;
pub mod snapshot;
pub mod template;
pub mod tenant;
mod time;
pub mod usage;

pub use code::{Code, Entry};
pub use decode::{DecodeError, Request, decode, decode_parameters};
pub use id::IdText;
pub use limit::MAX_DAUGHTERS;
pub use mistake::{Mistake, MistakeKind, Mistakes};
pub use openapi::{Outcome, document};
pub use operation::{Body, Operation, OperationId, Reply, Verb};
pub use page::{Cursor, ListQuery, Page, ParseCursorError};
pub use problem::{Denied, Problem, Registry, RegistryEntry};
pub use time::{Span, Time};
