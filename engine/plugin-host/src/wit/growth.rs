//! Two versions of the package served side by side: 0.1, and a 0.2 that exists for this test alone.
//!
//! This is what adding a version costs: a WIT, this module's conversions, one line in the list of dialects.

#[path = "../../tests/host/component.rs"]
#[expect(dead_code, reason = "the tests in tests/host use more of it")]
mod component;

use std::sync::Arc;

use brood_hooks::admission::{Decision, Deferral, Facts, Grant, Item, Verdict, WhenFull, decide};
use brood_hooks::{Admission, Denial, ForkRequest, HookError, HookName, Now, Principal};
use brood_policy::{BindingSpec, Grants, Import, LogLevel, PluginSpec, StateOptions};
use serde_json::json;
use wasmtime::Store;
use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};

use self::component::Component;
use super::{Answers, Dialect, Found, Hooks, Introduces, Prepared, v0_1};
use crate::call::Context;
use crate::child::Diagnostic;
use crate::version::Description;
use crate::{
    AddError, Asked, Binding, CompileOptions, Host, HostOptions, LoadError, Silent, VolatileState,
    block_on, hear_all,
};

mod generated {
    wasmtime::component::bindgen!({
        path: "fixtures/policy-0.2",
        world: "admission-policy",
        imports: { default: trappable },
    });
}

use generated::brood::policy::clock;
use generated::exports::brood::policy::{admission, plugin};

const BOTH: &[Dialect] = &[v0_1::DIALECT, DIALECT];

const DIALECT: Dialect = Dialect {
    name: "brood:policy@0.2.0",
    prefix: "0.2.",
    types: |_| Ok(()),
    import: link,
    hook: find,
    introduces: |pre| Ok(Box::new(Own(plugin::GuestIndices::new(pre)?))),
};

fn link(linker: &mut Linker<Context>, import: Import) -> wasmtime::Result<()> {
    match import {
        Import::Clock => clock::add_to_linker::<_, HasSelf<_>>(linker, |context| context),
        Import::Log | Import::Config | Import::State | Import::Metrics => Ok(()),
    }
}

impl clock::Host for Context {
    fn now(&mut self) -> wasmtime::Result<clock::Instant> {
        let nanos = self.now.as_unix_nanos();
        let nanoseconds = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
        Ok(clock::Instant {
            seconds: nanos / 1_000_000_000,
            nanoseconds,
        })
    }
}

fn find(interface: &str, pre: &InstancePre<Context>, hooks: &mut Hooks) -> wasmtime::Result<Found> {
    if interface != "admission" {
        return Ok(Found::Other);
    }
    hooks.admission = Some(Box::new(admission::GuestIndices::new(pre)?));
    Ok(Found::Hook)
}

impl Answers<Admission> for admission::GuestIndices {
    fn answer(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
        ask: &Vec<Item>,
    ) -> wasmtime::Result<Result<Vec<Verdict>, HookError>> {
        let hook = self.load(&mut *store, instance)?;
        let items: Vec<admission::Item> = ask.iter().map(asked).collect();
        let answered = hook.call_review(store, &items)?;
        let verdicts = |verdicts: Vec<_>| verdicts.into_iter().map(verdict).collect();
        Ok(answered.map(verdicts).map_err(HookError::Other))
    }
}

fn asked(item: &Item) -> admission::Item {
    admission::Item {
        tenant: item.request.who.tenant.clone(),
        count: item.request.count,
        min_count: item.request.min_count,
        live: item.facts.live,
    }
}

fn verdict(verdict: admission::Verdict) -> Verdict {
    let denial = |message| Denial {
        code: "policy".to_owned(),
        message,
        retry_after_ms: None,
    };
    match verdict {
        admission::Verdict::Abstain => Verdict::Abstain,
        admission::Verdict::Deny(message) => Verdict::Deny(denial(message)),
        admission::Verdict::Wait(max_wait_ms) => Verdict::Queue(Deferral {
            queue: "default".to_owned(),
            priority: 0,
            max_wait_ms,
        }),
        admission::Verdict::Admit(grant) => Verdict::Admit(Grant {
            count: grant.count,
            shape: None,
            ttl_ms: None,
            holds: Vec::new(),
            when_full: WhenFull::Deny(denial("full".to_owned())),
            add_labels: Vec::new(),
            warnings: grant.note.into_iter().collect(),
        }),
    }
}

struct Own(plugin::GuestIndices);

impl Introduces for Own {
    fn describe(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
    ) -> wasmtime::Result<Description> {
        let told = self.0.load(&mut *store, instance)?.call_describe(store)?;
        Ok(Description {
            name: told.name,
            version: told.version,
            settings_schema: told.settings_schema,
            metrics: told.metrics,
        })
    }

