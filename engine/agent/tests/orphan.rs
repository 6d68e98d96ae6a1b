//! Orphans are reaped as process 1 must, and programs of exec sessions keep their exit codes meanwhile. A process that
//! is a "child subreaper" (prctl(2)) is to its orphans what process 1 is to all.

mod common;

use brood_agent_proto::exec::{ExecSpec, ExecState};
use common::{Guest, TIMEOUT};

#[test]
fn orphans_are_reaped_and_exit_codes_are_not_stolen() {
    let Some(guest) = Guest::start() else { return };
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
    brood_agent::init::start_reaper().unwrap();
    let mut client = guest.client();
    for round in 0..100 {
        // Five orphans that end before, while and after the program itself does.
        let script = format!("for i in 1 2 3 4 5; do (true & true &) ; done; exit {round}");
        let ran = client
            .run(&ExecSpec::new(["sh", "-c", &script]), TIMEOUT, 99)
            .unwrap();
        assert_eq!(ran.state, ExecState::Exited { code: round });
    }
    // Nothing of the guest is left, so whatever is still our child has ended; the reaper needs a moment for the last.
    common::wait_for_event(&guest.cgroup.0.join("workload"), "populated 0");
    let me = std::process::id();
    let children = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| {
                    let parent = stat
                        .rsplit_once(')')
                        .map(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
                    parent == Some(Some(me.to_string()))
                })
            })
            .count()
    };
    let start = std::time::Instant::now();
    while children() > 0 {
        assert!(start.elapsed() < TIMEOUT, "{} zombies stay", children());
        std::thread::yield_now();
    }
}
