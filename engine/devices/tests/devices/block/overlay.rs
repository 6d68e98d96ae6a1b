//! What the guest reads after what it wrote.

use brood_devices::virtio::block::Block;

use super::guest::{
    ID, OK, layer, over_base, read, request, sector_bytes, segment, submit_status, write,
};
use crate::driver::Driver;

#[test]
fn unwritten_disk_shows_the_base_and_needs_no_layer() {
    let mut driver = over_base(100);
    for sector in [0, 1, 7, 8, 99] {
        assert_eq!(read(&mut driver, sector), (sector, 0));
    }
    assert!(!driver.dev.device().wants_layer());
    assert_eq!(driver.dev.device().layer_count(), 0);
}

#[test]
fn write_of_one_sector_leaves_the_rest_of_its_block() {
    let mut driver = over_base(64);
    write(&mut driver, 10, 1, 1);
    for sector in 8..16 {
        assert_eq!(read(&mut driver, sector), (sector, u64::from(sector == 10)));
    }
    write(&mut driver, 11, 2, 2);
    let generations: Vec<u64> = (8..16).map(|sector| read(&mut driver, sector).1).collect();
    assert_eq!(generations, [0, 0, 1, 2, 2, 0, 0, 0]);
}

#[test]
fn large_unaligned_writes_and_reads_agree_with_a_plain_array() {
    let mut driver = over_base(2048);
    let mut model = vec![0; 2048];
    let mut seed = 7u64;
    for generation in 1..60 {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let (start, len) = ((seed >> 33) % 1900, (seed >> 50) % 140 + 1);
        write(&mut driver, start, len, generation);
        model[start as usize..(start + len) as usize].fill(generation);
        if generation % 13 == 0 {
            driver.dev.device_mut().freeze_layer();
        }
    }
    for (sector, generation) in model.iter().enumerate() {
        let mut bytes = [0; 512];
        driver
            .dev
            .device()
            .read_at(sector as u64 * 512, &mut bytes)
            .unwrap();
        assert_eq!(bytes.to_vec(), sector_bytes(sector as u64, *generation));
    }
    let mut all = vec![0; 2048 * 512];
    driver.dev.device().read_at(0, &mut all).unwrap();
    let expected: Vec<u8> = model
        .iter()
        .enumerate()
        .flat_map(|(s, g)| sector_bytes(s as u64, *g))
        .collect();
    assert!(all == expected);
}

#[test]
fn overwriting_a_block_reuses_its_place() {
    let mut driver = over_base(64);
    driver.dev.device_mut().give_layer(layer()).unwrap();
    for generation in 1..50 {
        write(&mut driver, 0, 16, generation);
        assert_eq!(request(&mut driver, 11, 0, &segment(0, 16, 0), 0).0, OK);
    }
    let len = driver
        .dev
        .device()
        .layer_files()
        .next()
        .unwrap()
        .metadata()
        .unwrap()
        .len();
    assert_eq!(len, 2 * 4096);
}

#[test]
fn write_zeroes_hides_base_and_layers_exactly_in_its_range() {
    let mut driver = over_base(64);
    write(&mut driver, 0, 20, 1);
    driver.dev.device_mut().freeze_layer();
    assert_eq!(request(&mut driver, 13, 0, &segment(3, 50, 1), 0).0, OK);
    for sector in 0..64 {
        let expected = match sector {
            3..53 => (0, 0),
            0..3 => (sector, 1),
            _ => (sector, 0),
        };
        assert_eq!(read(&mut driver, sector), expected, "sector {sector}");
    }
    write(&mut driver, 9, 1, 2);
    assert_eq!(
        [8, 9, 10].map(|sector| read(&mut driver, sector).1),
        [0, 2, 0]
    );
}

#[test]
fn aligned_zeroes_and_discards_need_no_layer() {
    let mut driver = over_base(64);
    assert_eq!(submit_status(&mut driver, 13, &segment(8, 8, 0)), OK);
    assert_eq!(submit_status(&mut driver, 11, &segment(0, 64, 0)), OK);
    assert_eq!(driver.dev.device().layer_count(), 0);
    assert_eq!(read(&mut driver, 8), (0, 0));
    assert_eq!(read(&mut driver, 16), (16, 0));
}

#[test]
fn blank_disk_with_a_short_last_block_works_to_its_end() {
    let mut driver = Driver::start(Block::blank(11 * 512, ID).unwrap());
    assert_eq!(read(&mut driver, 10), (0, 0));
    write(&mut driver, 10, 1, 1);
    write(&mut driver, 8, 3, 2);
    assert_eq!(
        [8, 9, 10].map(|sector| read(&mut driver, sector)),
        [(8, 2), (9, 2), (10, 2)]
    );
    driver.dev.device_mut().freeze_layer();
    assert_eq!(request(&mut driver, 13, 0, &segment(8, 3, 0), 0).0, OK);
    assert_eq!(driver.dev.device().layer_count(), 0);
    assert_eq!(read(&mut driver, 10), (0, 0));
}
