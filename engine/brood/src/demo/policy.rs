//! The demo's policies: loaded, bound, asked, and what they said kept for the last line.
//!
//! Invariant: every fork that goes through here was admitted, placed and planned by whoever the policy file binds.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use brood_hooks::admission::Facts;
use brood_hooks::billing::{Account, Rated};
use brood_hooks::{Heard, Id128, Now, Principal, Resources};
use brood_plugin_host::{Builtins, Host, HostOptions, Policies, Silent, VolatileState, block_on};
use brood_service::ask::{ForkSpec, Mother};
use brood_service::decision::Decision;
use brood_service::fork::{Daughter, wall_clock_ns};
use brood_service::hold::Holds;
use brood_service::path::{Asked, Born, Panels, Safe, Stamps, Stopped};
use brood_service::usage::{self, Window};
use brood_service::{identity, node};
use brood_units::MachineId;

use super::Sources;
use crate::plugin::child::compile_options;
use crate::plugin::open::panels;

/// Processor time and time by the clock that compiling a component may take, seconds: the lab emulates every instruction.
const COMPILE_SECONDS: u64 = 900;
/// The least that a call may take, milliseconds, whatever the file says: in the lab a first call takes a hundred. Fuel,
/// which counts instructions, is what ends an endless one there.
const DEADLINE_MS: u64 = 5_000;
/// Who asks.
const TENANT: &str = "demo";

/// Everything that is bound, and what was decided.
pub(super) struct Policy {
    panels: Panels,
    holds: Holds,
    decisions: Vec<Decision>,
    // Last: bindings call into it.
    _host: Host,
}

/// A bill in words.
pub(super) struct Billed {
    pub(super) lines: Vec<String>,
    pub(super) totals: String,
}

impl Policy {
    /// Loads and binds all of it.
    pub(super) fn open(program: &Path, sources: &Sources<'_>) -> anyhow::Result<Self> {
        let name = sources.policy.display().to_string();
        let text = fs::read_to_string(sources.policy).with_context(|| format!("reading {name}"))?;
        let mut set = brood_policy::parse(&name, &text)?;
        for binding in &mut set.bindings {
            binding.limits.deadline_ms = binding.limits.deadline_ms.max(DEADLINE_MS);
        }
        let mut compile = compile_options(program, None);
        compile.seconds = COMPILE_SECONDS;
        compile.patience_ms = COMPILE_SECONDS * 1000;
        let state = Arc::new(VolatileState::default());
        let host = Host::start(&HostOptions::new(compile), state, Arc::new(Silent))?;
        let policies = Policies::open(&host, &set, sources.plugins, &Builtins::default())?;
        for missing in &policies.missing {
            println!("  warning: {missing}");
        }
        Ok(Self {
            panels: panels(policies),
            holds: Holds::default(),
            decisions: Vec::new(),
            _host: host,
        })
    }

    /// Asks for a fork, where `live` machines of the tenant are alive, and prints each verdict. What is denied is an answer.
    pub(super) fn ask(
        &mut self,
        spec: &ForkSpec,
        mother: &Mother,
        live: usize,
    ) -> anyhow::Result<Result<Stamps, Box<Stopped>>> {
        let live = u32::try_from(live).unwrap_or(u32::MAX);
        let who = Principal {
            tenant: TENANT.to_owned(),
            project: TENANT.to_owned(),
            subject: TENANT.to_owned(),
            labels: Vec::new(),
        };
        let id = Id128::from(identity::machine_id()?);
        let request = spec.request(id, who, mother)?;
        let asked = Asked::new(now(), request, spec);
        let first_id = identity::machine_id()?;
        let place = node::here(&std::env::temp_dir(), mother.shape.memory_mib, live)?;
        let facts = Facts {
            live,
            ..Facts::default()
        };
        let (panels, holds) = (&self.panels, &mut self.holds);
        let decided = block_on(async {
            let admitted = asked.review(panels, facts).await?.commit(holds)?;
            let placed = admitted.place(panels, vec![place]).await?;
            placed.plan(panels, first_id, Safe::EMPTY).await
        });
        let (decisions, warnings) = match &decided {
            Ok(stamps) => (stamps.decisions(), stamps.warnings()),
            Err(stopped) => (stopped.decisions.as_slice(), stopped.warnings.as_slice()),
        };
        for decision in decisions {
            println!("  {decision}");
        }
        for warning in warnings {
            println!("  warning: {warning}");
        }
        self.decisions.extend_from_slice(decisions);
        Ok(decided.map_err(|mut stopped| {
            if let Some(held) = stopped.held.take() {
                self.holds.settle(held, []);
            }
            stopped
        }))
    }

