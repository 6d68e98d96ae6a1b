//! Policy files: those that ship, and mistakes in ones that do not.
#![expect(clippy::panic, reason = "a helper of a test ends the test")]

use std::path::Path;

use brood_hooks::HookName;
use brood_policy::{Mistakes, Mode, OnFailure, PolicySet, Tenants, parse};

/// A file that is right, for mistakes to be put into.
const RIGHT: &str = r#"version = 1

[plugin.quota]
component = "quota.wasm"
grants = ["log", "state"]
[plugin.quota.settings]
max-live = 8

[plugin.spare]
component = "spare.wasm"

[[admission]]
plugin = "quota"
order = 10
on-failure = "fallback:spare"
limits = { fuel = 1000 }

[[admission]]
plugin = "spare"
order = 20
mode = "off"
"#;

fn mistakes(from: &str, to: &str) -> Mistakes {
    assert!(RIGHT.contains(from), "{from}");
    parse("p.toml", &RIGHT.replacen(from, to, 1)).expect_err("a mistake")
}

/// The only mistake, as it is shown.
fn mistake(from: &str, to: &str) -> String {
    let Mistakes(mistakes) = mistakes(from, to);
    let [one] = mistakes.as_slice() else {
        panic!("{mistakes:?}")
    };
    one.to_string()
}

#[test]
fn right_file_says_what_it_says_and_defaults_for_the_rest() {
    let set = parse("p.toml", RIGHT).expect("right");
    let [first, second] = set.bindings.as_slice() else {
        panic!("{:?}", set.bindings)
    };
    assert_eq!(first.on_failure, OnFailure::Fallback("spare".into()));
    assert_eq!((first.limits.fuel, first.limits.deadline_ms), (1000, 5));
    assert_eq!(
        (second.mode, &second.on_failure),
        (Mode::Off, &OnFailure::Closed)
    );
    assert_eq!(
        set.plugins[0].settings,
        serde_json::json!({ "max-live": 8 })
    );
    assert!(
        set.plugins[1].grants.0.is_empty(),
        "nothing is granted that is not written"
    );
}

#[test]
fn every_policy_that_ships_binds_all_four_hooks_to_the_plugins_that_ship() {
    for name in ["default", "platform-team", "hosting-provider"] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../policies/{name}.toml"));
        let text = std::fs::read_to_string(&path).expect("reads");
        let PolicySet { plugins, bindings } =
            parse(name, &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let ids: Vec<&str> = plugins.iter().map(|plugin| plugin.id.as_str()).collect();
        assert_eq!(
            ids,
            ["identity", "price-table", "quota", "spread"],
            "{name}"
        );
        let hooks: Vec<HookName> = bindings.iter().map(|binding| binding.hook).collect();
        assert_eq!(hooks, HookName::ALL, "{name}");
    }
}

#[test]
fn provider_fails_closed_at_every_hook() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/hosting-provider.toml");
    let set = parse("h", &std::fs::read_to_string(path).expect("reads")).expect("right");
    for binding in set.bindings {
        assert_eq!(binding.on_failure, OnFailure::Closed, "{}", binding.name());
        assert_eq!(binding.mode, Mode::Enforce, "{}", binding.name());
    }
}

#[test]
fn all_mistakes_are_reported_at_once_with_file_and_line() {
    let text = "version = 1\n[plugin.quota]\nkomponent = \"q.wasm\"\n[[admission]]\nplugin = \"kwota\"\nfule = 3\n";
    let shown = parse("policies/x.toml", text)
        .expect_err("mistakes")
        .to_string();
    let expected = [
        "policies/x.toml:2: [plugin.quota] lacks 'component'",
        "policies/x.toml:3: 'komponent' is not a key of [plugin.quota]; did you mean 'component'?",
        "policies/x.toml:4: 'kwota' is not a [plugin.…] of this file",
        "policies/x.toml:6: 'fule' is not a key of [[admission]]",
    ];
    for (line, expected) in shown.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    assert_eq!(shown.lines().count(), expected.len(), "{shown}");
}

#[test]
fn nearest_valid_word_is_offered_for_keys_words_and_imports() {
    assert!(
        mistake("fuel =", "fual =")
            .contains("p.toml:16: 'fual' is not a key of limits; did you mean 'fuel'?")
    );
    assert!(mistake("\"off\"", "\"of\"").contains("did you mean 'off'?"));
    assert!(mistake("\"state\"", "\"stat\"").contains("did you mean 'state'?"));
    assert!(
        mistake(
            "[[admission]]",
            "[[admision]]\nplugin = \"quota\"\n[[admission]]"
        )
        .contains("did you mean 'admission'?")
    );
}

