//! `brood plugin bench`.
//!
//! Invariant: what is timed is what the engine does for a call, on one thread and with nobody waiting: an instance, the
//! call in a fresh one, the call in a warm one. Fuel is exact; times are of this machine.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use brood_hooks::{Admission, Billing, HookName, Mutation, Now, Placement};
use brood_plugin_host::{Asked, BindableHook, Host, Plugin};
use brood_policy::{BindingSpec, Limits, Reuse};
use serde::Serialize;
use serde_json::json;

use super::calls::{self, CallFile};
use super::{BenchOptions, ask, open};

/// Nanoseconds.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Times {
    p50_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    hook: HookName,
    calls: u32,
    instantiate: Times,
    /// A fresh instance and the call in it.
    fresh: Times,
    /// The call in an instance that is there.
    warm: Times,
    fuel_min: u64,
    fuel_max: u64,
    fuel_limit: u64,
}

pub(super) fn run(options: &BenchOptions) -> anyhow::Result<ExitCode> {
    let bytes = open::bytes(&options.file)?;
    let input = options.input.as_deref().map(calls::read).transpose()?;
    let settings = match &input {
        Some(file) => file.settings.clone(),
        None => open::settings(options.settings.as_deref())?,
    };
    let host = open::host()?;
    let plugin = host.add(&open::spec("plugin", settings), &bytes)?;
    let version = plugin.current();
    let wanted = |hook: &HookName| {
        version.has(*hook)
            && options.hook.is_none_or(|only| only == *hook)
            && input.as_ref().is_none_or(|file| file.hook == *hook)
    };
    let hooks: Vec<HookName> = HookName::ALL.into_iter().filter(wanted).collect();
    if hooks.is_empty() {
        bail!(
            "{} has no such hook: `brood plugin check` lists those it has",
            options.file.display()
        );
    }
    let mut rows = Vec::new();
    for hook in hooks {
        let bench = Bench {
            host: &host,
            plugin: &plugin,
            input: input.as_ref(),
            calls: options.calls,
        };
        rows.push(match hook {
            HookName::Admission => bench.row::<Admission>(ask::admission())?,
            HookName::Placement => bench.row::<Placement>(ask::placement())?,
            HookName::Mutation => bench.row::<Mutation>(ask::mutation())?,
            HookName::Billing => bench.row::<Billing>(ask::billing())?,
        });
    }
    if options.json {
        println!("{}", json!({ "file": options.file, "rows": rows }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<24} {:>10} {:>10} {:>10}", "µs", "p50", "p99", "max");
    for row in &rows {
        for (name, times) in [
            ("instantiate", &row.instantiate),
            ("fresh call", &row.fresh),
            ("warm call", &row.warm),
        ] {
            let us = |ns: u64| format!("{}.{}", ns / 1000, ns % 1000 / 100);
            println!(
                "{:<24} {:>10} {:>10} {:>10}",
                format!("{}/{name}", row.hook),
                us(times.p50_ns),
                us(times.p99_ns),
                us(times.max_ns)
            );
        }
        println!(
            "{}: {} to {} fuel of {}, {} calls",
            row.hook, row.fuel_min, row.fuel_max, row.fuel_limit, row.calls
        );
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    host: &'a Host,
    plugin: &'a Arc<Plugin>,
    input: Option<&'a CallFile>,
    calls: u32,
}

impl Bench<'_> {
    fn row<H: BindableHook>(&self, made_up: H::Ask) -> anyhow::Result<Row> {
        let asks: Vec<(Now, Arc<Asked<H>>)> = match self.input {
            None => vec![(Now::default(), Asked::new(made_up))],
            Some(file) => {
                let ask = |call: &calls::Call| {
                    let ask: H::Ask = serde_json::from_value(call.ask.clone())
                        .with_context(|| format!("the ask of `{}`", call.name))?;
                    let now = Now::from_unix_nanos(call.now_ms.saturating_mul(1_000_000));
                    Ok((now, Asked::new(ask)))
                };
                file.calls.iter().map(ask).collect::<anyhow::Result<_>>()?
            }
        };
        if asks.is_empty() {
            bail!("the input has no call");
        }
        let limits = Limits::of(H::NAME);
        let version = self.plugin.current();
        let instantiate = self.time(|_| Ok(self.host.instantiate(&version, &limits)?))?;
        let (fresh, fuel) = self.calls::<H>(&asks, Reuse::Fresh)?;
        let (warm, _) = self.calls::<H>(&asks, Reuse::Warm)?;
        Ok(Row {
            hook: H::NAME,
            calls: self.calls,
            instantiate,
            fresh,
            warm,
            fuel_min: fuel.0,
            fuel_max: fuel.1,
            fuel_limit: limits.fuel,
        })
    }

    fn calls<H: BindableHook>(
        &self,
        asks: &[(Now, Arc<Asked<H>>)],
        reuse: Reuse,
    ) -> anyhow::Result<(Times, (u64, u64))> {
        let mut spec = BindingSpec::new(H::NAME, "plugin");
        spec.reuse = reuse;
        if let Some(permits) = self.input.and_then(|file| file.permits.clone()) {
            spec.permits = permits;
        }
        let binding = self.host.bind::<H>(spec, self.plugin, None)?;
        let times = self.time(|index| {
            let Some((now, ask)) = asks.get(index % asks.len()) else {
                bail!("no ask");
            };
            let answered = binding.call_here(*now, ask);
            answered.context("a call fails, so there is nothing to measure")?;
            Ok(())
        })?;
        let records = self.host.records().all(Now::default());
        let fuel = records
            .iter()
            .rev()
            .take(asks.len().max(1))
            .map(|record| record.fuel_used);
        let (least, most) = (fuel.clone().min(), fuel.max());
        Ok((times, (least.unwrap_or(0), most.unwrap_or(0))))
    }

    fn time(&self, mut call: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<Times> {
        let mut taken = Vec::with_capacity(self.calls as usize);
        for index in 0..self.calls as usize {
            let began = Instant::now();
            call(index)?;
            taken.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        taken.sort_unstable();
        // The nearest rank: the smallest value that is not below so many of a hundred.
        let rank = |percent: usize| {
            let at = (taken.len() * percent).div_ceil(100).saturating_sub(1);
            taken.get(at).copied().unwrap_or_default()
        };
        Ok(Times {
            p50_ns: rank(50),
            p99_ns: rank(99),
            max_ns: rank(100),
        })
    }
}
