//! Streams: data, credit, closing, nonsense in packets, limits.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use brood_devices::virtio::vsock::Greeting;
use brood_devices::virtio::vsock::OpenError;
use brood_devices::virtio::vsock::RX;
use brood_devices::virtio::vsock::TX;
use brood_devices::virtio::vsock::VsockOptions;
use rustix::event::PollFlags;

use super::guest::{
    CREDIT_REQUEST, CREDIT_UPDATE, GUEST_ALLOC, Guest, Packet, REQUEST, RESPONSE, RST, RW,
    SHUTDOWN, drain,
};
use crate::driver::Buf;

#[test]
fn configuration_space_names_the_guest_and_reads_as_zero_past_its_end() {
    let guest = Guest::start();
    let mut bytes = [0xff; 12];
    guest.driver.dev.read(0x100, &mut bytes);
    assert_eq!(bytes, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn host_opened_stream_carries_bytes_both_ways() {
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(1024);
    stream.write_all(b"ping").unwrap();
    guest.settle();
    assert_eq!(guest.expect(RW).data, b"ping");
    guest.send(&Packet::new(RW, host_port, 1024).with(b"pong"));
    assert_eq!(drain(&mut stream), (b"pong".to_vec(), false));
}

#[test]
fn refused_stream_ends() {
    let mut guest = Guest::start();
    let mut stream = guest.open(7, Greeting::OkLine);
    let request = guest.expect(REQUEST);
    guest.send(&Packet::new(RST, request.host_port, 7));
    assert_eq!(drain(&mut stream), (vec![], true));
    assert_eq!(guest.device().connections(), 0);
}

#[test]
fn opening_without_a_driver_is_refused() {
    let mut guest = Guest::start();
    guest.driver.write(0x70, 0);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let opened = guest
        .driver
        .dev
        .open(1, theirs, Greeting::Silent, &guest.driver.mem);
    assert!(matches!(opened, Err(OpenError::Inactive)));
}

/// A guest that echoes: several MiB, with credit in both directions and buffers far smaller than the data.
#[test]
fn echo_of_several_mib_respects_credit_both_ways() {
    const TOTAL: usize = 5 << 20;
    let options = VsockOptions {
        buf_alloc: 16 << 10,
        ..VsockOptions::default()
    };
    let mut guest = Guest::new(options, 16);
    let (mut stream, host_port) = guest.connected(9);
    let pattern = |at: usize| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3];
    let (mut written, mut read) = (0, 0);
    // The guest's view: what it holds and has not echoed, its counters, and the device's.
    let mut inbox: VecDeque<u8> = VecDeque::new();
    let (mut consumed, mut sent) = (0u32, 0u32);
    let (mut peer_alloc, mut peer_fwd) = (options.buf_alloc, 0u32);
    let mut rounds = 0;
    while read < TOTAL {
        rounds += 1;
        assert!(rounds < 100_000, "stuck at {written} written, {read} read");
        let chunk: Vec<u8> = (written..TOTAL.min(written + 50_000))
            .map(pattern)
            .collect();
        match stream.write(&chunk) {
            Ok(len) => written += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        guest.settle();
        while let Some(packet) = guest.next() {
            (peer_alloc, peer_fwd) = (packet.buf_alloc, packet.fwd_cnt);
            match packet.op {
                RW => inbox.extend(packet.data),
                CREDIT_UPDATE => {}
                CREDIT_REQUEST => {
                    let update = Packet::new(CREDIT_UPDATE, host_port, 9);
                    guest.send(&Packet {
                        fwd_cnt: consumed,
                        ..update
                    });
                }
                other => panic!("op {other}"),
            }
            assert!(
                inbox.len() <= GUEST_ALLOC as usize,
                "guest was sent more than it has room for"
            );
        }
        let room = peer_alloc - sent.wrapping_sub(peer_fwd);
        let len = (room as usize).min(inbox.len()).min(9000);
        let data: Vec<u8> = inbox.drain(..len).collect();
        consumed = consumed.wrapping_add(len as u32);
        sent = sent.wrapping_add(len as u32);
        if len > 0 {
            let packet = Packet::new(RW, host_port, 9).with(&data);
            guest.send(&Packet {
                fwd_cnt: consumed,
                ..packet
            });
        }
        // A host that reads only every third round.
        if rounds % 3 == 0 {
            let (bytes, ended) = drain(&mut stream);
            assert!(!ended);
            for byte in bytes {
                assert_eq!(byte, pattern(read), "byte {read}");
                read += 1;
            }
        }
    }
    assert_eq!(written, TOTAL);
}

#[test]
fn host_that_does_not_read_costs_the_credit_and_no_more() {
    let mut guest = Guest::start();
    let (_stream, host_port) = guest.connected(5);
    let mut told = 0u32;
    let mut sent = 0u32;
    loop {
        while let Some(packet) = guest.next() {
            told = packet.fwd_cnt;
        }
        let room = (64 << 10) - (sent - told);
        if room == 0 {
            break;
        }
        let len = room.min(4000);
        guest.send(&Packet::new(RW, host_port, 5).with(&vec![0; len as usize]));
        sent += len;
        assert!(sent < 8 << 20, "the device takes without end");
    }
    assert_eq!(guest.device().connections(), 1);
    // Up to a quarter of the credit may be free without having been told.
    guest.send(&Packet::new(RW, host_port, 5).with(&[1; 17 << 10]));
    assert_eq!(guest.expect(RST).host_port, host_port);
}

#[test]
fn guest_without_credit_or_buffers_is_sent_nothing_and_nothing_is_lost() {
    let mut guest = Guest::new(VsockOptions::default(), 4);
    let (mut stream, host_port) = guest.connected(5);
    stream.write_all(&[7; 100_000]).unwrap();
    guest.settle();
    let mut received = 0;
    // Buffers are not given back: four packets come.
    while let Some(packet) = guest.receive() {
        received += packet.data.len();
    }
    assert!(received <= 4 * 4052 && received > 0);
    assert!(
        !guest.turn(),
        "a socket is polled though its bytes have nowhere to go"
    );
    guest.recycle();
    guest.settle();
    while let Some(packet) = guest.next() {
        received += packet.data.len();
    }
    guest.settle();
    while let Some(packet) = guest.next() {
        received += packet.data.len();
    }
    assert_eq!(received, GUEST_ALLOC as usize, "the guest's credit");
    assert!(
        !guest.turn(),
        "a socket is polled though the guest has no credit"
    );
    let mut fwd_cnt = 0;
    while received < 100_000 {
        fwd_cnt += 10_000;
        let update = Packet {
            fwd_cnt,
            ..Packet::new(CREDIT_UPDATE, host_port, 5)
        };
        guest.send(&update);
        guest.settle();
        while let Some(packet) = guest.next() {
            received += packet.data.len();
        }
    }
    assert_eq!(received, 100_000);
}

#[test]
fn half_close_of_the_host_lets_the_guest_go_on() {
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(5);
    stream.write_all(b"last").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    guest.settle();
    assert_eq!(guest.expect(RW).data, b"last");
    assert_eq!(guest.expect(SHUTDOWN).flags, 2);
    guest.send(&Packet::new(RW, host_port, 5).with(b"answer"));
    assert_eq!(drain(&mut stream).0, b"answer");
    drop(stream);
    guest.settle();
    assert_eq!(guest.expect(SHUTDOWN).flags, 3);
    guest.send(&Packet::new(RST, host_port, 5));
    assert_eq!(guest.device().connections(), 0);
}

#[test]
fn half_close_of_the_guest_ends_the_hosts_reads_after_the_last_byte() {
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(5);
    guest.send(&Packet::new(RW, host_port, 5).with(b"tail"));
    guest.send(&Packet {
        flags: 2,
        ..Packet::new(SHUTDOWN, host_port, 5)
    });
    assert_eq!(drain(&mut stream), (b"tail".to_vec(), true));
    stream.write_all(b"more").unwrap();
    guest.settle();
    assert_eq!(guest.expect(RW).data, b"more");
    guest.send(&Packet {
        flags: 1,
        ..Packet::new(SHUTDOWN, host_port, 5)
    });
    assert_eq!(guest.expect(RST).host_port, host_port);
    assert_eq!(guest.device().connections(), 0);
}

#[test]
fn bytes_before_a_close_reach_a_host_that_reads_late() {
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(5);
    let mut sent = 0;
    let mut told = 0;
    while sent - told <= 60_000 {
        guest.send(&Packet::new(RW, host_port, 5).with(&[9; 4000]));
        sent += 4000;
        while let Some(packet) = guest.next() {
            told = packet.fwd_cnt;
        }
    }
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(SHUTDOWN, host_port, 5)
    });
    guest.expect(RST);
    assert_eq!(guest.device().connections(), 0);
    let mut received = 0;
    loop {
        let (bytes, ended) = drain(&mut stream);
        received += bytes.len();
        if ended {
            break;
        }
        assert!(
            guest.turn(),
            "{received} of {sent} bytes and no more to come"
        );
    }
    assert_eq!(received, sent as usize);
}

