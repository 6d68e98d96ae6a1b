//! A process that is killed, a disk that is full or cannot be written, a directory in use, a damaged file.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use brood_store::{OpenError, Store, StoreError, StoreOptions};

const COMMITTER: &str = env!("CARGO_BIN_EXE_brood-store-committer");

fn open(directory: &Path) -> Result<Store, OpenError> {
    Store::open(directory, &StoreOptions::default())
}

/// The numbers of all rows that the committer wrote, in order.
fn numbers(store: &Store) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let after = found.len();
        let after = i64::try_from(after).expect("few");
        let page = store.read(|read| read.events("committer", after, 10_000));
        let page: Result<_, StoreError> = page;
        let page = page.expect("a page");
        if page.events.is_empty() {
            return found;
        }
        let each = page.events.iter();
        found.extend(each.map(|row| row.event.kind.parse::<u64>().expect("a number")));
    }
}

/// One that commits for ever.
fn committer(directory: &Path) -> Child {
    let mut command = Command::new(COMMITTER);
    command.args(["loop".as_ref(), directory]);
    command.stdout(Stdio::piped()).spawn().expect("it starts")
}

/// Kills the committer once it has acknowledged so many rows; the last number that it said.
fn kill_after(mut child: Child, acknowledged: usize) -> u64 {
    let out = child.stdout.take().expect("its output");
    let mut lines = BufReader::new(out).lines();
    let mut last = 0;
    for _ in 0..acknowledged {
        let line = lines.next().expect("it goes on").expect("a line");
        last = line.parse().expect("a number");
    }
    child.kill().expect("SIGKILL");
    // What it said before it was killed counts as well.
    for line in lines.map_while(Result::ok) {
        last = line.parse().unwrap_or(last);
    }
    child.wait().expect("it ended");
    last
}

#[test]
fn every_acknowledged_row_is_there_after_sigkill_again_and_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut total = 0;
    for round in 0..25_usize {
        let last = kill_after(committer(directory.path()), 1 + round * 13 % 97);
        let store = open(directory.path()).expect("it opens again");
        let found = numbers(&store);
        let expected: Vec<u64> = (1..=found.len() as u64).collect();
        assert_eq!(found, expected, "no row is missing or there twice");
        assert!(
            found.len() as u64 >= last,
            "{last} was acknowledged, {} rows are there",
            found.len()
        );
        total = found.len();
    }
    println!("{total} rows over 25 kills");
}

/// Runs a script as root of a mount namespace of its own, or nothing (with a printed reason) where that is not allowed.
fn in_namespace(script: &str, arguments: &[&Path]) -> Option<Output> {
    let allowed = Command::new("unshare").args(["-rm", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "unshare -rm is not possible: it needs util-linux and user namespaces"
        );
        println!("skipped: unshare -rm is not possible here");
        return None;
    }
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-ec", script, "sh", COMMITTER])
        .args(arguments)
        .output()
        .expect("a shell");
    Some(output)
}

#[test]
fn a_full_disk_refuses_in_words_keeps_all_that_was_acknowledged_and_goes_on_with_space() {
    let place = tempfile::tempdir().expect("a directory");
    let saved = tempfile::tempdir().expect("a directory");
    let script = r#"mount -t tmpfs -o size=3m tmpfs "$2"
        head -c 1M /dev/zero > "$2/ballast"
        "$1" fill "$2/state" "$2/ballast"
        cp -r "$2/state/." "$3""#;
    let Some(output) = in_namespace(script, &[place.path(), saved.path()]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{output:?}");
    let refused: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("refused"))
        .collect();
    assert_eq!(refused.len(), 1, "{said}");
    assert!(
        refused[0].contains("disk of the state directory is full"),
        "{refused:?}"
    );
    let acknowledged: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(acknowledged.len() > 10, "{said}");
    let store = open(saved.path()).expect("a copy");
    assert_eq!(numbers(&store), acknowledged);
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_what_to_do() {
    let place = tempfile::tempdir().expect("a directory");
    let script = r#"mount -t tmpfs tmpfs "$2"
        mkdir "$2/state"
        mount -o remount,ro "$2"
        "$1" open "$2/state" || true"#;
    let Some(output) = in_namespace(script, &[place.path()]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let state = place.path().join("state");
    assert!(
        said.starts_with(&format!("error: cannot write {}", state.display()))
            && said.contains("give this user write access"),
        "{said}{output:?}"
    );
}

#[test]
fn a_second_process_is_refused_by_name_and_the_directory_is_free_once_the_first_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("a store");
    let second = Command::new(COMMITTER)
        .args(["open".as_ref(), directory.path()])
        .output()
        .expect("the committer");
    let said = String::from_utf8_lossy(&second.stdout);
    let holder = format!("is in use by process {}", std::process::id());
    assert!(!second.status.success() && said.contains(&holder), "{said}");
    drop(store);
    let mut child = committer(directory.path());
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    out.read_line(&mut String::new()).expect("it commits");
    let pid = child.id();
    match open(directory.path()) {
        Err(OpenError::InUse { holder, .. }) => assert_eq!(holder, format!("process {pid}")),
        other => unreachable!("{:?}", other.map(|_| ())),
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it ended");
    open(directory.path()).expect("it is free");
}

#[test]
fn a_damaged_file_and_a_file_that_is_no_database_are_refused_loudly_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    kill_after(committer(directory.path()), 500);
    // Opened and closed once, so that everything is in the one file.
    drop(open(directory.path()).expect("a store"));
    let path: PathBuf = directory.path().join("store.db");
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("the file");
    let length = file.metadata().expect("its length").len();
    file.seek(SeekFrom::Start(length / 4096 / 2 * 4096))
        .expect("the middle");
    file.write_all(&[0xa5; 3 * 4096]).expect("damage");
    let before = fs::read(&path).expect("the file");
    let refused = open(directory.path()).map(|_| ()).expect_err("damaged");
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    assert!(refused.to_string().contains("restore a copy"), "{refused}");
    assert_eq!(fs::read(&path).expect("the file"), before);

    fs::write(
        &path,
        "this is a letter and no database, whatever its name may say",
    )
    .expect("a file");
    let refused = open(directory.path()).map(|_| ()).expect_err("no database");
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    let mut text = String::new();
    fs::File::open(&path)
        .expect("it")
        .read_to_string(&mut text)
        .expect("text");
    assert!(text.starts_with("this is a letter"));
}
