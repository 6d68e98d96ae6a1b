//! The fork path with the bare guest: natively and in the lab from the same binary.

use std::os::fd::AsFd;

use brood_bare_guest::mailbox::Command;
use brood_cell::Cell;
use brood_cell::protocol::{Checkpoint, Start};
use brood_testkit::Host;

const COUNTER: u64 = 0x40_0000;

fn host() -> Option<Host> {
    Host::open(env!("CARGO_BIN_EXE_brood-cell"))
}

#[expect(clippy::panic, reason = "a failed claim")]
fn ask(cell: &mut Cell, command: Command) -> u64 {
    cell.command(0, command)
        .expect("answer")
        .unwrap_or_else(|fault| panic!("{command:?}: {fault:?}"))
}

/// Ends a command that runs until the next, and gives its answer.
fn stop(cell: &mut Cell) -> u64 {
    let answer = ask(cell, Command::Idle {});
    cell.outcome(0)
        .expect("idle answers too")
        .expect("idle cannot fail");
    answer
}

#[test]
fn a_bare_guest_answers_through_its_mailbox() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    assert_eq!(
        ask(
            &mut cell,
            Command::Write64 {
                addr: COUNTER,
                value: 7
            }
        ),
        0
    );
    assert_eq!(ask(&mut cell, Command::Read64 { addr: COUNTER }), 7);
}

#[test]
fn daughters_start_from_the_mothers_point_and_go_their_own_way() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    ask(
        &mut mother,
        Command::Write64 {
            addr: COUNTER,
            value: 1,
        },
    );
    let fork = mother.fork(3, Checkpoint::Drop, Start::Run).expect("fork");
    let mut daughters: Vec<_> = fork
        .daughters
        .into_iter()
        .map(|daughter| daughter.expect("daughter"))
        .collect();
    for (value, daughter) in (10..).zip(&mut daughters) {
        assert_eq!(ask(daughter, Command::Read64 { addr: COUNTER }), 1);
        ask(
            daughter,
            Command::Write64 {
                addr: COUNTER,
                value,
            },
        );
    }
    ask(
        &mut mother,
        Command::Write64 {
            addr: COUNTER,
            value: 2,
        },
    );
    for (value, daughter) in (10..).zip(&mut daughters) {
        assert_eq!(ask(daughter, Command::Read64 { addr: COUNTER }), value);
    }
    assert_eq!(ask(&mut mother, Command::Read64 { addr: COUNTER }), 2);
}

#[test]
fn a_running_count_goes_on_in_mother_and_daughters_from_one_point() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    mother
        .begin_command(0, Command::Count { addr: COUNTER })
        .expect("count");
    mother.first_instruction().expect("runs");
    let fork = mother.fork(4, Checkpoint::Drop, Start::Hold).expect("fork");
    let mut ticks = Vec::new();
    for daughter in fork.daughters {
        let mut daughter = daughter.expect("daughter");
        ticks.push(daughter.stats().expect("stats").ticks);
        daughter.resume().expect("resume");
        daughter.first_instruction().expect("runs");
        let counted = stop(&mut daughter);
        assert_eq!(
            ask(&mut daughter, Command::Read64 { addr: COUNTER }),
            counted
        );
    }
    assert!(
        ticks.windows(2).all(|pair| pair[0] == pair[1]),
        "one point: {ticks:?}"
    );
    let counted = stop(&mut mother);
    assert_eq!(ask(&mut mother, Command::Read64 { addr: COUNTER }), counted);
}

#[test]
fn a_daughter_of_a_daughter_of_a_checkpoint_sees_the_past() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    ask(
        &mut mother,
        Command::Write64 {
            addr: COUNTER,
            value: 5,
        },
    );
    let fork = mother
        .fork(0, Checkpoint::Keep, Start::Run)
        .expect("checkpoint");
    let mut checkpoint = fork.checkpoint.expect("kept").expect("checkpoint");
    ask(
        &mut mother,
        Command::Write64 {
            addr: COUNTER,
            value: 6,
        },
    );
    for _ in 0..2 {
        let fork = checkpoint
            .fork(1, Checkpoint::Drop, Start::Run)
            .expect("fork of the checkpoint");
        let mut daughter = fork
            .daughters
            .into_iter()
            .next()
            .expect("one")
            .expect("daughter");
        assert_eq!(ask(&mut daughter, Command::Read64 { addr: COUNTER }), 5);
        let fork = daughter
            .fork(1, Checkpoint::Drop, Start::Run)
            .expect("fork of the daughter");
        let mut grand = fork
            .daughters
            .into_iter()
            .next()
            .expect("one")
            .expect("granddaughter");
        assert_eq!(ask(&mut grand, Command::Read64 { addr: COUNTER }), 5);
    }
    mother.end().expect("mother ends");
    let fork = checkpoint
        .fork(1, Checkpoint::Drop, Start::Run)
        .expect("the checkpoint outlives her");
    let mut daughter = fork
        .daughters
        .into_iter()
        .next()
        .expect("one")
        .expect("daughter");
    assert_eq!(ask(&mut daughter, Command::Read64 { addr: COUNTER }), 5);
}