    /// Stamps daughters as they were planned. The demo wants all of them.
    pub(super) fn stamp(&mut self, born: Born, read_frozen: &str) -> anyhow::Result<Vec<Daughter>> {
        let mut fledged = born.stamp_and_read(Some(read_frozen));
        fledged.settle(&mut self.holds);
        let daughters = fledged.daughters.into_iter();
        daughters
            .map(|one| one.map(|(daughter, _)| daughter))
            .collect()
    }

    /// What was held for these machines is given back.
    pub(super) fn ended(&mut self, machines: Vec<MachineId>) {
        for machine in machines {
            self.holds.machine_ended(machine);
        }
    }

    /// Has lives rated that began at the given times, nanoseconds since the epoch.
    pub(super) fn bill(
        &mut self,
        lives: impl Iterator<Item = (MachineId, u64)>,
        shape: &Resources,
        now_ns: u64,
    ) -> anyhow::Result<Billed> {
        let windows: Vec<Window> = lives
            .map(|(machine, born_ns)| Window {
                machine,
                account: Account {
                    tenant: TENANT.to_owned(),
                    project: TENANT.to_owned(),
                    labels: Vec::new(),
                },
                born_ns,
                start_ns: born_ns,
                end_ns: now_ns,
                shape: shape.clone(),
                labels: Vec::new(),
            })
            .collect();
        let batch = usage::batch(0, &windows);
        let (said, decisions) = block_on(usage::rate(&self.panels, now(), batch));
        for decision in &decisions {
            println!("  {decision}");
        }
        self.decisions.extend(decisions);
        let rated = said.iter().find_map(|one| match &one.heard {
            Heard::Enforced(answer) | Heard::Warned(answer) => Some(answer.answer()),
            Heard::Ignored(_) | Heard::Failed(_) => None,
        });
        Ok(in_words(rated.context("nothing was rated")?))
    }

    /// What was said, all in all. Whoever was bound is let go.
    pub(super) fn end(self) -> Vec<Decision> {
        self.decisions
    }
}

fn now() -> Now {
    Now::from_unix_nanos(wall_clock_ns())
}

/// Each thing that is sold once, with its quantities and amounts added up.
fn in_words(rated: &Rated) -> Billed {
    let mut lines = Vec::new();
    let mut all = 0_i128;
    for (sku, index) in rated.skus.iter().zip(0_u32..) {
        let of = rated.lines.iter().filter(|line| line.sku == index);
        let quantity: i128 = of.clone().map(|line| i128::from(line.quantity)).sum();
        let amount: i128 = of.clone().map(|line| i128::from(line.amount_nanos)).sum();
        let price = of
            .clone()
            .map(|line| line.unit_price_nanos)
            .max()
            .unwrap_or(0);
        all += amount;
        lines.push(format!(
            "{:<10} {:>3} lines, {quantity:>16} {:<14} at {} {} for {}: {}",
            sku.name,
            of.count(),
            sku.unit,
            decimal(price.into()),
            sku.currency,
            sku.per,
            decimal(amount)
        ));
    }
    let currency = rated.skus.first().map_or("", |sku| sku.currency.as_str());
    let totals = format!("{} {currency}", decimal(all));
    Billed { lines, totals }
}

/// 1e-9 units as a decimal.
fn decimal(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    format!(
        "{sign}{}.{:09}",
        nanos / 1_000_000_000,
        nanos % 1_000_000_000
    )
}
