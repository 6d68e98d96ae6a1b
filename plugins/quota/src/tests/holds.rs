//! Limits that are holds: amounts, counters, rates, and what happens when they are full.

use brood_plugin::Admission;
use brood_plugin::admission::{Deferral, Hold, WhenFull};
use brood_plugin::testkit::{Host, item};

use super::{denied, granted, limited, verdict};
use crate::Quota;

fn hold(key: &str, per_daughter: i64, limit: i64) -> Hold {
    Hold {
        key: key.to_owned(),
        per_request: 0,
        per_daughter,
        limit,
        lasts_ms: None,
    }
}

#[test]
fn every_ceiling_is_a_hold_of_the_daughters_share() {
    let limits = r#"{"max-live": 10, "max-live-per-project": 5, "max-vcpu-milli": 8000, "max-memory-mib": 4096, "max-disk-mib": 9000,
        "max-other": {"gpu": 4}}"#;
    let mut asked = item(2);
    asked.request.shape.more = vec![("gpu".to_owned(), 2)];
    let holds = granted(limited(limits, &asked)).holds;
    let expected = [
        hold("live/tenant/acme", 1, 10),
        hold("live/project/acme/web", 1, 5),
        hold("vcpu-milli/tenant/acme", 1000, 8000),
        hold("memory-mib/tenant/acme", 512, 4096),
        hold("disk-mib/tenant/acme", 1024, 9000),
        hold("other/gpu/tenant/acme", 2, 4),
    ];
    assert_eq!(holds, expected);
}

#[test]
fn hold_counts_what_is_granted_and_not_what_was_asked() {
    let limits = r#"{"max-vcpu-milli": 1000, "machine-vcpu-milli": 250}"#;
    let holds = granted(limited(limits, &item(4))).holds;
    assert_eq!(holds, [hold("vcpu-milli/tenant/acme", 250, 1000)]);
}

#[test]
fn rate_is_a_hold_that_expires() {
    let limits = r#"{"rates": [{"machines": 10, "within-ms": 1000}, {"machines": 100, "within-ms": 60000}]}"#;
    let grant = granted(limited(limits, &item(2)));
    let keys: Vec<(&str, Option<u64>, i64)> = grant
        .holds
        .iter()
        .map(|hold| (hold.key.as_str(), hold.lasts_ms, hold.limit))
        .collect();
    assert_eq!(
        keys,
        [
            ("rate/1000/tenant/acme", Some(1000), 10),
            ("rate/60000/tenant/acme", Some(60_000), 100)
        ]
    );
    let WhenFull::Deny(denial) = grant.when_full else {
        panic!("queued")
    };
    assert_eq!(denial.retry_after_ms, Some(1000));
    assert!(
        denial
            .message
            .contains("10 new machines in 1 s, 100 new machines in 1 min"),
        "{denial:?}"
    );
}

#[test]
fn limits_over_all_tenants_share_one_counter() {
    let settings =
        r#"{"total": {"max-live": 100, "max-memory-mib": 1000}, "tenants": {"acme": {}}}"#;
    let mut other = item(1);
    other.request.who.tenant = "other".to_owned();
    let holds = granted(verdict(settings, &item(1))).holds;
    assert_eq!(
        holds,
        [
            hold("live/total", 1, 100),
            hold("memory-mib/total", 512, 1000)
        ]
    );
    assert_eq!(granted(verdict(settings, &other)).holds, holds);
}

