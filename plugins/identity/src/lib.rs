//! Mutation: host names, environment, files, secrets by name, limits and values of their own for daughters, by rule.
//!
//! What is given to everybody and what each matching rule gives are laid over one another, a later rule over an earlier
//! one, name by name; limits and lifetimes only ever narrow. The result is one list of patches for all daughters, and one
//! more for each daughter with values of her own.
//!
//! Texts may hold `${index}`, `${id}`, `${node}`, `${ip}` and `${mac}`, which the engine expands for each daughter, and
//! `${tenant}`, `${project}` and `${subject}`, which are the same for all and expanded here. A name that would bring in a
//! placeholder, or make a host name that is none, refuses the fork.

mod gift;
mod host_name;
mod own;
mod plan;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use gift::{Gift, When};
pub use plan::plan;
pub use settings::{Beyond, Give, Rule, Settings};

use brood_plugin::config;
use brood_plugin::mutation::{Brief, Outcome};
use brood_plugin::settings::{Diagnostics, Prepared, decode};
use brood_plugin::types::HookError;

/// The plugin.
#[derive(Debug)]
pub struct Identity;

impl brood_plugin::Plugin for Identity {
    const NAME: &'static str = "identity";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn prepare(settings: &Settings, prepared: &mut Prepared, wrong: &mut Diagnostics) {
        settings.check(wrong);
        for (key, gifts) in settings.gifts() {
            prepared.put(key, &gifts);
        }
    }
}

impl brood_plugin::Mutation for Identity {
    fn plan_daughters(brief: Brief) -> Result<Outcome, HookError> {
        let keys = [
            settings::EVERYBODY.to_owned(),
            settings::key(&brief.request.who.tenant),
        ];
        let mut gifts: Vec<Gift> = Vec::new();
        for bytes in config::prepared(&keys).into_iter().flatten() {
            gifts.extend(decode::<Vec<Gift>>(&bytes)?);
        }
        gifts.sort_unstable_by_key(|gift| gift.order);
        Ok(plan(&gifts, &brief))
    }
}

brood_plugin::export!(Identity: mutation);
