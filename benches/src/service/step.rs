//! Where a request's time goes, as the server itself counts it.
//!
//! Invariant: a mean is of what was counted between two looks.

use std::collections::BTreeMap;

use super::client::Client;

/// What is looked for, up to the end of the metric's name.
const FORK_STEP: &str = "brood_fork_step_seconds";
const COMMIT: &str = "brood_store_commit_seconds";

/// Sums of seconds, and how often, by step.
#[derive(Default)]
pub(super) struct Steps(BTreeMap<String, (f64, f64)>);

impl Steps {
    pub(super) fn look(client: &mut Client) -> anyhow::Result<Self> {
        Ok(Self::read(&client.text("/metrics")?))
    }

    /// Of OpenMetrics' text.
    fn read(text: &str) -> Self {
        let mut steps = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else {
                continue;
            };
            let (metric, labels) = name.split_once('{').unwrap_or((name, ""));
            let step = match metric.rsplit_once('_') {
                Some((FORK_STEP, _)) if labels.contains("source=\"machine\"") => {
                    let step = labels.split("step=\"").nth(1);
                    step.and_then(|rest| rest.split('"').next())
                }
                Some((COMMIT, _)) => Some("all-commits"),
                _ => None,
            };
            let Some(step) = step else {
                continue;
            };
            let (sum, count) = steps.0.entry(step.to_owned()).or_default();
            if metric.ends_with("_sum") {
                *sum = value;
            } else if metric.ends_with("_count") {
                *count = value;
            }
        }
        steps
    }

    /// The mean of each step since an earlier look, microseconds.
    pub(super) fn since(&self, earlier: &Self) -> Vec<(String, f64)> {
        let mean = |(step, (sum, count)): (&String, &(f64, f64))| {
            let (sum_then, count_then) = earlier.0.get(step).copied().unwrap_or_default();
            let count = count - count_then;
            (count > 0.0).then(|| (step.clone(), (sum - sum_then) / count * 1e6))
        };
        self.0.iter().filter_map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_what_was_counted_between_two_looks() {
        let look = |sum: f64, count: u32| {
            Steps::read(&format!(
                "# TYPE brood_fork_step_seconds histogram\n\
                 brood_fork_step_seconds_sum{{source=\"machine\",step=\"queue\"}} {sum}\n\
                 brood_fork_step_seconds_count{{source=\"machine\",step=\"queue\"}} {count}\n\
                 brood_fork_step_seconds_bucket{{le=\"0.1\",source=\"machine\",step=\"queue\"}} 9\n\
                 brood_fork_step_seconds_sum{{source=\"template\",step=\"queue\"}} 7.0\n"
            ))
        };
        let means = look(0.5, 5).since(&look(0.25, 4));
        assert_eq!(means, [("queue".to_owned(), 250_000.0)]);
        assert_eq!(look(0.5, 5).since(&look(0.5, 5)), []);
    }
}