#[test]
fn names_with_slashes_do_not_share_a_counter() {
    let key = |tenant: &str, project: &str| {
        let mut item = item(1);
        item.request.who.tenant = tenant.to_owned();
        item.request.who.project = project.to_owned();
        granted(limited(r#"{"max-live-per-project": 1}"#, &item)).holds[0]
            .key
            .clone()
    };
    assert_eq!(key("a/b", "c% é"), "live/project/a%2fb/c%25%20%c3%a9");
    assert_ne!(key("a/b", "c"), key("a", "b/c"));
    assert_ne!(key("a%2fb", "c"), key("a/b", "c"));
}

#[test]
fn what_never_fits_is_denied_at_once_and_not_queued() {
    let limits = r#"{"max-memory-mib": 1024, "when-full": "queue"}"#;
    granted(limited(limits, &item(2)));
    let denial = denied(limited(limits, &item(3)));
    assert_eq!(denial.code, "quota");
    assert_eq!(
        denial.message,
        "3 such machines never fit the limit of 1024 MiB of memory"
    );
    let mut elastic = item(3);
    elastic.request.min_count = 2;
    assert_eq!(granted(limited(limits, &elastic)).count, 2);
}

#[test]
fn amount_beyond_64_bits_or_below_zero_is_denied_and_does_not_wrap() {
    let asked = |amount| {
        let mut item = item(3);
        item.request.shape.more = vec![("gpu".to_owned(), amount)];
        denied(limited(r#"{"max-other": {"gpu": 4}}"#, &item))
    };
    assert_eq!(asked(i64::MAX).code, "quota");
    assert_eq!(asked(-1).code, "malformed");
    let mut none = item(3);
    none.request.shape.more = vec![("gpu".to_owned(), 0)];
    let grant = granted(limited(r#"{"max-other": {"gpu": 4}}"#, &none));
    assert_eq!(grant.holds[0].per_daughter, 0);
}

#[test]
fn name_too_long_for_a_counter_is_denied() {
    let mut asked = item(1);
    // `live/tenant/` before it: 128 bytes.
    asked.request.who.tenant = "t".repeat(116);
    granted(limited(r#"{"max-live": 1}"#, &asked));
    asked.request.who.tenant.push('t');
    let denial = denied(limited(r#"{"max-live": 1}"#, &asked));
    assert_eq!(
        denial.message,
        "the names of tenant and project are too long to be counted"
    );
}

#[test]
fn granted_count_times_share_stays_within_the_limit() {
    let mut asked = item(u32::MAX);
    asked.request.min_count = 1;
    asked.request.shape.memory_mib = u32::MAX;
    let grant = granted(limited(r#"{"max-memory-mib": 4294967295}"#, &asked));
    assert_eq!(
        (grant.count, grant.holds[0].per_daughter),
        (1, 4_294_967_295)
    );
}

#[test]
fn points_have_a_counter_of_their_own() {
    let limits = r#"{"max-points": 3, "max-live": 1, "rates": [{"machines": 1, "within-ms": 1}]}"#;
    for operation in ["checkpoint", "snapshot"] {
        let mut item = item(1);
        item.request.operation = operation.to_owned();
        assert_eq!(
            granted(limited(limits, &item)).holds,
            [hold("points/tenant/acme", 1, 3)]
        );
    }
    let machine = granted(limited(limits, &item(1))).holds;
    assert!(machine.iter().all(|hold| !hold.key.starts_with("points")) && machine.len() == 2);
}

#[test]
fn resumed_machine_has_its_holds_already_and_an_unknown_operation_takes_all() {
    let with = |operation: &str| {
        let mut item = item(1);
        item.request.operation = operation.to_owned();
        granted(limited(r#"{"max-live": 1}"#, &item)).holds.len()
    };
    assert_eq!((with("resume"), with("extend")), (0, 0));
    assert_eq!((with("wake"), with("teleport")), (1, 1));
}

#[test]
fn full_is_denied_in_words_that_name_the_limits() {
    let mut asked = item(2);
    asked.facts.live = 7;
    let WhenFull::Deny(denial) = granted(limited(
        r#"{"max-live": 8, "max-memory-mib": 99999}"#,
        &asked,
    ))
    .when_full
    else {
        panic!("queued")
    };
    assert_eq!(
        denial.message,
        "tenant acme has 7 live machines, and 2 more do not fit its limits: \
         8 live machines, 99999 MiB of memory"
    );
    assert_eq!(
        (denial.code.as_str(), denial.retry_after_ms),
        ("quota", None)
    );
}

#[test]
fn full_waits_with_a_capped_priority_where_there_is_a_queue() {
    let limits = r#"{"max-live": 8, "when-full": "queue", "queue": "batch", "priority": 5, "max-wait-ms": 700}"#;
    let with = |priority| {
        let mut item = item(1);
        item.request.priority = priority;
        granted(limited(limits, &item)).when_full
    };
    let waits = |priority| {
        WhenFull::Queue(Deferral {
            queue: "batch".to_owned(),
            priority,
            max_wait_ms: 700,
        })
    };
    assert_eq!(with(9), waits(5));
    assert_eq!(with(-3), waits(-3));
}

#[test]
fn queue_that_is_full_denies() {
    let limits = r#"{"max-live": 8, "when-full": "queue", "max-queued": 2}"#;
    let with = |queued| {
        let mut item = item(1);
        item.facts.queued = queued;
        granted(limited(limits, &item)).when_full
    };
    assert!(matches!(with(1), WhenFull::Queue(_)));
    let WhenFull::Deny(denial) = with(2) else {
        panic!("queued")
    };
    assert!(
        denial
            .message
            .ends_with("8 live machines, and 2 of 2 requests wait already"),
        "{denial:?}"
    );
}

#[test]
fn batch_is_answered_in_order_each_by_its_own_tenant() {
    let settings = r#"{"others": "deny", "tenants": {"b": {"max-live": 2}}}"#;
    let host = Host::with_settings::<Quota>(settings).unwrap();
    let of = |tenant: &str| {
        let mut item = item(1);
        item.request.who.tenant = tenant.to_owned();
        item
    };
    let verdicts = host
        .call(|| Quota::review(vec![of("a"), of("b"), of("c")]))
        .unwrap();
    denied(verdicts[0].clone());
    assert_eq!(
        granted(verdicts[1].clone()).holds,
        [hold("live/tenant/b", 1, 2)]
    );
    denied(verdicts[2].clone());
    assert_eq!(host.call(|| Quota::review(Vec::new())), Ok(Vec::new()));
}
