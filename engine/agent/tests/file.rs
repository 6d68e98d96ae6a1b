//! Files, over a real socket.
#![expect(clippy::panic, reason = "a helper that fails is a test that fails")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use brood_agent_proto::errno::Errno;
use brood_agent_proto::file::{
    Atomicity, FileKind, FileOp, MkdirParents, ReadSpec, RemoveDepth, WriteAt, WriteSpec,
};
use brood_agent_proto::{AgentError, ClientError};
use brood_testkit::Random;
use common::Guest;

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (FileOp, Errno) {
    match result {
        Err(ClientError::Agent(AgentError::File { op, errno, .. })) => (op, errno),
        other => panic!("not refused: {other:?}"),
    }
}

fn in_place(path: &str, at: WriteAt) -> WriteSpec {
    WriteSpec {
        path: path.to_owned(),
        at,
        mode: None,
        atomicity: Atomicity::InPlace,
    }
}

#[test]
fn eight_mebibytes_pass_both_ways_unchanged() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let path = guest
        .directory
        .path()
        .join("big")
        .to_string_lossy()
        .into_owned();
    let bytes = Random(0xb00d).bytes((8 << 20) + 17);
    let written = client
        .write_file(&WriteSpec::replace(&path, 0o600), &mut bytes.as_slice())
        .unwrap();
    assert_eq!(written, u64::try_from(bytes.len()).unwrap());
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(client.read_file_to_vec(&path, u64::MAX).unwrap() == bytes);
}

#[test]
fn a_part_is_read_from_its_offset() {
    let Some(guest) = Guest::start() else { return };
    let path = guest.directory.path().join("part");
    fs::write(&path, "0123456789").unwrap();
    let spec = ReadSpec {
        path: path.to_string_lossy().into_owned(),
        offset: 3,
        len: Some(4),
    };
    let mut part = Vec::new();
    assert_eq!(guest.client().read_file(&spec, &mut part, 100).unwrap(), 4);
    assert_eq!(part, b"3456");
}

#[test]
fn each_way_to_write_does_to_existing_bytes_what_it_says() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let path = guest
        .directory
        .path()
        .join("f")
        .to_string_lossy()
        .into_owned();
    let mut write = |at, bytes: &[u8]| client.write_file(&in_place(&path, at), &mut &*bytes);
    write(WriteAt::CreateNew, b"abcdef").unwrap();
    assert_eq!(
        refused(write(WriteAt::CreateNew, b"x")),
        (FileOp::Open, Errno(libc::EEXIST))
    );
    write(WriteAt::Offset(2), b"XY").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"abXYef");
    write(WriteAt::Append, b"gh").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"abXYefgh");
    write(WriteAt::Truncate, b"z").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"z");
}

#[test]
fn a_rename_that_is_broken_off_leaves_the_old_file_and_no_other() {
    struct Failing(u8);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 40 {
                return Err(std::io::Error::other("the source broke"));
            }
            buffer.fill(7);
            Ok(buffer.len())
        }
    }
    let Some(guest) = Guest::start() else { return };
    let directory = guest.directory.path().join("d");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("f");
    fs::write(&path, "old").unwrap();
    let mut client = guest.client();
    let spec = WriteSpec::replace(path.to_string_lossy(), 0o644);
    let error = client.write_file(&spec, &mut Failing(0)).unwrap_err();
    assert!(matches!(error, ClientError::Local(_)));
    assert!(matches!(client.stats(), Err(ClientError::Broken)));
    drop(client);
    // The agent's side ends when it sees the connection close, and then serves the next one of the same directory.
    let mut other = guest.client();
    while other.list(&directory.to_string_lossy(), 9).unwrap().len() > 1 {
        std::thread::yield_now();
    }
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

/// Takes the directory away under the file after the first chunk was asked for.
struct Sabotage(std::path::PathBuf, u32);

impl std::io::Read for Sabotage {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 += 1;
        if self.1 > 1 {
            return Ok(0);
        }
        fs::remove_dir_all(&self.0)?;
        buffer.fill(1);
        Ok(buffer.len())
    }
}

#[test]
fn a_failure_at_the_end_of_a_transfer_is_reported_and_the_conversation_goes_on() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let directory = guest.directory.path().join("gone");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("f").to_string_lossy().into_owned();
    let result = client.write_file(
        &WriteSpec::replace(&path, 0o600),
        &mut Sabotage(directory, 0),
    );
    assert_eq!(refused(result), (FileOp::Rename, Errno(libc::ENOENT)));
    assert!(client.stats().is_ok());
}

#[test]
fn a_failure_in_the_middle_of_a_transfer_lets_the_client_finish_and_then_tells_it() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    // cgroup.procs is a regular file in which text that is no number is EINVAL.
    let path = guest
        .cgroup
        .0
        .join("cgroup.procs")
        .to_string_lossy()
        .into_owned();
    let long = vec![b'x'; 3 << 20];
    let spec = WriteSpec {
        path,
        at: WriteAt::Offset(0),
        mode: None,
        atomicity: Atomicity::InPlace,
    };
    let result = client.write_file(&spec, &mut long.as_slice());
    assert_eq!(refused(result).0, FileOp::Write);
    assert!(client.stats().is_ok());
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let fifo = guest.directory.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for (path, errno) in [
        (fifo.to_string_lossy().into_owned(), libc::EINVAL),
        ("/dev/zero".to_owned(), libc::EINVAL),
        ("/etc".to_owned(), libc::EISDIR),
        ("/no/such".to_owned(), libc::ENOENT),
    ] {
        assert_eq!(
            refused(client.read_file_to_vec(&path, 10)),
            (FileOp::Open, Errno(errno)),
            "{path}"
        );
    }
    assert!(matches!(
        client.read_file_to_vec("relative", 10),
        Err(ClientError::Agent(AgentError::Invalid { .. }))
    ));
}

#[test]
fn directories_are_made_listed_and_removed() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let base = guest
        .directory
        .path()
        .join("tree")
        .to_string_lossy()
        .into_owned();
    let deep = format!("{base}/a/b");
    assert_eq!(
        refused(client.mkdir(&deep, 0o700, MkdirParents::Refuse)),
        (FileOp::Mkdir, Errno(libc::ENOENT))
    );
    client.mkdir(&deep, 0o700, MkdirParents::Create).unwrap();
    client.mkdir(&deep, 0o700, MkdirParents::Create).unwrap();
    for number in 0..600 {
        fs::write(format!("{base}/{number}"), "").unwrap();
    }
    symlink("a", format!("{base}/link")).unwrap();
    let entries = client.list(&base, 1000).unwrap();
    assert_eq!(entries.len(), 602);
    let kind = |name: &str| {
        entries
            .iter()
            .find(|entry| entry.name == name)
            .unwrap()
            .kind
    };
    assert_eq!(
        (kind("a"), kind("7"), kind("link")),
        (FileKind::Directory, FileKind::Regular, FileKind::Symlink)
    );
    assert_eq!(
        client
            .stat(&format!("{base}/link"))
            .unwrap()
            .link
            .as_deref(),
        Some("a")
    );
    assert_eq!(
        refused(client.remove_path(&base, RemoveDepth::Single)),
        (FileOp::Remove, Errno(libc::ENOTEMPTY))
    );
    client.remove_path(&base, RemoveDepth::Recursive).unwrap();
    assert_eq!(
        refused(client.stat(&base)),
        (FileOp::Stat, Errno(libc::ENOENT))
    );
}
