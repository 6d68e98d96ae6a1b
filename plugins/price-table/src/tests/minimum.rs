//! Minimum durations: charged with the first sample, and not twice.

use super::*;

const MINIMUM: &str = r#""per": 1, "minimum-ms": 60000, "tiers": [{"price": "1"}]"#;

/// A sample of a machine born at second 100, of one unit a millisecond.
fn lived(from_s: u64, to_s: u64) -> Sample {
    let quantity = i64::try_from((to_s - from_s) * 1000).unwrap();
    Sample {
        born_ms: 100_000,
        start_ms: from_s * 1000,
        end_ms: to_s * 1000,
        ..sample(1, quantity)
    }
}

fn quantities(samples: Vec<Sample>) -> Vec<i64> {
    let rated = rate(&price(MINIMUM), batch(samples));
    rated.lines.iter().map(|line| line.quantity).collect()
}

#[test]
fn short_life_is_charged_as_the_minimum() {
    assert_eq!(quantities(vec![lived(100, 101)]), [60_000]);
}

#[test]
fn long_life_is_charged_as_it_was() {
    assert_eq!(quantities(vec![lived(100, 170)]), [70_000]);
    assert_eq!(quantities(vec![lived(100, 160)]), [60_000]);
}

#[test]
fn later_samples_are_charged_only_beyond_the_minimum() {
    let rated = rate(
        &price(MINIMUM),
        batch(vec![
            lived(100, 110),
            lived(110, 150),
            lived(150, 170),
            lived(170, 180),
        ]),
    );
    let quantities: Vec<(Option<u32>, i64)> = rated
        .lines
        .iter()
        .map(|line| (line.sample, line.quantity))
        .collect();
    assert_eq!(
        quantities,
        [(Some(0), 60_000), (Some(2), 10_000), (Some(3), 10_000)]
    );
    assert_eq!(rated.waived, [1]);
}

#[test]
fn life_cut_into_samples_costs_what_it_costs_whole() {
    let sum = |samples| quantities(samples).iter().sum::<i64>();
    let cut = sum((100..190).map(|second| lived(second, second + 1)).collect());
    assert_eq!(cut, sum(vec![lived(100, 190)]));
}

#[test]
fn first_sample_without_length_is_charged_as_it_is() {
    let mut instant = lived(100, 100);
    instant.quantity = 5;
    assert_eq!(quantities(vec![instant]), [5]);
}

#[test]
fn minimum_that_exceeds_64_bits_fails_the_batch() {
    let mut huge = lived(100, 101);
    huge.quantity = i64::MAX / 2;
    let error = try_rate(&price(MINIMUM), batch(vec![huge])).unwrap_err();
    let words = "sample 0: the quantity of the minimum duration exceeds 64 bits";
    assert_eq!(error, HookError::Other(words.to_owned()));
}
