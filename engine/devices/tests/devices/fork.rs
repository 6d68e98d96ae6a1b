//! A real fork(2): the child gives up and closes what is the mother's, and both go on.

use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use brood_devices::virtio::Events;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::block::guest as block;
use crate::vsock::guest::{Guest, Packet, REQUEST, RESPONSE, RST, RW, drain};

/// Closes every descriptor from 3 up that is not in `kept`, as the owner of the devices does.
fn close_others(kept: &mut [RawFd]) {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.iter().copied().chain([RawFd::MAX]) {
        if fd > first {
            // SAFETY: what is closed belongs to nobody any more: the owners in this process were forgotten.
            let closed = unsafe { libc::close_range(first as u32, fd as u32 - 1, 0) };
            assert_eq!(closed, 0);
        }
        first = fd.saturating_add(1);
    }
}

/// Runs `child` in a child process; whether it came to its end.
fn in_child(child: impl FnOnce()) -> bool {
    // SAFETY: the child runs only this thread, allocates (glibc's allocator is usable after fork) and exits.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let outcome = catch_unwind(AssertUnwindSafe(child));
        // SAFETY: ends the process without running the mother's exit handlers.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    assert!(pid > 0);
    let mut status = 0;
    // SAFETY: `status` is a valid place for the status of our own child.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    waited == pid && status == 0
}

#[test]
fn both_sides_of_a_real_fork_go_on_with_their_own() {
    let mut disk = block::over_base(64);
    block::write(&mut disk, 1, 1, 1);
    let mut guest = Guest::start();
    let (mut stream, host_port) = guest.connected(5);
    disk.dev.device_mut().freeze_layer();

    let child = || {
        let mut kept = Vec::new();
        disk.dev.forget_events();
        guest.driver.dev.forget_events();
        disk.dev.kept_fds(&mut kept);
        guest.driver.dev.kept_fds(&mut kept);
        assert_eq!(kept.len(), 2, "base and one layer");
        close_others(&mut kept);
        disk.dev.attach(Events::new(1).unwrap()).unwrap();
        guest.driver.dev.attach(Events::new(3).unwrap()).unwrap();
        guest.driver.dev.become_daughter(&guest.driver.mem).unwrap();
        disk.dev.redeliver(&disk.mem).unwrap();
        guest.driver.dev.redeliver(&guest.driver.mem).unwrap();

        assert_eq!(block::read(&mut disk, 1), (1, 1));
        let pending = block::submit(&mut disk, 1, 2, &block::sector_bytes(2, 7), 0);
        assert!(disk.dev.device().wants_layer());
        let layer = memfd_create("layer", MemfdFlags::CLOEXEC).unwrap();
        disk.dev.device_mut().give_layer(layer.into()).unwrap();
        disk.process(0);
        assert_eq!(block::finish(&mut disk, &pending).unwrap().0, block::OK);
        assert_eq!(block::read(&mut disk, 2), (2, 7));

        guest.send(&Packet::new(RW, host_port, 5).with(b"from the daughter"));
        guest.expect(RST);
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let greeting = brood_devices::virtio::vsock::Greeting::Silent;
        guest
            .driver
            .dev
            .open(6, theirs, greeting, &guest.driver.mem)
            .unwrap();
        assert_eq!(guest.next(), None);
        assert_eq!(guest.handle_events(), 1);
        let request = guest.expect(REQUEST);
        guest.send(&Packet::new(RESPONSE, request.host_port, 6));
        guest.send(&Packet::new(RW, request.host_port, 6).with(b"alive"));
        let mut ours = ours;
        assert_eq!(drain(&mut ours).0, b"alive");
    };
    assert!(in_child(child), "the daughter failed");

    assert_eq!(block::read(&mut disk, 2), (2, 0));
    block::write(&mut disk, 2, 1, 3);
    assert_eq!(block::read(&mut disk, 2), (2, 3));
    guest.send(&Packet::new(RW, host_port, 5).with(b"from the mother"));
    assert_eq!(drain(&mut stream), (b"from the mother".to_vec(), false));
}