#[test]
fn closed_host_tells_the_guest_and_sockets_do_not_spin() {
    let mut guest = Guest::start();
    let (stream, host_port) = guest.connected(5);
    drop(stream);
    guest.settle();
    assert_eq!(guest.expect(SHUTDOWN).flags, 3);
    guest.send(&Packet::new(RW, host_port, 5).with(b"late"));
    assert_eq!(guest.expect(RST).host_port, host_port);
    assert_eq!(guest.device().connections(), 0);
    // And a host that goes away before the guest has answered.
    drop(guest.open(6, Greeting::Silent));
    guest.settle();
    let ops: Vec<u16> = std::iter::from_fn(|| guest.next())
        .map(|packet| packet.op)
        .collect();
    assert_eq!(ops, [REQUEST, RST]);
    assert_eq!(guest.device().connections(), 0);
}

#[test]
fn packets_of_no_connection_are_answered_with_a_reset_and_resets_are_not() {
    let mut guest = Guest::start();
    for op in [RESPONSE, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 0, 99] {
        guest.send(&Packet::new(op, 77, 88));
        let answer = guest.expect(RST);
        assert_eq!((answer.host_port, answer.guest_port), (77, 88), "op {op}");
    }
    guest.send(&Packet::new(RST, 77, 88));
    assert_eq!(guest.next(), None);
}

