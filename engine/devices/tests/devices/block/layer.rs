//! Layers: freezing, fork, state, merging.

use brood_devices::virtio::Progress;
use brood_devices::virtio::block::Block;
use brood_devices::virtio::block::BlockState;
use brood_devices::virtio::block::MERGE_ABOVE;
use brood_devices::virtio::block::MergeStep;

use super::guest::{
    ID, OK, base, finish, fork, layer, over_base, read, request, sector_bytes, segment, submit,
    whole, write,
};
use crate::driver::Driver;

#[test]
fn mother_and_daughter_diverge_after_a_fork() {
    let image = base(64);
    let disk = Block::over(image.try_clone().unwrap(), ID).unwrap();
    let mut mother = Driver::start(disk);
    write(&mut mother, 5, 1, 1);
    let mut daughter = fork(&mut mother, Some(&image));
    write(&mut mother, 6, 1, 2);
    write(&mut daughter, 6, 1, 3);
    write(&mut daughter, 5, 1, 4);
    let seen = |driver: &mut Driver<Block>| [4, 5, 6].map(|sector| read(driver, sector).1);
    assert_eq!(seen(&mut mother), [0, 1, 2]);
    assert_eq!(seen(&mut daughter), [0, 4, 3]);
}

#[test]
fn frozen_layer_is_never_written_again() {
    let mut driver = over_base(64);
    let first = layer();
    let watched = first.try_clone().unwrap();
    driver.dev.device_mut().give_layer(first).unwrap();
    write(&mut driver, 0, 8, 1);
    let before = std::os::unix::fs::FileExt::read_at(&watched, &mut [0; 8192], 0).unwrap();
    driver.dev.device_mut().freeze_layer();
    let pending = submit(&mut driver, 1, 0, &sector_bytes(0, 2), 0);
    assert!(driver.dev.device().wants_layer());
    driver.dev.device_mut().give_layer(layer()).unwrap();
    driver.process(0);
    assert_eq!(finish(&mut driver, &pending).unwrap().0, OK);
    assert_eq!(read(&mut driver, 0).1, 2);
    let mut bytes = [0; 512];
    std::os::unix::fs::FileExt::read_at(&watched, &mut bytes, 0).unwrap();
    assert_eq!(bytes.to_vec(), sector_bytes(0, 1));
    assert_eq!(watched.metadata().unwrap().len(), before as u64);
}

#[test]
fn forty_freezes_and_a_merge_keep_every_block_and_close_layers() {
    let mut driver = over_base(4096);
    for generation in 1..=40 {
        write(&mut driver, (generation * 37) % 4000, 90, generation);
        driver.dev.device_mut().freeze_layer();
    }
    let before: Vec<u8> = whole(&driver);
    let layers = driver.dev.device().layer_count();
    assert!(layers > MERGE_ABOVE, "{layers} layers");
    let disk = driver.dev.device_mut();
    assert_eq!(disk.merge_step(8).unwrap(), MergeStep::NeedsLayer);
    disk.give_layer(layer()).unwrap();
    let mut steps = 0;
    let left = loop {
        steps += 1;
        match driver.dev.device_mut().merge_step(8).unwrap() {
            MergeStep::Copied { blocks } => assert!(blocks <= 8),
            MergeStep::Finished { layers } => break layers,
            other => panic!("{other:?}"),
        }
        if steps == 3 {
            // A fork in the middle of the merge.
            driver.dev.device_mut().freeze_layer();
            driver.dev.device_mut().give_layer(layer()).unwrap();
        }
        assert!(whole(&driver) == before, "content changed in step {steps}");
    };
    assert!(steps > 3);
    assert!(left <= MERGE_ABOVE / 2 + 2, "{left} layers left");
    assert!(whole(&driver) == before);
    assert_eq!(
        driver.dev.device_mut().merge_step(8).unwrap(),
        MergeStep::NotNeeded
    );
    let mut fds = Vec::new();
    driver.dev.kept_fds(&mut fds);
    assert_eq!(fds.len(), left + 1);
}

#[test]
fn fully_overwritten_layer_is_closed_at_once() {
    let mut driver = over_base(64);
    for generation in 1..10 {
        write(&mut driver, 0, 64, generation);
        driver.dev.device_mut().freeze_layer();
    }
    assert_eq!(driver.dev.device().layer_count(), 1);
    assert_eq!(read(&mut driver, 63), (63, 9));
}

#[test]
fn zeroes_survive_fork_freeze_and_state() {
    let image = base(64);
    let mut mother = Driver::start(Block::over(image.try_clone().unwrap(), ID).unwrap());
    write(&mut mother, 0, 64, 1);
    assert_eq!(request(&mut mother, 13, 0, &segment(0, 32, 0), 0).0, OK);
    let mut daughter = fork(&mut mother, Some(&image));
    for side in [&mut mother, &mut daughter] {
        assert_eq!(read(side, 0), (0, 0));
        assert_eq!(read(side, 40), (40, 1));
        write(side, 1, 1, 5);
        assert_eq!(read(side, 0), (0, 0));
        assert_eq!(read(side, 1), (1, 5));
    }
}

#[test]
fn state_that_does_not_fit_is_refused() {
    let image = base(64);
    let mut disk = Block::over(image.try_clone().unwrap(), ID).unwrap();
    disk.give_layer(layer()).unwrap();
    let mut driver = Driver::start(disk);
    write(&mut driver, 0, 16, 1);
    let good = driver.dev.device_mut().freeze_state();
    let restore = |state: &BlockState, layers: usize| {
        let layers = (0..layers).map(|_| layer()).collect();
        Block::from_state(state, Some(image.try_clone().unwrap()), layers)
    };
    assert!(restore(&good, 1).is_ok());
    assert!(restore(&good, 0).is_err());
    let change = |change: fn(&mut BlockState)| {
        let mut state = good.clone();
        change(&mut state);
        restore(&state, 1).is_err()
    };
    assert!(change(|state| state.capacity += 512));
    assert!(change(|state| state.extents[0].block = u64::MAX));
    assert!(change(|state| state.extents[0].count = u64::MAX));
    assert!(change(|state| state.extents[0].count = 100));
    assert!(change(|state| state.extents[0].place = Some((1, 0))));
    assert!(change(|state| state.extents[0].place = Some((0, 1))));
    assert!(change(|state| state.extents.push(state.extents[0])));
}

#[test]
fn parked_write_survives_a_fork_on_both_sides() {
    let image = base(64);
    let mut mother = Driver::start(Block::over(image.try_clone().unwrap(), ID).unwrap());
    let pending = submit(&mut mother, 1, 2, &sector_bytes(2, 7), 0);
    let mut daughter = fork(&mut mother, Some(&image));
    assert_eq!(
        daughter.dev.redeliver(&daughter.mem).unwrap(),
        Progress::Stalled
    );
    for side in [&mut mother, &mut daughter] {
        assert!(side.dev.device().wants_layer());
        side.dev.device_mut().give_layer(layer()).unwrap();
        side.process(0);
        assert_eq!(finish(side, &pending).unwrap().0, OK);
        assert_eq!(read(side, 2), (2, 7));
    }
}
