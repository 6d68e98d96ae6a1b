//! Agents that are broken or hostile: a guest is never trusted. Whatever one sends, a call returns in time.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use brood_agent_proto::client::AttachEvent;
use brood_agent_proto::exec::{AttachSpec, ExecId};
use brood_agent_proto::frame::decode;
use brood_agent_proto::{AgentError, Client, ClientError, Reply, Request, frame, hello};
use brood_testkit::Random;

/// A client whose agent says hello, then `script`'s bytes, and then nothing.
fn against(script: Vec<u8>, timeout: Duration) -> Client {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        hello::read(&mut theirs).unwrap();
        hello::write(&mut theirs, hello::VERSION).unwrap();
        // The client may have heard enough before all is said.
        if theirs.write_all(&script).is_ok() {
            let mut rest = Vec::new();
            theirs.read_to_end(&mut rest).unwrap_or_default();
        }
    });
    let mut client = Client::handshake(ours, Duration::from_secs(20)).unwrap();
    client.set_timeout(timeout);
    client
}

/// 1 to `most` bytes.
fn some_bytes(random: &mut Random, most: usize) -> Vec<u8> {
    let len = 1 + random.below(most);
    random.bytes(len)
}

#[test]
fn random_bodies_decode_or_are_refused_and_never_panic() {
    let mut random = Random(0x0bad_cafe);
    let mut decoded = 0;
    for round in 0..200_000_u32 {
        let mut body = some_bytes(&mut random, 64);
        // Half of them begin as a known variant does.
        if round % 2 == 0 {
            body[0] %= 32;
        }
        decoded += u32::from(decode::<Request>(&body).is_ok());
        decoded += u32::from(decode::<Reply>(&body).is_ok());
    }
    assert!(
        decoded > 100,
        "the bodies are too random to reach anything: {decoded}"
    );
}

#[test]
fn thousands_of_garbage_replies_end_calls_with_errors_in_time() {
    let mut random = Random(0xfeed_f00d);
    for round in 0..2000 {
        let mut script = Vec::new();
        if round % 2 == 0 {
            let body = some_bytes(&mut random, 200);
            script.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            script.extend(body);
        } else {
            script = some_bytes(&mut random, 200);
        }
        let start = Instant::now();
        let mut client = against(script, Duration::from_millis(50));
        if let Err(
            ClientError::Frame(_) | ClientError::Unexpected { .. } | ClientError::Timeout(_),
        ) = client.stats()
        {
            assert!(
                matches!(client.stats(), Err(ClientError::Broken)),
                "round {round}"
            );
        }
        assert!(start.elapsed() < Duration::from_secs(2), "round {round}");
    }
}

#[test]
fn another_version_is_named() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    hello::write(&mut theirs, 77).unwrap();
    let error = Client::handshake(ours, Duration::from_secs(5)).unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Version {
                ours: hello::VERSION,
                theirs: 77
            }
        ),
        "{error:?}"
    );
}

#[test]
fn an_agent_that_closes_at_once_is_heard_to_the_end() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let limit = AgentError::Limit {
        what: "connections".to_owned(),
        limit: 128,
    };
    hello::write(&mut theirs, hello::VERSION).unwrap();
    frame::write_frame(&mut theirs, &Reply::Error(limit.clone())).unwrap();
    drop(theirs);
    let mut client = Client::handshake(ours, Duration::from_secs(60)).unwrap();
    match client.stats() {
        Err(ClientError::Agent(error)) => assert_eq!(error, limit),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_agent_that_never_says_hello_costs_one_timeout() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = Client::handshake(ours, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ClientError::Timeout(_)), "{error:?}");
}

#[test]
fn an_agent_that_trickles_bytes_gains_no_time() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        hello::read(&mut theirs).unwrap();
        hello::write(&mut theirs, hello::VERSION).unwrap();
        let mut frame = Vec::new();
        frame::write_frame(&mut frame, &Reply::Chunk(vec![0; 100_000].into())).unwrap();
        for byte in frame {
            if theirs.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    let mut client = Client::handshake(ours, Duration::from_millis(200)).unwrap();
    let start = Instant::now();
    assert!(matches!(client.stats(), Err(ClientError::Timeout(_))));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn no_call_goes_past_the_end_of_its_conversation_however_long_it_may_take_by_itself() {
    let mut replies = Vec::new();
    for _ in 0..2 {
        frame::write_frame(&mut replies, &Reply::Done).unwrap();
    }
    let far = Instant::now() + Duration::from_secs(3600);
    let mut client = against(replies, Duration::from_secs(20));
    client.end_by(Some(far));
    client
        .close_stdin(ExecId(1))
        .expect("there is an hour left");
    // The second answer is there already.
    client.end_by(Some(Instant::now()));
    let late = client.close_stdin(ExecId(1)).unwrap_err();
    assert!(matches!(late, ClientError::Timeout(_)), "{late:?}");
}

#[test]
fn an_endless_file_and_an_endless_listing_stop_at_the_callers_limit() {
    let mut chunks = Vec::new();
    for _ in 0..100 {
        frame::write_frame(&mut chunks, &Reply::Chunk(vec![0; 60_000].into())).unwrap();
    }
    let mut client = against(chunks, Duration::from_secs(5));
    let error = client.read_file_to_vec("/x", 1_000_000).unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::TooMuch {
                limit: 1_000_000,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(matches!(client.stats(), Err(ClientError::Broken)));
}

#[test]
fn waiting_for_output_in_vain_breaks_nothing_and_dropping_an_attachment_does() {
    let mut client = against(Vec::new(), Duration::from_secs(5));
    let mut attachment = client.attach(&AttachSpec::all(ExecId(1))).unwrap();
    for _ in 0..3 {
        let nothing: Option<AttachEvent> = attachment.next(Duration::from_millis(10)).unwrap();
        assert_eq!(nothing, None);
    }
    drop(attachment);
    assert!(matches!(client.stats(), Err(ClientError::Broken)));
}
