//! The plugins that ship, as components in the real host: recorded calls, policy files, and what happens without them.
//!
//! `cargo xtask test` builds the components and says where they are, in `BROOD_PLUGINS`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brood::plugin::child::compile_options;
use brood::plugin::{ask, calls, open};
use brood_hooks::admission::{Decision, decide};
use brood_hooks::billing::{Action, Rated, Total};
use brood_hooks::mutation::{Outcome, Patch};
use brood_hooks::{Admission, Ceiling, Failure, Heard, Hook, HookName, Mutation, Now, Panel, Said};
use brood_plugin_host::{Asked, Builtins, Host, Policies, block_on};
use brood_policy::{BindingSpec, Mode, PolicySet, parse};

const SHIPPED: [&str; 4] = ["quota", "spread", "identity", "price-table"];

/// 2026-01-01, as in the recorded calls.
const NOW: Now = Now::from_unix_nanos(1_767_225_600_000_000_000);

/// The directory of components; none if they were not built, which CI does not forgive.
fn components() -> Option<PathBuf> {
    open::compile_with(compile_options(
        Path::new(env!("CARGO_BIN_EXE_brood")),
        None,
    ));
    let Some(directory) = std::env::var_os("BROOD_PLUGINS") else {
        assert!(std::env::var_os("CI").is_none(), "CI needs BROOD_PLUGINS");
        eprintln!("skipped: BROOD_PLUGINS is not set; run `cargo xtask test`");
        return None;
    };
    Some(directory.into())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn shipped_plugins_answer_as_recorded() {
    let Some(components) = components() else {
        return;
    };
    let (mut different, mut count) = (Vec::new(), 0);
    for name in SHIPPED {
        let component = open::bytes(&components.join(format!("{name}.wasm"))).expect("reads");
        let recorded = workspace().join("plugins").join(name).join("calls");
        let files = calls::files(&recorded).expect("lists");
        assert!(!files.is_empty(), "{name} has no recorded calls");
        for file in files {
            let played = calls::play(&component, &file).expect("plays");
            assert!(!played.calls.is_empty(), "{}", file.display());
            count += played.calls.len();
            let differing = played
                .calls
                .into_iter()
                .filter(|call| call.differs.is_some());
            different.extend(differing);
        }
    }
    assert!(different.is_empty(), "{different:#?}");
    assert!(count >= 40, "only {count} calls are recorded");
}

#[test]
fn example_in_python_answers_as_recorded() {
    let Some(components) = components() else {
        return;
    };
    let component = components.join("freeze.wasm");
    if !component.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI needs freeze.wasm");
        eprintln!("skipped: there is no freeze.wasm; run `cargo xtask plugins --python`");
        return;
    }
    let component = open::bytes(&component).expect("reads");
    let file = workspace().join("examples/plugin-python/calls/freeze.json");
    let played = calls::play(&component, &file).expect("plays");
    let names: Vec<_> = played
        .calls
        .iter()
        .filter(|call| call.differs.is_some())
        .collect();
    assert!(names.is_empty() && played.calls.len() == 3, "{names:#?}");
}

fn policy(name: &str) -> PolicySet {
    let path = workspace().join("policies").join(name);
    let text = fs::read_to_string(&path).expect("reads");
    parse(name, &text).unwrap_or_else(|mistakes| unreachable!("{mistakes}"))
}

fn builtins() -> Builtins {
    let ceiling = Ceiling {
        per_request: 3,
        live_per_tenant: 10,
    };
    let mut builtins = Builtins::default();
    builtins
        .admission
        .insert("ceiling".into(), Arc::new(ceiling));
    builtins
}

fn opened(host: &Host, set: &PolicySet, components: &Path) -> Policies {
    Policies::open(host, set, components, &builtins())
        .unwrap_or_else(|errors| unreachable!("{errors}"))
}

/// What the bindings of a hook say; each counts, or only warns where the file says so.
fn hear<H: Hook>(set: &PolicySet, panel: &dyn Panel<H>, ask: H::Ask) -> Vec<Said<H>> {
    let said = block_on(panel.hear(NOW, ask));
    assert!(!said.is_empty(), "nobody is bound to {}", H::NAME);
    for one in &said {
        let spec = set.bindings.iter().find(|spec| spec.name() == one.binding);
        let mode = spec.expect("a binding of the file").mode;
        let as_declared = match &one.heard {
            Heard::Enforced(_) => mode == Mode::Enforce,
            Heard::Warned(_) => mode == Mode::Warn,
            Heard::Ignored(_) | Heard::Failed(_) => false,
        };
        assert!(as_declared, "{}: {:?}", one.binding, one.heard);
    }
    said
}

