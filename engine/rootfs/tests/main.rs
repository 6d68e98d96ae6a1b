//! Images into disks, from the outside: archives go in, and what comes out is read by debugfs(8) and e2fsck(8).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;
mod disks;
mod faults;
mod logins;
mod refused;
mod registry;
mod sources;
mod store;
mod whiteouts;
