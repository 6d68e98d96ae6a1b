//! One program and what is kept of it. Invariant: its output and state change only under one lock, and whoever
//! changes them wakes every attachment.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use brood_agent_proto::AgentError;
use brood_agent_proto::exec::{
    ExecId, ExecSpec, ExecState, ExecStatus, RING_BYTES, SignalTarget, Stream, TtySize,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Signal, kill_process_group, pidfd_send_signal};

use super::command::{self, Command, Stdio};
use super::pump::{Pump, Sources};
use super::ring::Ring;
use super::spawn::{self, Child};
use crate::cgroup;
use crate::fail;
use crate::gate::Gate;
use crate::mem;
use crate::serial::enter;

/// Longest program name that is reported, in bytes.
const LONGEST_NAME: usize = 256;

/// VEOF of a terminal in its initial mode (termios(3)).
const END_OF_FILE: u8 = 4;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) exec: ExecId,
    pub(crate) cgroup: PathBuf,
    pub(super) child: Child,
    program: String,
    stdin: Mutex<Option<OwnedFd>>,
    tty: Option<OwnedFd>,
    pub(super) output: Mutex<Output>,
    /// Tells the pump to let go.
    pub(super) closed: AtomicBool,
    pub(super) wake: OwnedFd,
}

#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Ring,
    pub(super) stderr: Ring,
    pub(super) state: ExecState,
    watchers: Vec<Weak<OwnedFd>>,
}

impl Output {
    pub(super) fn ring(&self, stream: Stream) -> &Ring {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.stdout.push(bytes),
            Stream::Stderr => self.stderr.push(bytes),
        }
        self.wake();
    }

    pub(super) fn end(&mut self, state: ExecState) {
        self.state = state;
        self.wake();
    }

    /// An eventfd(2) that becomes readable with every change.
    pub(super) fn watch(&mut self) -> io::Result<Arc<OwnedFd>> {
        let watcher = Arc::new(new_event()?);
        self.watchers.push(Arc::downgrade(&watcher));
        Ok(watcher)
    }

    fn wake(&mut self) {
        self.watchers.retain(|watcher| {
            watcher.upgrade().is_some_and(|watcher| {
                raise(&watcher);
                true
            })
        });
    }
}

impl Session {
    /// Starts `command` in `cgroup` and a thread that takes its output.
    pub(super) fn start(
        exec: ExecId,
        spec: &ExecSpec,
        command: &Command,
        cgroup: (PathBuf, OwnedFd),
        gate: &Arc<Gate>,
    ) -> Result<Arc<Self>, AgentError> {
        let failed = |error: io::Error| fail::os("starting a session", &error);
        let stdio = Stdio::open(spec.stdin, spec.tty, command.user.as_ref())?;
        let wake = new_event().map_err(failed)?;
        let (path, directory) = cgroup;
        let stopped = gate.stopped();
        let child = spawn::spawn(command, &stdio.theirs, stdio.terminal, directory.as_fd())?;
        drop(stdio.theirs);
        let ring_bytes = spec
            .ring_bytes
            .clamp(*RING_BYTES.start(), *RING_BYTES.end());
        let ring_bytes = usize::try_from(ring_bytes).unwrap_or(usize::MAX);
        let session = Arc::new(Self {
            exec,
            cgroup: path,
            child,
            program: name(spec),
            stdin: Mutex::new(stdio.stdin),
            tty: stdio.tty,
            output: Mutex::new(Output {
                stdout: Ring::new(ring_bytes),
                stderr: Ring::new(ring_bytes),
                state: ExecState::Running,
                watchers: Vec::new(),
            }),
            closed: AtomicBool::new(false),
            wake,
        });
        let pump = Pump::new(
            Arc::clone(&session),
            Arc::clone(gate),
            Sources {
                stdout: Some(stdio.stdout),
                stderr: stdio.stderr,
            },
            spec.timeout_ms.map(std::time::Duration::from_millis),
            stopped,
        );
        let started = thread::Builder::new()
            .name(format!("exec-{exec}"))
            .stack_size(mem::PUMP_STACK)
            .spawn(move || pump.run());
        match started {
            Ok(_) => Ok(session),
            Err(error) => {
                // Nobody would ever read its output or wait for it.
                session.kill_all().map_err(failed)?;
                crate::init::reap::wait(&session.child).map_err(failed)?;
                Err(failed(error))
            }
        }
    }