#[test]
fn every_policy_file_binds_the_shipped_components_and_is_answered_at_every_hook() {
    let Some(components) = components() else {
        return;
    };
    let mut files = 0;
    for entry in fs::read_dir(workspace().join("policies")).expect("lists") {
        let name = entry.expect("an entry").file_name();
        let set = policy(&name.to_string_lossy());
        let host = open::host().expect("starts");
        let policies = opened(&host, &set, &components);
        let ask = ask::admission();
        let said = hear(&set, &policies.admission, ask.clone());
        let decision = decide(&ask, &said).remove(0);
        assert!(
            matches!(decision, Decision::Admitted(_)),
            "{name:?}: {decision:?}"
        );
        hear(&set, &policies.placement, ask::placement());
        hear(&set, &policies.mutation, ask::mutation());
        hear(&set, &policies.billing, ask::billing());
        files += 1;
    }
    assert!(files >= 3, "{files} policy files");
}

#[test]
fn a_thousand_daughters_with_values_of_their_own_are_planned_on_half_of_the_default_fuel() {
    const COUNT: u32 = 1000;
    let Some(components) = components() else {
        return;
    };
    let names: Vec<String> = (0..COUNT).map(|index| format!("shard {index}")).collect();
    let settings = serde_json::json!({ "give": {
        "numbers": { "PORT": { "first": 20_000, "step": 2 } },
        "values": { "SHARD": { "list": names } },
    }});
    let component = open::bytes(&components.join("identity.wasm")).expect("reads");
    let host = open::host().expect("starts");
    let plugin = host.add(&open::spec("identity", settings), &component);
    let mut spec = BindingSpec::new(HookName::Mutation, "identity");
    // Fuel is what counts; this machine may be busy.
    spec.limits.deadline_ms = 60_000;
    let binding = host.bind::<Mutation>(spec, &plugin.expect("loads"), None);
    let mut brief = ask::mutation();
    brief.daughters.count = COUNT;
    brief.request.count = COUNT;
    let answered = binding
        .expect("binds")
        .call_here(NOW, &Asked::new(brief))
        .expect("planned");
    let Outcome::Plan(plan) = answered.answer() else {
        unreachable!("{answered:?}")
    };
    assert_eq!(plan.rules.len(), 1000);
    let last = plan.rules.last().expect("a thousand");
    let own = |name: &str, value: &str| Patch::SetEnv(name.to_owned(), value.to_owned());
    assert_eq!(
        last.patches,
        [own("PORT", "21998"), own("SHARD", "shard 999")]
    );
    let records = host.records().all(NOW);
    let record = records.last().expect("of the call");
    let (used, fuel) = (record.fuel_used, record.limits.fuel);
    assert!(used < fuel / 2, "{used} of {fuel}");
}

