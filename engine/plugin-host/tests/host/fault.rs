//! What no component can do to the engine. After each of these the same host answers a sound component.

use std::sync::Arc;

use brood_hooks::admission::Decision;
use brood_hooks::{Failure, FailureKind};
use brood_plugin_host::{Host, Silent, VolatileState};
use brood_policy::{BindingSpec, Limits, OnFailure};
use serde_json::{Value, json};

use crate::component::Component;
use crate::place::{
    NOW, admit, ask, bind, decision, decision_of, denial, host, is_sound, options, spec,
};

/// Calls it once, closed; the failure, after looking that decision, counters, record and engine are as they should be.
fn failure(bytes: &[u8], change: impl FnOnce(&mut BindingSpec)) -> Failure {
    failure_in(&host(), bytes, change)
}

fn failure_in(host: &Host, bytes: &[u8], change: impl FnOnce(&mut BindingSpec)) -> Failure {
    let bound = bind(host, bytes, change);
    let Decision::Denied { denial, by, .. } = decision(&bound) else {
        panic!("not closed")
    };
    assert_eq!(
        (denial.code.as_str(), by.as_str()),
        ("policy-unavailable", "admission/test")
    );
    let counters = bound.binding.counters();
    let records = host.records().all(NOW);
    let failure = records[0]
        .failure
        .clone()
        .expect("the record has the failure");
    assert_eq!(counters.failed.get(&failure.kind()), Some(&1));
    assert!(
        denial.message.contains(&failure.to_string()),
        "{}",
        denial.message
    );
    if failure.kind() != FailureKind::Deadline {
        assert_eq!(
            host.replay(&records[0], &bound.plugin.current()),
            Ok(()),
            "failures replay too"
        );
    }
    is_sound(host);
    failure
}

fn does(instructions: &str) -> Vec<u8> {
    Component::new("admission-policy")
        .body("review", instructions)
        .build()
}

fn answers(value: Value) -> Vec<u8> {
    Component::new("admission-policy")
        .answer("review", value)
        .build()
}

const FOREVER: &str = "(loop $again (br $again)) unreachable";

#[test]
fn endless_loop_ends_with_its_fuel() {
    let fuel = Limits::of(brood_hooks::HookName::Admission).fuel;
    assert_eq!(failure(&does(FOREVER), |_| ()), Failure::OutOfFuel { fuel });
}

#[test]
fn endless_loop_with_unlimited_fuel_ends_with_its_deadline() {
    let ended = failure(&does(FOREVER), |binding| binding.limits.fuel = u64::MAX);
    assert_eq!(ended, Failure::Deadline { deadline_ms: 5 });
}

#[test]
fn large_copies_cost_fuel_by_the_byte() {
    let copies = "(drop (memory.grow (i32.const 200)))
        (loop $again
          (memory.copy (i32.const 131072) (i32.const 65536) (i32.const 12000000))
          (br $again)) unreachable";
    let fuel = Limits::of(brood_hooks::HookName::Admission).fuel;
    let ended = failure(&does(copies), |_| ());
    assert_eq!(ended, Failure::OutOfFuel { fuel });
}

/// Uses the same amount at every call.
fn works() -> Vec<u8> {
    Component::new("admission-policy")
        .answer("review", admit(2))
        .body(
            "review",
            "(local $n i32)
             (local.set $n (i32.const 1000))
             (loop $again
               (local.set $n (i32.sub (local.get $n) (i32.const 1)))
               (br_if $again (local.get $n)))
             (call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) drop
             $ANSWER",
        )
        .build()
}

