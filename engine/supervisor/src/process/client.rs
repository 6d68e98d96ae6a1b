//! Who is connected: one engine that is served, and newcomers that have not greeted yet.
//!
//! Invariant: only a process of the same user, or root, gets past the door; only one engine is served; a second is told
//! which one is. What waits to be sent is bounded: an engine that does not read is let go of.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use brood_control::{Control, SocketError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with};

use super::watch::{Source, Wanted, Watch};
use crate::EndOfProcess;
use crate::protocol::{Ask, FromSupervisor, Refusal, Reply, Request, VERSION};

const HELLO: &str = "hello";
/// The most newcomers; the one that came first makes room.
const MAX_NEWCOMERS: usize = 8;
/// The most packets that wait for the engine to read.
const MAX_UNSENT: usize = 8192;

/// What a peer had to say.
pub(super) enum Heard {
    /// The engine asks for something.
    Ask(Ask, Vec<OwnedFd>),
    /// Nothing that anybody else has to do something about.
    Nothing,
}

struct Peer {
    control: Control,
    pid: i32,
}

struct Engine {
    number: u64,
    peer: Peer,
    unsent: VecDeque<(FromSupervisor, Vec<OwnedFd>)>,
}

/// Everybody who is connected.
pub(super) struct Clients {
    listener: OwnedFd,
    is_listening: bool,
    newcomers: BTreeMap<u64, Peer>,
    engine: Option<Engine>,
    next: u64,
    has_served: bool,
}

