//! Clients that are broken or hostile. Whatever they send, the agent serves the next one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use brood_agent_proto::exec::{AttachSpec, ExecSpec};
use brood_agent_proto::{AgentError, Client, ClientError, Reply, Request, frame, hello};
use brood_testkit::Random;
use common::{Guest, TIMEOUT};

fn greeted(guest: &Guest) -> std::os::unix::net::UnixStream {
    let mut stream = guest.stream();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    hello::write(&mut stream, hello::VERSION).unwrap();
    hello::read(&mut stream).unwrap();
    stream
}

fn last_words(stream: &mut std::os::unix::net::UnixStream) -> String {
    let Ok(Reply::Error(AgentError::Protocol { detail })) = frame::read_frame(stream) else {
        panic!("no last words");
    };
    let mut rest = Vec::new();
    // A close with unread bytes on our side is a reset.
    if stream.read_to_end(&mut rest).is_ok() {
        assert!(rest.is_empty());
    }
    detail
}

#[test]
fn another_version_is_told_ours_and_refused() {
    let Some(guest) = Guest::start() else { return };
    let mut stream = guest.stream();
    hello::write(&mut stream, 999).unwrap();
    assert_eq!(hello::read(&mut stream).unwrap(), hello::VERSION);
    assert!(last_words(&mut stream).contains("version 999"));
}

#[test]
fn another_protocol_is_refused() {
    let Some(guest) = Guest::start() else { return };
    let mut stream = guest.stream();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(hello::read(&mut stream).unwrap(), hello::VERSION);
    last_words(&mut stream);
}

#[test]
fn oversized_empty_unknown_and_misplaced_frames_close_the_connection_with_a_reason() {
    let Some(guest) = Guest::start() else { return };
    let unknown = [1, 0, 0, 0, 0x7f];
    let mut misplaced = Vec::new();
    frame::write_frame(&mut misplaced, &Request::Finish).unwrap();
    for (bytes, word) in [
        (vec![0xff; 4], "4294967295"),
        (vec![0; 4], "0 bytes"),
        (unknown.to_vec(), "no known message"),
        (misplaced, "no file"),
    ] {
        let mut stream = greeted(&guest);
        stream.write_all(&bytes).unwrap();
        let words = last_words(&mut stream);
        assert!(words.contains(word), "{words}");
    }
    assert!(guest.client().stats().is_ok());
}

/// Valid requests to be damaged: none that would signal, freeze or remove anything when bits of it change.
fn samples() -> Vec<Vec<u8>> {
    [
        Request::Stats,
        Request::ExecList,
        Request::Attach(AttachSpec::all(brood_agent_proto::exec::ExecId(1))),
        Request::Stat {
            path: "/no/such/path".into(),
        },
        Request::Confirm,
        Request::Thaw {
            token: brood_agent_proto::ForkToken([7; 16]),
        },
    ]
    .iter()
    .map(|request| {
        let mut bytes = Vec::new();
        frame::write_frame(&mut bytes, request).unwrap();
        bytes
    })
    .collect()
}

#[test]
fn thousands_of_garbage_frames_leave_the_agent_serving() {
    let Some(guest) = Guest::start() else { return };
    let mut random = Random(0xdead_beef);
    let samples = samples();
    for round in 0..3000 {
        let bytes = match round % 3 {
            // Bytes without any form.
            0 => {
                let len = 1 + random.below(300);
                random.bytes(len)
            }
            // A frame of an unknown variant with random bytes behind it: never one that means something.
            1 => {
                let len = 1 + random.below(300);
                let mut body = vec![0x40 + u8::try_from(random.below(0x40)).unwrap()];
                body.extend(random.bytes(len));
                let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
                bytes.extend(body);
                bytes
            }
            // A request cut short.
            _ => {
                let sample = &samples[random.below(samples.len())];
                sample[..random.below(sample.len())].to_vec()
            }
        };
        let mut stream = greeted(&guest);
        if stream.write_all(&bytes).is_ok() && stream.shutdown(std::net::Shutdown::Write).is_ok() {
            let mut answer = Vec::new();
            // The end of the conversation, in order or by a reset; a timeout would mean that the agent hangs.
            if let Err(error) = stream.read_to_end(&mut answer) {
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionReset,
                    "round {round}"
                );
            }
        }
    }
    let ran = guest
        .client()
        .run(&ExecSpec::new(["echo", "alive"]), TIMEOUT, 99)
        .unwrap();
    assert_eq!(ran.stdout, b"alive\n");
}

#[test]
fn connections_over_the_limit_are_told_so_and_places_come_back() {
    let Some(guest) = Guest::start() else { return };
    let mut clients: Vec<Client> = (0..128).map(|_| guest.client()).collect();
    clients
        .iter_mut()
        .for_each(|client| assert!(client.stats().is_ok()));
    let mut one_more = Client::handshake(guest.stream(), TIMEOUT).unwrap();
    let refused = one_more.stats().unwrap_err();
    assert!(
        matches!(
            refused,
            ClientError::Agent(AgentError::Limit { .. }) | ClientError::Frame(_)
        ),
        "{refused:?}"
    );
    drop(clients);
    // A place is free once the agent has seen a close.
    while Client::handshake(guest.stream(), Duration::from_secs(5))
        .is_ok_and(|mut client| client.stats().is_err())
    {}
}
