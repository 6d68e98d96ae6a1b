//! The fork path with the bare guest: natively and in the lab from the same binary.

use brood_bare_guest::mailbox::Command;
use brood_cell::protocol::{Checkpoint, Start};
use brood_testkit::Host;

const COUNTER: u64 = 0x40_0000;

fn host() -> Option<Host> {
    Host::open(env!("CARGO_BIN_EXE_brood-cell"))
}

#[test]
fn a_bare_guest_answers_through_its_mailbox() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    assert_eq!(cell.command(0, Command::Write64 { addr: COUNTER, value: 7 }).expect("answer"), Ok(0));
    assert_eq!(cell.command(0, Command::Read64 { addr: COUNTER }).expect("answer"), Ok(7));
}

#[test]
fn daughters_start_from_the_mothers_point_and_go_their_own_way() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    mother.begin_command(0, Command::Count { addr: COUNTER }).expect("count");
    let fork = mother.fork(3, Checkpoint::Drop, Start::Run).expect("fork");
    let mut counts = Vec::new();
    for daughter in fork.daughters {
        let mut daughter = daughter.expect("daughter");
        daughter.first_instruction().expect("runs");
        counts.push(daughter.command(0, Command::Idle {}).expect("count ends"));
    }
    counts.push(mother.command(0, Command::Idle {}).expect("mother's count ends"));
    println!("{counts:?}");
}