    fn prepare(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
        document: &str,
    ) -> wasmtime::Result<Prepared> {
        let own = self.0.load(&mut *store, instance)?;
        let diagnostic = |wrong: plugin::Diagnostic| Diagnostic {
            at: wrong.at,
            message: wrong.message,
        };
        let prepared = own.call_prepare(store, document)?;
        Ok(prepared.map_err(|wrong| wrong.into_iter().map(diagnostic).collect()))
    }
}

const NOW: Now = Now::from_unix_nanos(7_000_000_003);

/// The child that compiles is the program of this crate, two directories above the test.
fn host() -> Host {
    let test = std::env::current_exe().expect("this test has a file");
    let built = test.ancestors().nth(2).expect("target/…/debug");
    let mut options = HostOptions::new(CompileOptions::new(built.join("brood-plugin-host")));
    options.pool.instances = 16;
    let (store, observer) = (Arc::new(VolatileState::default()), Arc::new(Silent));
    Host::begin(&options, store, observer, (None, BOTH)).expect("starts")
}

fn spec(id: &str) -> PluginSpec {
    PluginSpec {
        id: id.into(),
        component: "test.wasm".into(),
        digest: None,
        grants: Grants(Import::ALL.to_vec()),
        settings: json!({}),
        state: StateOptions::default(),
        log_level: LogLevel::Info,
    }
}

fn old() -> Component {
    let grant = json!({
        "count": 5, "shape": null, "ttl-ms": null, "holds": [],
        "when-full": { "deny": { "code": "quota", "message": "full", "retry-after-ms": null } },
        "add-labels": [], "warnings": [],
    });
    Component::new("admission-policy")
        .extra(r#"(import "brood:policy/clock@0.1.0" "now" (func $now (result i64)))"#)
        .answer("review", json!({ "ok": [{ "admit": grant }] }))
        .body("review", "(drop (call $now)) $ANSWER")
}

/// Grants as many as the seconds of its clock.
fn new() -> Component {
    Component::of("fixtures/policy-0.2", "admission-policy")
        .extra(r#"(import "brood:policy/clock@0.2.0" "now" (func $now (param i32)))"#)
        .answer(
            "review",
            json!({ "ok": [{ "admit": { "count": 1, "note": "of 0.2" } }] }),
        )
        .body(
            "review",
            "(call $now (i32.const 64))
             (i32.store offset=4 (i32.load offset=4 $ANSWER) (i32.wrap_i64 (i64.load (i32.const 64))))
             $ANSWER",
        )
}

fn bind(host: &Host, id: &str, component: &Component) -> Arc<Binding<Admission>> {
    let plugin = host.add(&spec(id), &component.build());
    let plugin = plugin.unwrap_or_else(|error| panic!("{error}"));
    let binding = BindingSpec::new(HookName::Admission, id);
    host.bind(binding, &plugin, None).expect("binds")
}

fn items() -> Vec<Item> {
    let request = ForkRequest {
        operation: "fork".into(),
        who: Principal {
            tenant: "acme".into(),
            ..Principal::default()
        },
        count: 8,
        min_count: 1,
        ..ForkRequest::default()
    };
    let facts = Facts::default();
    vec![Item { request, facts }]
}

#[test]
fn components_of_two_versions_decide_together_are_recorded_and_replay() {
    let host = host();
    let bindings = [bind(&host, "old", &old()), bind(&host, "new", &new())];
    let asked = Asked::new(items());
    let each: Vec<Decision> = bindings
        .iter()
        .map(|one| {
            let said = block_on(hear_all(std::slice::from_ref(one), NOW, asked.clone()));
            decide(&items(), &said).remove(0)
        })
        .collect();
    let counts: Vec<u32> = each.iter().map(|one| granted(one).count).collect();
    assert_eq!(counts, [5, 7]);
    let said = block_on(hear_all(&bindings, NOW, asked));
    let together = decide(&items(), &said).remove(0);
    assert_eq!(granted(&together).count, 5);
    assert_eq!(granted(&together).warnings, ["admission/new: of 0.2"]);
    let versions = [old(), new()].map(|one| host.load(&spec("any"), &one.build()).expect("loads"));
    let records = host.records().all(NOW);
    assert_eq!(records.len(), 4);
    for record in records {
        let version = versions
            .iter()
            .find(|version| version.digest() == record.component);
        assert_eq!(host.replay(&record, version.expect("one of them")), Ok(()));
    }
}

fn granted(decision: &Decision) -> &brood_hooks::admission::Admitted {
    match decision {
        Decision::Admitted(admitted) => admitted,
        other => panic!("{other:?}"),
    }
}

#[test]
fn version_that_is_not_served_is_told_all_that_are() {
    let later = Component::new("admission-policy")
        .other_wit("brood:policy@0.1.0", "brood:policy@0.3.0")
        .build();
    match host().add(&spec("later"), &later) {
        Err(AddError::Load(error @ LoadError::OtherVersion { .. })) => assert_eq!(
            error.to_string(),
            "plugin later was built for brood:policy@0.3.0, and this engine serves brood:policy@0.1.0 and \
             brood:policy@0.2.0: build it against the engine's wit/"
        ),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    }
}
