//! Admission: who may fork how much, how fast, how deep and how large.
//!
//! Limits are given for everybody, for classes of tenants and for single tenants, each overriding the one before field by
//! field; limits over all tenants come on top. What grows with time is a *hold*: the host checks and adds it in one step
//! and gives it back when the daughters end, so that two reviews at once cannot both take the last place. A rate is a
//! hold that expires. Everything else is decided here, and a denial lists every reason at once.
//!
//! Which operations count: those that make a machine (`fork`, `create`, `claim`, `wake`, `build`, and any this version
//! does not know) take every limit; `checkpoint` and `snapshot` take `max-points`; `resume` and `extend` take none, because
//! the machine has its holds already. A lifetime is capped for all of them.

mod policy;
mod review;
mod settings;
#[cfg(test)]
mod tests;

pub use policy::{Gauge, Policy, Queue, Rule, Scope, Standing};
pub use review::decide;
pub use settings::{Limits, Others, Rate, Settings, Total, WhenFull};

use brood_plugin::admission::{Item, Verdict};
use brood_plugin::config;
use brood_plugin::settings::{Diagnostics, Prepared, decode};
use brood_plugin::types::HookError;

/// The plugin.
#[derive(Debug)]
pub struct Quota;

impl brood_plugin::Plugin for Quota {
    const NAME: &'static str = "quota";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn prepare(settings: &Settings, prepared: &mut Prepared, wrong: &mut Diagnostics) {
        settings.check(wrong);
        prepared.put(OTHERS, &Standing::of_others(settings));
        for (name, tenant) in &settings.tenants {
            prepared.put(key(name), &Standing::of_tenant(settings, tenant));
        }
    }
}

impl brood_plugin::Admission for Quota {
    fn review(items: Vec<Item>) -> Result<Vec<Verdict>, HookError> {
        let own = items.iter().map(|item| key(&item.request.who.tenant));
        let keys: Vec<String> = own.chain([OTHERS.to_owned()]).collect();
        let mut prepared = config::prepared(&keys);
        let others = prepared.pop().flatten().ok_or_else(|| {
            HookError::Misconfigured(format!("nothing is prepared under {OTHERS}"))
        })?;
        let verdicts = items.iter().zip(prepared).map(|(item, own)| {
            let standing: Standing = decode(own.as_ref().unwrap_or(&others))?;
            Ok(decide(&standing, item))
        });
        verdicts.collect()
    }
}

/// Under this the policy of tenants without one of their own is prepared.
const OTHERS: &str = "others";

/// Under this the policy of a tenant is prepared.
fn key(tenant: &str) -> String {
    ["tenant/", tenant].concat()
}

brood_plugin::export!(Quota: admission);
