//! Modes, shadows and fallbacks: who hears what a component answers, and who is told that it did not.

use std::sync::Arc;

use brood_hooks::admission::Decision;
use brood_hooks::{Ceiling, HookName};
use brood_plugin_host::{Fallback, Host, Silent, VolatileState, block_on};
use brood_policy::{BindingSpec, Mode, OnFailure, Tenants};
use serde_json::json;

use crate::component::Component;
use crate::place::{
    Bound, NOW, ask, bind, decision, decision_of, denial, host, options, patient, spec,
};
use crate::swap::admits;

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
    let Decision::Admitted(admitted) = decision(&bind(&host, &admits(3), mode(Mode::Warn))) else {
        panic!()
    };
    assert_eq!(admitted.warnings, ["admission/test would admit 3 of 8"]);
    let off = bind(&host, &denies(), mode(Mode::Off));
    let Decision::Admitted(admitted) = decision(&off) else {
        panic!()
    };
    assert!(admitted.warnings.is_empty());
    assert_eq!(off.binding.counters().calls(), 0);
}

#[test]
fn shadow_is_counted_by_whether_it_would_have_decided_otherwise() {
    let mut options = options();
    options.threads = 1;
    let (store, observer) = (Arc::new(VolatileState::default()), Arc::new(Silent));
    let host = Host::start(&options, store, observer).expect("starts");
    let enforced = bind(&host, &admits(3), |_| ()).binding;
    let traps = Component::new("admission-policy")
        .body("review", "unreachable")
        .build();
    let shadows = [admits(3), admits(5), admits(2), denies(), traps]
        .map(|bytes| bind(&host, &bytes, mode(Mode::Shadow)).binding);
    let bindings: Vec<_> = [&enforced].into_iter().chain(&shadows).cloned().collect();
    for _ in 0..3 {
        let Decision::Admitted(admitted) = decision_of(&bindings) else {
            panic!()
        };
        assert_eq!((admitted.count, admitted.warnings.len()), (3, 0));
    }
    // On the one thread of this host, behind everything that was begun before.
    let behind = block_on(enforced.start(NOW, &ask())).expect("runs");
    behind.expect("answers");
    let counted = shadows.each_ref().map(|shadow| {
        let counters = shadow.counters();
        (counters.agreed, counters.disagreed, counters.failures())
    });
    assert_eq!(
        counted,
        [(3, 0, 0), (3, 0, 0), (0, 3, 0), (0, 3, 0), (0, 0, 3)]
    );
    assert_eq!(enforced.counters().agreed, 0);
}

#[test]
fn fallback_answers_when_the_component_cannot() {
    let host = host();
    let bytes = Component::new("admission-policy")
        .body("review", "unreachable")
        .build();
    let plugin = host.add(&spec(), &bytes).expect("loads");
    let mut binding = patient(HookName::Admission, "test");
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
    let [warning] = admitted.warnings.as_slice() else {
        panic!("{admitted:?}")
    };
    let told = "admission/test: its fallback answered in its place: the component trapped";
    assert!(warning.starts_with(told), "{warning}");
}

#[test]
fn a_binding_that_is_not_for_the_tenant_is_not_asked() {
    let host = host();
    let names = |name: &str| vec![name.to_owned()];
    let asked = |tenants: Tenants| {
        let bound = bind(&host, &denies(), |binding| binding.tenants = tenants);
        let denied = matches!(decision(&bound), Decision::Denied { .. });
        (denied, bound.binding.counters().calls())
    };
    // The request is one of acme's.
    assert_eq!(asked(Tenants::All), (true, 1));
    assert_eq!(asked(Tenants::Only(names("acme"))), (true, 1));
    assert_eq!(asked(Tenants::Except(names("globex"))), (true, 1));
    assert_eq!(asked(Tenants::Only(names("globex"))), (false, 0));
    assert_eq!(asked(Tenants::Except(names("acme"))), (false, 0));
}
