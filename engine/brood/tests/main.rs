//! The shipped program and everything below it, with real cells, the real database and the components that ship.
//!
//! One program of tests: each program would be linked with the whole engine, 200 MB and half a minute of a processor.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

// What tests share.
mod common;
mod http;
mod metered;
mod policy;
mod program;
mod serve;
mod watch;

mod cli;
mod cli_faults;
mod cli_more;
mod crash;
mod dashboard;
mod engine;
mod fork_policy;
mod front;
mod front_exec;
mod front_files;
mod front_fork;
mod front_hard;
mod front_life;
mod front_look;
mod front_queue;
mod front_rate;
mod front_repeat;
mod front_secrets;
mod front_tenants;
mod hazards;
mod hostile_agent;
mod lab_cli;
mod lab_exec;
mod lab_fork;
mod lab_machine;
mod lab_restart;
mod metrics;
mod plugin_child;
mod plugin_commands;
mod plugins;
mod python_client;
mod schemathesis;
mod supervised;
mod ui;
mod unit_file;
mod unit_restart;
mod usage;
mod usage_budget;
mod usage_cli;
mod usage_disk;
mod usage_faults;
mod usage_rating;
mod usage_reconcile;

/// Nothing in Cargo's manifest names these files: one that is not declared above would never run.
#[test]
fn every_file_of_tests_is_in_this_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = fs::read_dir(directory).expect("it is there").map(|entry| {
        let path = entry.expect("an entry").path();
        path.file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    });
    let files: BTreeSet<String> = files.filter(|name| name != "main").collect();
    let declared = include_str!("main.rs").lines().filter_map(|line| {
        let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
        Some(name.to_owned())
    });
    assert_eq!(files, declared.collect());
}
