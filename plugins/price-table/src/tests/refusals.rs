//! Batches that are not rated: wrong indices, quantities beyond 64 bits, missing prices and plans.

use super::*;

const PRICE: &str = r#""per": 1, "tiers": [{"price": "1"}]"#;

fn refused(batch: Batch) -> String {
    match try_rate(&price(PRICE), batch).unwrap_err() {
        HookError::Other(words) => words,
        other => panic!("another error: {other:?}"),
    }
}

#[test]
fn index_outside_the_batch_is_named() {
    let with = |change: fn(&mut Sample)| {
        let mut sample = sample(1, 1);
        change(&mut sample);
        refused(batch(vec![sample]))
    };
    assert_eq!(
        with(|sample| sample.account = 1),
        "sample 0: no such account"
    );
    assert_eq!(
        with(|sample| sample.dimension = 2),
        "sample 0: no such dimension"
    );
    assert_eq!(
        with(|sample| sample.dimension = u32::MAX),
        "sample 0: no such dimension"
    );
    assert_eq!(with(|sample| sample.group = 2), "sample 0: no such group");
    let mut batch = batch(Vec::new());
    batch.totals = vec![Total {
        account: 9,
        ..total(1)
    }];
    assert_eq!(refused(batch.clone()), "total 0: no such account");
    batch.totals = vec![Total {
        dimension: 9,
        ..total(1)
    }];
    assert_eq!(refused(batch.clone()), "total 0: no such dimension");
    batch.totals = Vec::new();
    batch.balances = vec![Balance {
        account: 1,
        ..balance("EUR", 0, 0)
    }];
    assert_eq!(refused(batch), "balance 0: no such account");
}

#[test]
fn negative_quantity_and_reversed_time_are_no_samples() {
    assert_eq!(
        refused(batch(vec![sample(1, -1)])),
        "sample 0: a negative quantity"
    );
    let mut reversed = sample(1, 1);
    reversed.end_ms = reversed.start_ms - 1;
    assert_eq!(
        refused(batch(vec![reversed])),
        "sample 0: it ends before it starts"
    );
    let mut batch = batch(Vec::new());
    batch.totals = vec![total(-1)];
    assert_eq!(refused(batch), "total 0: a negative quantity");
}

#[test]
fn sums_beyond_64_bits_fail_the_batch_instead_of_wrapping() {
    let mut beyond = batch(vec![sample(1, 1)]);
    beyond.totals = vec![total(i64::MAX)];
    assert_eq!(
        refused(beyond.clone()),
        "sample 0: the total of the period exceeds 64 bits"
    );
    beyond.totals = vec![total(i64::MAX), total(1)];
    assert_eq!(refused(beyond), "total 1: the quantity exceeds 64 bits");
    let amount = batch(vec![sample(1, i64::MAX / 2)]);
    assert_eq!(refused(amount), "sample 0: the amount exceeds 64 bits");
    let large = i64::MAX / 1_000_000_000 - 1;
    let sum = batch(vec![sample(1, large), sample(2, large)]);
    assert_eq!(refused(sum), "sample 1: the account's sum exceeds 64 bits");
}

#[test]
fn rounding_up_beyond_64_bits_fails_the_batch() {
    let settings = price(r#""per": 1, "round-up-to": 1000, "tiers": [{"price": "0"}]"#);
    let error = try_rate(&settings, batch(vec![sample(1, i64::MAX)])).unwrap_err();
    let words = "sample 0: the total of the period exceeds 64 bits";
    assert_eq!(error, HookError::Other(words.to_owned()));
}

#[test]
fn sample_without_a_price_is_waived_or_refuses_the_batch() {
    let mut sample = sample(1, 1);
    sample.dimension = 1;
    let waived = rate(&price(PRICE), batch(vec![sample]));
    assert_eq!(waived.waived, [0]);
    let error = try_rate(&plan(r#"{"unpriced": "refuse"}"#), batch(vec![sample])).unwrap_err();
    let words = "sample 0: plan p has no price for forks";
    assert_eq!(error, HookError::Misconfigured(words.to_owned()));
}

#[test]
fn tenant_without_a_plan_refuses_the_batch_by_name() {
    let settings = r#"{"currency": "EUR", "plans": {"p": {}}}"#;
    let error = try_rate(settings, batch(vec![sample(1, 1)])).unwrap_err();
    let words = "no plan for tenant acme, and none for others";
    assert_eq!(error, HookError::Misconfigured(words.to_owned()));
}

#[test]
fn table_of_prices_has_a_bound() {
    let mut batch = batch(vec![sample(1, 1)]);
    batch.dimensions = vec!["vcpu-ns".to_owned(); 2048];
    batch.groups = vec![Vec::new(); 513];
    assert_eq!(refused(batch), "sample 0: too many dimensions and groups");
}
