//! Prices, tiers, free allowances, rounding, fees.

use super::*;
use crate::money::round_half_even;

#[test]
fn price_of_an_hour_is_exact_for_a_second_of_nanoseconds() {
    let settings = price(r#""per": 3600000000000, "tiers": [{"price": "0.0504"}]"#);
    let rated = rate(&settings, batch(vec![sample(1, 1_000_000_000)]));
    // 0.0504 / 3600 = 0.000014 exactly.
    assert_eq!(lines(&rated), [(1_000_000_000, 50_400_000, 14_000)]);
    assert_eq!(rated.skus[0].name, "p/cpu");
    assert_eq!(
        (rated.skus[0].unit.as_str(), rated.skus[0].per),
        ("vcpu-ns", 3_600_000_000_000)
    );
    assert_eq!((rated.lines[0].sample, rated.lines[0].sku), (Some(0), 0));
    assert!(rated.waived.is_empty());
}

#[test]
fn halves_go_to_the_even_amount_on_both_sides_of_zero() {
    let rounded = |quantity, times, per| round_half_even(quantity, times, per).unwrap();
    assert_eq!(
        [1, 3, 5, 7].map(|quantity| rounded(quantity, 1, 2)),
        [0, 2, 2, 4]
    );
    assert_eq!(
        [-1, -3, -5].map(|quantity| rounded(quantity, 1, 2)),
        [0, -2, -2]
    );
    assert_eq!([1, 2].map(|quantity| rounded(quantity, 1, 3)), [0, 1]);
    assert_eq!([-1, -2].map(|quantity| rounded(quantity, 1, 3)), [0, -1]);
}

#[test]
fn wide_products_round_like_narrow_ones() {
    let big = 5_000_000_000_000_000_000;
    assert_eq!(round_half_even(big, 3, 6), Some(2_500_000_000_000_000_000));
    // (2^62 + 1) × 2 / 4 has a half, and 2^61 is even.
    assert_eq!(round_half_even((1 << 62) + 1, 2, 4), Some(1 << 61));
    assert_eq!(round_half_even((1 << 62) + 3, 2, 4), Some((1 << 61) + 2));
    assert_eq!(round_half_even(i64::MIN, 3, 6), Some(i64::MIN / 2));
    assert_eq!(
        round_half_even(i64::MAX, i64::MAX, u64::MAX),
        Some(i64::MAX / 2)
    );
}

#[test]
fn amount_beyond_64_bits_is_none_and_per_zero_too() {
    assert_eq!(round_half_even(i64::MAX, 2, 1), None);
    assert_eq!(round_half_even(i64::MIN, -1, 1), None);
    assert_eq!(round_half_even(1, 1, 0), None);
    assert_eq!(round_half_even(i64::MAX, i64::MAX, 0), None);
}

#[test]
fn tiers_are_cut_where_they_end_and_begin_where_the_totals_are() {
    let settings = price(
        r#""per": 1, "tiers": [{"up-to": 100, "price": "3"}, {"up-to": 150, "price": "2"}, {"price": "1"}]"#,
    );
    let mut batch = batch(vec![sample(1, 30), sample(2, 100)]);
    batch.totals = vec![total(80)];
    let nanos = 1_000_000_000;
    assert_eq!(
        lines(&rate(&settings, batch)),
        [
            (20, 3 * nanos, 60 * nanos),
            (10, 2 * nanos, 20 * nanos),
            (40, 2 * nanos, 80 * nanos),
            (60, nanos, 60 * nanos),
        ]
    );
}

#[test]
fn free_allowance_is_waived_and_used_up_across_batches() {
    let settings = price(r#""per": 1, "free": 50, "tiers": [{"price": "1"}]"#);
    let first = rate(&settings, batch(vec![sample(1, 40), sample(2, 10)]));
    assert_eq!(
        (first.waived.as_slice(), first.lines.len()),
        (&[0, 1][..], 0)
    );
    let mut second = batch(vec![sample(3, 40)]);
    second.totals = vec![total(30)];
    assert_eq!(
        lines(&rate(&settings, second)),
        [(20, 1_000_000_000, 20_000_000_000)]
    );
}

#[test]
fn rounding_happens_once_for_a_period_however_usage_is_cut() {
    let settings = price(r#""per": 60, "round-up-to": 60, "tiers": [{"price": "1"}]"#);
    let whole = rate(&settings, batch(vec![sample(1, 130)]));
    assert_eq!(lines(&whole), [(180, 1_000_000_000, 3_000_000_000)]);
    let cut = rate(&settings, batch((0..13).map(|n| sample(n, 10)).collect()));
    let sum: i64 = cut.lines.iter().map(|line| line.amount_nanos).sum();
    assert_eq!(
        (sum, cut.lines.len(), cut.waived.len()),
        (3_000_000_000, 3, 10)
    );
}

#[test]
fn batches_that_are_cut_differently_cost_the_same() {
    let settings = price(
        r#""per": 7, "round-up-to": 3, "free": 10, "tiers": [{"up-to": 61, "price": "0.7"}, {"price": "0.07"}]"#,
    );
    let quantities: [i64; 8] = [1, 9, 30, 2, 0, 44, 5, 13];
    let cost = |cuts: &[usize]| -> i64 {
        let (mut cost, mut from, mut before) = (0, 0, 0);
        for to in cuts.iter().copied().chain([quantities.len()]) {
            let samples = quantities[from..to]
                .iter()
                .map(|quantity| sample(1, *quantity));
            let mut batch = batch(samples.collect());
            batch.totals = vec![total(before)];
            cost += rate(&settings, batch)
                .lines
                .iter()
                .map(|line| line.amount_nanos)
                .sum::<i64>();
            before += quantities[from..to].iter().sum::<i64>();
            from = to;
        }
        cost
    };
    let whole = cost(&[]);
    assert!(whole > 0);
    for cuts in [&[1][..], &[3], &[1, 2, 3, 4, 5, 6, 7], &[4, 4]] {
        assert_eq!(cost(cuts), whole, "{cuts:?}");
    }
}

#[test]
fn first_price_that_fits_dimension_and_group_counts() {
    let settings = plan(
        r#"{"prices": [
            {"name": "large", "dimension": "vcpu-ns", "only": {"shape": "large"}, "per": 1, "tiers": [{"price": "2"}]},
            {"name": "any", "dimension": "vcpu-ns", "per": 1, "tiers": [{"price": "1"}]},
            {"name": "fork", "dimension": "forks", "per": 1, "tiers": [{"price": "0.1"}]}]}"#,
    );
    let mut samples = vec![sample(1, 1), sample(2, 1), sample(3, 1)];
    samples[1].group = 1;
    samples[2].dimension = 1;
    let rated = rate(&settings, batch(samples));
    let of = |line: usize| rated.skus[rated.lines[line].sku as usize].name.as_str();
    assert_eq!([of(0), of(1), of(2)], ["p/any", "p/large", "p/fork"]);
    assert_eq!(rated.lines[2].amount_nanos, 100_000_000);
}

#[test]
fn every_sample_has_a_line_or_is_waived() {
    let settings =
        price(r#""per": 1, "free": 7, "tiers": [{"up-to": 20, "price": "0"}, {"price": "1"}]"#);
    let mut samples: Vec<Sample> = (0..20).map(|n| sample(n, 3)).collect();
    for sample in samples.iter_mut().step_by(4) {
        sample.dimension = 1;
    }
    let rated = rate(&settings, batch(samples));
    let mut seen: Vec<u32> = rated.lines.iter().filter_map(|line| line.sample).collect();
    seen.extend(&rated.waived);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..20).collect::<Vec<u32>>());
    assert!(!rated.lines.is_empty() && rated.waived.len() > 5);
}

