//! Finding the supervisor of a state directory, or starting it.
//!
//! The socket listens before the program starts, which inherits it: whoever connects is served in the end, and nobody waits
//! for a file to appear. Invariant: engines that start at the same time take turns (man 2 flock), so a directory has one
//! supervisor; a socket that nobody listens on is a leftover and replaced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use brood_control::Control;
use rustix::fs::{FlockOperation, Mode, chmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect as connect_to, listen,
    socket_with,
};

use super::{AskError, ConnectError, Said, Supervisor};
use crate::protocol::SOCKET;

/// Those who may wait at the door.
const BACKLOG: i32 = 16;

/// The program that is a supervisor, and the arguments that say so.
#[derive(Clone, Debug)]
pub struct SupervisorProgram {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

pub(super) fn connect(
    directory: &Path,
    program: &SupervisorProgram,
    heard: impl FnMut(Said) + Send + 'static,
) -> Result<Supervisor, ConnectError> {
    let _turn = take_turn(directory)?;
    let path = directory.join(SOCKET);
    let address = SocketAddrUnix::new(&path).map_err(|errno| match errno {
        Errno::NAMETOOLONG => ConnectError::LongPath { path: path.clone() },
        errno => failed(&path)(errno.into()),
    })?;
    let heard = Arc::new(Mutex::new(heard));
    let mut may_be_ending = true;
    loop {
        let (control, child) = match reach(&path, &address)? {
            Some(control) => (control, None),
            None => {
                let child = start(&path, &address, program)?;
                let control = reach(&path, &address)?.ok_or_else(|| ConnectError::Start {
                    program: program.path.clone(),
                    source: io::Error::from(io::ErrorKind::ConnectionRefused),
                })?;
                (control, Some(child))
            }
        };
        let heard = Arc::clone(&heard);
        let told = move |said| {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard(said);
        };
        match Supervisor::greet(control, child, told) {
            // It was about to end, having nothing left to keep.
            Err(AskError::Gone { .. }) if std::mem::take(&mut may_be_ending) => {}
            greeted => return Ok(greeted?),
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ConnectError {
    let path = path.to_owned();
    move |source| ConnectError::Directory {
        path: path.clone(),
        source,
    }
}

fn take_turn(directory: &Path) -> Result<File, ConnectError> {
    let path = directory.join("supervisor.lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(failed(&path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(&path)(errno.into()))?;
    Ok(file)
}

/// A connection to whoever listens; none if nobody does.
fn reach(path: &Path, address: &SocketAddrUnix) -> Result<Option<Control>, ConnectError> {
    let fd = fresh_socket().map_err(|errno| failed(path)(errno.into()))?;
    match connect_to(&fd, address) {
        Ok(()) => Ok(Some(Control::new(fd))),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(failed(path)(errno.into())),
    }
}

/// Listens in place of whoever does no more, and starts the program on that socket.
fn start(
    path: &Path,
    address: &SocketAddrUnix,
    program: &SupervisorProgram,
) -> Result<Child, ConnectError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path)(error)),
        _ => {}
    }
    let listener = open_door(path, address).map_err(|errno| failed(path)(errno.into()))?;
    Command::new(&program.path)
        .args(&program.arguments)
        .env_clear()
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|source| ConnectError::Start {
            program: program.path.clone(),
            source,
        })
}

/// Nobody can connect before it listens, and then only its owner.
fn open_door(path: &Path, address: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let listener = fresh_socket()?;
    bind(&listener, address)?;
    chmod(path, Mode::RUSR | Mode::WUSR)?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn fresh_socket() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}