/// What the hosting provider charges for a minute of eight machines, tenant by tenant.
fn charged(policies: &Policies, set: &PolicySet, tenant: &str) -> Rated {
    let mut batch = ask::billing();
    batch.accounts[0].tenant = tenant.to_owned();
    batch.totals = vec![Total {
        account: 0,
        dimension: 0,
        period_start_ms: 0,
        quantity: 1,
    }];
    let said = hear(set, &policies.billing, batch);
    match said.as_slice() {
        [
            Said {
                heard: Heard::Enforced(rated),
                ..
            },
        ] => rated.answer().clone(),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn hosting_provider_charges_by_plan_and_refuses_strangers() {
    let Some(components) = components() else {
        return;
    };
    let set = policy("hosting-provider.toml");
    let host = open::host().expect("starts");
    let policies = opened(&host, &set, &components);
    let amounts = |rated: &Rated| -> i64 { rated.lines.iter().map(|line| line.amount_nanos).sum() };
    // 8 vCPU minutes at 0.042 EUR an hour.
    let acme = charged(&policies, &set, "acme");
    assert_eq!(
        (acme.lines.len(), amounts(&acme)),
        (8, 5_600_000),
        "{acme:?}"
    );
    assert_eq!(acme.budgets[0].left_nanos, 5000 * 1_000_000_000 - 5_600_000);
    // Within the free hours, and prepaid with nothing paid.
    let stranger = charged(&policies, &set, "somebody");
    assert_eq!((stranger.waived.len(), stranger.lines.len()), (8, 0));
    assert_eq!(stranger.budgets[0].action, Action::RefuseForks);
    let house = charged(&policies, &set, "operations");
    assert_eq!((house.waived.len(), house.budgets.len()), (8, 0));

    let mut ask = ask::admission();
    ask[0].request.who.tenant = "somebody".to_owned();
    let said = hear(&set, &policies.admission, ask.clone());
    let Decision::Denied { denial, .. } = decide(&ask, &said).remove(0) else {
        unreachable!("{said:?}")
    };
    assert_eq!(
        denial.message,
        "tenant somebody is not known here and may not fork"
    );
}

/// A directory with the shipped components in it, so that one can be removed.
fn own_copy(components: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for name in SHIPPED.map(|name| format!("{name}.wasm")) {
        fs::copy(components.join(&name), copy.path().join(&name)).expect("copies");
    }
    copy
}

/// The default policy with this fail mode at admission, from a directory without `quota.wasm`.
fn removed_quota(components: &Path, on_failure: &str) -> (Vec<Said<Admission>>, Decision) {
    let text = fs::read_to_string(workspace().join("policies/default.toml")).expect("reads");
    let bound = "[[admission]]\nplugin = \"quota\"\n";
    assert!(text.contains(bound));
    let declared = format!("{bound}on-failure = \"{on_failure}\"\n");
    let set = parse("removed.toml", &text.replace(bound, &declared))
        .unwrap_or_else(|mistakes| unreachable!("{mistakes}"));
    let copy = own_copy(components);
    fs::remove_file(copy.path().join("quota.wasm")).expect("removes");
    let host = open::host().expect("starts");
    let policies = opened(&host, &set, copy.path());
    let missing = policies.missing.first().expect("told").to_string();
    assert!(missing.contains("plugin quota") && missing.contains("quota.wasm cannot be read"));
    let said = block_on(policies.admission.hear(NOW, ask::admission()));
    let absent = policies.admission.absent().next().expect("it is bound");
    assert_eq!(absent.counters().failures(), 1);
    let decision = decide(&ask::admission(), &said).remove(0);
    (said, decision)
}

#[test]
fn component_that_is_removed_fails_as_declared_and_one_in_use_goes_on() {
    let Some(components) = components() else {
        return;
    };
    let names_it = |why: &Failure| why.to_string().contains("quota.wasm cannot be read");
    let (said, decision) = removed_quota(&components, "closed");
    assert!(matches!(&said[0].heard, Heard::Failed(why) if names_it(why)));
    assert!(matches!(decision, Decision::Denied { .. }), "{decision:?}");

    let (said, decision) = removed_quota(&components, "open");
    assert!(matches!(&said[0].heard, Heard::Ignored(why) if names_it(why)));
    let warning = said[0].warning().expect("it is not silent");
    assert!(warning.contains("fails open"), "{warning}");
    assert!(matches!(decision, Decision::Admitted(_)), "{decision:?}");

    let (said, decision) = removed_quota(&components, "fallback:builtin-ceiling");
    assert!(said[0].stands_in.as_ref().is_some_and(names_it));
    let Decision::Admitted(admitted) = decision else {
        unreachable!("{decision:?}")
    };
    assert_eq!(admitted.count, 3, "the ceiling's own limit");

    let copy = own_copy(&components);
    let (set, host) = (policy("default.toml"), open::host().expect("starts"));
    let policies = opened(&host, &set, copy.path());
    fs::remove_file(copy.path().join("quota.wasm")).expect("removes");
    hear(&set, &policies.admission, ask::admission());
}

/// The default policy with a quota that cannot answer, and what becomes of a fork.
fn without_quota(components: &Path, on_failure: &str) -> (Vec<Said<Admission>>, Decision) {
    let text = fs::read_to_string(workspace().join("policies/default.toml")).expect("reads");
    let bound = "[[admission]]\nplugin = \"quota\"\n";
    assert!(text.contains(bound));
    // Too little for the component to say a word.
    let starved = format!("{bound}limits = {{ fuel = 1000 }}\non-failure = \"{on_failure}\"\n");
    let set = parse("starved.toml", &text.replace(bound, &starved))
        .unwrap_or_else(|mistakes| unreachable!("{mistakes}"));
    let host = open::host().expect("starts");
    let policies = opened(&host, &set, components);
    let said = block_on(policies.admission.hear(NOW, ask::admission()));
    let decision = decide(&ask::admission(), &said).remove(0);
    (said, decision)
}

#[test]
fn plugin_that_cannot_answer_fails_as_declared_and_never_silently() {
    let Some(components) = components() else {
        return;
    };
    let (said, decision) = without_quota(&components, "closed");
    assert!(matches!(&said[0].heard, Heard::Failed(why) if why.to_string().contains("fuel")));
    assert!(matches!(decision, Decision::Denied { .. }), "{decision:?}");

    let (said, decision) = without_quota(&components, "open");
    assert!(matches!(&said[0].heard, Heard::Ignored(why) if why.to_string().contains("fuel")));
    assert!(matches!(decision, Decision::Admitted(_)), "{decision:?}");

    let (said, decision) = without_quota(&components, "fallback:builtin-ceiling");
    assert!(matches!(&said[0].heard, Heard::Enforced(_)));
    let Decision::Admitted(admitted) = decision else {
        unreachable!("{decision:?}")
    };
    assert_eq!(admitted.count, 3, "the ceiling's own limit");
}
