//! What a sample is charged: its quantity after minimum and rounding, cut at the ends of tiers.
//!
//! ```text
//!  position p          p + q          quantity, as measured, of account, dimension and period
//!  ────┼─────────────────┼────────►
//!      └► round-up(p)    └► round-up(p + q')      q' is q after the minimum duration
//!         ├── tier 1 ──┼── tier 2 ──┤             one charge for each tier that costs something
//! ```

use brood_plugin::billing::Sample;

use crate::money::round_half_even;
use crate::plan::Price;

/// A part of a sample, at one price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) quantity: i64,
    pub(crate) unit_price: i64,
}

/// The parts of a sample that cost something.
pub(crate) fn charge<'a>(
    price: &'a Price,
    position: i64,
    sample: &Sample,
) -> Result<impl Iterator<Item = Charge> + use<'a>, &'static str> {
    const EXCEEDS: &str = "the total of the period exceeds 64 bits";
    if sample.quantity < 0 {
        return Err("a negative quantity");
    }
    let quantity = with_minimum(price.minimum_ms, sample)?;
    let end = position.checked_add(quantity).ok_or(EXCEEDS)?;
    let mut from = round_up(position, price.step).ok_or(EXCEEDS)?;
    let to = round_up(end, price.step).ok_or(EXCEEDS)?;
    let parts = price
        .tiers
        .iter()
        .filter_map(move |(tier_end, unit_price)| {
            let end = to.min(*tier_end);
            let quantity = end - from;
            if quantity <= 0 {
                return None;
            }
            from = end;
            let unit_price = *unit_price;
            (unit_price != 0).then_some(Charge {
                quantity,
                unit_price,
            })
        });
    Ok(parts)
}

/// The quantity of a sample when no machine lives shorter than `minimum_ms`.
fn with_minimum(minimum_ms: u64, sample: &Sample) -> Result<i64, &'static str> {
    let Some(length) = sample.end_ms.checked_sub(sample.start_ms) else {
        return Err("it ends before it starts");
    };
    let paid_until = sample.born_ms.saturating_add(minimum_ms);
    if minimum_ms == 0 || sample.start_ms >= paid_until {
        return Ok(sample.quantity);
    }
    let part = |length_ms: u64| {
        let length_ms = i64::try_from(length_ms).map_err(|_| "a time beyond 63 bits")?;
        if length == 0 {
            return Ok(sample.quantity);
        }
        let part = round_half_even(sample.quantity, length_ms, length);
        part.ok_or("the quantity of the minimum duration exceeds 64 bits")
    };
    let is_first = sample.start_ms <= sample.born_ms;
    match (is_first, sample.end_ms.checked_sub(paid_until)) {
        // It outlives the minimum by itself.
        (true, Some(_)) => Ok(sample.quantity),
        (true, None) => part(minimum_ms),
        // The first sample has paid for all or some of it.
        (false, None) => Ok(0),
        (false, Some(beyond)) => part(beyond),
    }
}

/// The next multiple of `step` that is not below; none beyond 64 bits.
fn round_up(quantity: i64, step: i64) -> Option<i64> {
    if step == 1 {
        return Some(quantity);
    }
    let rest = quantity.checked_rem(step)?;
    if rest == 0 {
        return Some(quantity);
    }
    quantity.checked_add(step - rest)
}
