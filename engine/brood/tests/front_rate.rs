//! Requests that come too often are refused with when to ask again, and nobody else notices.

use std::num::NonZeroU32;
use std::time::Duration;

use brood_front::{Bucket, Options};

use crate::http::{Server, text};

/// So many, and no more of them within the life of a test.
fn only(count: u32) -> Bucket {
    Bucket {
        burst: NonZeroU32::new(count).expect("not 0"),
        each: Duration::from_secs(3600),
    }
}

#[test]
fn a_key_and_all_keys_of_a_tenant_have_buckets_and_an_empty_one_says_when_to_ask_again() {
    let options = Options {
        key_rate: only(4),
        tenant_rate: only(6),
        ..Options::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let spec = r#"{"name": "look", "scopes": ["read"]}"#;
    let second = text(&server.good("POST /v1/keys", spec)["secret"]);
    let other = server.good("POST /v1/tenants", r#"{"name": "other"}"#);
    let other = text(&other["first_key"]["secret"]);
    let look = |key: &str| server.as_key(key, "GET /v1/machines", "");
    assert_eq!(
        [look(&server.key).status, look(&server.key).status],
        [200, 200]
    );

    let limited = look(&server.key);
    assert_eq!(
        (limited.status, limited.code().as_str()),
        (429, "rate_limited")
    );
    let problem = limited.json();
    assert_eq!(problem["retryable"], true);
    let after = problem["retry_after_ms"].as_u64().expect("when");
    assert!((1..=3_600_000).contains(&after), "{problem}");
    let seconds = limited.header("retry-after").map(str::to_owned);
    assert_eq!(seconds, Some(after.div_ceil(1000).to_string()));
    assert!(text(&problem["detail"]).contains("this key"), "{problem}");

    // Two are left of the tenant's six, whatever the key.
    let statuses = [look(&second).status, look(&second).status];
    assert_eq!(statuses, [200, 200]);
    let limited = look(&second);
    assert!(text(&limited.json()["detail"]).contains("this tenant"));
    assert_eq!(look(&other).status, 200);
    // Who is nobody has no bucket, and what takes no key is always answered.
    assert_eq!(look("brood_00").status, 401);
    assert_eq!(server.ask("GET /healthz", &[], "").status, 200);
}

#[test]
fn what_a_key_may_not_do_counts_as_well() {
    let options = Options {
        key_rate: only(2),
        ..Options::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let spec = r#"{"name": "look", "scopes": ["read"]}"#;
    let key = text(&server.good("POST /v1/keys", spec)["secret"]);
    let codes: Vec<_> = (0..3)
        .map(|_| server.as_key(&key, "POST /v1/templates", "{}").code())
        .collect();
    assert_eq!(codes, ["missing_scope", "missing_scope", "rate_limited"]);
}