impl Clients {
    pub(super) fn new(listener: OwnedFd, watch: &mut Watch) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        watch.add(&listener, Source::Listener)?;
        Ok(Self {
            listener,
            is_listening: true,
            newcomers: BTreeMap::new(),
            engine: None,
            next: 0,
            has_served: false,
        })
    }

    /// Whether an engine has ever been served.
    pub(super) fn has_served(&self) -> bool {
        self.has_served
    }

    /// Whether nobody is connected.
    pub(super) fn is_alone(&self) -> bool {
        self.engine.is_none() && self.newcomers.is_empty()
    }

    /// Lets a newcomer in.
    pub(super) fn welcome(&mut self, watch: &mut Watch) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let control = match accept_with(&self.listener, flags) {
            Ok(fd) => Control::new(fd),
            Err(Errno::WOULDBLOCK | Errno::INTR | Errno::CONNABORTED) => return,
            Err(_) => {
                // Out of descriptors: listens again after the next thing that happens, which may have closed some.
                watch.remove(&self.listener);
                self.is_listening = false;
                return;
            }
        };
        let Ok(credentials) = socket_peercred(&control) else {
            return;
        };
        let own = rustix::process::geteuid();
        if credentials.uid != own && !credentials.uid.is_root() {
            let cause = format!("this user is {}", credentials.uid.as_raw());
            let remedy = format!("run the engine as user {}", own.as_raw());
            refuse(&control, 0, Refusal::new(HELLO, cause, remedy));
            return;
        }
        if self.newcomers.len() == MAX_NEWCOMERS
            && let Some((_, first)) = self.newcomers.pop_first()
        {
            watch.remove(&first.control);
        }
        let number = self.next;
        self.next += 1;
        let pid = credentials.pid.as_raw_nonzero().get();
        if watch.add(&control, Source::Peer(number)).is_ok() {
            self.newcomers.insert(number, Peer { control, pid });
        }
    }

    /// Takes one packet of a peer.
    pub(super) fn hear(&mut self, number: u64, watch: &mut Watch) -> Heard {
        if let Some(engine) = self
            .engine
            .as_ref()
            .filter(|engine| engine.number == number)
        {
            match engine.peer.control.receive_at_once::<Ask>() {
                Ok(Some(ask)) => return Heard::Ask(ask.message, ask.fds),
                Ok(None) => {}
                Err(error) => self.let_go(&error, watch),
            }
            return Heard::Nothing;
        }
        let Some(peer) = self.newcomers.get(&number) else {
            return Heard::Nothing;
        };
        match peer.control.receive_at_once::<Ask>() {
            Ok(None) => return Heard::Nothing,
            Ok(Some(ask)) => self.greet(number, &ask.message, watch),
            Err(error) => refuse(&peer.control, 0, unreadable(&error)),
        }
        if let Some(peer) = self.newcomers.remove(&number) {
            watch.remove(&peer.control);
        }
        Heard::Nothing
    }

    /// A newcomer becomes the engine that is served, or is told why not.
    fn greet(&mut self, number: u64, ask: &Ask, watch: &mut Watch) {
        if let Some(engine) = &self.engine
            && has_hung_up(&engine.peer.control)
        {
            self.let_go(&SocketError::Closed, watch);
        }
        let refusal = match (&ask.request, &self.engine) {
            (Request::Hello { version }, _) if *version != VERSION => Some(Refusal::new(
                HELLO,
                format!("the engine speaks version {version}, this supervisor {VERSION}"),
                "let the machines end under the engine that started them, then start this one",
            )),
            (Request::Hello { .. }, Some(engine)) => Some(Refusal::new(
                HELLO,
                format!(
                    "the engine with process id {} is connected",
                    engine.peer.pid
                ),
                "stop it first, or use another state directory",
            )),
            (Request::Hello { .. }, None) => None,
            _ => Some(Refusal::new(
                HELLO,
                "the first ask is no greeting",
                "greet first",
            )),
        };
        let Some(peer) = self.newcomers.remove(&number) else {
            return;
        };
        if let Some(refusal) = refusal {
            refuse(&peer.control, ask.id, refusal);
            watch.remove(&peer.control);
            return;
        }
        self.has_served = true;
        self.engine = Some(Engine {
            number,
            peer,
            unsent: VecDeque::new(),
        });
        let pid = std::process::id();
        let welcome = Reply::Welcome {
            version: VERSION,
            pid,
        };
        self.answer(ask.id, Ok(welcome), Vec::new());
    }

    /// Answers the engine, if it is still there.
    pub(super) fn answer(&mut self, id: u64, result: Result<Reply, Refusal>, fds: Vec<OwnedFd>) {
        if let Some(engine) = &mut self.engine {
            let answer = FromSupervisor::Answer { id, result };
            engine.unsent.push_back((answer, fds));
        }
    }

    /// Tells the engine of an end; if there is none it asks for the list when it comes.
    pub(super) fn say(&mut self, end: EndOfProcess) {
        if let Some(engine) = &mut self.engine {
            let ended = FromSupervisor::Ended(end);
            engine.unsent.push_back((ended, Vec::new()));
        }
    }

    /// Sends what the engine has room for.
    pub(super) fn flush(&mut self, watch: &mut Watch) {
        if !self.is_listening {
            self.is_listening = watch.add(&self.listener, Source::Listener).is_ok();
        }
        let Some(engine) = &mut self.engine else {
            return;
        };
        let mut wanted = Wanted::No;
        while let Some((message, fds)) = engine.unsent.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match engine.peer.control.send_at_once(message, &fds) {
                Ok(()) => {
                    engine.unsent.pop_front();
                }
                Err(SocketError::Call(Errno::WOULDBLOCK)) if engine.unsent.len() < MAX_UNSENT => {
                    wanted = Wanted::Yes;
                    break;
                }
                Err(error) => return self.let_go(&error, watch),
            }
        }
        watch.also_writable(&engine.peer.control, wanted);
    }

    /// The engine is served no more; what it knows of is in the list for the next.
    fn let_go(&mut self, error: &SocketError, watch: &mut Watch) {
        if let Some(engine) = self.engine.take() {
            refuse(&engine.peer.control, 0, unreadable(error));
            watch.remove(&engine.peer.control);
        }
    }
}

/// The last packet to a peer. One that is gone, or does not read, hears nothing.
fn refuse(control: &Control, id: u64, refusal: Refusal) {
    let result = Err(refusal);
    control
        .send_at_once(&FromSupervisor::Answer { id, result }, &[])
        .ok();
}

fn unreadable(error: &SocketError) -> Refusal {
    Refusal::new(
        "message",
        error.to_string(),
        "connect again with the program of this supervisor",
    )
}

fn has_hung_up(control: &Control) -> bool {
    let at_once = Timespec::default();
    let mut polled = [PollFd::new(control, PollFlags::empty())];
    let seen = poll(&mut polled, Some(&at_once));
    seen.is_ok()
        && polled
            .iter()
            .any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}
