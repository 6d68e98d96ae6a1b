//! Registers, negotiation, faults, fork hooks: on the simplest device, entropy.

use brood_devices::virtio::rng::Rng;
use brood_devices::virtio::{Events, Progress, TransportError, VirtioMmio};
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{Buf, Driver, INDIRECT, descriptor};

fn ask(driver: &mut Driver<Rng>, len: u32) -> u64 {
    let buffer = driver.alloc(u64::from(len));
    driver.add(0, &[Buf::In(buffer, len)]);
    driver.kick(0);
    buffer
}

#[test]
fn entropy_fills_a_request_and_interrupts_once() {
    let mut driver = Driver::start(Rng);
    let buffer = ask(&mut driver, 64);
    assert_eq!(driver.used(0).map(|(_, len)| len), Some(64));
    assert_ne!(driver.bytes(buffer, 64), vec![0; 64]);
    assert_eq!(driver.take_interrupt(), Some(1));
    assert_eq!(driver.take_interrupt(), None);
}

#[test]
fn entropy_for_one_request_is_bounded() {
    let mut driver = Driver::start(Rng);
    ask(&mut driver, 1 << 20);
    assert_eq!(driver.used(0).map(|(_, len)| len), Some(4096));
}

#[test]
fn features_not_offered_are_refused_and_version_1_is_required() {
    let dev = VirtioMmio::new(Rng, Events::new(1).unwrap()).unwrap();
    let mut driver = Driver::around(dev);
    for (high, accepted) in [(0, false), (3, false), (1, true)] {
        driver.write(0x70, 0);
        driver.write(0x70, 3);
        driver.write(0x24, 1);
        driver.write(0x20, high);
        driver.write(0x70, 0xb);
        assert_eq!(driver.read(0x70) & 8 != 0, accepted, "features {high:#x}");
    }
}

#[test]
fn driver_ok_without_features_ok_is_not_taken() {
    let dev = VirtioMmio::new(Rng, Events::new(1).unwrap()).unwrap();
    let mut driver = Driver::around(dev);
    driver.write(0x70, 3);
    driver.write(0x70, 7);
    assert_eq!(driver.read(0x70), 3);
    assert!(!driver.dev.active());
}

#[test]
fn impossible_queue_size_or_alignment_needs_a_reset() {
    for (register, value) in [
        (0x38, 3),
        (0x38, 0),
        (0x38, 1 << 16),
        (0x80, 8),
        (0x90, 1),
        (0xa0, 2),
    ] {
        let dev = VirtioMmio::new(Rng, Events::new(1).unwrap()).unwrap();
        let mut driver = Driver::around(dev);
        driver.write(0x70, 3);
        driver.write(0x24, 1);
        driver.write(0x20, 1);
        driver.write(0x70, 0xb);
        driver.write(register, value);
        assert_eq!(driver.read(0x70) & 64, 64, "{register:#x} = {value:#x}");
        driver.initialise(u64::MAX);
        ask(&mut driver, 16);
        assert!(driver.used(0).is_some(), "no recovery after {register:#x}");
    }
}

#[test]
fn queue_registers_are_fixed_once_the_driver_runs() {
    let mut driver = Driver::start(Rng);
    driver.write(0x30, 0);
    driver.write(0x38, 2);
    driver.write(0x80, 0x5_0000);
    ask(&mut driver, 16);
    assert!(driver.used(0).is_some());
}

#[test]
fn chain_of_the_wrong_direction_stops_the_device_with_a_config_interrupt() {
    let mut driver = Driver::start(Rng);
    let buffer = driver.alloc(16);
    driver.add(0, &[Buf::Out(buffer, 16)]);
    driver.kick(0);
    assert_eq!(driver.read(0x70) & 64, 64);
    assert_eq!(driver.take_interrupt().map(|causes| causes & 2), Some(2));
    assert!(driver.dev.fault().is_some());
    driver.initialise(u64::MAX);
    assert!(driver.dev.fault().is_none());
    ask(&mut driver, 16);
    assert!(driver.used(0).is_some());
}

#[test]
fn descriptor_loop_is_a_fault() {
    let mut driver = Driver::start(Rng);
    let buffer = driver.alloc(16);
    let head = driver.add(0, &[Buf::In(buffer, 16)]);
    let at = GuestAddress(driver.rings[0].desc + u64::from(head) * 16);
    let looped = descriptor(Buf::In(buffer, 16), Some(head));
    driver.mem.write_slice(&looped, at).unwrap();
    driver.kick(0);
    assert!(driver.dev.fault().is_some());
}

#[test]
fn indirect_chain_is_followed_and_refused_if_not_negotiated() {
    for (mask, works) in [(u64::MAX, true), (!INDIRECT, false)] {
        let mut driver = Driver::start_with(Rng, mask);
        let (table, buffer) = (driver.alloc(32), driver.alloc(64));
        let mut entries = descriptor(Buf::In(buffer, 16), Some(1)).to_vec();
        entries.extend(descriptor(Buf::In(buffer + 16, 16), None));
        driver.put(table, &entries);
        let head = driver.add(0, &[Buf::Out(table, 32)]);
        let flags = GuestAddress(driver.rings[0].desc + u64::from(head) * 16 + 12);
        driver.mem.write_obj(4u16, flags).unwrap();
        driver.kick(0);
        assert_eq!(driver.used(0).map(|(_, len)| len), works.then_some(32));
        assert_eq!(driver.dev.fault().is_none(), works);
    }
}

