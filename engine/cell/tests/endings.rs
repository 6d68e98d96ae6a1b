//! However a cell ends, it is reaped, its cause is told, and nothing of it is left.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use brood_bare_guest::mailbox::{Command, Width};
use brood_cell::protocol::{Checkpoint, Ending, OrphanPolicy, Request, Start};
use brood_cell::{Cell, CellError, CellProgram, EndCause, LayerSource};
use brood_testkit::{Host, children_of, descriptors, is_alive, settle};
use common::{WORD, ask, checkpoint_of, daughters_of, host, read, write};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const SIGKILL: i32 = 9;

fn cause_after(host: &Host, command: Command) -> EndCause {
    let mut cell = host.bare(64, 2);
    cell.begin_command(1, command).expect("given");
    without_cpu(cell.wait().expect("reaped"))
}

/// A cell whose end is known has used CPU time, how much is another matter.
fn without_cpu(cause: EndCause) -> EndCause {
    assert!(cause.cpu_ns.is_some_and(|nanos| nanos > 0), "{cause:?}");
    EndCause {
        cpu_ns: None,
        ..cause
    }
}

fn told(ending: Ending) -> EndCause {
    EndCause {
        ending: Some(ending),
        code: Some(0),
        signal: None,
        cpu_ns: None,
    }
}

fn nobody_is_left() {
    let own = std::process::id();
    settle("no process or zombie is left", || {
        children_of(own).is_empty()
    });
}

#[test]
fn a_killed_cell_is_reaped_and_the_signal_is_told() {
    let Some(host) = host() else { return };
    let cell = host.bare(64, 1);
    cell.kill().expect("killed");
    let cause = without_cpu(cell.wait().expect("reaped"));
    assert_eq!(
        cause,
        EndCause {
            ending: None,
            code: None,
            signal: Some(SIGKILL),
            cpu_ns: None,
        }
    );
    assert_eq!(cause.to_string(), "killed by signal 9");
    nobody_is_left();
}

#[test]
fn a_triple_fault_a_power_off_and_both_resets_are_told_apart() {
    let Some(host) = host() else { return };
    let out = |port, value| Command::PortOut {
        port,
        value,
        width: Width::Byte,
    };
    assert_eq!(
        cause_after(&host, Command::TripleFault {}),
        told(Ending::TripleFault { vcpu: 1 })
    );
    assert_eq!(cause_after(&host, out(0x600, 0x34)), told(Ending::PowerOff));
    assert_eq!(cause_after(&host, out(0x602, 0x06)), told(Ending::Reboot));
    assert_eq!(cause_after(&host, out(0x64, 0xfe)), told(Ending::Reboot));
    nobody_is_left();
}

#[test]
fn half_of_a_reset_is_none() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    // Another command of the keyboard controller, and the pulse at a port that is not its own.
    for (port, value) in [(0x64, 0x20), (0x80, 0xfe), (0x600, 0), (0x602, 0)] {
        let out = Command::PortOut {
            port,
            value,
            width: Width::Byte,
        };
        ask(&mut cell, out);
    }
    write(&mut cell, 6);
    assert_eq!(read(&mut cell), 6);
}

#[test]
fn a_cell_that_closes_its_socket_and_goes_on_is_killed() {
    let program = CellProgram {
        path: "/bin/sh".into(),
        arguments: ["-c", "exec 0<&-; exec sleep 1000"]
            .map(str::to_owned)
            .into(),
    };
    let mut cell = Cell::spawn(&program, LayerSource::new("/nowhere")).expect("it starts");
    let error = cell.stats().expect_err("nobody answers");
    assert!(
        matches!(&error, CellError::Ended(cause) if cause.signal == Some(SIGKILL)),
        "{error:?}"
    );
}

#[test]
fn a_daughters_death_is_told_as_her_own_and_leaves_mother_and_sister_alone() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    write(&mut mother, 3);
    let mut daughters = daughters_of(&mut mother, 3);
    let mut first = daughters.remove(0);
    first
        .begin_command(0, Command::TripleFault {})
        .expect("given");
    assert_eq!(
        without_cpu(first.wait().expect("reaped")),
        told(Ending::TripleFault { vcpu: 0 })
    );
    let second = daughters.remove(0);
    second.kill().expect("killed");
    assert_eq!(second.wait().expect("reaped").signal, Some(SIGKILL));
    assert_eq!((read(&mut mother), read(&mut daughters[0])), (3, 3));
    assert!(
        matches!(daughters.remove(0).end(), Ok(cause) if without_cpu(cause.clone()) == told(Ending::Killed))
    );
}

