//! The supervisor's own process: one thread, one epoll set, no guest code, no async runtime.
//!
//! ```text
//!  epoll ─┬ listener     newcomers: same user only
//!         ├ newcomer     its first packet is a greeting, or it is sent away
//!         ├ client       the one engine that is served
//!         ├ SIGCHLD      statuses of children
//!         ├ line         last words of a started cell and of those she forked
//!         └ pidfd        a cell that is no child of ours has ended: the cell she was forked by tells how
//! ```
//!
//! Unsafe: the inherited listener. Invariant: nothing a client or a cell sends makes it wait, panic or grow without bound, and no client's death touches
//! a cell. It ends by itself when it has no client, no cell and no end that was not noted.

mod client;
mod line;
mod request;
mod ward;
mod watch;

use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use brood_control::Children;
use brood_units::Timestamp;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

use client::{Clients, Heard};
use line::Lines;
use ward::Wards;
use watch::{Source, Watch};

/// How long the cell that forked a daughter has to tell how she ended.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// Everything the supervisor is.
struct Supervisor {
    watch: Watch,
    children: Children,
    lines: Lines,
    wards: Wards,
    clients: Clients,
}

/// Runs the supervisor over the listening socket on standard input, until there is nothing left to keep.
pub fn main() -> ExitCode {
    // SAFETY: whoever starts this program passes the listener as descriptor 0 and nothing else here uses it.
    let listener = unsafe { OwnedFd::from_raw_fd(0) };
    match Supervisor::begin(listener).and_then(|mut supervisor| supervisor.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            eprintln!("brood supervisor: cannot go on: {errno}; its cells end with it");
            ExitCode::FAILURE
        }
    }
}

impl Supervisor {
    fn begin(listener: OwnedFd) -> Result<Self, Errno> {
        // Of a session of its own already where this fails.
        rustix::process::setsid().ok();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // The directory that the engine was started in may be unmounted.
        rustix::process::chdir("/")?;
        // Each cell costs two descriptors; 1024 is what a shell usually allows.
        let mut files = getrlimit(Resource::Nofile);
        files.current = files.maximum;
        setrlimit(Resource::Nofile, files)?;
        let mut watch = Watch::new()?;
        let children = Children::new()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
        watch.add(children.fd(), Source::Children)?;
        let clients = Clients::new(listener, &mut watch)?;
        Ok(Self {
            watch,
            children,
            lines: Lines::default(),
            wards: Wards::default(),
            clients,
        })
    }

    fn run(&mut self) -> Result<(), Errno> {
        while !self.has_nothing_left() {
            let ready = self.watch.wait(self.wards.deadline(Instant::now()))?;
            for source in ready {
                self.turn(source);
            }
            self.take_ends();
            self.clients.flush(&mut self.watch);
        }
        Ok(())
    }

    /// Not before the first engine has come and gone.
    fn has_nothing_left(&self) -> bool {
        self.clients.has_served() && self.clients.is_alone() && self.wards.is_empty()
    }

    fn turn(&mut self, source: Source) {
        match source {
            Source::Listener => self.clients.welcome(&mut self.watch),
            Source::Peer(number) => {
                if let Heard::Ask(ask, fds) = self.clients.hear(number, &mut self.watch) {
                    let (result, fds) = match self.answer(ask.request, fds) {
                        Ok((reply, fds)) => (Ok(reply), fds),
                        Err(refusal) => (Err(refusal), Vec::new()),
                    };
                    self.clients.answer(ask.id, result, fds);
                }
            }
            // Statuses are taken once the words of this turn have been heard.
            Source::Children => {}
            Source::Line(number) => self.lines.hear(number, &mut self.wards, &mut self.watch),
            Source::Ward(number) => {
                self.wards
                    .gone(number, Instant::now() + LAST_BREATH, &mut self.watch)
            }
        }
    }

    /// Takes the statuses of children and says which ends are known.
    fn take_ends(&mut self) {
        let ended = self.children.take_ended();
        if !ended.is_empty() {
            // What one that has ended had to say is in its line by now.
            self.lines.hear_all(&mut self.wards, &mut self.watch);
        }
        for end in ended {
            self.wards.told(end);
        }
        let (now, at) = (Instant::now(), now());
        for end in self.wards.take_known(now, at, &mut self.watch) {
            self.clients.say(end);
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