#[test]
fn number_out_of_bounds_and_value_of_another_type_are_refused() {
    assert!(mistake("fuel = 1000", "fuel = 0").contains("from 1 to"));
    assert!(mistake("fuel = 1000", "memory-mib = 65").contains("from 1 to 64"));
    assert!(mistake("fuel = 1000", "fuel = \"much\"").contains("a whole number"));
    assert!(mistake("max-live = 8", "max-live = 8.5").contains("whole numbers"));
    assert!(mistake("version = 1", "version = 2").contains("from 1 to 1"));
}

#[test]
fn bindings_that_conflict_are_refused_not_ordered_by_line() {
    assert!(mistake("order = 20", "order = 10").contains("both bound to admission with order 10"));
    let text = RIGHT.replacen("plugin = \"spare\"", "plugin = \"quota\"", 1);
    let shown = parse("p.toml", &text).expect_err("a mistake").to_string();
    assert!(shown.contains("bound to admission twice"), "{shown}");
    let twice =
        "[[billing]]\nplugin = \"quota\"\norder = 1\n[[billing]]\nplugin = \"spare\"\norder = 2\n";
    let shown = parse("p.toml", &format!("{RIGHT}{twice}"))
        .expect_err("a mistake")
        .to_string();
    assert!(shown.contains("only one may enforce"), "{shown}");
}

#[test]
fn billing_cannot_fail_open_and_fallbacks_do_not_chain_or_dangle() {
    let open = "[[billing]]\nplugin = \"quota\"\non-failure = \"open\"\n";
    let shown = parse("p.toml", &format!("{RIGHT}{open}"))
        .expect_err("a mistake")
        .to_string();
    assert!(shown.contains("cannot fail open"), "{shown}");
    assert!(mistake("fallback:spare", "fallback:quota").contains("its own fallback"));
    assert!(mistake("fallback:spare", "fallback:spar").contains("did you mean 'spare'?"));
    let Mistakes(both) = mistakes("mode = \"off\"", "on-failure = \"fallback:quota\"");
    assert!(
        both.iter()
            .all(|mistake| mistake.message.contains("do not chain")),
        "{both:?}"
    );
    assert_eq!(both.len(), 2);
}

#[test]
fn text_that_is_not_toml_is_one_mistake_with_its_line() {
    let Mistakes(mistakes) = parse("p.toml", "version = 1\n[plugin\n").expect_err("a mistake");
    assert_eq!(mistakes[0].line, 2);
}

#[test]
fn a_binding_is_for_all_tenants_for_some_or_for_all_but_some() {
    let right = |line: &str| {
        let text = RIGHT.replacen("order = 10", &format!("order = 10\n{line}"), 1);
        let set = parse("p.toml", &text).expect("right");
        let bindings = set.bindings.into_iter();
        let mut first = bindings.filter(|binding| binding.order == 10);
        first.next().map(|binding| binding.tenants)
    };
    let two = || vec!["acme".to_owned(), "globex".to_owned()];
    assert_eq!(right(""), Some(Tenants::All));
    let only = right("tenants = [\"acme\", \"globex\"]");
    assert_eq!(only, Some(Tenants::Only(two())));
    let except = right("except-tenants = [\"acme\", \"globex\"]");
    assert_eq!(except, Some(Tenants::Except(two())));
    let wrong = |line: &str| mistake("order = 10", &format!("order = 10\n{line}"));
    assert!(wrong("tenants = []").contains("'tenants' names nobody"));
    assert!(wrong("tenants = \"acme\"").contains("'tenants' of [[admission]] must be a list"));
    let both = wrong("tenants = [\"a\"]\nexcept-tenants = [\"b\"]");
    assert!(
        both.contains("'tenants' or 'except-tenants', not both"),
        "{both}"
    );
    assert!(wrong("tenant = [\"a\"]").contains("tenants"));
}

#[test]
fn only_one_binding_bills_a_tenant_and_another_may_bill_another() {
    let billing = |plugin: &str, order: u32, whom: &str| {
        format!("\n[[billing]]\nplugin = \"{plugin}\"\norder = {order}\n{whom}\n")
    };
    let text = |one: &str, other: &str| {
        format!(
            "{RIGHT}{}{}",
            billing("quota", 1, one),
            billing("spare", 2, other)
        )
    };
    let acme = "tenants = [\"acme\"]";
    let others = "except-tenants = [\"acme\"]";
    let globex = "tenants = [\"globex\"]";
    for (one, other) in [(acme, others), (acme, globex), (others, acme)] {
        let set = parse("p.toml", &text(one, other));
        assert!(set.is_ok(), "{one} {other}: {set:?}");
    }
    for (one, other) in [
        ("", acme),
        (acme, acme),
        (others, globex),
        (others, ""),
        ("", ""),
    ] {
        let set = parse("p.toml", &text(one, other)).expect_err("both bill somebody");
        assert!(
            set.to_string().contains("would both bill the same usage"),
            "{set}"
        );
    }
}
