//! The other three hooks, each with a sound answer and with the wrong ones that only it can give.

use std::fmt::Debug;
use std::sync::Arc;

use brood_hooks::billing::{Account, Batch, Sample};
use brood_hooks::mutation::{Brief, PlacedRun, combine};
use brood_hooks::placement::{Candidate, Question, fill, rank};
use brood_hooks::{
    Billing, Daughter, Failure, Flaw, Heard, HookName, Id128, Mutation, Placement, Span,
};
use brood_plugin_host::{Asked, BindableHook, Host, block_on, hear_all};
use brood_policy::{BindingSpec, OnFailure};
use serde_json::{Value, json};

use crate::component::Component;
use crate::place::{NOW, host, is_sound, request, spec};

/// Answers one hook with a value.
pub(crate) fn component(world: &str, function: &str, value: Value) -> Vec<u8> {
    Component::new(world).answer(function, value).build()
}

/// What a component's answer comes to, replayed as well. A failure is heard as one that fails closed, is counted and
/// recorded, and leaves the host sound.
fn ask<H: BindableHook>(bytes: &[u8], ask: H::Ask, permit: &[&str]) -> Result<H::Answer, Failure>
where
    H::Answer: Debug,
{
    let host = host();
    let plugin = host.add(&spec(), bytes).expect("loads");
    let mut binding = BindingSpec::new(H::NAME, "test");
    binding.permits.file_roots = permit.iter().map(|root| (*root).to_owned()).collect();
    binding.on_failure = OnFailure::Closed;
    let binding = host.bind::<H>(binding, &plugin, None).expect("binds");
    let mut said = block_on(hear_all(&[Arc::clone(&binding)], NOW, Asked::new(ask)));
    replays(&host, &plugin.current());
    match said.remove(0).heard {
        Heard::Enforced(answer) => Ok(answer.answer().clone()),
        Heard::Failed(failure) => {
            let counters = binding.counters();
            assert_eq!(counters.failed.get(&failure.kind()), Some(&1));
            assert_eq!(counters.calls(), 1);
            let records = host.records().all(NOW);
            assert_eq!(records[0].failure.as_ref(), Some(&failure));
            is_sound(&host);
            Err(failure)
        }
        other => panic!("{other:?}"),
    }
}

fn replays(host: &Host, version: &brood_plugin_host::PluginVersion) {
    for record in host.records().all(NOW) {
        assert_eq!(host.replay(&record, version), Ok(()));
    }
}

