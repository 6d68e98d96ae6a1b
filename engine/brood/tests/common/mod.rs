//! What lab tests share: a host, booted mothers, forks whose daughters are all stamped.
//!
//! Everything here needs Linux guests. A host without guest files is a printed skip on a laptop and a failure where the
//! environment says `CI`. A helper fails its test rather than return an error: the claim is in the test's name.

#![expect(clippy::panic, reason = "tests fail so")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use brood_agent_proto::exec::{ExecId, ExecSpec};
use brood_cell::CellError;
use brood_cell::protocol::Checkpoint;
use brood_service::fork::{self, Daughter, IdentitySpec, LiveFork, Unstamped};
use brood_service::host::Host;
use brood_service::machine::{Machine, Size};

/// The machine most tests need.
pub(crate) const SMALL: Size = Size {
    ram_mib: 256,
    vcpus: 1,
};

/// A host for Linux guests, or none (with a printed reason) where there are no guest files and nobody insists.
pub(crate) fn host() -> Option<Host> {
    let Some(files) = std::env::var_os("BROOD_GUEST_FILES") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "BROOD_GUEST_FILES is not set: run `cargo xtask test`"
        );
        println!("skipped: BROOD_GUEST_FILES is not set; `cargo xtask test` sets it");
        return None;
    };
    let program = std::env::var_os("BROOD_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_brood")), PathBuf::from);
    Some(
        Host::open(&program, Some(Path::new(&files)), &std::env::temp_dir())
            .expect("a host for Linux guests"),
    )
}

/// A booted machine whose agent answers.
pub(crate) fn boot(host: &Host, size: Size, words: &str) -> Machine {
    let start = Instant::now();
    let machine = Machine::boot(host, size, words)
        .unwrap_or_else(|error| panic!("{size:?} with \"{words}\" does not boot: {error:#}"));
    println!(
        "booted {} MiB, {} vCPU in {:?}",
        size.ram_mib,
        size.vcpus,
        start.elapsed()
    );
    machine
}

/// Runs a shell line and gives its output.
pub(crate) fn shell(machine: &mut Machine, line: &str) -> String {
    machine
        .shell(line)
        .unwrap_or_else(|error| panic!("{}: `{line}`: {error:#}", machine.hostname))
}

/// Starts a shell script that runs on.
pub(crate) fn start(machine: &mut Machine, script: &str) -> ExecId {
    machine
        .agent()
        .expect("agent")
        .exec(&ExecSpec::new(["sh", "-c", script]))
        .expect("the script starts")
}

/// Waits in the guest until the shell condition holds.
pub(crate) fn until(machine: &mut Machine, condition: &str) {
    shell(
        machine,
        &format!("until {condition}; do busybox usleep 2000; done"),
    );
}

/// Who a daughter named `name` shall be; `frozen` is read before her workload runs.
pub(crate) fn identity(name: &str, frozen: Option<&str>) -> IdentitySpec {
    IdentitySpec {
        hostname: name.to_owned(),
        env: vec![("BROOD_NAME".to_owned(), name.to_owned())],
        read_frozen: frozen.map(str::to_owned),
        ..IdentitySpec::default()
    }
}

/// Stamps all of them, named `NAME` and their index.
pub(crate) fn stamp(daughters: Vec<Unstamped>, name: &str, frozen: Option<&str>) -> Vec<Daughter> {
    let identity = |index| identity(&format!("{name}{index}"), frozen);
    let stamped = fork::stamp_all(daughters, identity).into_iter();
    stamped
        .map(|daughter| daughter.unwrap_or_else(|error| panic!("a daughter of {name}: {error:#}")))
        .collect()
}

/// All of them, or a failed test.
pub(crate) fn all(born: Vec<Result<Unstamped, CellError>>) -> Vec<Unstamped> {
    let born = born.into_iter();
    born.map(|daughter| daughter.expect("she is born"))
        .collect()
}

/// Every daughter of a fork that came to the world.
pub(crate) fn born(fork: LiveFork) -> Vec<Unstamped> {
    all(fork.daughters)
}

/// Forks a running machine into `count` stamped daughters.
pub(crate) fn live(
    mother: &mut Machine,
    count: u32,
    name: &str,
    frozen: Option<&str>,
) -> Vec<Daughter> {
    let fork = fork::live(mother, count, Checkpoint::Drop).expect("a live fork");
    println!(
        "fork of {count}: mother-pause {:.0} us, workload-frozen {:.0} us",
        fork.mother_pause, fork.workload_frozen
    );
    stamp(born(fork), name, frozen)
}
