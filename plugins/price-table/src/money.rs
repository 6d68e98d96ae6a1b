//! Money and the one way to round it.

use core::fmt;

use brood_plugin::settings::{Diagnostics, Json, Node, Schema, Value};
use serde::{Deserialize, Serialize};

/// 1e-9 currency units. Written as a decimal in a string, `"0.0504"`, so that no reader rounds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Money(pub i64);

const UNIT: u64 = 1_000_000_000;

impl Money {
    /// Reads a decimal of at most nine places; none if it is anything else or beyond 64 bits.
    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, places) = digits.split_once('.').unwrap_or((digits, "0"));
        let are_digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole) || !are_digits(places) || places.len() > 9 {
            return None;
        }
        let mut nanos = places.parse::<i128>().ok()?;
        for _ in places.len()..9 {
            nanos *= 10;
        }
        let whole = i128::from(whole.parse::<u64>().ok()?);
        nanos += whole * i128::from(UNIT);
        i64::try_from(if negative { -nanos } else { nanos })
            .ok()
            .map(Self)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let amount = self.0.unsigned_abs();
        let text = format!("{sign}{}.{:09}", amount / UNIT, amount % UNIT);
        formatter.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Value for Money {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let Json::Text(text) = node.json() else {
            return node.expected(wrong, "an amount in a string, such as \"0.05\"");
        };
        match Self::parse(text) {
            Some(money) => Some(money),
            None => node.refuse(
                wrong,
                format!("`{text}` is no amount: digits, at most nine of them behind a point"),
            ),
        }
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "string");
        schema.text("pattern", "^-?[0-9]+(\\.[0-9]{1,9})?$");
    }
}

/// `quantity × times / per`, to the nearest whole number, halves to the even one; none beyond 64 bits or for `per` 0.
pub(crate) fn round_half_even(quantity: i64, times: i64, per: u64) -> Option<i64> {
    // Most products are natural numbers of 64 bits, where one division is enough.
    if let (Some(product @ 0..), Ok(per @ 1..)) = (quantity.checked_mul(times), i64::try_from(per))
    {
        let quotient = product / per;
        let rest = product - quotient * per;
        // rest < per, so neither side overflows.
        let up = rest > per - rest || (rest == per - rest && quotient & 1 == 1);
        return quotient.checked_add(up.into());
    }
    let product = i128::from(quantity) * i128::from(times);
    let per = i128::from(per);
    let quotient = product.checked_div_euclid(per)?;
    let rest = product.checked_rem_euclid(per)?;
    let up = match rest.cmp(&(per - rest)) {
        core::cmp::Ordering::Less => 0,
        core::cmp::Ordering::Equal => quotient & 1,
        core::cmp::Ordering::Greater => 1,
    };
    i64::try_from(quotient + up).ok()
}
