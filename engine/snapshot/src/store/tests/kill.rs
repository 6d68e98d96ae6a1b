//! A process that is killed at each step, and a disk that is really full.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const DIRECTORY: &str = "BROOD_TEST_SNAPSHOTS";
const STEP: &str = "BROOD_TEST_STEP";
const MARK: &str = "done.mark";

fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let test = format!("store::tests::kill::{test}");
    command.args(["--exact", &test, "--nocapture"]);
    command
}

fn rams() -> [Ram; 2] {
    [Ram::of(&[1, 2, 3, 4, 5]), Ram::of(&[5, 0, 6, 7, 8])]
}

/// Not a test by itself: the process that the next test kills. It saves, moves, removes and ends.
#[test]
fn a_process_that_changes_a_store() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let step = std::env::var(STEP).expect("a number");
    let step: u64 = step.parse().expect("a number");
    let passed = AtomicU64::new(0);
    let gate: Gate = Box::new(move |_, _| {
        if passed.fetch_add(1, Ordering::Relaxed) + 1 == step {
            rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            )?;
            // It takes a moment until the signal arrives.
            loop {
                std::thread::park();
            }
        }
        Ok(())
    });
    let directory = PathBuf::from(directory);
    let store = gated(&directory, gate).expect("a store");
    let disk = tempfile::tempfile().expect("a file");
    disk.write_all_at(b"blocks", 0).expect("written");
    let disks = [DiskSource {
        label: "layer",
        file: &disk,
    }];
    save_with(&store, 2, &rams()[1], &disks).expect("saved");
    fs::write(directory.join(MARK), "saved").expect("marked");
    store.record_working_set(id(2), &[4]).expect("written");
    store.remove(id(1)).expect("removed");
    fs::write(directory.join(MARK), "removed").expect("marked");
    store.compact().expect("compacted");
}

#[test]
fn a_process_that_is_killed_at_any_step_leaves_whole_snapshots_and_the_next_open_sweeps() {
    use std::os::unix::process::ExitStatusExt;

    let mut killed = 0;
    for step in 1.. {
        let directory = tempfile::tempdir().expect("a directory");
        let opened = store(&directory);
        save(&opened, 1, &rams()[0]).expect("saved");
        drop(opened);
        let output = child("a_process_that_changes_a_store")
            .env(DIRECTORY, directory.path())
            .env(STEP, step.to_string())
            .output()
            .expect("it starts");
        let mark = directory.path().join(MARK);
        let done = fs::read_to_string(&mark).unwrap_or_default();
        if mark.exists() {
            fs::remove_file(mark).expect("removed");
        }
        let opened = store(&directory);
        assert!(opened.unreadable().is_empty(), "step {step}");
        let there = opened.list();
        // What was acknowledged is so.
        assert!(
            done.is_empty() || there.contains(&id(2)),
            "step {step}: {done}"
        );
        assert!(
            done != "removed" || !there.contains(&id(1)),
            "step {step}: {done}"
        );
        assert!(
            done == "saved" || done == "removed" || there.contains(&id(1)),
            "step {step}"
        );
        for (number, ram) in [(1, &rams()[0]), (2, &rams()[1])] {
            if there.contains(&id(number)) {
                assert_whole(&opened, number, ram);
            }
        }
        assert_no_leftovers(&opened);
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.signal(), Some(9), "step {step}: {output:?}");
        killed += 1;
    }
    println!("killed at {killed} steps");
    assert!(killed > 40, "{killed}");
}

/// Not a test by itself: it saves until a small file system is full.
#[test]
fn a_process_that_fills_a_disk() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let store = SnapshotStore::open(&directory.join("store")).expect("a store");
    let mut saved = 0;
    let refused = loop {
        let first = u32::from(saved) * 8 + 1;
        let numbers: Vec<u32> = (first..first + 8).collect();
        match save(&store, saved + 1, &Ram::of(&numbers)) {
            Ok(_) => saved += 1,
            Err(error) => break super::super::chain(&error),
        }
    };
    println!("saved {saved}, then: {refused}");
    assert!(
        saved >= 3 && refused.contains("no space is left"),
        "{refused}"
    );
    let whole = |number: u8| {
        let first = u32::from(number - 1) * 8 + 1;
        let numbers: Vec<u32> = (first..first + 8).collect();
        assert_whole(&store, number, &Ram::of(&numbers));
    };
    (1..=saved).for_each(whole);
    assert_no_leftovers(&store);
    store.remove(id(1)).expect("a full disk lets go");
    let numbers: Vec<u32> = (1..9).collect();
    save(&store, 100, &Ram::of(&numbers)).expect("with space it goes on");
    (2..=saved).for_each(whole);
}

#[test]
fn a_disk_that_is_really_full_refuses_in_words_and_goes_on_with_space() {
    let allowed = Command::new("unshare").args(["-rm", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "unshare -rm is not possible: it needs util-linux and user namespaces"
        );
        println!("skipped: unshare -rm is not possible here");
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let script = r#"mount -t tmpfs -o size=3m tmpfs "$BROOD_TEST_SNAPSHOTS"; exec "$@""#;
    let inner = child("a_process_that_fills_a_disk");
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-ec", script, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(DIRECTORY, place.path())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success() && said.contains("saved "),
        "{output:?}"
    );
}