#[test]
fn component_passes_at_exactly_its_fuel_and_fails_a_percent_below() {
    let host = host();
    let used = |fuel: u64| {
        let bound = bind(&host, &works(), |binding| binding.limits.fuel = fuel);
        let answered = bound.binding.call_here(NOW, &ask()).map(|_| ());
        let used = host.records().all(NOW).last().expect("recorded").fuel_used;
        assert_eq!(bound.binding.counters().fuel, used);
        (answered, used)
    };
    let (answered, all) = used(1_000_000);
    assert_eq!(answered, Ok(()));
    assert!(all > 3000, "{all}");
    assert_eq!(used(all), (Ok(()), all));
    // Fuel is looked at where loops turn and functions begin, so the last few instructions are not seen to be too many.
    let fuel = all - all / 100;
    assert_eq!(used(fuel), (Err(Failure::OutOfFuel { fuel }), fuel));
}

#[test]
fn endless_recursion_is_a_trap_and_not_an_overflow_of_our_stack() {
    let bytes = Component::new("admission-policy")
        .extra("(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))")
        .body("review", "(call $deep)")
        .build();
    let ended = failure(&bytes, |binding| binding.limits.fuel = 1_000_000_000);
    assert!(
        matches!(&ended, Failure::Trap { message } if message.contains("stack")),
        "{ended}"
    );
}

#[test]
fn allocation_without_end_is_denied_and_the_message_names_the_limit() {
    let grows = "(loop $again (br_if $again (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) unreachable";
    let ended = failure(&does(grows), |_| ());
    let Failure::Trap { message } = &ended else {
        panic!("{ended}")
    };
    assert!(
        message.contains("memory over its limit of 16 MiB"),
        "{message}"
    );
}

#[test]
fn component_that_wants_more_memory_to_start_than_the_binding_gives_fails_as_a_call() {
    let bytes = Component::new("admission-policy")
        .answer("review", admit(1))
        .pages(100)
        .build();
    let ended = failure(&bytes, |binding| binding.limits.memory_mib = 1);
    assert!(
        matches!(&ended, Failure::Trap { message } if message.contains("memory")),
        "{ended}"
    );
}

#[test]
fn list_of_another_length_than_the_ask_is_malformed() {
    for value in [json!({ "ok": [] }), json!({ "ok": ["abstain", "abstain"] })] {
        let ended = failure(&answers(value), |_| ());
        assert!(ended.to_string().contains("answer 1"), "{ended}");
    }
}

#[test]
fn grant_wider_than_the_ask_is_malformed() {
    let ended = failure(&answers(admit(9)), |_| ());
    assert!(
        ended
            .to_string()
            .contains("9 is wider than the 8 that was asked"),
        "{ended}"
    );
}

#[test]
fn string_of_100_mib_that_is_there_ends_the_call_before_it_is_copied() {
    // A denial with a message of 100 MiB of NUL, all of it within the component's memory.
    let bytes = Component::new("admission-policy")
        .answer("review", json!({ "ok": [{ "deny": denial("x") }] }))
        .body(
            "review",
            "(if (i32.eq (i32.const -1) (memory.grow (i32.const 1700))) (then unreachable))
             (i32.store offset=16 (i32.load offset=4 $ANSWER) (i32.const 65536))
             (i32.store offset=20 (i32.load offset=4 $ANSWER) (i32.const 104857600))
             $ANSWER",
        )
        .build();
    let mut options = options();
    (options.pool.instances, options.pool.memory_mib) = (4, 128);
    let (store, observer) = (Arc::new(VolatileState::default()), Arc::new(Silent));
    let host = Host::start(&options, store, observer).expect("starts");
    let ended = failure_in(&host, &bytes, |binding| binding.limits.memory_mib = 128);
    assert_eq!(ended.kind(), FailureKind::Excess, "{ended}");
    assert!(
        ended.to_string().contains("1048576 bytes in its answer"),
        "{ended}"
    );
}

#[test]
fn string_of_100_mib_that_reaches_out_of_memory_ends_the_call() {
    let bytes = Component::new("admission-policy")
        .answer("review", json!({ "ok": [{ "deny": denial("x") }] }))
        .body(
            "review",
            "(i32.store offset=20 (i32.load offset=4 $ANSWER) (i32.const 104857600)) $ANSWER",
        )
        .build();
    let ended = failure(&bytes, |_| ());
    assert!(
        matches!(ended.kind(), FailureKind::Trap | FailureKind::Excess),
        "{ended}"
    );
}

