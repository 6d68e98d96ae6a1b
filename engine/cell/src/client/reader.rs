//! One thread of the engine that hears every cell.
//!
//! It waits for all control sockets at once and takes one packet off each that has one, so that no cell keeps the others
//! waiting, and a fork starts no thread. Invariant: a line is heard from its first packet to the end of its socket, then
//! let go of.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::event::epoll;
use rustix::io::Errno;

use super::CellError;
use super::error::call;
use super::line::Line;

const READER_STACK: usize = 128 << 10;
/// Sockets taken note of in one turn.
const TURN: usize = 64;

/// Whether a line has more to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A packet, or none yet.
    More,
    /// The end of its socket.
    End,
}

/// All lines, by the number their socket is registered under.
struct Reader {
    epoll: OwnedFd,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    next: u64,
    open: HashMap<u64, Arc<Line>>,
}

/// Hears `line` from now on.
///
/// # Errors
/// The reader cannot be started, or the host has no more descriptors.
pub(super) fn hear(line: Arc<Line>) -> Result<(), CellError> {
    let reader = reader()?;
    let mut lines = reader.lines.lock().unwrap_or_else(PoisonError::into_inner);
    let number = lines.next;
    let data = epoll::EventData::new_u64(number);
    epoll::add(
        &reader.epoll,
        line.control.fd(),
        data,
        epoll::EventFlags::IN,
    )
    .map_err(call("epoll_ctl"))?;
    lines.next += 1;
    lines.open.insert(number, line);
    Ok(())
}

/// Hears `line` no more; it stays open where somebody else has it.
pub(super) fn forget(line: &Arc<Line>) {
    let Ok(reader) = reader() else { return };
    let mut lines = reader.lines.lock().unwrap_or_else(PoisonError::into_inner);
    epoll::delete(&reader.epoll, line.control.fd()).ok();
    lines.open.retain(|_, open| !Arc::ptr_eq(open, line));
}

/// The reader of this process, started when it is first wanted.
fn reader() -> Result<&'static Reader, CellError> {
    static READER: OnceLock<Reader> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(reader) = READER.get() {
        return Ok(reader);
    }
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if READER.get().is_none() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(call("epoll_create"))?;
        let reader = READER.get_or_init(|| Reader {
            epoll,
            lines: Mutex::default(),
        });
        std::thread::Builder::new()
            .name("cell-reader".to_owned())
            .stack_size(READER_STACK)
            .spawn(|| reader.listen())
            .map_err(|source| CellError::Call {
                operation: "start of the reader",
                source,
            })?;
    }
    READER.get().ok_or_else(|| CellError::Call {
        operation: "start of the reader",
        source: io::Error::from(io::ErrorKind::NotFound),
    })
}

impl Reader {
    fn listen(&self) {
        let mut events = Vec::with_capacity(TURN);
        loop {
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                // The set is this thread's own and never closed: nothing could be heard any more.
                Err(_) => return,
            }
            for event in &events {
                self.turn(event.data.u64());
            }
        }
    }

    /// One packet of one line.
    fn turn(&self, number: u64) {
        let line = {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.open.get(&number).map(Arc::clone)
        };
        let Some(line) = line else { return };
        if line.hear() == Heard::End {
            // Its socket may be closed with the line: it leaves the set first.
            epoll::delete(&self.epoll, line.control.fd()).ok();
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.open.remove(&number);
        }
    }
}
