//! A process that commits numbered rows and says so, for tests that kill it, fill its disk or lock it out.
//!
//! `loop DIR`: commits for ever, sixteen rows on their way at a time, and prints each number once it is acknowledged.
//! `fill DIR BALLAST`: commits rows of 4 KiB until one is refused, prints why, removes BALLAST, commits one more.
//! `open DIR`: opens, and prints why not.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use brood_store::{NewEvent, Pending, Store, StoreError, StoreOptions};
use brood_units::{MachineId, Timestamp};

/// Rows on their way at a time, so that several of them share a commit.
const WINDOW: usize = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["loop", directory] => open(directory).and_then(|store| commit_for_ever(&store)),
        ["fill", directory, ballast] => open(directory).and_then(|store| fill(&store, ballast)),
        ["open", directory] => open(directory).map(|_| println!("opened")),
        _ => Err("usage: loop DIR | fill DIR BALLAST | open DIR".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn open(directory: &str) -> Result<Store, String> {
    Store::open(Path::new(directory), &StoreOptions::default()).map_err(|error| error.to_string())
}

fn row(number: u64, data: String) -> NewEvent {
    NewEvent {
        tenant: "committer".to_owned(),
        kind: number.to_string(),
        subject: MachineId::from_bytes([0; 16]),
        at: Timestamp::from_millis(0),
        data,
    }
}

fn begin(store: &Store, number: u64, data: String) -> Pending<i64, StoreError> {
    store.write(move |write| write.report(&row(number, data)))
}

fn acknowledged(number: u64) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{number}").map_err(|error| error.to_string())
}

fn commit_for_ever(store: &Store) -> Result<(), String> {
    let mut number = u64::try_from(*store.last_event().borrow()).unwrap_or(0);
    let mut waiting = VecDeque::new();
    loop {
        number += 1;
        waiting.push_back((number, begin(store, number, String::new())));
        if waiting.len() >= WINDOW
            && let Some((number, pending)) = waiting.pop_front()
        {
            pending.wait().map_err(|error| error.to_string())?;
            acknowledged(number)?;
        }
    }
}

fn fill(store: &Store, ballast: &str) -> Result<(), String> {
    let large = "x".repeat(4096);
    let mut number = 0;
    let refused = loop {
        number += 1;
        match begin(store, number, large.clone()).wait() {
            Ok(_) => acknowledged(number)?,
            Err(error) => break error,
        }
    };
    println!("refused: {refused}");
    std::fs::remove_file(ballast).map_err(|error| error.to_string())?;
    number += 1;
    let kept = begin(store, number, large).wait();
    kept.map_err(|error| error.to_string())?;
    acknowledged(number)
}
