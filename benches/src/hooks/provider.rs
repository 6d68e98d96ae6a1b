//! `policies/hosting-provider.toml` with the settings of a provider that has customers: 200 tenants, three tiers of each
//! price and a free one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use brood::plugin::child::compile_options;
use brood_plugin_host::{Builtins, Host, HostOptions, Policies, Silent, VolatileState};
use brood_policy::{PluginSpec, PolicySet};
use serde_json::{Value, json};

use super::Plan;

const FILE: &str = include_str!("../../../policies/hosting-provider.toml");
const TENANTS: u32 = 200;
/// What is measured.
pub(super) const DIMENSIONS: [&str; 3] = ["vcpu-ns", "memory-mib-ms", "forks"];

/// The policies, bound.
pub(super) struct Provider {
    pub(super) set: PolicySet,
    plugins: PathBuf,
    pub(super) policies: Policies,
    // Last: bindings call into it.
    pub(super) host: Host,
}

/// The name of a tenant.
pub(super) fn tenant(index: u32) -> String {
    format!("tenant-{index:03}")
}

impl Provider {
    pub(super) fn open(plan: &Plan) -> anyhow::Result<Self> {
        let mut set = brood_policy::parse("policies/hosting-provider.toml", FILE)?;
        for plugin in &mut set.plugins {
            grow(plugin)?;
        }
        let compile = compile_options(&plan.shipped.program, None);
        let state = Arc::new(VolatileState::default());
        let host = Host::start(&HostOptions::new(compile), state, Arc::new(Silent))?;
        let policies = Policies::open(&host, &set, &plan.shipped.plugins, &Builtins::default())?;
        Ok(Self {
            set,
            plugins: plan.shipped.plugins.clone(),
            policies,
            host,
        })
    }

    /// The quota component's file.
    pub(super) fn quota(&self) -> PathBuf {
        self.plugins.join("quota.wasm")
    }

    /// The spec of a plugin.
    pub(super) fn spec(&self, id: &str) -> anyhow::Result<&PluginSpec> {
        let found = self.set.plugins.iter().find(|plugin| plugin.id == id);
        found.with_context(|| format!("there is no plugin {id}"))
    }
}

/// Settings of the size they have in life.
fn grow(plugin: &mut PluginSpec) -> anyhow::Result<()> {
    let all = |of: Value| -> serde_json::Map<String, Value> {
        (0..TENANTS)
            .map(|index| (tenant(index), of.clone()))
            .collect()
    };
    let section = match plugin.id.as_str() {
        "quota" => "tenants",
        "price-table" => "accounts",
        _ => return Ok(()),
    };
    let of = match section {
        "tenants" => json!({ "class": "business" }),
        _ => json!({ "plan": "business" }),
    };
    let place = plugin
        .settings
        .get_mut(section)
        .context("no such settings")?;
    *place = Value::Object(all(of));
    if section == "accounts" {
        let prices = plugin.settings.pointer_mut("/plans/business/prices");
        let prices = prices.and_then(Value::as_array_mut).context("no prices")?;
        for price in prices {
            let free = price.get("per").cloned().context("no unit")?;
            let price = price.as_object_mut().context("no price")?;
            price.insert("free".to_owned(), free);
        }
    }
    Ok(())
}
