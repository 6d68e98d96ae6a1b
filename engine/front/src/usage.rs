//! Usage as it goes over the wire.
//!
//! Invariant: what is a sum in the engine is the same sum here, to the last place: decimals are made by whole-number division.

use brood_api::Time;
use brood_api::usage::{
    Measured, Sum, UsageCharge, UsageGroup, UsageLine, UsageRecord, UsageSummary,
};
use brood_service::engine::usage::{
    Dimension, LineAnswer, Quantities, SummaryAnswer, SummaryGroup, UsageRow,
};
use brood_units::Timestamp;

/// Nanoseconds of an hour.
const HOUR_NS: u128 = 3_600_000_000_000;
/// Of a GiB-hour.
const MIB_MS: u128 = 1024 * 3_600_000;
const MIB_S: u128 = 1024 * 3600;

/// 1e-9 currency units as a decimal.
pub(crate) fn money(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let text = format!(
        "{sign}{}.{:09}",
        nanos / 1_000_000_000,
        nanos % 1_000_000_000
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Units of so many base units, with six places, rounded down.
fn units(quantity: u128, per: u128) -> String {
    let (whole, rest) = (quantity / per, quantity % per);
    let places = rest.saturating_mul(1_000_000) / per;
    let text = format!("{whole}.{places:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn measured(quantities: &Quantities) -> Measured {
    let of = |dimension, per| units(quantities.amount(dimension), per);
    Measured {
        vcpu_hours: of(Dimension::VcpuNs, HOUR_NS),
        cpu_hours: of(Dimension::VcpuActiveNs, HOUR_NS),
        gib_hours: of(Dimension::MemoryMibMs, MIB_MS),
        private_gib_hours: of(Dimension::MemoryPrivateMibMs, MIB_MS),
        disk_gib_hours: of(Dimension::DiskMibS, MIB_S),
        forks: of(Dimension::Forks, 1),
    }
}

fn group(name: String, group: SummaryGroup) -> UsageGroup {
    let charges = group.charges.into_iter();
    let charges = charges.map(|((item, currency, unit, per), charge)| {
        let sign = if charge.quantity < 0 { "-" } else { "" };
        let many = units(charge.quantity.unsigned_abs(), u128::from(per.max(1)));
        UsageCharge {
            item,
            currency,
            unit,
            per,
            quantity: charge.quantity.to_string(),
            units: format!("{sign}{many}"),
            amount: money(charge.amount_nanos),
            lines: charge.lines,
        }
    });
    UsageGroup {
        group: name,
        measured: measured(&group.measured),
        charges: charges.collect(),
    }
}

pub(crate) fn summary(answer: SummaryAnswer) -> UsageSummary {
    let mut totals = std::collections::BTreeMap::new();
    for group in answer.groups.values() {
        for ((_, currency, ..), charge) in &group.charges {
            *totals.entry(currency.clone()).or_insert(0_i128) += charge.amount_nanos;
        }
    }
    let sum = |(currency, nanos): (String, i128)| Sum {
        currency,
        amount: money(nanos),
    };
    UsageSummary {
        period: answer.period.to_string(),
        groups: answer
            .groups
            .into_iter()
            .map(|(name, one)| group(name, one))
            .collect(),
        totals: totals.into_iter().map(sum).collect(),
        unsealed: answer.unsealed,
        held: answer.held,
        dead: answer.dead,
    }
}

pub(crate) fn record(row: UsageRow) -> UsageRecord {
    let (subject, record) = (&row.subject, row.record);
    let (start_ms, _) = record.start_and_born_ms();
    UsageRecord {
        record: row.seq,
        machine: subject.machine,
        kind: if subject.is_checkpoint {
            "checkpoint"
        } else {
            "machine"
        }
        .to_owned(),
        tenant: subject.tenant.clone(),
        project: subject.project.clone(),
        lineage: subject.lineage,
        template: subject.template,
        labels: subject.labels.clone(),
        cause: record.cause.as_str().to_owned(),
        motion: record.motion.as_str().to_owned(),
        start: Time(Timestamp::from_millis(start_ms.cast_signed())),
        end: Time(record.end),
        span_us: record.span_us,
        cpu_ns: record.cpu_ns,
        private_kib: record.private_kib,
        vcpu_milli: subject.vcpu_milli,
        memory_mib: subject.memory_mib,
        estimated: record.doubt.cpu,
        memory_carried: record.doubt.memory,
        corrects: record.corrects,
        hash: row.hash.to_string(),
    }
}

pub(crate) fn line(answer: LineAnswer) -> UsageLine {
    let priced = answer.line.priced;
    UsageLine {
        batch: answer.line.batch,
        line: answer.line.line,
        tenant: answer.tenant,
        project: answer
            .subject
            .as_ref()
            .map(|subject| subject.project.clone()),
        machine: answer.subject.map(|subject| subject.machine),
        item: priced.sku.name,
        currency: priced.sku.currency,
        unit: priced.sku.unit,
        per: priced.sku.per,
        quantity: priced.quantity,
        unit_price: money(priced.unit_price_nanos.into()),
        amount: money(priced.amount_nanos.into()),
        reverses: answer.line.reverses,
    }
}

/// Rows of CSV (RFC 4180).
pub(crate) mod row {
    use serde_json::Value;

    /// The columns of a record.
    pub(crate) const RECORD: [&str; 20] = [
        "record",
        "machine",
        "kind",
        "tenant",
        "project",
        "lineage",
        "template",
        "labels",
        "cause",
        "motion",
        "start",
        "end",
        "span_us",
        "cpu_ns",
        "private_kib",
        "vcpu_milli",
        "memory_mib",
        "estimated",
        "corrects",
        "hash",
    ];
    /// Those of a line.
    pub(crate) const LINE: [&str; 13] = [
        "batch",
        "line",
        "tenant",
        "project",
        "machine",
        "item",
        "currency",
        "unit",
        "per",
        "quantity",
        "unit_price",
        "amount",
        "reverses",
    ];

    /// One row of an object.
    pub(crate) fn csv(text: &mut String, columns: &[&str], object: &Value) {
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            match object.get(column) {
                None | Some(Value::Null) => {}
                Some(Value::String(value)) => cell(text, value),
                Some(value) => cell(text, &value.to_string()),
            }
        }
        text.push_str("\r\n");
    }

    /// What begins like a formula is text to a spreadsheet that is told so by an apostrophe.
    fn cell(text: &mut String, value: &str) {
        let is_formula = value.starts_with(['=', '+', '@', '\t', '\r'])
            || (value.starts_with('-') && value.parse::<f64>().is_err());
        let value = if is_formula {
            format!("'{value}")
        } else {
            value.to_owned()
        };
        if value.contains([',', '"', '\n', '\r']) {
            text.push('"');
            text.push_str(&value.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&value);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_cell_is_quoted_where_it_must_be_and_runs_nothing_in_a_spreadsheet() {
            let mut text = String::new();
            let object = serde_json::json!({
                "a": "x,\"y\"", "b": -7, "c": "=HYPERLINK(1)", "d": null, "e": {"team": "a"}, "f": "-0.5", "g": "-x",
            });
            csv(
                &mut text,
                &["a", "b", "c", "d", "e", "f", "g", "none"],
                &object,
            );
            assert_eq!(
                text,
                "\"x,\"\"y\"\"\",-7,'=HYPERLINK(1),,\"{\"\"team\"\":\"\"a\"\"}\",-0.5,'-x,\r\n"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_carry_no_more_than_they_must() {
        let all = [
            (0, "0"),
            (25_000_000, "0.025"),
            (-1, "-0.000000001"),
            (3_000_000_000, "3"),
        ];
        for (nanos, text) in all {
            assert_eq!(money(nanos), text);
        }
        assert_eq!(units(HOUR_NS * 3 / 2, HOUR_NS), "1.5");
        assert_eq!(units(1, HOUR_NS), "0");
        assert_eq!(units(u128::from(u64::MAX), 1), u64::MAX.to_string());
    }
}
