//! Requests: statuses, errors of the host, bounded rounds.

use std::fs::File;

use brood_devices::console::Console;
use brood_devices::virtio::Progress;
use brood_devices::virtio::VirtioMmio;
use brood_devices::virtio::block::Block;
use brood_devices::virtio::block::DiskError;
use brood_devices::virtio::vsock::Vsock;

use super::guest::{
    ID, IOERR, OK, UNSUPP, base, finish, layer, over_base, read, request, sector_bytes, segment,
    submit, write,
};
use crate::driver::Buf;
use crate::driver::Driver;
use crate::driver::EVENT_IDX;

#[test]
fn other_requests_have_the_status_the_specification_gives_them() {
    let mut driver = over_base(64);
    assert_eq!(request(&mut driver, 4, 0, &[], 0).0, OK);
    let (status, id) = request(&mut driver, 8, 0, &[], 20);
    assert_eq!((status, &id[..]), (OK, &ID[..]));
    assert_eq!(request(&mut driver, 99, 0, &[], 0).0, UNSUPP);
    assert_eq!(request(&mut driver, 0, 64, &[], 512).0, IOERR);
    assert_eq!(request(&mut driver, 0, 63, &[], 1024).0, IOERR);
    assert_eq!(request(&mut driver, 0, u64::MAX, &[], 512).0, IOERR);
    assert_eq!(request(&mut driver, 0, 0, &[], 511).0, IOERR);
    assert_eq!(request(&mut driver, 1, 64, &sector_bytes(0, 0), 0).0, IOERR);
    assert_eq!(request(&mut driver, 11, 0, &segment(60, 8, 0), 0).0, IOERR);
    assert_eq!(request(&mut driver, 11, 0, &segment(0, 8, 1), 0).0, UNSUPP);
    assert_eq!(request(&mut driver, 13, 0, &segment(0, 8, 2), 0).0, UNSUPP);
    assert_eq!(
        request(&mut driver, 13, 0, &segment(u64::MAX, 8, 0), 0).0,
        IOERR
    );
    assert_eq!(request(&mut driver, 13, 0, &[0; 15], 0).0, IOERR);
}

#[test]
fn full_host_disk_is_an_error_of_the_request_and_the_device_lives() {
    let mut driver = over_base(64);
    let full = File::options()
        .read(true)
        .write(true)
        .open("/dev/full")
        .unwrap();
    driver.dev.device_mut().give_layer(full).unwrap();
    assert_eq!(request(&mut driver, 1, 0, &sector_bytes(0, 1), 0).0, IOERR);
    assert!(matches!(
        driver.dev.device().io_errors(),
        (1, Some(DiskError::Layer { .. }))
    ));
    assert_eq!(read(&mut driver, 0), (0, 0));
    driver.dev.device_mut().give_layer(layer()).unwrap();
    write(&mut driver, 0, 1, 1);
    assert_eq!(read(&mut driver, 0), (0, 1));
}

#[test]
fn truncated_base_is_an_error_of_the_request() {
    let image = base(64);
    let mut driver = Driver::start(Block::over(image.try_clone().unwrap(), ID).unwrap());
    image.set_len(4096).unwrap();
    assert_eq!(request(&mut driver, 0, 40, &[], 512).0, IOERR);
    assert!(matches!(
        driver.dev.device().io_errors().1,
        Some(DiskError::BaseTruncated { .. })
    ));
    assert_eq!(read(&mut driver, 0), (0, 0));
}

#[test]
fn disk_that_is_no_whole_number_of_sectors_is_refused() {
    let file = layer();
    file.set_len(1000).unwrap();
    assert!(Block::over(file, ID).is_err());
    assert!(Block::over(layer(), ID).is_err());
    assert!(Block::over(File::open("/").unwrap(), ID).is_err());
    assert!(Block::blank(0, ID).is_err());
    assert!(Block::blank(1 << 60, ID).is_err());
}

#[test]
fn burst_is_served_in_bounded_rounds_with_and_without_event_idx() {
    for mask in [u64::MAX, !EVENT_IDX] {
        let mut driver = Driver::start_with(Block::over(base(256), ID).unwrap(), mask);
        let (header, status) = (driver.alloc(16), driver.alloc(1));
        let buffer = driver.alloc(512);
        driver.put(header, &0u32.to_le_bytes());
        for _ in 0..80 {
            driver.add(
                0,
                &[
                    Buf::Out(header, 16),
                    Buf::In(buffer, 512),
                    Buf::In(status, 1),
                ],
            );
        }
        assert_eq!(driver.dev.process(0, &driver.mem).unwrap(), Progress::More);
        // The rest is done because the device has signalled its own kick.
        driver.pump();
        driver.take_interrupt();
        let mut answered = 0;
        while driver.used(0).is_some() {
            answered += 1;
        }
        assert_eq!(answered, 80);
        // And the next request still gets a notification through.
        assert_eq!(read(&mut driver, 200), (200, 0));
        assert!(driver.take_interrupt().is_some());
    }
}

#[test]
fn first_write_parks_until_a_layer_is_given_and_loses_nothing() {
    let mut driver = over_base(64);
    let write = submit(&mut driver, 1, 3, &sector_bytes(3, 9), 0);
    let behind = submit(&mut driver, 0, 3, &[], 512);
    assert!(driver.dev.device().wants_layer());
    assert_eq!(driver.used(0), None);
    assert_eq!(
        driver.dev.process(0, &driver.mem).unwrap(),
        Progress::Stalled
    );
    driver.dev.device_mut().give_layer(layer()).unwrap();
    assert!(!driver.dev.device().wants_layer());
    driver.process(0);
    assert_eq!(finish(&mut driver, &write).unwrap().0, OK);
    assert_eq!(finish(&mut driver, &behind).unwrap().1, sector_bytes(3, 9));
}

#[test]
fn devices_are_small_and_may_move_between_threads() {
    fn size<T: Send>() -> usize {
        std::mem::size_of::<T>()
    }
    let all = size::<VirtioMmio<Block>>() + size::<VirtioMmio<Vsock>>() + size::<Console>();
    assert!(all < 4096, "{all} bytes");
}
