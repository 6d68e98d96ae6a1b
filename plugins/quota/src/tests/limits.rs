//! Limits that one request is looked at with.

use brood_plugin::testkit::item;
use brood_plugin::types::Resources;

use super::{denied, granted, limited, verdict};

#[test]
fn request_without_limits_is_admitted_as_it_is() {
    let grant = granted(limited("{}", &item(3)));
    assert_eq!((grant.count, grant.shape, grant.ttl_ms), (3, None, None));
    assert!(grant.holds.is_empty() && grant.warnings.is_empty() && grant.add_labels.is_empty());
}

#[test]
fn count_is_lowered_only_as_far_as_the_caller_accepts() {
    let limits = r#"{"max-per-request": 4}"#;
    assert_eq!(granted(limited(limits, &item(4))).count, 4);
    let denial = denied(limited(limits, &item(5)));
    assert_eq!(denial.message, "5 machines in one request, 4 are allowed");
    let mut elastic = item(5);
    elastic.request.min_count = 2;
    let grant = granted(limited(limits, &elastic));
    assert_eq!(grant.count, 4);
    assert_eq!(
        grant.warnings,
        ["4 of 5 machines: more do not fit the limits"]
    );
}

#[test]
fn count_that_is_no_count_is_malformed() {
    for (count, least) in [(0, 0), (3, 0), (3, 4)] {
        let mut item = item(count);
        item.request.min_count = least;
        assert_eq!(
            denied(limited("{}", &item)).code,
            "malformed",
            "{count} {least}"
        );
    }
}

#[test]
fn size_is_narrowed_to_what_is_allowed() {
    let limits =
        r#"{"machine-vcpu-milli": 500, "machine-disk-mib": 100, "machine-memory-mib": 512}"#;
    let mut asked = item(1);
    asked.request.shape.more = vec![("gpu".to_owned(), 1)];
    let shape = granted(limited(limits, &asked)).shape.unwrap();
    let expected = Resources {
        vcpu_milli: 500,
        memory_mib: 512,
        disk_mib: 100,
        more: vec![("gpu".to_owned(), 1)],
    };
    assert_eq!(shape, expected);
}

#[test]
fn size_within_the_limits_is_left_alone() {
    let limits =
        r#"{"machine-vcpu-milli": 1000, "machine-disk-mib": 1024, "machine-memory-mib": 512}"#;
    assert_eq!(granted(limited(limits, &item(1))).shape, None);
}

#[test]
fn inherited_memory_is_refused_and_other_memory_narrowed() {
    let limits = r#"{"machine-memory-mib": 511}"#;
    for kind in ["running", "checkpoint"] {
        let mut item = item(1);
        item.request.mother.kind = kind.to_owned();
        let denial = denied(limited(limits, &item));
        assert_eq!(
            denial.message,
            "a daughter inherits 512 MiB of memory, 511 are allowed"
        );
    }
    let mut item = item(1);
    item.request.mother.kind = "image".to_owned();
    assert_eq!(
        granted(limited(limits, &item)).shape.unwrap().memory_mib,
        511
    );
}

#[test]
fn depth_counts_the_daughters_and_not_the_mother() {
    let limits = r#"{"max-depth": 3}"#;
    let at = |generation| {
        let mut item = item(1);
        item.request.mother.generation = generation;
        item
    };
    granted(limited(limits, &at(2)));
    let message = denied(limited(limits, &at(3))).message;
    assert_eq!(
        message,
        "the daughters would be 4 forks away from their template, 3 are allowed"
    );
    denied(limited(limits, &at(u32::MAX)));
    let mut create = at(9);
    create.request.operation = "create".to_owned();
    granted(limited(limits, &create));
}

#[test]
fn life_is_capped_also_where_none_was_asked() {
    let limits = r#"{"max-ttl-ms": 1000}"#;
    let asked = |ttl_ms| {
        let mut item = item(1);
        item.request.ttl_ms = ttl_ms;
        granted(limited(limits, &item)).ttl_ms
    };
    assert_eq!(asked(None), Some(1000));
    assert_eq!(asked(Some(2000)), Some(1000));
    assert_eq!(asked(Some(1000)), None);
    assert_eq!(asked(Some(1)), None);
}

