//! Clients of the listener and their first line.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;

use super::guest::{Guest, Packet, REQUEST, RESPONSE, RST, RW, drain};

pub(crate) fn listening(guest: &mut Guest) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vsock");
    let listener = UnixListener::bind(&path).unwrap();
    guest
        .driver
        .dev
        .device_mut()
        .set_listener(listener)
        .unwrap();
    (dir, path)
}

pub(crate) fn client(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

#[test]
fn client_of_the_listener_is_connected_and_told_its_port() {
    let mut guest = Guest::start();
    let (_dir, path) = listening(&mut guest);
    let mut stream = client(&path);
    // In pieces, and with the first bytes for the guest right behind the line.
    stream.write_all(b"CONNE").unwrap();
    guest.settle();
    stream.write_all(b"CT 52\nhello").unwrap();
    guest.settle();
    let request = guest.expect(REQUEST);
    assert_eq!(request.guest_port, 52);
    assert_eq!(drain(&mut stream), (vec![], false));
    guest.send(&Packet::new(RESPONSE, request.host_port, 52));
    guest.settle();
    assert_eq!(guest.expect(RW).data, b"hello");
    guest.send(&Packet::new(RW, request.host_port, 52).with(b"there"));
    let expected = format!("OK {}\nthere", request.host_port);
    assert_eq!(drain(&mut stream), (expected.into_bytes(), false));
}

#[test]
fn client_that_the_guest_refuses_sees_the_end() {
    let mut guest = Guest::start();
    let (_dir, path) = listening(&mut guest);
    let mut stream = client(&path);
    stream.write_all(b"CONNECT 52\n").unwrap();
    guest.settle();
    let request = guest.expect(REQUEST);
    guest.send(&Packet::new(RST, request.host_port, 52));
    assert_eq!(drain(&mut stream), (vec![], true));
}

#[test]
fn line_that_is_wrong_or_too_long_closes_the_client() {
    let mut guest = Guest::start();
    let (_dir, path) = listening(&mut guest);
    let long = [b'C'; 500];
    let lines: [&[u8]; 7] = [
        b"connect 1\n",
        b"CONNECT\n",
        b"CONNECT \n",
        b"CONNECT +1\n",
        b"CONNECT 4294967296\n",
        b"CONNECT 1 \xff\n",
        &long,
    ];
    for line in lines {
        let mut stream = client(&path);
        stream.write_all(line).unwrap();
        guest.settle();
        let ended = match stream.read(&mut [0; 8]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(ended, "{:?} was accepted", String::from_utf8_lossy(line));
    }
    assert_eq!(guest.next(), None);
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    let mut guest = Guest::start();
    let (_dir, path) = listening(&mut guest);
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(client(&path));
        guest.settle();
    }
    assert!(
        drain(&mut silent[0]).1,
        "the oldest silent client is still there"
    );
    let mut stream = client(&path);
    stream.write_all(b"CONNECT 9\n").unwrap();
    guest.settle();
    assert_eq!(guest.expect(REQUEST).guest_port, 9);
}
