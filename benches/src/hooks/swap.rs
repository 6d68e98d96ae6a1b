//! Hot swap: 2000 swaps of the quota plugin between two versions, while two callers ask without a break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brood_plugin_host::{Asked, block_on};
use serde_json::json;

use super::{NOW, Provider, ask, first};
use crate::report::Report;

const SWAPS: usize = 2000;
const NAME: &str = "hot-swap";

pub(super) fn run(provider: &Provider, report: &mut Report) -> anyhow::Result<()> {
    let binding = first(&provider.policies.admission)?;
    let plugin = provider
        .policies
        .plugins
        .get("quota")
        .ok_or_else(|| anyhow::anyhow!("quota is not there"))?;
    let bytes = std::fs::read(provider.quota())?;
    let mut versions = Vec::new();
    for limit in [1000, 1001] {
        let mut spec = provider.spec("quota")?.clone();
        if let Some(live) = spec.settings.pointer_mut("/classes/business/max-live") {
            *live = json!(limit);
        }
        versions.push(Arc::new(provider.host.load(&spec, &bytes)?));
    }
    let asked = Asked::new(vec![ask::item(1)]);
    let over = AtomicBool::new(false);
    let (swaps, calls) = std::thread::scope(|scope| {
        let call = || {
            let (mut times, mut failed) = (Vec::new(), 0_u64);
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answered = block_on(binding.start(NOW, &asked));
                times.push(began.elapsed().as_secs_f64() * 1e6);
                failed += u64::from(!matches!(answered, Some(Ok(_))));
            }
            (times, failed)
        };
        let callers = [scope.spawn(call), scope.spawn(call)];
        let mut swaps = Vec::new();
        let mut outcome = Ok(());
        for version in versions.iter().cycle().take(SWAPS) {
            let began = Instant::now();
            outcome = provider.host.swap(plugin, version);
            swaps.push(began.elapsed().as_secs_f64() * 1e6);
            if outcome.is_err() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        let calls = callers.map(|caller| caller.join());
        (outcome.map(|()| swaps), calls)
    });
    for micros in swaps? {
        report.micros(NAME, "latency", micros);
    }
    for caller in calls {
        let (times, failed) = caller.map_err(|_| anyhow::anyhow!("a caller panicked"))?;
        report.count(NAME, "failed", failed as f64);
        for micros in times {
            report.micros(NAME, "call-latency", micros);
        }
    }
    eprintln!("{NAME}: {SWAPS} swaps");
    Ok(())
}
