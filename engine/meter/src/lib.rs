//! Usage as values: what a machine used in a window, the chain of all records, batches for a billing policy, and what its
//! answers add up to.
//!
//! ```text
//!  Reading, Reading ─► Record ─► chain          (metering: counts, never money)
//!             Records ─► Quantities ─► Batch ─► billing ─► Settlement: lines, totals, spending   (rating)
//! ```
//!
//! Invariant: everything here is a function of its arguments: no clock, no I/O, no lock. Quantities are whole numbers and
//! an amount that does not fit is an error, never a wrong amount.

mod batch;
mod chain;
mod period;
mod quantity;
mod record;
mod settle;

pub use batch::{BatchError, Before, Draft, Item, Origin, drafts};
pub use brood_hooks::billing::{Action, Sku};
pub use chain::{Break, Chain, Hash};
pub use period::{ParsePeriodError, Period};
pub use quantity::{Dimension, Quantities, by_period};
pub use record::{Cause, Doubt, Last, Motion, Reading, Record, Subject};
pub use settle::{PricedLine, SettleError, Settlement, action_word, credit_left, settle};
