//! A host that runs out while a cell forks: whoever could be born lives, the others are named with a cause, the mother
//! runs on with her data.

mod common;

use brood_cell::protocol::{Checkpoint, MAX_DAUGHTERS, Start};
use brood_cell::{Cell, CellError};
use brood_testkit::{TaskLimit, children_of, settle};
use common::{daughters_of, host, read, write};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const DAUGHTERS: u32 = 6;

#[test]
fn a_process_limit_names_the_daughters_it_stopped_and_spares_the_others() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let Some(limit) = TaskLimit::on(mother.pid()) else {
        return;
    };
    write(&mut mother, 1);
    let (mut born, mut stillborn) = (0, 0);
    // Where the limit strikes is a matter of moments: one daughter needs a process and a thread, the point a process.
    for room in 1..=3 * DAUGHTERS {
        limit.allow(room);
        let fork = mother
            .fork(DAUGHTERS, Checkpoint::Drop, Start::Hold)
            .expect("there is room for the point");
        limit.lift();
        assert_eq!(fork.daughters.len(), DAUGHTERS as usize);
        for (index, daughter) in (0..).zip(fork.daughters) {
            match daughter {
                Ok(mut daughter) => {
                    daughter.resume().expect("resume");
                    assert_eq!(read(&mut daughter), u64::from(room));
                    born += 1;
                }
                Err(error) => {
                    assert_names(&error, index, &["os error 11", "processes"]);
                    stillborn += 1;
                }
            }
        }
        assert_eq!(read(&mut mother), u64::from(room));
        write(&mut mother, u64::from(room) + 1);
    }
    println!("{born} born, {stillborn} stopped by the limit");
    assert!(born > 0 && stillborn > 0);
    drop(mother);
    nobody_is_left();
}

#[test]
fn a_mother_that_may_not_fork_at_all_says_so_and_runs_on() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let Some(limit) = TaskLimit::on(mother.pid()) else {
        return;
    };
    write(&mut mother, 7);
    limit.allow(0);
    let error = mother
        .fork(2, Checkpoint::Keep, Start::Run)
        .expect_err("no process for the point");
    let CellError::Refused(refusal) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(refusal.operation, "fork");
    assert!(
        refusal.cause.contains("os error 11") && refusal.remedy.contains("pids.max"),
        "{refusal}"
    );
    assert_eq!(read(&mut mother), 7);
    limit.lift();
    let mut daughters = daughters_of(&mut mother, 2);
    assert_eq!((read(&mut daughters[1]), read(&mut mother)), (7, 7));
    drop((mother, daughters));
}

#[test]
fn daughters_without_memory_say_so_and_the_mother_forks_again_when_there_is_some() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 2);
    write(&mut mother, 9);
    let before = limit_address_space(
        &mother,
        Rlimit {
            current: Some(1 << 20),
            maximum: None,
        },
    );
    let fork = mother
        .fork(3, Checkpoint::Keep, Start::Run)
        .expect("fork(2) itself maps nothing new");
    for (index, daughter) in (0..).zip(fork.daughters) {
        assert_names(
            &daughter.expect_err("no memory"),
            index,
            &["os error 12", "free memory"],
        );
    }
    let mut checkpoint = fork
        .checkpoint
        .expect("kept")
        .expect("a checkpoint maps nothing");
    assert_eq!(read(&mut mother), 9);
    limit_address_space(&mother, before);
    limit_address_space(&checkpoint, before);
    for cell in [&mut mother, &mut checkpoint] {
        let mut daughters = daughters_of(cell, 3);
        assert!(daughters.iter_mut().all(|daughter| read(daughter) == 9));
    }
    drop((mother, checkpoint));
    nobody_is_left();
}

#[test]
fn one_fork_makes_as_many_daughters_as_it_promises() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    write(&mut mother, 2);
    let fork = mother
        .fork(MAX_DAUGHTERS, Checkpoint::Keep, Start::Hold)
        .expect("as many as one fork makes");
    assert_eq!(fork.daughters.len(), MAX_DAUGHTERS as usize);
    assert!(matches!(fork.checkpoint, Some(Ok(_))));
    let mut born: Vec<_> = fork.daughters.into_iter().map(Result::ok).collect();
    assert!(born.iter().all(Option::is_some));
    let last = born.last_mut().and_then(Option::as_mut).expect("the last");
    last.resume().expect("resume");
    assert_eq!((read(last), read(&mut mother)), (2, 2));
}

fn limit_address_space(cell: &Cell, limit: Rlimit) -> Rlimit {
    let pid = Pid::from_raw(cell.pid().cast_signed());
    prlimit(pid, Resource::As, limit).expect("prlimit")
}

#[expect(clippy::panic, reason = "a failed claim")]
fn assert_names(error: &CellError, wanted: u32, words: &[&str]) {
    let CellError::Stillborn { index, reason } = error else {
        panic!("{error:?}")
    };
    assert_eq!(*index, wanted);
    assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
}

fn nobody_is_left() {
    let own = std::process::id();
    settle("no process or zombie is left", || {
        children_of(own).is_empty()
    });
}
