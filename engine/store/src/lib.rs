//! The one database of the engine.
//!
//! ```text
//!  write(job) ─► queue ─► writer thread: BEGIN, job, job, job …, COMMIT (synchronous=FULL) ─► answers
//!  read(look) ─► a connection of its own, which sees what was committed and waits for nobody
//! ```
//!
//! Invariant: an answer is sent after the commit that makes it true, and what a job wrote is kept whole or not at all.
//! Jobs that wait share one commit. One process owns a state directory; a second one is refused.
//!
//! It keeps rows and decides nothing: no clock, no randomness, no network.

mod count;
mod decision;
mod error;
mod event;
mod exec;
mod idempotency;
mod intent;
mod key;
mod ledger;
mod lock;
mod machine;
mod machine_list;
mod machine_secret;
mod metric;
mod open;
mod plugin_state;
mod rating;
mod reader;
mod row;
mod schema;
mod secret;
mod settle;
mod snapshot;
mod template;
mod tenant;
mod usage;
mod usage_state;
mod writer;

pub use count::{CorrectError, Correction};
pub use decision::{DecisionEntry, DecisionQuery, DecisionRow};
pub use error::{OpenError, StoreError};
pub use event::{EventPage, EventRow, NewEvent};
pub use exec::{ExecRow, ExecState};
pub use idempotency::{Claim, IdempotencyRow};
pub use intent::{HoldRow, IntentRow};
pub use key::KeyRow;
pub use ledger::{BudgetRow, CreditRow, NewCredit, Posted};
pub use machine::{Born, Life, MachineKind, MachineRow, MachineState, ShapeRow};
pub use machine_list::{Census, MachineQuery, Page};
pub use machine_secret::{GivenRow, GivenTarget};
pub use metric::StoreMetrics;
pub use open::{Store, StoreOptions};
pub use plugin_state::{PluginEntry, PluginValue};
pub use rating::{Balances, BatchRow, BatchState, LineRow, NewBatch};
pub use reader::Read;
pub use secret::{SecretRow, SecretSummary};
pub use settle::{SettleFailure, Settled};
pub use snapshot::{SnapshotCensus, SnapshotRow};
pub use template::{TemplateRow, Visibility};
pub use tenant::TenantRow;
pub use usage::{EndedAt, MeterRow, UsageRow};
pub use usage_state::UsageState;
pub use writer::{Pending, Write};