#[test]
fn trap_in_start_at_a_call_is_a_failure_of_that_call() {
    // It starts well while the clock shows nothing, as it does when a component is loaded.
    let bytes = Component::new("admission-policy")
        .extra(
            r#"(import "brood:policy/clock@0.1.0" "now" (func $now (result i64)))
               (func $begin (if (i64.ne (call $now) (i64.const 0)) (then unreachable)))
               (start $begin)"#,
        )
        .answer("review", admit(1))
        .build();
    let ended = failure(&bytes, |_| ());
    assert!(
        matches!(&ended, Failure::Trap { message } if message.contains("unreachable")),
        "{ended}"
    );
}

#[test]
fn flood_of_host_calls_ends_the_call() {
    let bytes = Component::new("admission-policy")
        .extra(r#"(import "brood:policy/clock@0.1.0" "now" (func $now (result i64)))"#)
        .body(
            "review",
            "(loop $again (drop (call $now)) (br $again)) unreachable",
        )
        .build();
    let ended = failure(&bytes, |binding| binding.limits.host_calls = 100);
    let expected = Failure::Excess {
        what: "host calls".into(),
        limit: 100,
    };
    assert_eq!(ended, expected);
}

#[test]
fn policy_that_says_it_cannot_answer_fails_in_its_own_words() {
    let ended = failure(
        &answers(json!({ "err": { "unavailable": "no budget known" } })),
        |_| (),
    );
    assert!(
        ended.to_string().contains("unavailable: no budget known"),
        "{ended}"
    );
}

#[test]
fn failing_open_is_visible_in_the_answer_and_counted() {
    let host = host();
    let open = |binding: &mut BindingSpec| binding.on_failure = OnFailure::Open;
    let bound = bind(&host, &does("unreachable"), open);
    let Decision::Admitted(admitted) = decision(&bound) else {
        panic!("not open")
    };
    let [warning] = admitted.warnings.as_slice() else {
        panic!("{admitted:?}")
    };
    assert!(
        warning.starts_with("admission/test: not asked, fails open: the component trapped"),
        "{warning}"
    );
    assert_eq!(bound.binding.counters().failed_open, 1);
}

#[test]
fn breaker_opens_after_repeated_failures_and_answers_at_once() {
    let host = host();
    let bound = bind(&host, &does("unreachable"), |binding| {
        binding.breaker.failures = 3
    });
    for _ in 0..5 {
        assert!(bound.binding.call_here(NOW, &ask()).is_err());
    }
    let counters = bound.binding.counters();
    assert_eq!(counters.failed.get(&FailureKind::Trap), Some(&3));
    assert_eq!(counters.failed.get(&FailureKind::BreakerOpen), Some(&2));
    assert!(bound.binding.is_broken());
}

#[test]
fn bindings_that_conflict_deny_the_fork_and_are_both_named() {
    let host = host();
    let labels = |value: &str| {
        let mut answer = admit(4);
        answer["ok"][0]["admit"]["add-labels"] = json!([["tier", value]]);
        answers(answer)
    };
    let mut bindings = Vec::new();
    for (id, value) in [("gold", "1"), ("lead", "2")] {
        let mut named = spec();
        named.id = id.into();
        let plugin = host.add(&named, &labels(value)).expect("loads");
        let binding = BindingSpec::new(brood_hooks::HookName::Admission, id);
        bindings.push(host.bind(binding, &plugin, None).expect("binds"));
    }
    let Decision::Denied { denial, .. } = decision_of(&bindings) else {
        panic!("it was decided")
    };
    assert_eq!(denial.code, "policy-conflict");
    assert_eq!(
        denial.message,
        "admission/gold and admission/lead disagree about label tier: '1' and '2'"
    );
    assert!(matches!(decision_of(&bindings[..1]), Decision::Admitted(_)));
    is_sound(&host);
}
