//! Versions, modes, fallbacks and state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brood_hooks::admission::{Decision, Verdict};
use brood_hooks::{Ceiling, HookName, Now};
use brood_plugin_host::{
    Fallback, Host, Silent, StateChange, StateEntry, StateStore, StateStoreError, VolatileState,
    block_on,
};
use brood_policy::{BindingSpec, Mode, OnFailure, Reuse};
use serde_json::json;

use crate::component::Component;
use crate::place::{Bound, NOW, admit, ask, bind, decision, denial, host, options, spec};

fn admits(count: u32) -> Vec<u8> {
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
fn version_is_replaced_under_load_without_a_failed_call_and_rolled_back() {
    let host = host();
    let bound = bind(&host, &admits(1), |_| ());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut seen = [0_u32; 3];
            while !over.load(Ordering::SeqCst) {
                let answer = block_on(bound.binding.start(NOW, &ask())).expect("the host runs");
                let answer = answer.expect("no call fails");
                if let [Verdict::Admit(grant)] = answer.answer().as_slice() {
                    seen[grant.count as usize] += 1;
                }
            }
            seen
        });
        for _ in 0..5 {
            for version in [2, 1] {
                host.replace(&bound.plugin, &spec(), &admits(version))
                    .expect("replaces");
            }
        }
        over.store(true, Ordering::SeqCst);
        let seen = caller.join().expect("joins");
        assert!(seen[1] + seen[2] > 0);
    });
    assert_eq!(bound.binding.counters().failures(), 0);
    assert_eq!(count(&bound), 1);
    bound.plugin.roll_back().expect("rolls back");
    assert_eq!(count(&bound), 2);
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

fn denies() -> Vec<u8> {
    let answer = json!({ "ok": [{ "deny": denial("no more today") }] });
    Component::new("admission-policy")
        .answer("review", answer)
        .build()
}

fn mode(mode: Mode) -> impl FnOnce(&mut BindingSpec) {
    move |binding| binding.mode = mode
}

#[test]
fn mode_decides_who_hears_a_refusal() {
    let host = host();
    let enforced = decision(&bind(&host, &denies(), mode(Mode::Enforce)));
    assert!(
        matches!(enforced, Decision::Denied { denial, .. } if denial.message == "no more today")
    );
    let warned = decision(&bind(&host, &denies(), mode(Mode::Warn)));
    let Decision::Admitted(admitted) = warned else {
        panic!("{warned:?}")
    };
    assert_eq!(
        admitted.warnings,
        ["admission/test would deny: no more today"]
    );
    let off = bind(&host, &denies(), mode(Mode::Off));
    let Decision::Admitted(admitted) = decision(&off) else {
        panic!()
    };
    assert!(admitted.warnings.is_empty());
    assert_eq!(off.binding.counters().calls(), 0);
}

#[test]
fn fallback_answers_when_the_component_cannot() {
    let host = host();
    let bytes = Component::new("admission-policy")
        .body("review", "unreachable")
        .build();
    let plugin = host.add(&spec(), &bytes).expect("loads");
    let mut binding = BindingSpec::new(HookName::Admission, "test");
    binding.on_failure = OnFailure::Fallback("builtin-ceiling".into());
    let ceiling = Ceiling {
        per_request: 4,
        live_per_tenant: 8,
    };
    let binding = host
        .bind(binding, &plugin, Some(Fallback::Builtin(Arc::new(ceiling))))
        .expect("binds");
    let bound = Bound { plugin, binding };
    let Decision::Admitted(admitted) = decision(&bound) else {
        panic!()
    };
    assert_eq!(admitted.count, 4);
    assert_eq!(bound.binding.counters().fell_back, 1);
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
    let shadow = bind(&host, &counts("$ANSWER"), mode(Mode::Shadow));
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