#[test]
fn available_index_that_jumps_past_the_ring_is_a_fault() {
    let mut driver = Driver::start(Rng);
    let index = GuestAddress(driver.rings[0].avail + 2);
    driver.mem.write_obj(65u16, index).unwrap();
    driver.write(0x50, 0);
    driver.pump();
    assert!(driver.dev.fault().is_some());
}

#[test]
fn buffers_made_available_before_driver_ok_are_served_without_a_kick() {
    let driver = Driver::start(Rng);
    let state = {
        let mut state = driver.dev.state();
        state.status = 0xb;
        state
    };
    let mut driver = driver.daughter(Rng, &state);
    let buffer = driver.alloc(16);
    driver.add(0, &[Buf::In(buffer, 16)]);
    driver.write(0x70, 0xf);
    driver.pump();
    assert!(driver.used(0).is_some());
}

#[test]
fn detached_device_refuses_work_and_loses_nothing() {
    let mut driver = Driver::start(Rng);
    let buffer = driver.alloc(16);
    driver.dev.forget_events();
    driver.add(0, &[Buf::In(buffer, 16)]);
    assert!(matches!(
        driver.dev.process(0, &driver.mem),
        Err(TransportError::Detached)
    ));
    assert!(matches!(
        driver.dev.write(0x50, &0u32.to_le_bytes()),
        Err(TransportError::Detached)
    ));
    assert_eq!(driver.used(0), None);
    driver.dev.attach(Events::new(1).unwrap()).unwrap();
    assert_eq!(driver.dev.redeliver(&driver.mem).unwrap(), Progress::Idle);
    assert!(driver.used(0).is_some());
    assert_eq!(driver.take_interrupt(), Some(1));
}

#[test]
fn redelivery_interrupts_even_when_nothing_is_new() {
    let mut driver = Driver::start(Rng);
    driver.dev.forget_events();
    driver.dev.attach(Events::new(1).unwrap()).unwrap();
    assert_eq!(driver.dev.redeliver(&driver.mem).unwrap(), Progress::Idle);
    assert_eq!(driver.take_interrupt(), Some(1));
}

#[test]
fn redelivery_does_not_interrupt_where_no_driver_runs() {
    let mut driver = Driver::start(Rng);
    // Reset, then brought up to just before the driver says that it runs.
    for status in [0, 1, 3] {
        driver.write(0x70, status);
        driver.dev.forget_events();
        driver.dev.attach(Events::new(1).unwrap()).unwrap();
        assert_eq!(driver.dev.redeliver(&driver.mem).unwrap(), Progress::Idle);
        assert_eq!(driver.take_interrupt(), None);
    }
}

#[test]
fn forgetting_events_closes_no_descriptor() {
    use std::os::fd::AsRawFd;
    let mut driver = Driver::start(Rng);
    let events = driver.dev.events().unwrap();
    let fds = [
        events.interrupt().as_raw_fd(),
        events.kicks()[0].as_raw_fd(),
    ];
    driver.dev.forget_events();
    for fd in fds {
        assert!(std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    }
}

#[test]
fn state_round_trip_continues_where_the_rings_were() {
    let mut mother = Driver::start(Rng);
    for _ in 0..100 {
        ask(&mut mother, 16);
        mother.used(0).unwrap();
    }
    let bytes = postcard::to_stdvec(&mother.dev.state()).unwrap();
    let state = postcard::from_bytes(&bytes).unwrap();
    let mut daughter = mother.daughter(Rng, &state);
    assert_eq!(daughter.dev.state(), state);
    for side in [&mut mother, &mut daughter] {
        ask(side, 16);
        assert!(side.used(0).is_some());
    }
}

#[test]
fn state_of_another_device_is_refused() {
    let driver = Driver::start(Rng);
    let good = driver.dev.state();
    let mut queues = good.clone();
    queues.rings.push(queues.rings[0]);
    let mut size = good.clone();
    size.rings[0].size = 3;
    let mut features = good;
    features.driver_features |= 1 << 60;
    for state in [queues, size, features] {
        assert!(VirtioMmio::from_state(Rng, &state, Events::new(1).unwrap()).is_err());
    }
}

#[test]
fn state_of_a_driver_that_still_negotiates_is_taken_whatever_it_asks_for() {
    let driver = Driver::start(Rng);
    let mut state = driver.dev.state();
    state.status = 3;
    state.driver_features |= 1 << 60;
    let device = VirtioMmio::from_state(Rng, &state, Events::new(1).unwrap());
    assert_eq!(device.unwrap().state(), state);
}

#[test]
fn narrow_and_unaligned_register_accesses_do_nothing() {
    let mut driver = Driver::start(Rng);
    for (offset, len) in [(0u64, 1), (0, 2), (0, 8), (1, 4), (0x70, 2), (0x72, 4)] {
        let mut bytes = vec![0xff; len];
        driver.dev.read(offset, &mut bytes);
        assert_eq!(bytes, vec![0; len], "read of {len} at {offset:#x}");
        driver.dev.write(offset, &vec![0; len]).unwrap();
    }
    assert!(driver.dev.active());
    assert_eq!(driver.read(0xb0), u32::MAX);
    assert_eq!(driver.read(0xffc), 0);
}
