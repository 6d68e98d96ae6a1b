//! An endless component, ended by fuel or by the clock, and what the calls of another plugin cost meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use brood_hooks::{Admission, HookName};
use brood_plugin_host::{Asked, Binding};
use brood_policy::{BindingSpec, Limits, PluginSpec};

use super::component::Component;
use super::{NOW, Plan, Provider, ask, first, timed};
use crate::report::{Report, percentile};

const FOREVER: &str = "(loop $again (br $again)) unreachable";
/// Where the package is, as seen from this crate.
const WIT: &str = "../wit";

pub(super) fn run(plan: &Plan, provider: &Provider, report: &mut Report) -> anyhow::Result<()> {
    let defaults = Limits::of(HookName::Admission);
    let rows = [
        ("runaway/fuel", defaults),
        (
            "runaway/epoch",
            Limits {
                fuel: u64::MAX,
                deadline_ms: 5,
                ..defaults
            },
        ),
    ];
    for (name, limits) in rows {
        if plan.shipped.wants(name) {
            row(name, limits, plan, provider, report)?;
        }
    }
    Ok(())
}

fn row(
    name: &str,
    limits: Limits,
    plan: &Plan,
    provider: &Provider,
    report: &mut Report,
) -> anyhow::Result<()> {
    let endless = endless(provider, limits)?;
    let binding = first(&provider.policies.admission)?;
    let asked = Asked::new(vec![ask::item(1)]);
    let mut before = timed(binding, &asked, plan.calls / 5)?;
    let over = AtomicBool::new(false);
    let (meanwhile, ended) = std::thread::scope(|scope| {
        let runaway = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answered = endless.call_here(NOW, &asked);
                times.push(began.elapsed().as_secs_f64() * 1e6);
                if answered.is_ok() {
                    return Err("it answered");
                }
            }
            Ok(times)
        });
        let meanwhile = timed(binding, &asked, plan.calls / 5);
        over.store(true, Ordering::Relaxed);
        (meanwhile, runaway.join())
    });
    let ended = ended.map_err(|_| anyhow::anyhow!("the caller panicked"))?;
    let ended = ended.map_err(|what| anyhow::anyhow!("an endless component: {what}"))?;
    ensure!(!ended.is_empty(), "the endless component was never called");
    for micros in ended {
        report.micros(name, "latency", micros);
    }
    let mut meanwhile = meanwhile?;
    for (metric, times) in [("others-alone", &before), ("others-meanwhile", &meanwhile)] {
        for micros in times {
            report.micros(name, metric, *micros);
        }
    }
    before.sort_by(f64::total_cmp);
    meanwhile.sort_by(f64::total_cmp);
    for (metric, share) in [("others-p50", 0.50), ("others-p99", 0.99)] {
        let ratio = percentile(&meanwhile, share) / percentile(&before, share);
        report.ratio(name, metric, ratio);
    }
    eprintln!("{name}: done");
    Ok(())
}

/// An endless admission plugin, bound beside the others with a breaker that never opens.
fn endless(
    provider: &Provider,
    limits: Limits,
) -> anyhow::Result<std::sync::Arc<Binding<Admission>>> {
    let bytes = Component::of(WIT, "admission-policy")
        .body("review", FOREVER)
        .build();
    let quota = provider.spec("quota")?;
    let spec = PluginSpec {
        id: "endless".to_owned(),
        settings: serde_json::json!({}),
        ..quota.clone()
    };
    let plugin = provider.host.add(&spec, &bytes)?;
    let bound = provider.set.bindings.iter();
    let bound = bound.clone().find(|one| one.hook == HookName::Admission);
    let mut binding: BindingSpec = bound.context("no admission")?.clone();
    binding.plugin = spec.id;
    binding.limits = limits;
    binding.breaker.failures = u32::MAX;
    Ok(provider.host.bind(binding, &plugin, None)?)
}
