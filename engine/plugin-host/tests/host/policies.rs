//! A policy file and a directory of components, from the text to a decision.

use std::fs;
use std::sync::{Arc, Mutex};

use brood_hooks::admission::{Decision, decide};
use brood_hooks::{Admission, Alone, Ceiling, Failure, FailureKind, Panel};
use brood_plugin_host::{
    About, Builtins, Host, LogLine, MetricPoint, Observer, Policies, VolatileState, block_on,
};
use brood_policy::parse;
use serde_json::json;

use crate::component::Component;
use crate::place::{NOW, admit, ask, denial, host, options};

const FILE: &str = r#"version = 1
[plugin.first]
component = "first.wasm"
[plugin.second]
component = "second.wasm"
[[admission]]
plugin = "first"
order = 1
on-failure = "fallback:builtin-ceiling"
[[admission]]
plugin = "second"
order = 2
"#;

fn builtins() -> Builtins {
    let ceiling = Ceiling {
        per_request: 6,
        live_per_tenant: 100,
    };
    let mut builtins = Builtins::default();
    builtins
        .admission
        .insert("ceiling".into(), Arc::new(ceiling));
    builtins
}

fn decided(panel: &dyn Panel<Admission>) -> Decision {
    let said = block_on(panel.hear(NOW, ask().ask().clone()));
    decide(ask().ask(), &said).remove(0)
}

#[test]
fn bindings_of_a_file_decide_together_and_the_engines_own_panel_stands_in_for_them() {
    let place = tempfile::tempdir().expect("a directory");
    let traps = Component::new("admission-policy")
        .body("review", "unreachable")
        .build();
    let five = Component::new("admission-policy")
        .answer("review", admit(5))
        .build();
    fs::write(place.path().join("first.wasm"), traps).expect("writes");
    fs::write(place.path().join("second.wasm"), five).expect("writes");
    let set = parse("p.toml", FILE).expect("right");
    let host = host();
    let policies = Policies::open(&host, &set, place.path(), &builtins())
        .unwrap_or_else(|errors| panic!("{errors}"));
    let Decision::Admitted(admitted) = decided(&policies.admission) else {
        panic!()
    };
    assert_eq!(admitted.count, 5);
    assert_eq!(
        admitted.holds.len(),
        1,
        "of the ceiling that the first fell back to"
    );
    let said = block_on(policies.admission.hear(NOW, ask().ask().clone()));
    let kinds: Vec<_> = said
        .iter()
        .map(|one| one.stands_in.as_ref().map(Failure::kind))
        .collect();
    assert_eq!(
        kinds,
        [Some(FailureKind::Trap), None],
        "who fell back, and why"
    );
    let spent = said.iter().map(|one| one.spent.expect("it was called"));
    assert!(
        spent
            .into_iter()
            .all(|spent| spent.took_nanos > 0 && spent.fuel > 0)
    );

    let refuses = json!({ "ok": [{ "deny": denial("closed for the night") }] });
    let refuses = Component::new("admission-policy")
        .answer("review", refuses)
        .build();
    let second = &policies.plugins["second"];
    host.replace(second, &set.plugins[1], &refuses)
        .expect("replaces");
    let Decision::Denied { by, denial, .. } = decided(&policies.admission) else {
        panic!()
    };
    assert_eq!(
        (by.as_str(), denial.message.as_str()),
        ("admission/second", "closed for the night")
    );

    let alone = Alone(Ceiling {
        per_request: 6,
        live_per_tenant: 100,
    });
    let Decision::Admitted(admitted) = decided(&alone) else {
        panic!()
    };
    assert_eq!(admitted.count, 6);
}

#[test]
fn everything_that_is_wrong_with_a_directory_is_told_at_once() {
    let place = tempfile::tempdir().expect("a directory");
    fs::write(place.path().join("second.wasm"), "nonsense").expect("writes");
    let set = parse("p.toml", FILE).expect("right");
    let errors = Policies::open(&host(), &set, place.path(), &Builtins::default())
        .err()
        .expect("it is wrong")
        .to_string();
    for told in [
        "first.wasm cannot be read",
        "plugin second: this is not a WebAssembly",
        "builtin-ceiling, which is not there",
    ] {
        assert!(errors.contains(told), "{errors}");
    }
}

#[derive(Default)]
struct Listener(Mutex<(Vec<LogLine>, Vec<MetricPoint>)>);

impl Observer for Listener {
    fn log(&self, about: &About, lines: &[LogLine]) {
        assert_eq!(about.plugin, "test");
        self.0.lock().expect("whole").0.extend_from_slice(lines);
    }

    fn measure(&self, _: &About, points: &[MetricPoint]) {
        self.0.lock().expect("whole").1.extend_from_slice(points);
    }
}

#[test]
fn log_and_metrics_arrive_within_their_bounds_and_the_last_error_explains_a_trap() {
    // Two points, `seen` that it declared and `seer` that it did not; three lines of error; then a trap.
    let bytes = Component::new("admission-policy")
        .extra(
            r#"(import "brood:policy/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
               (import "brood:policy/metrics@0.1.0" "emit" (func $emit (param i32 i32)))
               (data (i32.const 16) "seen")
               (data (i32.const 20) "seer")
               (data (i32.const 64) "\10\00\00\00\04\00\00\00\07\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
               (data (i32.const 88) "\14\00\00\00\04\00\00\00\07\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
               (data (i32.const 128) "no tenant")"#,
        )
        .body(
            "review",
            "(call $emit (i32.const 64) (i32.const 2))
             (call $log (i32.const 4) (i32.const 128) (i32.const 9) (i32.const 0) (i32.const 0))
             (call $log (i32.const 4) (i32.const 128) (i32.const 9) (i32.const 0) (i32.const 0))
             (call $log (i32.const 4) (i32.const 128) (i32.const 9) (i32.const 0) (i32.const 0))
             unreachable",
        )
        .build();
    let listener = Arc::new(Listener::default());
    let observer: Arc<dyn Observer> = listener.clone();
    let host =
        Host::start(&options(), Arc::new(VolatileState::default()), observer).expect("starts");
    let bound = crate::place::bind(&host, &bytes, |binding| binding.limits.log_lines = 2);
    let failure = bound
        .binding
        .call_here(NOW, &ask())
        .expect_err("a trap")
        .to_string();
    assert!(
        failure.starts_with("the component trapped: no tenant ("),
        "{failure}"
    );
    let heard = listener.0.lock().expect("whole");
    assert_eq!(heard.0.len(), 2);
    let points: Vec<_> = heard
        .1
        .iter()
        .map(|point| (point.name.as_str(), point.value))
        .collect();
    assert_eq!(points, [("seen", 7)]);
    let counters = bound.binding.counters();
    assert_eq!((counters.log_dropped, counters.metrics_dropped), (1, 1));
}
