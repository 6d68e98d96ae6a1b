//! Versions and state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use brood_hooks::admission::{Decision, Verdict};
use brood_hooks::{FailureKind, Now};
use brood_plugin_host::{
    Host, LoadError, Silent, StateChange, StateEntry, StateStore, StateStoreError, VolatileState,
    block_on,
};
use brood_policy::{Mode, Reuse};
use serde_json::json;

use crate::component::Component;
use crate::place::{Bound, NOW, admit, ask, bind, decision, host, options, spec};

pub(crate) fn admits(count: u32) -> Vec<u8> {
    Component::new("admission-policy")
        .answer("review", admit(count))
        .build()
}

fn count(bound: &Bound) -> u32 {
    let answer = bound.binding.call_here(NOW, &ask()).expect("answers");
    match answer.answer().as_slice() {
        [Verdict::Admit(grant)] => grant.count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_thousand_swaps_under_load_fail_no_call_and_the_last_is_rolled_back() {
    let host = host();
    let bound = bind(&host, &admits(1), |_| ());
    let versions = [2, 1].map(|count| host.load(&spec(), &admits(count)).expect("loads"));
    let versions = versions.map(Arc::new);
    assert_eq!(count(&bound), 1, "there is a call to try versions with");
    let over = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let call = || {
            while !over.load(Ordering::SeqCst) {
                let answer = block_on(bound.binding.start(NOW, &ask())).expect("the host runs");
                answer.expect("no call fails");
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let callers = [scope.spawn(call), scope.spawn(call)];
        let mut both = (0..1000).flat_map(|_| &versions);
        let swapped = both.try_for_each(|version| host.swap(&bound.plugin, version));
        over.store(true, Ordering::SeqCst);
        swapped.expect("swaps");
        for caller in callers {
            caller.join().expect("no call was lost");
        }
    });
    let counters = bound.binding.counters();
    assert_eq!(counters.failures(), 0);
    assert_eq!(counters.answered, calls.load(Ordering::SeqCst) + 1);
    assert_eq!(host.counters().swapped, 2000);
    assert_eq!(count(&bound), 1);
    bound.plugin.roll_back().expect("rolls back");
    assert_eq!(count(&bound), 2);
}

#[test]
fn version_that_fails_its_self_test_takes_no_place() {
    let host = host();
    let bound = bind(&host, &admits(3), |_| ());
    let traps = Component::new("admission-policy").body("review", "unreachable");
    let loops = Component::new("admission-policy").body("review", "(loop $l (br $l)) unreachable");
    let says = json!({ "err": { "unavailable": "not yet" } });
    let says = Component::new("admission-policy").answer("review", says);
    let refused = |bytes: &[u8]| match host.replace(&bound.plugin, &spec(), bytes) {
        Err(LoadError::SelfTest { asked, failure, .. }) => (asked, failure.kind()),
        Err(error) => panic!("{error}"),
        Ok(()) => panic!("it took the place"),
    };
    let made_up = || "a made-up call".to_owned();
    assert_eq!(refused(&traps.build()), (made_up(), FailureKind::Trap));
    assert_eq!(refused(&loops.build()), (made_up(), FailureKind::OutOfFuel));
    let wide = admits(5);
    assert_eq!(
        refused(&wide),
        (made_up(), FailureKind::Malformed),
        "5 of 1"
    );
    // What was really asked counts more than what is made up: 5 of 8 is right, and "not yet" is less than there was.
    assert_eq!(count(&bound), 3);
    let recorded = || "recorded call 0".to_owned();
    assert_eq!(refused(&says.build()), (recorded(), FailureKind::Hook));
    assert_eq!(count(&bound), 3, "the old one stays");
    assert!(bound.plugin.roll_back().is_err(), "and is the only one");
    host.replace(&bound.plugin, &spec(), &wide)
        .expect("replaces");
    assert_eq!(count(&bound), 5);
    let counters = host.counters();
    assert_eq!((counters.swapped, counters.swaps_refused), (1, 4));
}

#[test]
fn self_test_sees_the_state_and_commits_nothing() {
    let store = Arc::new(VolatileState::default());
    let host = stateful(&store);
    let bound = bind(&host, &counts("$ANSWER"), |_| ());
    assert_eq!(count(&bound), 1);
    host.replace(&bound.plugin, &spec(), &counts("$ANSWER"))
        .expect("replaces");
    assert_eq!(seen(&store), Some(1));
    assert_eq!(host.records().all(NOW).len(), 1);
    assert_eq!(bound.binding.counters().calls(), 1);
}

#[test]
fn update_that_is_refused_leaves_the_version_that_runs() {
    let host = host();
    let bound = bind(&host, &admits(3), |_| ());
    let before = bound.plugin.current().digest();
    let wrong = json!({ "err": [{ "at": "", "message": "no" }] });
    let refuses = Component::new("admission-policy")
        .answer("review", admit(4))
        .answer("prepare", wrong);
    let other_hook = Component::new("placement-policy");
    for bytes in [refuses.build(), other_hook.build(), b"nothing".to_vec()] {
        assert!(host.replace(&bound.plugin, &spec(), &bytes).is_err());
        assert_eq!(bound.plugin.current().digest(), before);
    }
    assert_eq!(count(&bound), 3);
    assert!(bound.plugin.roll_back().is_err(), "there was never another");
}

#[test]
fn component_whose_file_is_deleted_or_overwritten_is_not_touched_by_that() {
    let host = host();
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("test.wasm");
    std::fs::write(&file, admits(3)).expect("writes");
    let bound = bind(&host, &std::fs::read(&file).expect("reads"), |_| ());
    std::fs::write(&file, b"something else").expect("writes");
    assert_eq!(count(&bound), 3);
    std::fs::remove_file(&file).expect("removes");
    assert_eq!(count(&bound), 3);
}

/// Adds one to a counter and then does as told.
fn counts(then: &str) -> Vec<u8> {
    Component::new("admission-policy")
        .extra(
            r#"(import "brood:policy/state@0.1.0" "add" (func $add (param i32 i32 i32)))
               (data (i32.const 16) "seen")
               (data (i32.const 32) "\10\00\00\00\04\00\00\00\01\00\00\00\00\00\00\00")"#,
        )
        .answer("review", admit(1))
        .body(
            "review",
            &format!("(call $add (i32.const 32) (i32.const 1) (i32.const 64)) {then}"),
        )
        .build()
}

fn seen(store: &VolatileState) -> Option<i64> {
    let entries = store.load("test").expect("loads");
    let (_, StateEntry { value, .. }) = entries.into_iter().find(|(key, _)| key == "seen")?;
    match value {
        brood_plugin_host::StateValue::Counter(count) => Some(count),
        other => panic!("{other:?}"),
    }
}

fn stateful(store: &Arc<VolatileState>) -> Host {
    let store: Arc<dyn StateStore> = store.clone();
    Host::start(&options(), store, Arc::new(Silent)).expect("starts")
}

#[test]
fn state_commits_with_the_answer_and_vanishes_with_a_failure_or_a_shadow() {
    let store = Arc::new(VolatileState::default());
    let host = stateful(&store);
    let enforced = bind(&host, &counts("$ANSWER"), |_| ());
    assert_eq!(count(&enforced), 1);
    assert_eq!(seen(&store), Some(1));
    assert!(
        bind(&host, &counts("unreachable"), |_| ())
            .binding
            .call_here(NOW, &ask())
            .is_err()
    );
    assert_eq!(seen(&store), Some(1), "a trap commits nothing");
    let shadow = bind(&host, &counts("$ANSWER"), |binding| {
        binding.mode = Mode::Shadow;
    });
    assert!(shadow.binding.call_here(NOW, &ask()).is_ok());
    assert_eq!(seen(&store), Some(1), "a shadow commits nothing");
    let records = host.records().all(NOW);
    for record in &records {
        let version = [&enforced, &shadow]
            .into_iter()
            .map(|bound| bound.plugin.current());
        if let Some(version) = version
            .into_iter()
            .find(|one| one.digest() == record.component)
        {
            assert_eq!(
                host.replay(record, &version),
                Ok(()),
                "as recorded, whatever the state is now"
            );
        }
    }
    assert_eq!(seen(&store), Some(1), "a replay commits nothing");
}

#[test]
fn calls_that_share_state_never_lose_an_update() {
    let store = Arc::new(VolatileState::default());
    let host = stateful(&store);
    let bound = bind(&host, &counts("$ANSWER"), |binding| {
        binding.concurrency.running = 4
    });
    let pending: Vec<_> = (0..200).map(|_| bound.binding.start(NOW, &ask())).collect();
    for answer in pending {
        answer.wait().expect("the host runs").expect("answers");
    }
    assert_eq!(seen(&store), Some(200));
}

/// A store whose disk is full.
struct Full;

impl StateStore for Full {
    fn load(&self, _: &str) -> Result<Vec<(String, StateEntry)>, StateStoreError> {
        Ok(Vec::new())
    }

    fn commit(&self, _: &str, _: &[StateChange]) -> Result<(), StateStoreError> {
        Err(StateStoreError {
            message: "no space left".into(),
        })
    }
}

#[test]
fn answer_whose_state_cannot_be_committed_is_no_answer() {
    let host = Host::start(&options(), Arc::new(Full), Arc::new(Silent)).expect("starts");
    let bound = bind(&host, &counts("$ANSWER"), |_| ());
    let decided = decision(&bound);
    let Decision::Denied { denial, .. } = decided else {
        panic!("{decided:?}")
    };
    assert!(
        denial.message.contains("no space left"),
        "{}",
        denial.message
    );
}

#[test]
fn lane_that_is_full_refuses_at_once_and_harms_nobody_else() {
    let host = host();
    let bytes = Component::new("admission-policy")
        .body("review", "(loop $l (br $l)) unreachable")
        .build();
    let slow = bind(&host, &bytes, |binding| {
        binding.limits.fuel = u64::MAX;
        binding.limits.deadline_ms = 50;
        binding.concurrency.running = 1;
        binding.concurrency.waiting = 1;
    });
    let other = bind(&host, &admits(1), |_| ());
    let calls: Vec<_> = (0..4).map(|_| slow.binding.start(NOW, &ask())).collect();
    assert!(
        block_on(other.binding.start(NOW, &ask()))
            .expect("runs")
            .is_ok(),
        "the other thread is free"
    );
    let kinds: Vec<_> = calls
        .into_iter()
        .map(|call| {
            call.wait()
                .expect("the host runs")
                .expect_err("no answer")
                .kind()
        })
        .collect();
    use brood_hooks::FailureKind::{Deadline, Overloaded};
    assert_eq!(kinds, [Deadline, Deadline, Overloaded, Overloaded]);
}

#[test]
fn warm_instance_keeps_its_memory_and_a_fresh_one_has_none() {
    // Grants what it has counted in its own memory.
    let grows = "(i32.store offset=8 (i32.load offset=4 $ANSWER)
        (i32.add (i32.const 1) (i32.load offset=8 (i32.load offset=4 $ANSWER)))) $ANSWER";
    let bytes = Component::new("admission-policy")
        .answer("review", admit(1))
        .body("review", grows)
        .build();
    let host = host();
    let fresh = bind(&host, &bytes, |_| ());
    assert_eq!([count(&fresh), count(&fresh)], [2, 2]);
    let warm = bind(&host, &bytes, |binding| binding.reuse = Reuse::Warm);
    assert_eq!([count(&warm), count(&warm), count(&warm)], [2, 3, 4]);
}

#[test]
fn clock_stands_still_for_a_call_and_is_the_one_that_was_passed_in() {
    let bytes = Component::new("admission-policy")
        .extra(r#"(import "brood:policy/clock@0.1.0" "now" (func $now (result i64)))"#)
        .answer("review", admit(1))
        .body(
            "review",
            "(i32.store offset=8 (i32.load offset=4 $ANSWER) (i32.wrap_i64 (call $now)))
             (if (i64.ne (call $now) (call $now)) (then unreachable)) $ANSWER",
        )
        .build();
    let host = host();
    let bound = bind(&host, &bytes, |_| ());
    let answer = bound
        .binding
        .call_here(Now::from_unix_nanos(7), &ask())
        .expect("answers");
    assert!(matches!(answer.answer().as_slice(), [Verdict::Admit(grant)] if grant.count == 7));
}
