//! Files of the guest. Invariant: only regular files are opened for content, so no FIFO or device can hold a connection
//! for ever, and an error in the middle of a transfer leaves the conversation in step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use brood_agent_proto::blob::Blob;
use brood_agent_proto::errno::Errno;
use brood_agent_proto::file::{
    Atomicity, DirEntry, DirPage, DirRest, FileKind, FileOp, FileStat, LIST_PAGE, MkdirParents,
    ReadSpec, RemoveDepth, WriteAt, WriteSpec,
};
use brood_agent_proto::frame::{self, CHUNK, FrameError};
use brood_agent_proto::{AgentError, Reply, Request};

use crate::fail;

/// `file` failed at `op` with `error`.
fn failed(op: FileOp, path: &str) -> impl Fn(io::Error) -> AgentError {
    let path = path.to_owned();
    move |error| AgentError::File {
        op,
        path: path.clone(),
        errno: Errno::from(&error),
    }
}

fn absolute(path: &str) -> Result<&Path, AgentError> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(Path::new(path));
    }
    Err(fail::invalid(
        "path",
        "is not absolute, or holds a NUL byte",
    ))
}

/// Sends a part of a file.
pub(crate) fn read(spec: &ReadSpec, client: &mut UnixStream) -> Result<Reply, TransferError> {
    let path = absolute(&spec.path)?;
    let mut file = open_regular(OpenOptions::new().read(true), path)
        .map_err(failed(FileOp::Open, &spec.path))?;
    if spec.offset > 0 {
        file.seek(SeekFrom::Start(spec.offset))
            .map_err(failed(FileOp::Read, &spec.path))?;
    }
    let mut left = spec.len.unwrap_or(u64::MAX);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let room = buffer.get_mut(..most).unwrap_or_default();
        let read = match file.read(room) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(FileOp::Read, &spec.path)(error).into()),
        };
        left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        let bytes = Blob::from(buffer.get(..read).unwrap_or_default());
        frame::write_frame(client, &Reply::Chunk(bytes))?;
    }
    let size = file
        .metadata()
        .map_err(failed(FileOp::Stat, &spec.path))?
        .len();
    Ok(Reply::FileEnd { size })
}

/// Opens a regular file without waiting for the other end of what is none.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let errno = if kind.is_dir() {
        libc::EISDIR
    } else {
        libc::EINVAL
    };
    Err(io::Error::from_raw_os_error(errno))
}

/// A transfer ended early.
#[derive(Debug)]
pub(crate) enum TransferError {
    /// The client is told, and the conversation goes on.
    Refused(AgentError),
    /// The connection failed, or carried no message.
    Frame(FrameError),
    /// The client sent a message that does not belong here.
    Unexpected,
}

impl From<AgentError> for TransferError {
    fn from(error: AgentError) -> Self {
        Self::Refused(error)
    }
}

impl From<FrameError> for TransferError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// A file being written; a temporary one disappears unless it is finished.
struct Writing {
    file: File,
    temporary: Option<PathBuf>,
    bytes: u64,
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary
            && let Err(error) = fs::remove_file(path)
        {
            eprintln!("brood-agent: {} is left over: {error}", path.display());
        }
    }
}

/// Takes a file.
pub(crate) fn write(spec: &WriteSpec, client: &mut UnixStream) -> Result<Reply, TransferError> {
    let mut writing = Ok(begin(spec)?);
    frame::write_frame(client, &Reply::Ready)?;
    loop {
        match frame::read_frame::<Request>(client)? {
            // After a failure the rest is read and dropped: the client listens again after its last chunk.
            Request::Chunk(Blob(chunk)) => {
                let full = match &mut writing {
                    Ok(open) => open.take(&chunk).map_err(failed(FileOp::Write, &spec.path)),
                    Err(_) => Ok(()),
                };
                if let Err(error) = full {
                    writing = Err(error);
                }
            }
            Request::Finish => return Ok(finish(spec, writing?)?),
            _ => return Err(TransferError::Unexpected),
        }
    }
}