fn flaw<A: Debug>(answer: Result<A, Failure>) -> Flaw {
    match answer {
        Err(Failure::Malformed(wrong)) => wrong.flaw,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn question() -> Question {
    Question {
        request: request(8),
        wanted: Span { first: 0, count: 8 },
        candidates: (0..3)
            .map(|node| Candidate {
                node,
                ..Candidate::default()
            })
            .collect(),
        ..Question::default()
    }
}

#[test]
fn placement_ranks_and_fills_and_a_wrong_ranking_is_malformed() {
    let host = host();
    let bids = json!({ "ok": {
        "rankings": [{ "bid": { "score": 10, "at-most": 8 } }, { "reject": 0 }, { "bid": { "score": 20, "at-most": 5 } }],
        "reasons": ["drained"],
    }});
    let plugin = host
        .add(&spec(), &component("placement-policy", "rank", bids))
        .expect("loads");
    let binding = BindingSpec::new(HookName::Placement, "test");
    let binding = host
        .bind::<Placement>(binding, &plugin, None)
        .expect("binds");
    let said = block_on(hear_all(&[binding], NOW, Asked::new(question())));
    let ranks = rank(&question(), &said).expect("ranks");
    assert_eq!(ranks.rejected, [(1, "placement/test: drained".to_owned())]);
    let runs = fill(&question(), &ranks, &[8, 8, 8]).expect("all find a place");
    let placed: Vec<_> = runs
        .iter()
        .map(|run| (run.candidate, run.daughters.count))
        .collect();
    assert_eq!(placed, [(2, 5), (0, 3)]);

    let wrong = [
        json!({ "ok": { "rankings": [{ "reject": 0 }], "reasons": ["x"] } }),
        json!({ "ok": { "rankings": [{ "reject": 0 }, { "reject": 1 }, { "reject": 0 }], "reasons": ["x"] } }),
        json!({ "ok": { "rankings": vec![json!({ "bid": { "score": 10001, "at-most": 1 } }); 3], "reasons": [] } }),
    ];
    for value in wrong {
        let bytes = component("placement-policy", "rank", value);
        flaw(ask::<Placement>(&bytes, question(), &[]));
    }
    let few = component(
        "placement-policy",
        "rank",
        json!({ "ok": { "rankings": [], "reasons": [] } }),
    );
    assert_eq!(
        flaw(ask::<Placement>(&few, question(), &[])),
        Flaw::Length {
            expected: 3,
            found: 0
        }
    );
}

pub(crate) fn brief() -> Brief {
    let daughters = Span { first: 0, count: 8 };
    Brief {
        request: request(8),
        daughters,
        first_id: Id128::from_halves(0, 0x10),
        placed: vec![PlacedRun {
            daughters,
            node: 3,
            numa: 0,
        }],
    }
}

pub(crate) fn plan(shared: Value, rules: Value) -> Vec<u8> {
    component(
        "mutation-policy",
        "plan-daughters",
        json!({ "ok": { "plan": { "shared": shared, "rules": rules } } }),
    )
}

fn hostname(template: &str) -> Value {
    json!([{ "network": { "profile": null, "hostname": template, "egress-allow": null, "rate-kbps": null } }])
}

#[test]
fn one_plan_names_every_daughter_and_a_rule_reaches_only_its_own() {
    let host = host();
    let rule = json!([{ "daughters": { "first": 6, "count": 2 }, "patches": [{ "set-env": ["ROLE", "spare"] }] }]);
    let plugin = host
        .add(&spec(), &plan(hostname("w${index}-${node}"), rule))
        .expect("loads");
    let binding = BindingSpec::new(HookName::Mutation, "test");
    let binding = host
        .bind::<Mutation>(binding, &plugin, None)
        .expect("binds");
    let said = block_on(hear_all(&[binding], NOW, Asked::new(brief())));
    let planned = combine(&brief(), &said).expect("a plan");
    let of = |index| {
        let id = Id128::from_halves(0, 0x10).plus(index);
        let daughter = Daughter {
            index,
            id,
            node: 3,
            ip: None,
            mac: None,
        };
        planned.of(&daughter).expect("hers").expect("expands")
    };
    assert_eq!(of(5).network.hostname.as_deref(), Some("w5-3"));
    assert!(of(5).env.is_empty());
    assert_eq!(of(6).env.get("ROLE").map(String::as_str), Some("spare"));
}

#[test]
fn two_plans_that_want_different_host_names_fail_the_fork_and_are_both_named() {
    let host = host();
    let mut bindings = Vec::new();
    for (id, name) in [("first", "a-${index}"), ("second", "b-${index}")] {
        let mut named = spec();
        named.id = id.into();
        let plugin = host
            .add(&named, &plan(hostname(name), json!([])))
            .expect("loads");
        let binding = BindingSpec::new(HookName::Mutation, id);
        bindings.push(
            host.bind::<Mutation>(binding, &plugin, None)
                .expect("binds"),
        );
    }
    let said = block_on(hear_all(&bindings, NOW, Asked::new(brief())));
    let error = combine(&brief(), &said)
        .expect_err("they disagree")
        .to_string();
    assert_eq!(
        error,
        "mutation/first and mutation/second disagree about Hostname of daughters 0 to 8"
    );
    is_sound(&host);
}

#[test]
fn span_outside_the_request_is_malformed() {
    for (first, count) in [(7, 2), (8, 1), (0, 0), (u32::MAX, u32::MAX)] {
        let rule = json!([{ "daughters": { "first": first, "count": count }, "patches": [] }]);
        let wrong = flaw(ask::<Mutation>(&plan(json!([]), rule), brief(), &[]));
        assert!(matches!(wrong, Flaw::Span { .. }), "{wrong}");
    }
}

#[test]
fn plan_reaches_no_file_secret_or_profile_that_is_not_permitted() {
    let write = |path: &str| {
        let file = json!({ "path": path, "mode": 0o644, "content": { "template": "${index}" } });
        plan(json!([{ "write-file": file }]), json!([]))
    };
    assert!(ask::<Mutation>(&write("/etc/brood/role"), brief(), &["/etc/brood"]).is_ok());
    for path in [
        "/etc/shadow",
        "/etc/brood/../shadow",
        "/etc/broodx/role",
        "/etc/brood",
    ] {
        flaw(ask::<Mutation>(&write(path), brief(), &["/etc/brood"]));
    }
    let secret =
        json!([{ "secret": { "name": "key", "version": null, "target": { "env": "KEY" } } }]);
    let wrong = flaw(ask::<Mutation>(&plan(secret, json!([])), brief(), &[]));
    assert!(matches!(wrong, Flaw::NotPermitted { .. }), "{wrong}");
    let other = json!([{ "other": ["gpu", "{}"] }]);
    flaw(ask::<Mutation>(&plan(other, json!([])), brief(), &[]));
}

#[test]
fn template_that_some_daughter_cannot_have_is_malformed_before_the_fork() {
    for wrong in [
        "${name}",
        "-${index}",
        "w_${index}",
        "${ip}",
        "w${index}.",
        "${index",
    ] {
        flaw(ask::<Mutation>(
            &plan(hostname(wrong), json!([])),
            brief(),
            &[],
        ));
    }
    assert!(ask::<Mutation>(&plan(hostname("w-${id}"), json!([])), brief(), &[]).is_ok());
}

pub(crate) fn batch() -> Batch {
    Batch {
        sequence: 7,
        accounts: vec![Account::default()],
        dimensions: vec!["vcpu-ns".into()],
        samples: vec![Sample {
            quantity: 10,
            ..Sample::default()
        }],
        ..Batch::default()
    }
}

pub(crate) fn rated(quantity: i64, price: i64, amount: i64) -> Vec<u8> {
    component(
        "billing-policy",
        "rate",
        json!({ "ok": {
            "skus": [{ "name": "cpu", "currency": "EUR", "unit": "vcpu-ns", "per": 4 }],
            "lines": [{ "sample": 0, "sku": 0, "quantity": quantity, "unit-price-nanos": price, "amount-nanos": amount }],
            "waived": [], "budgets": [],
        }}),
    )
}

#[test]
fn amount_is_recomputed_and_a_price_that_overflows_is_malformed() {
    let right = ask::<Billing>(&rated(10, 3, 8), batch(), &[]).expect("7.5 rounds to 8");
    assert_eq!(right.lines[0].amount_nanos, 8);
    let wrong = flaw(ask::<Billing>(&rated(10, 3, 7), batch(), &[]));
    assert_eq!(
        wrong,
        Flaw::Amount {
            expected: 8,
            found: 7
        }
    );
    let wrong = flaw(ask::<Billing>(&rated(i64::MAX, i64::MAX, 1), batch(), &[]));
    assert_eq!(wrong, Flaw::Overflow);
}

#[test]
fn binding_at_a_hook_that_the_component_does_not_have_is_refused() {
    let host = host();
    let plugin = host.add(&spec(), &rated(1, 4, 1)).expect("loads");
    let binding = BindingSpec::new(HookName::Placement, "test");
    let error = host
        .bind::<Placement>(binding, &plugin, None)
        .err()
        .expect("refused");
    assert_eq!(
        error.to_string(),
        "plugin test has no placement hook; it exports billing"
    );
}
