//! Usage of real machines (bare guests), counted in the real database.

use brood_service::engine::Change;
use brood_service::engine::usage::{Cause, UsageRow};
use rustix::process::{Pid, Signal, kill_process};

use crate::metered::Metered;
use crate::metered::made_up::MadeUp;
use crate::metered::rated::november;
use crate::policy::{SHIPPED, enforced};
use crate::watch::python;

fn causes(rows: &[UsageRow]) -> Vec<Cause> {
    rows.iter().map(|row| row.record.cause).collect()
}

/// Without a gap and without an overlap, from birth to end.
fn is_whole(rows: &[UsageRow]) {
    let (mut age, mut cpu) = (0, 0);
    for row in rows {
        age += row.record.span_us;
        cpu += row.record.cpu_ns;
        assert_eq!(
            (row.record.age_us, row.record.cpu_total_ns),
            (age, cpu),
            "{row:?}"
        );
    }
    assert!(rows.first().is_some_and(|row| row.record.is_first()));
}

#[test]
fn each_change_of_a_machine_ends_a_window_and_her_end_is_committed_with_the_last() {
    let Some(open) = Metered::open(SHIPPED) else {
        return;
    };
    open.run(async {
        let mother = open.mother().await.id;
        let daughters = open.fork(mother, 2).await;
        open.engine.count_all().await.expect("counted");
        let change = |change| open.engine.change(&open.caller, mother, change);
        change(Change::Pause).await.expect("pauses");
        change(Change::Resume).await.expect("resumes");
        let stats = open.engine.stats(&open.caller, daughters[0]).await;
        let pid = i32::try_from(stats.expect("she lives").pid).expect("a pid");
        kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
        open.ended(daughters[0]).await;
        // Whoever sees the end sees the last window.
        let killed = open.records(Some(daughters[0]));
        assert_eq!(causes(&killed), [Cause::Tick, Cause::End]);
        let last = killed[1].record;
        assert!(
            !last.doubt.cpu && last.cpu_ns > 0,
            "nobody asked her, the kernel knows: {last:?}"
        );
        is_whole(&killed);
        open.end(daughters[1]).await;
        open.end(mother).await;
        let rows = open.records(Some(mother));
        let expected = [
            Cause::Fork,
            Cause::Tick,
            Cause::Pause,
            Cause::Resume,
            Cause::End,
        ];
        assert_eq!(causes(&rows), expected);
        is_whole(&rows);
        assert!(!rows[4].record.doubt.memory && rows[4].record.private_kib > 0);
        assert_eq!(
            open.engine.count_all().await.expect("counted"),
            0,
            "nobody is left"
        );
        let seen = open
            .engine
            .verify_usage(&open.caller)
            .expect("an operator looks");
        assert_eq!(
            (seen.records, seen.breaks.as_slice()),
            (5 + 2 + 2, [].as_slice())
        );
        open.engine.close().await.expect("closes");
    });
}

#[test]
fn an_idle_machine_costs_less_than_200_kib_a_day_with_all_that_is_billed_of_her() {
    const MINUTE: u64 = 60_000;
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, MINUTE);
    open.rate();
    let Some(before) = bytes(&open) else { return };
    for five in 0..288 {
        let minutes = (2..=6).map(|minute| (5 * five + minute) * MINUTE);
        machine.counted_all(&open.store, minutes.collect());
        assert_eq!(open.rate().settled, 1);
    }
    let kib = (bytes(&open).expect("as before") - before) / 1024;
    println!("1440 windows, 288 batches: {kib} KiB");
    assert!(kib < 200, "{kib} KiB");
    assert_eq!(open.records(None).len(), 1441);
}

/// What the database takes once all of its log is in it; none, with a printed reason, where nobody can say.
fn bytes(open: &Metered) -> Option<u64> {
    let mut python = python(&["sqlite3"])?;
    let code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); pages = lambda name: db.execute('PRAGMA ' + name).fetchone()[0]; \
        print((pages('page_count') - pages('freelist_count')) * pages('page_size'))";
    let file = open.directory().join("state").join("store.db");
    let said = python.args(["-c", code]).arg(file).output();
    let said = String::from_utf8(said.expect("it starts").stdout).expect("a number");
    Some(said.trim().parse().expect("a number"))
}