impl Writing {
    fn take(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

fn begin(spec: &WriteSpec) -> Result<Writing, AgentError> {
    let path = absolute(&spec.path)?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(spec.mode.unwrap_or(0o644) & 0o7777);
    let temporary = match (spec.atomicity, spec.at) {
        (Atomicity::Rename, WriteAt::Truncate) => Some(temporary_beside(path)?),
        (Atomicity::Rename, _) => {
            return Err(fail::invalid("atomicity", "rename replaces the whole file"));
        }
        (Atomicity::InPlace, _) => None,
    };
    match spec.at {
        _ if temporary.is_some() => options.create_new(true),
        WriteAt::CreateNew => options.create_new(true),
        WriteAt::Truncate => options.create(true).truncate(true),
        WriteAt::Append => options.create(true).append(true),
        WriteAt::Offset(_) => options.create(true).truncate(false),
    };
    let target = temporary.as_deref().unwrap_or(path);
    let file = open_regular(&mut options, target).map_err(failed(FileOp::Open, &spec.path))?;
    let mut writing = Writing {
        file,
        temporary,
        bytes: 0,
    };
    if let WriteAt::Offset(offset) = spec.at {
        writing
            .file
            .seek(SeekFrom::Start(offset))
            .map_err(failed(FileOp::Write, &spec.path))?;
    }
    Ok(writing)
}

/// A name in the same directory that no other writer uses.
fn temporary_beside(path: &Path) -> Result<PathBuf, AgentError> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| fail::invalid("path", "names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    // A long name leaves no room for ours in the 255 bytes of a name.
    hidden.push(name.to_string_lossy().chars().take(48).collect::<String>());
    hidden.push(format!(
        ".brood-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ));
    Ok(path.with_file_name(hidden))
}

fn finish(spec: &WriteSpec, mut writing: Writing) -> Result<Reply, AgentError> {
    if let Some(mode) = spec.mode {
        // The mode given to open(2) is cut by the umask, and not used for a file that exists.
        writing
            .file
            .set_permissions(fs::Permissions::from_mode(mode & 0o7777))
            .map_err(failed(FileOp::Chmod, &spec.path))?;
    }
    if let Some(temporary) = &writing.temporary {
        writing
            .file
            .sync_all()
            .map_err(failed(FileOp::Sync, &spec.path))?;
        fs::rename(temporary, &spec.path).map_err(failed(FileOp::Rename, &spec.path))?;
        writing.temporary = None;
    }
    Ok(Reply::Written {
        bytes: writing.bytes,
    })
}

/// Sends a directory's entries, page by page; returns the last page.
pub(crate) fn list(path: &str, client: &mut UnixStream) -> Result<Reply, TransferError> {
    let fail = failed(FileOp::List, path);
    let mut page = Vec::new();
    for entry in fs::read_dir(absolute(path)?).map_err(&fail)? {
        let entry = entry.map_err(&fail)?;
        if page.len() == LIST_PAGE {
            let full = DirPage {
                entries: std::mem::take(&mut page),
                rest: DirRest::More,
            };
            frame::write_frame(client, &Reply::DirPage(full))?;
        }
        page.push(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            kind: entry.file_type().map_or(FileKind::Other, kind),
        });
    }
    Ok(Reply::DirPage(DirPage {
        entries: page,
        rest: DirRest::End,
    }))
}

fn kind(file_type: fs::FileType) -> FileKind {
    if file_type.is_file() {
        FileKind::Regular
    } else if file_type.is_dir() {
        FileKind::Directory
    } else if file_type.is_symlink() {
        FileKind::Symlink
    } else {
        FileKind::Other
    }
}

/// Metadata of a path.
pub(crate) fn stat(path: &str) -> Result<Reply, AgentError> {
    let meta = fs::symlink_metadata(absolute(path)?).map_err(failed(FileOp::Stat, path))?;
    let link = if meta.file_type().is_symlink() {
        let target = fs::read_link(path).map_err(failed(FileOp::Stat, path))?;
        Some(target.to_string_lossy().into_owned())
    } else {
        None
    };
    Ok(Reply::FileStat(FileStat {
        kind: kind(meta.file_type()),
        mode: meta.mode() & 0o7777,
        size: meta.len(),
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_ns: meta
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.mtime_nsec()),
        link,
    }))
}

/// Removes a path.
pub(crate) fn remove(path: &str, depth: RemoveDepth) -> Result<Reply, AgentError> {
    let fail = failed(FileOp::Remove, path);
    let is_directory = fs::symlink_metadata(absolute(path)?)
        .map_err(&fail)?
        .is_dir();
    match (is_directory, depth) {
        (false, _) => fs::remove_file(path),
        (true, RemoveDepth::Single) => fs::remove_dir(path),
        (true, RemoveDepth::Recursive) => fs::remove_dir_all(path),
    }
    .map_err(&fail)?;
    Ok(Reply::Done)
}

/// Makes a directory.
pub(crate) fn mkdir(path: &str, mode: u32, parents: MkdirParents) -> Result<Reply, AgentError> {
    fs::DirBuilder::new()
        .mode(mode & 0o7777)
        .recursive(parents == MkdirParents::Create)
        .create(absolute(path)?)
        .map_err(failed(FileOp::Mkdir, path))?;
    Ok(Reply::Done)
}