#[test]
fn malformed_packets_reset_their_connection_and_leave_others() {
    let mut guest = Guest::start();
    let (_kept, _) = guest.connected(1);
    let whole = |packet: Packet| packet.bytes(3);
    let edits: [fn(Vec<u8>) -> Vec<u8>; 3] = [
        // Longer than its buffer, another type, an unknown operation.
        |mut bytes| {
            bytes[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes
        },
        |mut bytes| {
            bytes[28] = 2;
            bytes
        },
        |mut bytes| {
            bytes[30] = 50;
            bytes
        },
    ];
    for edit in edits {
        let (mut stream, host_port) = guest.connected(2);
        guest.send_raw(&edit(whole(Packet::new(RW, host_port, 2).with(b"x"))));
        assert_eq!(guest.expect(RST).host_port, host_port);
        assert!(drain(&mut stream).1);
        assert_eq!(guest.device().connections(), 1);
    }
    assert!(guest.driver.dev.fault().is_none());
}

#[test]
fn packet_of_another_guest_touches_no_connection() {
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(2);
    guest.send_raw(&Packet::new(RST, host_port, 2).bytes(4));
    guest.send_raw(&Packet::new(RW, host_port, 2).with(b"x").bytes(4));
    assert_eq!(drain(&mut stream), (vec![], false));
    assert_eq!(guest.device().connections(), 1);
}

#[test]
fn guest_connects_only_to_ports_that_are_listened_on() {
    let mut guest = Guest::start();
    guest.send(&Packet::new(REQUEST, 80, 1000));
    assert_eq!(guest.expect(RST).guest_port, 1000);
    guest.driver.dev.device_mut().listen(80);
    guest.send(&Packet::new(REQUEST, 80, 1001));
    assert_eq!(guest.expect(RESPONSE).guest_port, 1001);
    let mut connect = guest.driver.dev.device_mut().take_guest_connect().unwrap();
    assert_eq!((connect.port, connect.guest_port), (80, 1001));
    guest.send(&Packet::new(RW, 80, 1001).with(b"GET"));
    assert_eq!(drain(&mut connect.stream).0, b"GET");
    connect.stream.write_all(b"200").unwrap();
    guest.settle();
    assert_eq!(guest.expect(RW).data, b"200");
    assert!(guest.driver.dev.device_mut().take_guest_connect().is_none());
}

#[test]
fn backlog_of_guest_connects_is_bounded() {
    let mut guest = Guest::start();
    guest.driver.dev.device_mut().listen(80);
    let answers: Vec<u16> = (0..40)
        .map(|port| {
            guest.send(&Packet::new(REQUEST, 80, port));
            guest.next().unwrap().op
        })
        .collect();
    assert_eq!(answers.iter().filter(|op| **op == RESPONSE).count(), 32);
    assert_eq!(answers[32..], [RST; 8]);
}

#[test]
fn connections_are_limited() {
    let options = VsockOptions {
        max_connections: 3,
        ..VsockOptions::default()
    };
    let mut guest = Guest::new(options, 64);
    let _streams: Vec<_> = (0..3).map(|port| guest.connected(port)).collect();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let opened = guest
        .driver
        .dev
        .open(9, theirs, Greeting::Silent, &guest.driver.mem);
    assert!(matches!(opened, Err(OpenError::TooMany)));
    guest.driver.dev.device_mut().listen(80);
    guest.send(&Packet::new(REQUEST, 80, 9));
    guest.expect(RST);
}

#[test]
fn resets_that_find_no_buffer_wait_and_bound_what_is_taken() {
    let mut guest = Guest::new(VsockOptions::default(), 0);
    let bytes = Packet::new(RW, 1, 1).bytes(3);
    let buffer = guest.driver.alloc(64);
    guest.driver.put(buffer, &bytes);
    let mut taken = 0;
    for _ in 0..30 {
        for _ in 0..100 {
            guest.driver.add(TX, &[Buf::Out(buffer, 44)]);
        }
        guest.driver.kick(TX);
        let before = taken;
        while guest.driver.used(TX).is_some() {
            taken += 1;
        }
        if taken - before < 100 {
            break;
        }
    }
    assert_eq!(taken, 1024);
    let buffer = guest.driver.alloc(4096);
    for _ in 0..100 {
        guest.driver.add(RX, &[Buf::In(buffer, 4096)]);
    }
    guest.driver.kick(RX);
    assert!(
        guest.driver.used(TX).is_some(),
        "the guest's packets are stuck"
    );
}

#[test]
fn driver_reset_closes_streams_and_the_device_works_again() {
    let mut guest = Guest::start();
    let (mut stream, _) = guest.connected(5);
    guest.driver.write(0x70, 0);
    assert!(drain(&mut stream).1);
    guest.driver.initialise(u64::MAX);
    guest.rx.clear();
    guest.fill(8);
    let (mut stream, host_port) = guest.connected(5);
    guest.send(&Packet::new(RW, host_port, 5).with(b"again"));
    assert_eq!(drain(&mut stream).0, b"again");
}

#[test]
fn ready_flags_that_are_wrong_or_late_do_no_harm() {
    use brood_devices::virtio::vsock::VsockToken;
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(5);
    let tokens = [
        VsockToken::Listener,
        VsockToken::Greeter(1),
        VsockToken::Remainder(99),
        VsockToken::Connection {
            host_port: 1,
            guest_port: 2,
        },
        VsockToken::Connection {
            host_port,
            guest_port: 5,
        },
    ];
    for token in tokens {
        let ready = PollFlags::IN | PollFlags::OUT;
        guest
            .driver
            .dev
            .host_ready(token, ready, &guest.driver.mem)
            .unwrap();
    }
    assert_eq!(guest.next(), None);
    stream.write_all(b"still").unwrap();
    guest.settle();
    assert_eq!(guest.expect(RW).data, b"still");
}

#[test]
fn host_that_hangs_up_with_bytes_left_is_not_polled_in_vain_and_they_arrive() {
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(5);
    stream.write_all(&[7; 100_000]).unwrap();
    drop(stream);
    guest.settle();
    let mut received = 0;
    let mut rounds = 0;
    loop {
        guest.settle();
        let Some(packet) = guest.next() else {
            rounds += 1;
            assert!(rounds < 100, "stuck after {received} bytes");
            let update = Packet::new(CREDIT_UPDATE, host_port, 5);
            guest.send(&Packet {
                fwd_cnt: received,
                ..update
            });
            continue;
        };
        match packet.op {
            RW => received += packet.data.len() as u32,
            SHUTDOWN => break assert_eq!(packet.flags, 3),
            _ => {}
        }
    }
    assert_eq!(received, 100_000);
}