#[test]
fn warm_daughters_of_a_sealed_template_hold_until_claimed() {
    let Some(host) = host() else { return };
    let mut template = host.bare(64, 1);
    ask(
        &mut template,
        Command::Write64 {
            addr: COUNTER,
            value: 5,
        },
    );
    template.pause().expect("pause");
    let parts = template.template().expect("template");
    let mut pool = Vec::new();
    for _ in 0..3 {
        let mut warm = host.spawn();
        warm.load(host.kvm().as_fd(), &parts).expect("load");
        pool.push(warm);
    }
    for (value, daughter) in (20..).zip(&mut pool) {
        assert_eq!(daughter.stats().expect("stats").depth, 1);
        daughter.resume().expect("claim");
        assert_eq!(ask(daughter, Command::Read64 { addr: COUNTER }), 5);
        ask(
            daughter,
            Command::Write64 {
                addr: COUNTER,
                value,
            },
        );
        assert_eq!(ask(daughter, Command::Read64 { addr: COUNTER }), value);
    }
}

#[test]
fn every_device_works_before_and_after_a_fork_on_both_sides() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let load = |seed, count| Command::BlkLoad {
        lba: 1,
        records: 64,
        seed,
        count,
    };
    ask(&mut mother, load(1, 200));
    ask(&mut mother, Command::Rng {});
    let known = ask(&mut mother, Command::BlkVerify {});
    let fork = mother.fork(2, Checkpoint::Drop, Start::Run).expect("fork");
    let mut randoms = Vec::new();
    for (seed, daughter) in (2..).zip(fork.daughters) {
        let mut daughter = daughter.expect("daughter");
        assert_eq!(ask(&mut daughter, Command::BlkVerify {}), known);
        ask(&mut daughter, load(seed, 200));
        assert!(ask(&mut daughter, Command::BlkVerify {}) >= known);
        randoms.push(ask(&mut daughter, Command::Rng {}));
        randoms.push(ask(&mut daughter, Command::Read64 { addr: 0xd_f000 }));
    }
    ask(&mut mother, load(9, 200));
    assert!(ask(&mut mother, Command::BlkVerify {}) >= known);
    randoms.push(ask(&mut mother, Command::Read64 { addr: 0xd_f000 }));
    randoms.sort_unstable();
    assert!(
        randoms.windows(2).all(|pair| pair[0] != pair[1]),
        "randoms and generations differ"
    );
}

#[test]
fn a_fork_under_full_disk_load_loses_and_doubles_nothing() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    mother
        .begin_command(
            0,
            Command::BlkLoad {
                lba: 1,
                records: 256,
                seed: 1,
                count: 0,
            },
        )
        .expect("load");
    for _ in 0..5 {
        let fork = mother.fork(2, Checkpoint::Drop, Start::Run).expect("fork");
        for daughter in fork.daughters {
            let mut daughter = daughter.expect("daughter");
            stop(&mut daughter);
            ask(&mut daughter, Command::BlkVerify {});
        }
    }
    stop(&mut mother);
    ask(&mut mother, Command::BlkVerify {});
}

#[test]
fn a_write_storm_is_whole_on_both_sides_of_every_fork() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(256, 1);
    let (start, bytes, seed) = (2 << 20, 32 << 20, 7);
    mother.seal().expect("seal");
    mother
        .begin_command(0, Command::Storm { start, bytes, seed })
        .expect("storm");
    for _ in 0..5 {
        let fork = mother.fork(2, Checkpoint::Drop, Start::Run).expect("fork");
        for daughter in fork.daughters {
            let mut daughter = daughter.expect("daughter");
            stop(&mut daughter);
            ask(&mut daughter, Command::StormVerify { start, bytes, seed });
        }
    }
    stop(&mut mother);
    ask(&mut mother, Command::StormVerify { start, bytes, seed });
}

#[test]
fn four_vcpus_fork_together() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 4);
    for vcpu in 0..4 {
        let addr = COUNTER + 4096 * u64::from(vcpu);
        mother
            .begin_command(vcpu, Command::Count { addr })
            .expect("count");
    }
    let fork = mother.fork(2, Checkpoint::Drop, Start::Run).expect("fork");
    for daughter in fork.daughters {
        let mut daughter = daughter.expect("daughter");
        for vcpu in 0..4 {
            daughter
                .begin_command(vcpu, Command::Idle {})
                .expect("idle");
            let counted = daughter.outcome(vcpu).expect("answer").expect("count");
            daughter.outcome(vcpu).expect("answer").expect("idle");
            let addr = COUNTER + 4096 * u64::from(vcpu);
            let read = daughter
                .command(vcpu, Command::Read64 { addr })
                .expect("answer");
            assert_eq!(read, Ok(counted), "vCPU {vcpu}");
        }
    }
}
