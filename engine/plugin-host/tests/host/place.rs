//! What most tests stand on: a host whose child is the real one, specs, asks.

use std::sync::Arc;

use brood_hooks::admission::{Decision, Facts, Item, decide};
use brood_hooks::{Admission, ForkRequest, HookName, Id128, Now, Origin, Principal, Resources};
use brood_plugin_host::{
    Asked, Binding, CompileOptions, Host, HostOptions, Plugin, Silent, VolatileState, block_on,
    hear_all,
};
use brood_policy::{BindingSpec, Grants, Import, LogLevel, PluginSpec, StateOptions};
use serde_json::{Value, json};

use crate::component::Component;

/// The instant of all calls.
pub(crate) const NOW: Now = Now::from_unix_nanos(1_700_000_000_000_000_000);

pub(crate) fn options() -> HostOptions {
    let mut options =
        HostOptions::new(CompileOptions::new(env!("CARGO_BIN_EXE_brood-plugin-host")));
    options.pool.instances = 16;
    options
}

pub(crate) fn host() -> Host {
    Host::start(
        &options(),
        Arc::new(VolatileState::default()),
        Arc::new(Silent),
    )
    .expect("starts")
}

pub(crate) fn spec() -> PluginSpec {
    PluginSpec {
        id: "test".into(),
        component: "test.wasm".into(),
        digest: None,
        grants: Grants(Import::ALL.to_vec()),
        settings: json!({}),
        state: StateOptions::default(),
        log_level: LogLevel::Info,
    }
}

pub(crate) fn request(count: u32) -> ForkRequest {
    ForkRequest {
        id: Id128::from_halves(1, 2),
        operation: "fork".into(),
        who: Principal {
            tenant: "acme".into(),
            ..Principal::default()
        },
        mother: Origin {
            kind: "template".into(),
            ..Origin::default()
        },
        count,
        min_count: 1,
        shape: Resources {
            vcpu_milli: 1000,
            memory_mib: 512,
            disk_mib: 0,
            more: vec![],
        },
        ..ForkRequest::default()
    }
}

/// One request for eight daughters.
pub(crate) fn ask() -> Arc<Asked<Admission>> {
    Asked::new(vec![Item {
        request: request(8),
        facts: Facts::default(),
    }])
}

/// A grant of so many.
pub(crate) fn admit(count: u32) -> Value {
    json!({ "ok": [{ "admit": {
        "count": count, "shape": null, "ttl-ms": null, "holds": [],
        "when-full": { "deny": denial("full") }, "add-labels": [], "warnings": [],
    }}]})
}

pub(crate) fn denial(message: &str) -> Value {
    json!({ "code": "quota", "message": message, "retry-after-ms": null })
}

pub(crate) struct Bound {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) binding: Arc<Binding<Admission>>,
}

/// A binding whose calls have a minute by the clock, so that no test depends on how busy its machine is.
pub(crate) fn patient(hook: HookName, plugin: &str) -> BindingSpec {
    let mut binding = BindingSpec::new(hook, plugin);
    binding.limits.deadline_ms = 60_000;
    binding
}

/// Binds a component at admission, with changes to the binding.
pub(crate) fn bind(host: &Host, bytes: &[u8], change: impl FnOnce(&mut BindingSpec)) -> Bound {
    let plugin = host.add(&spec(), bytes).expect("loads");
    let mut binding = patient(HookName::Admission, "test");
    change(&mut binding);
    let binding = host.bind(binding, &plugin, None).expect("binds");
    Bound { plugin, binding }
}

/// What becomes of the one request when these bindings are asked.
pub(crate) fn decision_of(bindings: &[Arc<Binding<Admission>>]) -> Decision {
    let asked = ask();
    let said = block_on(hear_all(bindings, NOW, asked.clone()));
    let mut decisions = decide(asked.ask(), &said);
    assert_eq!(decisions.len(), 1);
    decisions.remove(0)
}

/// The same of one binding.
pub(crate) fn decision(bound: &Bound) -> Decision {
    decision_of(std::slice::from_ref(&bound.binding))
}

/// The host still answers, whatever has just happened in it.
pub(crate) fn is_sound(host: &Host) {
    let bytes = Component::new("admission-policy")
        .answer("review", admit(2))
        .build();
    // A test shares its CPUs with others: no clock ends this call.
    let bound = bind(host, &bytes, |binding| binding.limits.deadline_ms = 60_000);
    let answered = bound.binding.call_here(NOW, &ask());
    assert!(answered.is_ok(), "{answered:?}");
}