#[test]
fn life_is_capped_for_an_extension_too() {
    let mut item = item(1);
    item.request.operation = "extend".to_owned();
    let grant = granted(limited(r#"{"max-ttl-ms": 1000, "max-live": 0}"#, &item));
    assert_eq!((grant.ttl_ms, grant.holds.len()), (Some(1000), 0));
}

#[test]
fn operations_are_an_allow_list() {
    let limits = r#"{"operations": ["fork", "claim"]}"#;
    granted(limited(limits, &item(1)));
    let mut item = item(1);
    item.request.operation = "snapshot".to_owned();
    let message = denied(limited(limits, &item)).message;
    assert_eq!(message, "snapshot is not allowed, only fork, claim");
}

#[test]
fn budget_below_the_least_denies_and_none_kept_does_not() {
    let limits = r#"{"budget-nanos": 1500000000}"#;
    let with = |left| {
        let mut item = item(1);
        item.facts.budget_left_nanos = left;
        limited(limits, &item)
    };
    granted(with(None));
    granted(with(Some(1_500_000_000)));
    let denial = denied(with(Some(-250_000_000)));
    assert_eq!(denial.code, "budget");
    assert_eq!(
        denial.message,
        "-0.25 of the budget are left, and 1.5 are needed"
    );
    let denial = denied(with(Some(0)));
    assert_eq!(
        denial.message,
        "0 of the budget are left, and 1.5 are needed"
    );
}

#[test]
fn labels_are_added() {
    let grant = granted(limited(r#"{"labels": {"tier": "gold"}}"#, &item(1)));
    assert_eq!(grant.add_labels, [("tier".to_owned(), "gold".to_owned())]);
}

#[test]
fn label_with_another_value_is_refused_and_the_same_value_is_not() {
    let limits = r#"{"labels": {"tier": "gold"}}"#;
    let with = |value: &str| {
        let mut item = item(1);
        item.request.labels = vec![("tier".to_owned(), value.to_owned())];
        limited(limits, &item)
    };
    granted(with("gold"));
    let message = denied(with("free")).message;
    assert_eq!(message, "label tier is the operator's, and always gold");
}

#[test]
fn denial_lists_every_reason() {
    let limits = r#"{"max-depth": 0, "max-per-request": 1, "max-live": 1}"#;
    let denial = denied(limited(limits, &item(2)));
    assert_eq!(
        denial.message,
        "the daughters would be 2 forks away from their template, 0 are allowed; \
         2 machines in one request, 1 are allowed; \
         2 such machines never fit the limit of 1 live machines"
    );
    assert_eq!(denial.code, "policy");
}

#[test]
fn own_limits_override_the_class_and_the_class_the_default() {
    let settings = r#"{
        "default": {"max-per-request": 1, "max-depth": 9, "max-ttl-ms": 5},
        "classes": {"gold": {"max-per-request": 2, "max-depth": 8}},
        "tenants": {"acme": {"class": "gold", "max-per-request": 3}, "plain": {}}
    }"#;
    let asked = |tenant: &str, count| {
        let mut item = item(count);
        item.request.who.tenant = tenant.to_owned();
        item.request.mother.generation = 8;
        verdict(settings, &item)
    };
    assert_eq!(
        denied(asked("acme", 4)).message,
        "the daughters would be 9 forks away from their template, 8 are allowed; \
         4 machines in one request, 3 are allowed"
    );
    assert_eq!(granted(asked("plain", 1)).ttl_ms, Some(5));
    denied(asked("plain", 2));
    assert_eq!(granted(asked("unlisted", 1)).ttl_ms, Some(5));
}

#[test]
fn others_are_limited_denied_or_left_to_other_bindings() {
    let with = |others: &str| {
        verdict(
            &format!(r#"{{"others": "{others}", "tenants": {{"x": {{}}}}}}"#),
            &item(1),
        )
    };
    granted(with("default"));
    let denial = denied(with("deny"));
    assert_eq!(
        denial.message,
        "tenant acme is not known here and may not fork"
    );
    assert_eq!(with("abstain"), brood_plugin::admission::Verdict::Abstain);
}