#[test]
fn fees_and_credits_are_charged_once_for_a_period() {
    let settings = plan(
        r#"{"fees": [{"name": "base", "amount": "5"}, {"name": "welcome", "amount": "-2.5"}]}"#,
    );
    let first = rate(&settings, batch(vec![sample(1, 1), sample(2, 1)]));
    assert_eq!(
        lines(&first),
        [
            (1, 5_000_000_000, 5_000_000_000),
            (1, -2_500_000_000, -2_500_000_000)
        ]
    );
    assert_eq!(
        (first.lines[0].sample, first.waived.as_slice()),
        (None, &[0, 1][..])
    );
    assert_eq!(
        (first.skus[1].name.as_str(), first.skus[1].unit.as_str()),
        ("p/welcome", "fee")
    );
    let mut second = batch(vec![sample(3, 1)]);
    second.totals = vec![total(2)];
    assert!(rate(&settings, second).lines.is_empty());
}

#[test]
fn fees_of_several_accounts_stand_with_a_sample_of_each() {
    let settings = plan(r#"{"fees": [{"name": "base", "amount": "5"}]}"#);
    let mut batch = batch(vec![sample(1, 1), sample(2, 1), sample(3, 1)]);
    batch.accounts.push(batch.accounts[0].clone());
    batch.samples[1].account = 1;
    batch.samples[1].dimension = 1;
    let rated = rate(&settings, batch);
    let of: Vec<(Option<u32>, &str)> = rated
        .lines
        .iter()
        .map(|line| (line.sample, rated.skus[line.sku as usize].unit.as_str()))
        .collect();
    assert_eq!(of, [(Some(0), "vcpu-ns"), (Some(1), "forks")]);
    assert_eq!(
        rated.waived,
        [2],
        "a sample with a line is not waived as well"
    );
}

#[test]
fn table_without_plans_charges_nobody() {
    let rated = rate(r#"{"currency": "EUR"}"#, batch(vec![sample(1, 1)]));
    assert_eq!((rated.lines.len(), rated.waived.as_slice()), (0, &[0][..]));
}

#[test]
fn internal_account_pays_nothing_not_even_fees() {
    let settings = r#"{"currency": "EUR", "accounts": {"acme": {"plan": "p", "internal": true}}, "plans": {"p": {
        "fees": [{"name": "base", "amount": "5"}], "budget": {"levels": []},
        "prices": [{"name": "cpu", "dimension": "vcpu-ns", "per": 1, "tiers": [{"price": "1"}]}]}}}"#;
    let rated = rate(settings, batch(vec![sample(1, 1)]));
    assert_eq!(
        (
            rated.lines.len(),
            rated.waived.as_slice(),
            rated.budgets.len()
        ),
        (0, &[0][..], 0)
    );
}

