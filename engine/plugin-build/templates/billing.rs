use brood_plugin::billing::{Batch, Line, Rated, Sku};
use brood_plugin::settings::{Diagnostics, Prepared, prepared};
use brood_plugin::types::HookError;

brood_plugin::settings! {
    /// One price.
    pub struct Settings {
        /// Price of an hour of one virtual CPU, 1e-9 EUR.
        hour_nanos: u32 = 50_000_000,
    }
}

/// The plugin.
#[derive(Debug)]
pub struct Policy;

impl brood_plugin::Plugin for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    // Runs when the settings change. What the hook needs is stored, so that no call parses JSON.
    fn prepare(settings: &Settings, prepared: &mut Prepared, _wrong: &mut Diagnostics) {
        prepared.put("hour-nanos", &settings.hour_nanos);
    }
}

const DIMENSION: &str = "vcpu-ns";
const HOUR_NS: u64 = 3_600_000_000_000;

impl brood_plugin::Billing for Policy {
    fn rate(batch: Batch) -> Result<Rated, HookError> {
        let price: u32 = prepared("hour-nanos")?;
        let mut rated = Rated {
            skus: vec![Sku {
                name: "vcpu".to_owned(),
                currency: "EUR".to_owned(),
                unit: DIMENSION.to_owned(),
                per: HOUR_NS,
            }],
            lines: Vec::new(),
            waived: Vec::new(),
            budgets: Vec::new(),
        };
        let priced = batch
            .dimensions
            .iter()
            .position(|dimension| dimension == DIMENSION);
        for (index, sample) in (0..).zip(&batch.samples) {
            if Some(sample.dimension as usize) != priced {
                rated.waived.push(index);
                continue;
            }
            let amount = amount(sample.quantity, price.into());
            let exceeds =
                || HookError::Other(format!("sample {index}: the amount exceeds 64 bits"));
            rated.lines.push(Line {
                sample: Some(index),
                sku: 0,
                quantity: sample.quantity,
                unit_price_nanos: price.into(),
                amount_nanos: amount.ok_or_else(exceeds)?,
            });
        }
        Ok(rated)
    }
}

/// To the nearest, halves to the even one: the engine computes it again and refuses anything else.
fn amount(quantity: i64, price: i64) -> Option<i64> {
    let (product, per) = (
        i128::from(quantity) * i128::from(price),
        i128::from(HOUR_NS),
    );
    let (floor, rest) = (product.div_euclid(per), product.rem_euclid(per));
    let up = rest * 2 > per || (rest * 2 == per && floor % 2 != 0);
    i64::try_from(floor + i128::from(up)).ok()
}

brood_plugin::export!(Policy: billing);

#[cfg(test)]
mod tests {
    use brood_plugin::Billing;
    use brood_plugin::testkit::{Host, sample};

    use super::*;

    #[test]
    fn half_an_hour_costs_half_the_price_and_other_dimensions_nothing() {
        let host = Host::with_settings::<Policy>("{}").unwrap();
        let mut other = sample(2, 1);
        other.dimension = 1;
        let batch = Batch {
            sequence: 1,
            accounts: Vec::new(),
            dimensions: vec![DIMENSION.to_owned(), "forks".to_owned()],
            samples: vec![sample(1, 1_800_000_000_000), other],
            groups: Vec::new(),
            totals: Vec::new(),
            balances: Vec::new(),
        };
        let rated = host.call(|| Policy::rate(batch)).unwrap();
        assert_eq!(rated.lines[0].amount_nanos, 25_000_000);
        assert_eq!(rated.waived, [1]);
    }
}