#[test]
fn an_ask_of_a_cell_that_has_ended_says_how_it_ended() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    cell.begin_command(0, Command::TripleFault {})
        .expect("given");
    let error = cell.outcome(0).expect_err("no answer comes");
    assert!(
        matches!(&error, CellError::Ended(cause) if without_cpu(cause.clone()) == told(Ending::TripleFault { vcpu: 0 })),
        "{error}"
    );
    nobody_is_left();
}

#[test]
fn after_the_end_of_a_line_no_process_descriptor_or_layer_is_left() {
    let Some(host) = host() else { return };
    let own = std::process::id();
    // The reader of all cells starts with the first; what it waits on stays open.
    let before = descriptors(own).len() + 1;
    {
        let mut mother = host.bare(64, 1);
        ask(
            &mut mother,
            Command::BlkLoad {
                lba: 1,
                records: 64,
                seed: 1,
                count: 100,
            },
        );
        mother.seal().expect("seal");
        let mut checkpoint = checkpoint_of(&mut mother);
        let mut daughters = daughters_of(&mut mother, 4);
        daughters.extend(daughters_of(&mut checkpoint, 2));
        for daughter in &mut daughters {
            ask(
                daughter,
                Command::BlkLoad {
                    lba: 1,
                    records: 64,
                    seed: 2,
                    count: 100,
                },
            );
        }
        let granddaughters = daughters_of(&mut daughters[0], 2);
        mother.pause().expect("pause");
        let parts = mother.template().expect("template");
        let mut warm = host.spawn();
        warm.load(host.kvm().as_fd(), &parts).expect("load");
        for cell in [mother, checkpoint] {
            assert_eq!(cell.end().expect("ends").ending, Some(Ending::Killed));
        }
        let causes = Cell::end_all(daughters).expect("end").into_iter();
        let causes: Vec<_> = causes.map(without_cpu).collect();
        assert_eq!(causes, vec![told(Ending::Killed); 6]);
        drop((granddaughters, warm));
    }
    nobody_is_left();
    settle("no descriptor is left", || descriptors(own).len() == before);
    assert_eq!(fs::read_dir(host.layers()).expect("layers").count(), 0);
}

#[test]
fn a_mother_killed_at_any_moment_of_a_fork_leaves_whole_daughters_or_none() {
    let Some(host) = host() else { return };
    let mut sister = host.bare(64, 1);
    write(&mut sister, 1);
    let (mut lived, mut died) = (0, 0);
    for round in 0..24_u64 {
        let mut mother = host.bare(64, 1);
        write(&mut mother, round);
        let pid = Pid::from_raw(mother.pid().cast_signed()).expect("a process id");
        let go = AtomicBool::new(false);
        let fork = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !go.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                // Every round hits another moment.
                (0..round * 4000).for_each(|_| std::hint::spin_loop());
                kill_process(pid, Signal::KILL).expect("the mother is killed");
            });
            go.store(true, Ordering::Release);
            mother.fork(4, Checkpoint::Keep, Start::Run)
        });
        match fork {
            Err(error) => {
                assert!(
                    matches!(&error, CellError::Ended(cause) if cause.signal == Some(SIGKILL))
                        || matches!(&error, CellError::Socket(_)),
                    "{error:?}"
                );
                died += 1;
            }
            Ok(fork) => {
                for daughter in fork.daughters {
                    assert_eq!(read(&mut daughter.expect("daughter")), round);
                }
                assert_eq!(mother.wait().expect("reaped").signal, Some(SIGKILL));
                lived += 1;
            }
        }
        assert_eq!(read(&mut sister), 1);
    }
    println!("{died} forks failed with their mother, {lived} came through");
    drop(sister);
    nobody_is_left();
}