    /// Whether its output comes through a terminal.
    pub(super) fn has_tty(&self) -> bool {
        self.tty.is_some()
    }

    pub(crate) fn state(&self) -> ExecState {
        enter(&self.output).state
    }

    pub(crate) fn status(&self) -> ExecStatus {
        let output = enter(&self.output);
        ExecStatus {
            exec: self.exec,
            pid: u32::try_from(self.child.pid.as_raw_nonzero().get()).unwrap_or(0),
            program: self.program.clone(),
            state: output.state,
            stdout_end: output.stdout.end(),
            stderr_end: output.stderr.end(),
        }
    }

    /// Kills the program and everything it started, wherever that put itself in the process tree.
    pub(crate) fn kill_all(&self) -> io::Result<()> {
        match cgroup::kill(&self.cgroup) {
            Err(error) if cgroup::is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Lets go of the program: its output is not read any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        raise(&self.wake);
    }

    pub(crate) fn signal(&self, signal: i32, target: SignalTarget) -> Result<(), AgentError> {
        if !(1..=64).contains(&signal) {
            return Err(fail::invalid("signal", "is not 1 to 64"));
        }
        // SAFETY: any signal number of the kernel's range may be sent; it is not used to install a handler here.
        let signal = unsafe { Signal::from_raw_unchecked(signal) };
        // Under the lock the program cannot be reaped between the check and the signal, so its process group id is
        // not another's.
        let output = enter(&self.output);
        let sent = match (output.state, target) {
            (ExecState::Running, SignalTarget::Group) => kill_process_group(self.child.pid, signal),
            (ExecState::Running, SignalTarget::Leader) => {
                pidfd_send_signal(&self.child.pidfd, signal)
            }
            _ => Err(rustix::io::Errno::SRCH),
        };
        sent.map_err(|errno| fail::os("sending a signal", &errno.into()))
    }

    pub(crate) fn resize(&self, size: TtySize) -> Result<(), AgentError> {
        let tty = self
            .tty
            .as_ref()
            .ok_or(AgentError::NoTty { exec: self.exec })?;
        command::set_size(tty, size).map_err(|error| fail::os("resizing a terminal", &error))
    }

    /// Writes all of `bytes` to the program's stdin, giving up when `client` goes away.
    pub(crate) fn write_stdin(
        &self,
        bytes: &[u8],
        client: BorrowedFd<'_>,
    ) -> Result<(), AgentError> {
        let mut stdin = enter(&self.stdin);
        let missing = AgentError::NoStdin { exec: self.exec };
        let Some(pipe) = stdin.as_ref() else {
            return Err(missing);
        };
        match write_all(pipe, bytes, client) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::IO) => {
                *stdin = None;
                Err(missing)
            }
            Err(errno) => Err(fail::os("writing to stdin", &errno.into())),
        }
    }

    pub(crate) fn close_stdin(&self, client: BorrowedFd<'_>) -> Result<(), AgentError> {
        if self.tty.is_some() {
            return self.write_stdin(&[END_OF_FILE], client);
        }
        enter(&self.stdin)
            .take()
            .map(drop)
            .ok_or(AgentError::NoStdin { exec: self.exec })
    }
}

fn write_all(
    pipe: &OwnedFd,
    mut bytes: &[u8],
    client: BorrowedFd<'_>,
) -> Result<(), rustix::io::Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(pipe, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [
                    PollFd::new(pipe, PollFlags::OUT),
                    PollFd::from_borrowed_fd(client, PollFlags::RDHUP),
                ];
                match poll(&mut fds, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
                let [_, client] = &fds;
                if !client.revents().is_empty() {
                    return Err(rustix::io::Errno::CONNRESET);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn name(spec: &ExecSpec) -> String {
    let program = spec.argv.first().map_or("", String::as_str);
    let end = program.floor_char_boundary(LONGEST_NAME);
    program.get(..end).unwrap_or_default().to_owned()
}

fn new_event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Makes an eventfd readable.
fn raise(event: &OwnedFd) {
    match rustix::io::write(event, &1_u64.to_ne_bytes()) {
        // EAGAIN: the counter is full, so it is readable.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
        Err(errno) => eprintln!("brood-agent: an attachment was not woken: {errno}"),
    }
}
