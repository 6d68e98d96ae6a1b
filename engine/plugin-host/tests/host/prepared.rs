//! Instances that are made before their call: nobody can tell.

use std::sync::Arc;

use brood_hooks::Failure;
use brood_plugin_host::{Host, Silent, VolatileState, block_on};

use crate::component::Component;
use crate::place::{Bound, NOW, admit, ask, bind, options, spec};

/// One policy thread: what it does after an answer it has done before the next call.
fn host() -> Host {
    let mut options = options();
    options.threads = 1;
    let state = Arc::new(VolatileState::default());
    Host::start(&options, state, Arc::new(Silent)).expect("starts")
}

/// Calls on the policy thread, one after the other; how many daughters each admits.
fn calls(bound: &Bound, count: usize) -> Vec<Result<u32, Failure>> {
    let call = |_| {
        let answered = block_on(bound.binding.start(NOW, &ask())).expect("the host lives");
        let answered = answered?;
        let [brood_hooks::admission::Verdict::Admit(grant)] = answered.answer().as_slice() else {
            panic!("{answered:?}")
        };
        Ok(grant.count)
    };
    (0..count).map(call).collect()
}

#[test]
fn each_call_has_an_instance_in_which_nothing_has_run() {
    let once = r#"(global $ran (mut i32) (i32.const 0))
        (func $once (if (global.get $ran) (then unreachable)) (global.set $ran (i32.const 1)))"#;
    let bytes = |count| {
        Component::new("admission-policy")
            .extra(once)
            .answer("review", admit(count))
            .body("review", "(call $once) $ANSWER")
            .build()
    };
    let host = host();
    let bound = bind(&host, &bytes(3), |_| ());
    assert_eq!(calls(&bound, 3), [Ok(3), Ok(3), Ok(3)]);
    // Nor is one used that was made of what was there before.
    let other = Arc::new(host.load(&spec(), &bytes(5)).expect("loads"));
    host.swap(&bound.plugin, &other).expect("swaps");
    assert_eq!(calls(&bound, 2), [Ok(5), Ok(5)]);
}

#[test]
fn code_that_runs_as_an_instance_is_made_belongs_to_the_call_it_is_made_for() {
    let bytes = Component::new("admission-policy")
        .extra(
            r#"(import "brood:policy/clock@0.1.0" "now" (func $now (result i64)))
               (func $begin (drop (call $now)))
               (start $begin)"#,
        )
        .answer("review", admit(3))
        .build();
    let host = host();
    let bound = bind(&host, &bytes, |_| ());
    assert_eq!(calls(&bound, 3), [Ok(3), Ok(3), Ok(3)]);
    let version = host.load(&spec(), &bytes).expect("loads");
    let alone = bound.binding.call_here(NOW, &ask());
    assert!(alone.is_ok(), "{alone:?}");
    let records = host.records().all(NOW);
    let fuel: Vec<_> = records.iter().map(|record| record.fuel_used).collect();
    assert_eq!(fuel, [fuel.first().copied().unwrap_or_default(); 4]);
    for record in &records {
        assert_eq!(host.replay(record, &version), Ok(()));
    }
}
