//! Who is bound to which hook, and what became of their calls.
//!
//! Invariant: a call is in exactly one outcome, so that they add up; the counts are the plugin host's own.

use std::fmt;

use brood_hooks::{Bound, Calls, HookName};
use prometheus_client::registry::Unit;

use super::page::{About, Page, Times, about};

type Binding = (HookName, Bound);
type Labels = Vec<(&'static str, String)>;

/// A count of a binding, its name and its help.
struct Count {
    name: &'static str,
    help: &'static str,
    of: fn(&Calls) -> u64,
}

const COUNTS: [Count; 5] = [
    Count {
        name: "hook_failed_open",
        help: "Failed calls of a binding that were passed over, because it fails open",
        of: |calls| calls.failed_open,
    },
    Count {
        name: "hook_fallbacks",
        help: "Failed calls of a binding in whose place another was asked",
        of: |calls| calls.fell_back,
    },
    Count {
        name: "hook_shadow_agreed",
        help: "Answers of a shadow that would have changed nothing",
        of: |calls| calls.agreed,
    },
    Count {
        name: "hook_shadow_disagreed",
        help: "Answers of a shadow that would have changed the decision",
        of: |calls| calls.disagreed,
    },
    Count {
        name: "hook_fuel",
        help: "Fuel that calls of a binding used",
        of: |calls| calls.fuel,
    },
];

fn labels((hook, bound): &Binding, more: &[(&'static str, &str)]) -> Labels {
    let mut labels = vec![
        ("hook", hook.as_str().to_owned()),
        ("binding", bound.binding.clone()),
    ];
    labels.extend(
        more.iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    labels
}

/// Writes all of it.
pub(super) fn write(bound: &[Binding], page: &mut Page<'_>) -> fmt::Result {
    calls(bound, page)?;
    for Count { name, help, of } in COUNTS {
        let each = bound.iter().map(|one| (labels(one, &[]), of(&one.1.calls)));
        page.counter(about(name, help), each)?;
    }
    let running = bound
        .iter()
        .map(|one| (labels(one, &[]), one.1.running as f64));
    let help = "Calls of a binding that run; of a plugin with state, those of all its bindings";
    page.gauge(about("hook_calls_running", help), running)?;
    let waiting = bound
        .iter()
        .map(|one| (labels(one, &[]), one.1.waiting as f64));
    let help = "Calls of a binding that wait until others have ended";
    page.gauge(about("hook_calls_waiting", help), waiting)?;
    let flag = |set: bool| f64::from(u8::from(set));
    let broken = bound
        .iter()
        .map(|one| (labels(one, &[]), flag(one.1.is_broken)));
    let help = "1 while a binding's component is left alone, after it failed again and again";
    page.gauge(about("hook_breaker_open", help), broken)?;
    let usable = bound
        .iter()
        .map(|one| (labels(one, &[]), flag(one.1.trouble.is_none())));
    let help = "1 while a binding's component is there and asked";
    page.gauge(about("hook_usable", help), usable)?;
    let times = bound.iter().map(|one| {
        let times = Times {
            seconds: one.1.calls.nanos as f64 / 1e9,
            buckets: buckets(&one.1.calls.latency),
        };
        (labels(one, &[]), times)
    });
    let about = About {
        unit: Some(Unit::Seconds),
        ..about(
            "hook_call",
            "Time of a call of a binding, without its wait for a thread",
        )
    };
    page.histogram(about, times)
}

fn calls(bound: &[Binding], page: &mut Page<'_>) -> fmt::Result {
    let outcomes = bound.iter().flat_map(|one| {
        let calls = &one.1.calls;
        let failed = calls.failed.values().sum();
        [
            ("answered", calls.answered),
            ("refused", calls.refused),
            ("failed", failed),
        ]
        .map(|(outcome, count)| (labels(one, &[("outcome", outcome)]), count))
    });
    let help = "Calls of a binding: answered, answered with a refusal, failed";
    page.counter(about("hook_calls", help), outcomes)?;
    let failures = bound.iter().flat_map(|one| {
        let kinds = one.1.calls.failed.iter();
        kinds.map(|(kind, count)| (labels(one, &[("kind", kind)]), *count))
    });
    let help = "Failed calls of a binding, by kind of failure";
    page.counter(about("hook_failures", help), failures)
}

/// Upper bounds in seconds: powers of two of a microsecond, and the last is none.
fn buckets(latency: &[u64]) -> Vec<(f64, u64)> {
    let last = latency.len().saturating_sub(1);
    let bound = |at: usize| {
        let at = i32::try_from(at).unwrap_or(i32::MAX);
        2.0_f64.powi(at) / 1e6
    };
    let each = latency.iter().enumerate();
    let bounded = each.map(|(at, count)| {
        let bound = if at == last { f64::INFINITY } else { bound(at) };
        (bound, *count)
    });
    let buckets: Vec<_> = bounded.collect();
    if buckets.is_empty() {
        return vec![(f64::INFINITY, 0)];
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_below_powers_of_two_and_the_last_bucket_has_no_bound() {
        let found = buckets(&[3, 2, 1]);
        assert_eq!(found, [(1e-6, 3), (2e-6, 2), (f64::INFINITY, 1)]);
        assert_eq!(
            buckets(&[]),
            [(f64::INFINITY, 0)],
            "a decider of the engine"
        );
    }
}
