//! The rows of `bench hooks`: the shipped components under the shipped `policies/hosting-provider.toml`, grown to the
//! size it has in life, and the engine's own decider beside them.
//!
//! A call is what the engine makes of it: a fresh instance, the ask, the check of the answer, the record. Rows named
//! `fresh` run on the caller's thread; `fork-1000` goes through the policy threads, as a fork does.

mod ask;
#[path = "../../engine/plugin-host/tests/host/component.rs"]
#[expect(
    dead_code,
    clippy::panic,
    reason = "components out of text, as the host's own tests make them"
)]
mod component;
mod provider;
mod runaway;
mod swap;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use brood_hooks::admission::Item;
use brood_hooks::{
    Admission, Ceiling, Decide, Now, Panel, Permits, admission, check, mutation, placement,
};
use brood_plugin_host::{Asked, BindableHook, Binding, Bindings, block_on};

use crate::Shipped;
use crate::report::Report;
use provider::Provider;

/// The instant of every call.
const NOW: Now = Now::from_unix_nanos(1_700_000_000_000_000_000);

/// What is run, and with what.
pub(crate) struct Plan {
    /// Calls of a row where many make sense.
    pub(crate) calls: usize,
    pub(crate) shipped: Shipped,
}

/// Runs every wanted row.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let provider = Provider::open(plan)?;
    if plan.shipped.wants("admission/fresh") {
        admission(plan, &provider, report)?;
    }
    if plan.shipped.wants("fork-1000/all-hooks") {
        fork(plan, &provider, report)?;
    }
    if plan.shipped.wants("placement/256-candidates") {
        let binding = first(&provider.policies.placement)?;
        let asked = Asked::new(ask::question(256, 1));
        alone(
            "placement/256-candidates",
            binding,
            &asked,
            plan.calls,
            report,
        )?;
    }
    for accounts in [20, 1, 200] {
        let name = match accounts {
            20 => "billing/1000-samples".to_owned(),
            other => format!("billing/1000-samples-{other}-accounts"),
        };
        if plan.shipped.wants(&name) {
            let binding = first(&provider.policies.billing)?;
            let asked = Asked::new(ask::batch(1000, accounts));
            alone(&name, binding, &asked, plan.calls / 10, report)?;
        }
    }
    if plan.shipped.wants("hot-swap") {
        swap::run(&provider, report)?;
    }
    runaway::run(plan, &provider, report)
}

/// The one binding of a hook.
fn first<H: BindableHook>(bindings: &Bindings<H>) -> anyhow::Result<&Arc<Binding<H>>> {
    bindings.iter().next().context("nothing is bound")
}

/// Calls on this thread, one after the other; every one must be answered.
fn alone<H: BindableHook>(
    name: &str,
    binding: &Binding<H>,
    asked: &Asked<H>,
    calls: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    for micros in timed(binding, asked, calls)? {
        report.micros(name, "latency", micros);
    }
    eprintln!("{name}: {calls} calls");
    Ok(())
}

/// The latencies of so many calls, after a tenth as many that warm the caches.
fn timed<H: BindableHook>(
    binding: &Binding<H>,
    asked: &Asked<H>,
    calls: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls / 10 {
        binding.call_here(NOW, asked)?;
    }
    for _ in 0..calls {
        let began = Instant::now();
        let answered = binding.call_here(NOW, asked);
        times.push(began.elapsed().as_secs_f64() * 1e6);
        answered?;
    }
    Ok(times)
}

fn admission(plan: &Plan, provider: &Provider, report: &mut Report) -> anyhow::Result<()> {
    let binding = first(&provider.policies.admission)?;
    let asked = Asked::new(vec![ask::item(1)]);
    let name = "admission/fresh/1-thread";
    alone(name, binding, &asked, plan.calls, report)?;

    let name = "admission/fresh/2-threads";
    let both = std::thread::scope(|scope| {
        let caller = || timed(binding, &asked, plan.calls / 2);
        let callers = [scope.spawn(caller), scope.spawn(caller)];
        callers.map(|caller| caller.join())
    });
    for times in both {
        let times = times.map_err(|_| anyhow::anyhow!("a caller panicked"))?;
        for micros in times? {
            report.micros(name, "latency", micros);
        }
    }

    let decider = Ceiling {
        per_request: 1000,
        live_per_tenant: 1000,
    };
    let name = "admission/builtin";
    for _ in 0..plan.calls {
        let began = Instant::now();
        let answer = decider.decide(NOW, asked.ask());
        let checked =
            answer.map(|answer| check::<Admission>(asked.ask(), &Permits::default(), answer));
        report.micros(name, "latency", began.elapsed().as_secs_f64() * 1e6);
        ensure!(
            matches!(checked, Ok(Ok(_))),
            "the engine's decider is wrong"
        );
    }
    let median = |report: &mut Report, name| report.median(name, "latency");
    let component = median(report, "admission/fresh/1-thread").context("no sample")?;
    let built_in = median(report, name).context("no sample")?;
    report.ratio(
        "admission/fresh/1-thread",
        "times-builtin",
        component / built_in,
    );
    Ok(())
}

/// One fork of 1000 daughters: each hook asked once, its answer made a decision.
fn fork(plan: &Plan, provider: &Provider, report: &mut Report) -> anyhow::Result<()> {
    const DAUGHTERS: u32 = 1000;
    let name = "fork-1000/all-hooks";
    let policies = &provider.policies;
    let calls = || -> anyhow::Result<[u64; 4]> {
        Ok([
            first(&policies.admission)?.counters().calls(),
            first(&policies.placement)?.counters().calls(),
            first(&policies.mutation)?.counters().calls(),
            first(&policies.billing)?.counters().calls(),
        ])
    };
    for round in 0..plan.calls / 10 {
        let items: Vec<Item> = vec![ask::item(DAUGHTERS)];
        let question = ask::question(1, DAUGHTERS);
        let brief = ask::brief(DAUGHTERS);
        let usage = ask::batch(1, 1);
        let before = calls()?;
        let began = Instant::now();
        block_on(async {
            let said = policies.admission.hear(NOW, items.clone()).await;
            let granted = matches!(
                admission::decide(&items, &said).as_slice(),
                [admission::Decision::Admitted(admitted)] if admitted.count == DAUGHTERS
            );
            ensure!(granted, "admission did not admit all: {said:?}");
            let said = policies.placement.hear(NOW, question.clone()).await;
            let ranks = placement::rank(&question, &said)?;
            placement::fill(&question, &ranks, &[DAUGHTERS])?;
            let said = policies.mutation.hear(NOW, brief.clone()).await;
            mutation::combine(&brief, &said)?;
            let said = policies.billing.hear(NOW, usage).await;
            ensure!(
                said.iter().all(|one| one.spent.is_some()),
                "billing was not asked"
            );
            Ok(())
        })?;
        let micros = began.elapsed().as_secs_f64() * 1e6;
        if round < plan.calls / 100 {
            continue;
        }
        report.micros(name, "latency", micros);
        for (after, before) in calls()?.into_iter().zip(before) {
            report.count(name, "calls", (after - before) as f64);
        }
    }
    eprintln!("{name}: done");
    Ok(())
}
