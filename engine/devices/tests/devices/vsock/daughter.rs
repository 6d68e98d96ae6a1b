//! What a fork does to streams.

use brood_devices::virtio::Events;
use brood_devices::virtio::vsock::EVENT;
use brood_devices::virtio::vsock::Greeting;
use brood_devices::virtio::vsock::Vsock;
use brood_devices::virtio::vsock::VsockOptions;
use brood_devices::virtio::vsock::VsockState;

use crate::driver::Buf;

use super::client::{client, listening};
use super::guest::{Guest, Packet, REQUEST, RESPONSE, RST, RW, drain};

/// Turns a guest into its own daughter. The mother's descriptors stay open, as they do in a mother.
fn fork(guest: &mut Guest) {
    guest.driver.dev.forget_events();
    guest.driver.dev.attach(Events::new(3).unwrap()).unwrap();
    guest.driver.dev.become_daughter(&guest.driver.mem).unwrap();
    guest.driver.dev.redeliver(&guest.driver.mem).unwrap();
    guest.driver.pump();
}

#[test]
fn daughter_has_no_streams_and_the_mothers_stay_open() {
    let mut guest = Guest::start();
    let (_dir, path) = listening(&mut guest);
    let (mut stream, host_port) = guest.connected(5);
    let mut waiting = client(&path);
    guest.settle();
    fork(&mut guest);
    assert_eq!(guest.device().connections(), 0);
    let mut entries = Vec::new();
    guest.device().poll_fds(&mut entries);
    assert_eq!(entries, []);
    assert_eq!(drain(&mut stream), (vec![], false));
    assert_eq!(drain(&mut waiting), (vec![], false));
    guest.send(&Packet::new(RW, host_port, 5).with(b"to the dead"));
    assert_eq!(guest.expect(RST).host_port, host_port);
    assert_eq!(drain(&mut stream), (vec![], false));
}

#[test]
fn connection_is_held_until_the_guest_has_recycled_the_reset_event() {
    let mut guest = Guest::start();
    let (_old, old_port) = guest.connected(5);
    fork(&mut guest);
    assert!(guest.device().holding());
    let mut stream = guest.open(5, Greeting::OkLine);
    guest.settle();
    assert_eq!(
        guest.next(),
        None,
        "a connection would be killed by the reset"
    );
    assert_eq!(guest.handle_events(), 1);
    assert!(!guest.device().holding());
    let request = guest.expect(REQUEST);
    assert_ne!(
        request.host_port, old_port,
        "port of a dead connection is met again"
    );
    guest.send(&Packet::new(RESPONSE, request.host_port, 5));
    let line = format!("OK {}\n", request.host_port);
    assert_eq!(drain(&mut stream).0, line.as_bytes());
}

#[test]
fn guests_own_connect_is_answered_only_after_the_reset_was_handled() {
    let mut guest = Guest::start();
    guest.driver.dev.device_mut().listen(80);
    fork(&mut guest);
    guest.send(&Packet::new(REQUEST, 80, 1000));
    assert_eq!(guest.next(), None);
    guest.handle_events();
    assert_eq!(guest.expect(RESPONSE).guest_port, 1000);
}

#[test]
fn reset_event_waits_for_a_buffer() {
    let mut guest = Guest::start();
    // Eight forks without handling use up the event buffers.
    for _ in 0..9 {
        fork(&mut guest);
    }
    let _stream = guest.open(5, Greeting::Silent);
    assert_eq!(guest.handle_events(), 8);
    assert!(guest.device().holding());
    assert_eq!(guest.next(), None);
    assert_eq!(guest.handle_events(), 1);
    guest.expect(REQUEST);
}

#[test]
fn an_event_buffer_has_four_bytes_to_write_and_none_to_read() {
    let at = 0x18_0000;
    let buffers: [(&[Buf], bool); 4] = [
        (&[Buf::In(at, 4)], true),
        (&[Buf::In(at, 3)], false),
        (&[Buf::Out(at, 4)], false),
        (&[Buf::Out(at, 4), Buf::In(at + 8, 4)], false),
    ];
    for (buffer, sound) in buffers {
        let mut guest = Guest::start();
        // Eight forks without handling use up the sound buffers.
        (0..8).for_each(|_| fork(&mut guest));
        guest.driver.add(EVENT, buffer);
        fork(&mut guest);
        assert_eq!(guest.driver.dev.fault().is_none(), sound, "{buffer:?}");
    }
}

#[test]
fn nothing_is_held_where_no_driver_is_active() {
    let mut guest = Guest::start();
    guest.driver.write(0x70, 0);
    guest.driver.dev.forget_events();
    guest.driver.dev.attach(Events::new(3).unwrap()).unwrap();
    guest.driver.dev.become_daughter(&guest.driver.mem).unwrap();
    assert!(!guest.device().holding());
    guest.driver.initialise(u64::MAX);
    guest.rx.clear();
    guest.fill(8);
    let _stream = guest.open(5, Greeting::Silent);
    guest.expect(REQUEST);
}

#[test]
fn warm_daughter_of_a_saved_state_resets_the_guests_sockets_too() {
    let mut mother = Guest::start();
    let (_stream, old_port) = mother.connected(5);
    let bytes = postcard::to_stdvec(&mother.device().state()).unwrap();
    let saved: VsockState = postcard::from_bytes(&bytes).unwrap();
    let device = Vsock::from_state(VsockOptions::default(), saved);
    let driver = mother.driver.daughter(device, &mother.driver.dev.state());
    let mut daughter = Guest {
        driver,
        rx: mother.rx.clone(),
        tx: Vec::new(),
        event: mother.event,
    };
    daughter.driver.dev.redeliver(&daughter.driver.mem).unwrap();
    assert!(daughter.device().holding());
    let _new = daughter.open(5, Greeting::Silent);
    assert_eq!(daughter.next(), None);
    assert_eq!(daughter.handle_events(), 1);
    assert_ne!(daughter.expect(REQUEST).host_port, old_port);
}
