//! How much is written for a machine that changed little.

use super::*;

/// 256 MiB of which 10 MiB changed: what a daughter's snapshot costs beside her mother's.
#[test]
fn a_snapshot_of_which_ten_mebibytes_changed_writes_little_more_than_these() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let chunks = 4096;
    let mut numbers: Vec<u32> = (1..=chunks).collect();
    save(&store, 1, &Ram::of(&numbers)).expect("saved");
    let before = space(directory.path());
    // 160 chunks of 64 KiB, in two places.
    for number in numbers.iter_mut().skip(300).take(80) {
        *number += chunks;
    }
    for number in numbers.iter_mut().skip(3000).take(80) {
        *number += chunks;
    }
    let ram = Ram::of(&numbers);
    let saved = save(&store, 2, &ram).expect("saved");
    assert_eq!(saved.new_bytes, 10 << 20);
    let written = space(directory.path()) - before;
    let table = 64 + u64::from(chunks) * 48;
    assert!(written < (12 << 20) + table, "{written} bytes");
    assert!(restored(&store, 2) == ram.0);
}

/// Bytes that the files below a directory take.
fn space(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let all = files(directory);
    let each = all.iter().map(|path| directory.join(path).metadata());
    each.map(|metadata| metadata.expect("a file").blocks() * 512)
        .sum()
}
