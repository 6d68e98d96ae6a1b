//! Rows of percentiles: `name`, `metric`, `unit`, `n`, `p50`, `p99`, `max`, with the machine described.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// One metric of one row.
#[derive(Serialize)]
struct Row {
    name: String,
    metric: String,
    unit: &'static str,
    n: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

/// The machine the numbers belong to; absolute times do not hold across machines.
#[derive(Serialize)]
struct Machine {
    cpu: String,
    cpus: usize,
    memory_kib: u64,
    kernel: String,
    kvm: &'static str,
}

/// Samples by row name and metric, in order of first appearance.
pub(crate) struct Report {
    order: Vec<(String, String, &'static str)>,
    samples: BTreeMap<(String, String), Vec<f64>>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            order: Vec::new(),
            samples: BTreeMap::new(),
        }
    }

    /// Adds one sample in microseconds.
    pub(crate) fn micros(&mut self, name: &str, metric: &str, value: f64) {
        self.add(name, metric, "us", value);
    }

    /// Adds one sample in KiB.
    pub(crate) fn kib(&mut self, name: &str, metric: &str, value: f64) {
        self.add(name, metric, "KiB", value);
    }

    /// Adds one count, which has no unit.
    pub(crate) fn count(&mut self, name: &str, metric: &str, value: f64) {
        self.add(name, metric, "", value);
    }

    /// The median of a metric so far.
    pub(crate) fn median(&mut self, name: &str, metric: &str) -> Option<f64> {
        let samples = self
            .samples
            .get_mut(&(name.to_owned(), metric.to_owned()))?;
        samples.sort_by(f64::total_cmp);
        Some(percentile(samples, 0.50))
    }

    /// Adds one ratio, which has no unit.
    pub(crate) fn ratio(&mut self, name: &str, metric: &str, value: f64) {
        self.add(name, metric, "times", value);
    }

    fn add(&mut self, name: &str, metric: &str, unit: &'static str, value: f64) {
        let key = (name.to_owned(), metric.to_owned());
        let samples = self.samples.entry(key).or_default();
        if samples.is_empty() {
            self.order.push((name.to_owned(), metric.to_owned(), unit));
        }
        samples.push(value);
    }

    fn rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.order.len());
        for (name, metric, unit) in &self.order {
            let Some(samples) = self.samples.get_mut(&(name.clone(), metric.clone())) else {
                continue;
            };
            samples.sort_by(f64::total_cmp);
            rows.push(Row {
                name: name.clone(),
                metric: metric.clone(),
                unit,
                n: samples.len(),
                p50: percentile(samples, 0.50),
                p99: percentile(samples, 0.99),
                max: samples.last().copied().unwrap_or(0.0),
            });
        }
        rows
    }

    /// Prints a table, and the JSON object as the last line if asked for.
    pub(crate) fn print(mut self, json: bool) -> anyhow::Result<()> {
        let rows = self.rows();
        println!(
            "{:<34} {:<18} {:>6} {:>10} {:>10} {:>10}  unit",
            "row", "metric", "n", "p50", "p99", "max"
        );
        for row in &rows {
            println!(
                "{:<34} {:<18} {:>6} {:>10.1} {:>10.1} {:>10.1}  {}",
                row.name, row.metric, row.n, row.p50, row.p99, row.max, row.unit
            );
        }
        if json {
            let object = serde_json::json!({ "machine": machine(), "rows": rows });
            println!("{object}");
        }
        Ok(())
    }
}

/// Nearest-rank percentile of sorted samples.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or(String::new(), |(_, value)| value.to_owned())
    };
    let has = |flag: &str| field("flags").split(' ').any(|word| word == flag);
    Machine {
        cpu: field("model name"),
        cpus: cpuinfo
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count(),
        memory_kib: meminfo("MemTotal").unwrap_or(0),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        kvm: match (has("vmx"), has("svm")) {
            (true, _) => "vmx",
            (_, true) => "svm",
            _ => "neither vmx nor svm (PVM)",
        },
    }
}

/// A field of /proc/meminfo in KiB.
pub(crate) fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.50), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }
}