#[test]
fn a_daughter_killed_while_being_born_is_named_and_her_sisters_live() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    write(&mut mother, 5);
    let mut stillborn = 0;
    // An infant is killed as soon as she is seen; most die before their first word, which is the case in question.
    for round in 0..500 {
        let pid = mother.pid();
        let done = AtomicBool::new(false);
        let fork = std::thread::scope(|scope| {
            scope.spawn(|| kill_an_infant_of(pid, &done));
            let fork = mother.fork(6, Checkpoint::Drop, Start::Run);
            done.store(true, Ordering::Release);
            fork
        });
        let mut killed = 0;
        for (index, daughter) in (0..).zip(fork.expect("the mother forks").daughters) {
            match daughter {
                Ok(mut cell) => match cell.command(0, Command::Read64 { addr: WORD }) {
                    Ok(word) => assert_eq!(word, Ok(5)),
                    Err(CellError::Ended(cause)) if cause.signal == Some(SIGKILL) => killed += 1,
                    Err(error) => panic!("{error:?}"),
                },
                Err(CellError::Stillborn {
                    index: named,
                    reason,
                }) => {
                    assert_eq!(
                        (named, reason.as_str()),
                        (index, "ended while being born: killed by signal 9")
                    );
                    (killed, stillborn) = (killed + 1, stillborn + 1);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(killed <= 1, "only one was killed in round {round}");
        assert_eq!(read(&mut mother), 5);
        if stillborn == 3 {
            break;
        }
    }
    assert_eq!(stillborn, 3, "infants could be killed in time");
    drop(mother);
    nobody_is_left();
}

/// Kills one child of the frozen point of `mother`'s fork.
fn kill_an_infant_of(mother: u32, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        let infant = forked_by(mother)
            .into_iter()
            .find_map(|point| forked_by(point).pop());
        if let Some(infant) = infant.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // One that has ended by itself is as good as killed.
            kill_process(infant, Signal::KILL).ok();
            return;
        }
    }
}

/// The children of a process's first thread; none where the kernel does not list them (man 5 proc_pid_task).
fn forked_by(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

const OWNER: &str = "BROOD_TEST_OWNER_OF_CELLS";

/// Not a test by itself: the process that the next test starts and kills.
#[test]
fn an_owner_of_cells_waits_to_be_killed() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let checkpoint = checkpoint_of(&mut mother);
    let daughters = daughters_of(&mut mother, 2);
    let mut stays = host.bare(64, 1);
    stays
        .done(Request::Orphan(OrphanPolicy::Stay), &[])
        .expect("stays");
    stays
        .begin_command(0, Command::Count { addr: WORD })
        .expect("count");
    let unbooted = host.spawn();
    let mut ends = vec![mother.pid(), checkpoint.pid(), unbooted.pid()];
    ends.extend(daughters.iter().map(Cell::pid));
    let list: Vec<_> = ends.iter().map(u32::to_string).collect();
    println!("\ncells {} {}", stays.pid(), list.join(" "));
    // Whoever started this process never writes to it.
    std::io::stdin().lines().next();
}

#[test]
fn cells_end_with_an_owner_that_is_killed_unless_told_to_stay() {
    let Some(_host) = host() else { return };
    let mut owner = Program::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "an_owner_of_cells_waits_to_be_killed",
            "--nocapture",
        ])
        .env(OWNER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the owner starts");
    let said = BufReader::new(owner.stdout.take().expect("its output"));
    let line = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("cells ").map(str::to_owned))
        .expect("the owner's cells");
    let pids: Vec<u32> = line
        .split(' ')
        .map(|pid| pid.parse().expect("a process id"))
        .collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    owner.kill().expect("the owner is killed");
    owner.wait().expect("the owner is reaped");
    let (stays, end) = pids.split_first().expect("one stays");
    settle("the cells have ended", || {
        end.iter().all(|pid| !is_alive(*pid))
    });
    let before = cpu_ticks(*stays);
    settle("the one that stays runs on", || {
        cpu_ticks(*stays) > before + 10
    });
    let stays = Pid::from_raw(stays.cast_signed()).expect("a process id");
    kill_process(stays, Signal::KILL).expect("it is still there");
    // The orphans have become children of this process, the next reaper above their owner.
    while waitpid(None, WaitOptions::empty()).is_ok() {}
    nobody_is_left();
}

/// Clock ticks a process has run for (man 5 proc_pid_stat: utime and stime, fields 14 and 15).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("its name ends");
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("ticks"))
        .sum()
}
