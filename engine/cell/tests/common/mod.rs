//! What the fault tests share: a host, and words with the bare guest.

#![allow(
    dead_code,
    clippy::panic,
    clippy::expect_used,
    reason = "each test program uses a part of this"
)]

use brood_bare_guest::mailbox::Command;
use brood_cell::Cell;
use brood_cell::protocol::{Checkpoint, Start};
use brood_testkit::Host;

/// A word of RAM that the guest never uses by itself.
pub(crate) const WORD: u64 = 0x40_0000;

/// This host, or none where it has no KVM.
pub(crate) fn host() -> Option<Host> {
    Host::open(env!("CARGO_BIN_EXE_brood-cell"))
}

/// A command's answer; it must succeed.
pub(crate) fn ask(cell: &mut Cell, command: Command) -> u64 {
    cell.command(0, command)
        .expect("answer")
        .unwrap_or_else(|fault| panic!("{command:?}: {fault:?}"))
}

/// Ends a command that runs until the next, and gives its answer.
pub(crate) fn stop(cell: &mut Cell, vcpu: u32) -> u64 {
    let answer = cell
        .command(vcpu, Command::Idle {})
        .expect("answer")
        .expect("success");
    cell.outcome(vcpu)
        .expect("idle answers too")
        .expect("idle cannot fail");
    answer
}

/// Writes the guest's word.
pub(crate) fn write(cell: &mut Cell, value: u64) {
    ask(cell, Command::Write64 { addr: WORD, value });
}

/// Reads the guest's word.
pub(crate) fn read(cell: &mut Cell) -> u64 {
    ask(cell, Command::Read64 { addr: WORD })
}

/// One running daughter.
pub(crate) fn daughter_of(mother: &mut Cell) -> Cell {
    daughters_of(mother, 1).pop().expect("one")
}

/// Running daughters, all born.
pub(crate) fn daughters_of(mother: &mut Cell, count: u32) -> Vec<Cell> {
    let fork = mother
        .fork(count, Checkpoint::Drop, Start::Run)
        .expect("fork");
    fork.daughters
        .into_iter()
        .map(|daughter| daughter.expect("daughter"))
        .collect()
}

/// A checkpoint of the machine as it is now.
pub(crate) fn checkpoint_of(mother: &mut Cell) -> Cell {
    let fork = mother.fork(0, Checkpoint::Keep, Start::Run).expect("fork");
    fork.checkpoint.expect("kept").expect("checkpoint")
}
