//! Which system calls a cell makes once it is jailed: what the filter of a later jail must let through, and no more.
//! Unsafe: ptrace(2).

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use brood_bare_guest::mailbox::Command;
use brood_cell::protocol::{ChunkSource, Event, Fetch};
use brood_cell::{Cell, pages};
use brood_snapshot::CHUNK;
use brood_testkit::{Image, is_alive, sealed, settle};
use common::{ask, checkpoint_of, daughters_of, host, read, stop, write};

/// Every system call a cell may make from boot to end, daughters and checkpoints included.
const EXPECTED: &[(libc::c_long, &str)] = &[
    // The main loop and its sockets.
    (libc::SYS_poll, "poll"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_read, "read"),
    (libc::SYS_write, "write"),
    (libc::SYS_readv, "readv"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_close, "close"),
    (libc::SYS_close_range, "close_range"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_eventfd2, "eventfd2"),
    // KVM, and userfaultfd for clean pages.
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_userfaultfd, "userfaultfd"),
    // Disk layers and sealed memory.
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_preadv, "preadv"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_fstat, "fstat"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_memfd_create, "memfd_create"),
    // Memory.
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_mremap, "mremap"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_brk, "brk"),
    // Forks, threads, kicks.
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_set_robust_list, "set_robust_list"),
    (libc::SYS_rseq, "rseq"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_sched_yield, "sched_yield"),
    (libc::SYS_rt_sigaction, "rt_sigaction"),
    (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
    (libc::SYS_rt_sigreturn, "rt_sigreturn"),
    (libc::SYS_restart_syscall, "restart_syscall"),
    (libc::SYS_tgkill, "tgkill"),
    (libc::SYS_sched_setattr, "sched_setattr"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    // Children that have ended.
    (libc::SYS_signalfd4, "signalfd4"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
    (libc::SYS_clock_getres, "clock_getres"),
    (libc::SYS_getpid, "getpid"),
    (libc::SYS_gettid, "gettid"),
    (libc::SYS_pidfd_open, "pidfd_open"),
    (libc::SYS_exit, "exit"),
    (libc::SYS_exit_group, "exit_group"),
    // Time and identity.
    (libc::SYS_clock_gettime, "clock_gettime"),
    (libc::SYS_getrandom, "getrandom"),
];

/// What a trace found: how often each system call was made.
type Counts = BTreeMap<libc::c_long, u64>;

#[test]
fn a_cell_that_serves_and_forks_makes_only_the_expected_system_calls() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 2);
    let tracer = trace(mother.pid());

    write(&mut mother, 1);
    ask(
        &mut mother,
        Command::BlkLoad {
            lba: 1,
            records: 16,
            seed: 1,
            count: 20,
        },
    );
    ask(&mut mother, Command::Rng {});
    mother
        .begin_command(1, Command::VsockCount { port: 9 })
        .expect("counts");
    let stream = connected(&mut mother);
    mother.console(0).expect("console");
    let (start, bytes) = (16 << 20, 4 << 20);
    ask(&mut mother, Command::Touch { start, bytes });
    mother.seal().expect("seal");
    ask(&mut mother, Command::Touch { start, bytes });
    let collapsed = mother.collapse().expect("collapse");
    assert!(!collapsed.paused_nanos.is_empty());
    let mut checkpoint = checkpoint_of(&mut mother);
    let mut cells = daughters_of(&mut checkpoint, 1);
    cells.extend(daughters_of(&mut mother, 2));
    for daughter in &mut cells {
        assert_eq!(read(daughter), 1);
        ask(
            daughter,
            Command::BlkLoad {
                lba: 1,
                records: 16,
                seed: 2,
                count: 5,
            },
        );
    }
    drop(stream);
    stop(&mut mother, 1);
    mother.pause().expect("pause");
    drop(mother.template().expect("template"));
    mother.resume().expect("resume");
    cells.extend([mother, checkpoint]);
    end(cells);
    only_expected(tracer);
}

#[test]
fn a_cell_that_is_restored_and_saved_makes_only_the_expected_system_calls() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    write(&mut mother, 1);
    let mut checkpoint = checkpoint_of(&mut mother);
    let image = Image::of(&mut checkpoint);
    let table = sealed(&image.table(&[]));
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let mut of_server = host.spawn();
    let parts = image.parts(host.kvm(), &table, &theirs);
    let source = ChunkSource::Server {
        patience_ms: 300_000,
    };
    let chunks = image.chunks.try_clone().expect("dup");
    let server = std::thread::spawn(move || {
        pages::serve(ours, |chunk, bytes| {
            chunks.read_exact_at(bytes, u64::from(chunk) * CHUNK as u64)
        })
    });
    of_server
        .restore(&parts, source, Fetch::OnlyTouched)
        .expect("restored");
    drop(theirs);
    let mut of_files = host.spawn();
    image
        .restore(&host, &mut of_files, &table, Fetch::OnlyTouched)
        .expect("restored");
    for mut cell in [of_server, of_files] {
        let tracer = trace(cell.pid());
        cell.resume().expect("resume");
        assert_eq!(read(&mut cell), 1);
        cell.working_set().expect("recorded");
        cell.event(
            |event| matches!(event, Event::Whole),
            Duration::from_secs(300),
        )
        .expect("whole");
        let daughters = daughters_of(&mut cell, 1);
        cell.pause().expect("pause");
        assert!(Image::of(&mut cell).held().len() >= image.held().len());
        end(daughters.into_iter().chain([cell]).collect());
        only_expected(tracer);
    }
    server.join().expect("the server ends").expect("served");
}