#[test]
fn same_batch_is_rated_the_same_twice() {
    let settings = price(r#""per": 7, "free": 3, "tiers": [{"price": "0.3"}]"#);
    let batch = batch((0..50).map(|n| sample(n, 5)).collect());
    assert_eq!(rate(&settings, batch.clone()), rate(&settings, batch));
}

#[test]
fn each_tenant_pays_by_the_plan_of_her_own_account() {
    let price = |price: u32| {
        format!(
            r#"{{"prices": [{{"name": "cpu", "dimension": "vcpu-ns", "per": 1, "tiers": [{{"price": "{price}"}}]}}]}}"#
        )
    };
    let settings = format!(
        r#"{{"currency": "EUR", "plans": {{"dear": {}, "cheap": {}}},
            "accounts": {{"acme": {{"plan": "dear"}}, "zeta": {{"plan": "cheap"}}}}}}"#,
        price(5),
        price(2)
    );
    let mut batch = batch(vec![sample(1, 1), sample(2, 1)]);
    batch.accounts.push(Account {
        tenant: "zeta".to_owned(),
        ..batch.accounts[0].clone()
    });
    batch.samples[1].account = 1;
    let amounts: Vec<_> = lines(&rate(&settings, batch))
        .into_iter()
        .map(|(_, _, amount)| amount)
        .collect();
    assert_eq!(amounts, [5_000_000_000, 2_000_000_000]);
}

#[test]
fn usage_that_has_no_price_moves_its_account_up_the_tiers_all_the_same() {
    let settings = plan(
        r#"{"prices": [{"name": "large", "dimension": "vcpu-ns", "only": {"shape": "large"}, "per": 1,
            "tiers": [{"up-to": 10, "price": "3"}, {"price": "1"}]}]}"#,
    );
    let mut samples = vec![sample(1, 8), sample(2, 5)];
    samples[1].group = 1;
    let rated = rate(&settings, batch(samples));
    assert_eq!(rated.waived, [0]);
    let nanos = 1_000_000_000;
    let expected = [(2, 3 * nanos, 6 * nanos), (3, nanos, 3 * nanos)];
    assert_eq!(lines(&rated), expected);
}