/// Counts the system calls of a process from now on.
fn trace(pid: u32) -> JoinHandle<Counts> {
    let (attached, is_attached) = mpsc::channel();
    let tracer = std::thread::spawn(move || Tracer::default().run(pid, &attached));
    is_attached
        .recv()
        .expect("the tracer answers")
        .expect("the tracer may trace: it is root");
    tracer
}

fn end(cells: Vec<Cell>) {
    let pids: Vec<_> = cells.iter().map(Cell::pid).collect();
    Cell::end_all(cells).expect("end");
    settle("every cell has ended", || {
        pids.iter().all(|pid| !is_alive(*pid))
    });
}

/// What was traced until the last of them ended is what [`EXPECTED`] names.
fn only_expected(tracer: JoinHandle<Counts>) {
    let counts = tracer.join().expect("the tracer ends with the last cell");
    let known: BTreeMap<_, _> = EXPECTED.iter().copied().collect();
    for (call, count) in &counts {
        println!("{:>8} {}", count, known.get(call).unwrap_or(&"unexpected"));
    }
    let unexpected: BTreeSet<_> = counts
        .keys()
        .filter(|call| !known.contains_key(call))
        .collect();
    assert!(
        unexpected.is_empty(),
        "system calls by number (asm/unistd_64.h): {unexpected:?}"
    );
    assert!(
        counts.contains_key(&libc::SYS_ioctl),
        "the trace saw KVM at work"
    );
}

fn connected(cell: &mut Cell) -> std::os::unix::net::UnixStream {
    let mut stream = None;
    settle("the guest's driver is up", || {
        stream = cell.connect(9).ok();
        stream.is_some()
    });
    stream.expect("connected")
}

/// Counts the system calls of a process, its threads and whoever it forks, until the last has ended.
#[derive(Default)]
struct Tracer {
    /// Threads that are inside a system call.
    inside: BTreeSet<i32>,
    traced: BTreeSet<i32>,
    counts: Counts,
}

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK;

impl Tracer {
    fn run(mut self, pid: u32, attached: &mpsc::Sender<io::Result<()>>) -> Counts {
        let threads = brood_testkit::tasks_of(pid);
        for thread in threads {
            let seized = ptrace(libc::PTRACE_SEIZE, thread.cast_signed(), OPTIONS as usize)
                .and_then(|()| ptrace(libc::PTRACE_INTERRUPT, thread.cast_signed(), 0));
            if let Err(error) = seized {
                attached.send(Err(error)).expect("the test listens");
                return self.counts;
            }
            self.traced.insert(thread.cast_signed());
        }
        attached.send(Ok(())).expect("the test listens");
        while !self.traced.is_empty() {
            let mut status = 0;
            // SAFETY: the out-pointer is a live local. Only children and tracees of this thread are looked at.
            let thread =
                unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
            if thread < 0 {
                break;
            }
            if libc::WIFSTOPPED(status) {
                self.stopped(thread, status);
            } else {
                self.traced.remove(&thread);
                self.inside.remove(&thread);
            }
        }
        self.counts
    }

    /// One thread has stopped (man 2 ptrace, "Stopped states"): take note and let it go on.
    fn stopped(&mut self, thread: i32, status: i32) {
        self.traced.insert(thread);
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let mut inject = 0;
        if signal == libc::SIGTRAP | 0x80 {
            if self.inside.remove(&thread) {
                // The end of the call that was counted when it began.
            } else if let Some(call) = call_of(thread) {
                self.inside.insert(thread);
                *self.counts.entry(call).or_default() += 1;
            }
        } else if event == 0 {
            inject = usize::try_from(signal).unwrap_or(0);
        }
        // A thread that was killed meanwhile is reported by the next wait.
        ptrace(libc::PTRACE_SYSCALL, thread, inject).ok();
    }
}

/// The system call a thread is about to make.
fn call_of(thread: i32) -> Option<libc::c_long> {
    // SAFETY: all-zero is a valid value of a struct of integers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let out = (&raw mut registers) as usize;
    ptrace(libc::PTRACE_GETREGS, thread, out).ok()?;
    Some(registers.orig_rax.cast_signed())
}

fn ptrace(request: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    let address = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: `data` is a number, or for PTRACE_GETREGS the address of a live struct of the size it writes.
    match unsafe { libc::ptrace(request, thread, address, data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
