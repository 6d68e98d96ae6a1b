//! For authors of Brood plugins: policy around a fork, as a sandboxed WebAssembly component.
//!
//! A plugin is a type that implements [`Plugin`] and the trait of each decision it makes, its settings declared with
//! [`settings!`], and one [`export!`]. A whole one:
//!
//! ```
//! use brood_plugin::admission::{Item, Verdict};
//! use brood_plugin::settings::{Diagnostics, Prepared};
//! use brood_plugin::types::{Denial, HookError};
//!
//! brood_plugin::settings! {
//!     /// Settings of `small`.
//!     pub struct Settings {
//!         /// Most daughters of one request.
//!         most: u32 = 8,
//!     }
//! }
//!
//! struct Small;
//!
//! impl brood_plugin::Plugin for Small {
//!     const NAME: &'static str = "small";
//!     const VERSION: &'static str = "0.1.0";
//!     type Settings = Settings;
//!
//!     fn prepare(settings: &Settings, prepared: &mut Prepared, _: &mut Diagnostics) {
//!         prepared.put("most", &settings.most);
//!     }
//! }
//!
//! impl brood_plugin::Admission for Small {
//!     fn review(items: Vec<Item>) -> Result<Vec<Verdict>, HookError> {
//!         let most: u32 = brood_plugin::settings::prepared("most")?;
//!         Ok(items
//!             .iter()
//!             .map(|item| match item.request.count > most {
//!                 false => Verdict::Abstain,
//!                 true => Verdict::Deny(Denial {
//!                     code: "policy".to_owned(),
//!                     message: format!("{} daughters asked for, {most} allowed", item.request.count),
//!                     retry_after_ms: None,
//!                 }),
//!             })
//!             .collect())
//!     }
//! }
//!
//! brood_plugin::export!(Small: admission);
//!
//! // The test kit is a host without an engine.
//! use brood_plugin::{Admission, testkit::{self, Host}};
//! let host = Host::with_settings::<Small>(r#"{"most": 2}"#)?;
//! let verdicts = host.call(|| Small::review(vec![testkit::item(3)]))?;
//! assert!(matches!(&verdicts[..], [Verdict::Deny(why)] if why.message == "3 daughters asked for, 2 allowed"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! There is no WASI behind a plugin: no files, no sockets, no environment, no randomness and no clock but
//! [`clock::now`]. What a component may import is [`log`], [`config`], [`clock`], [`state`] and [`metrics`], and it
//! imports only those it calls (`log` always, for the text of a panic).
//!
//! A fresh instance answers each call unless the binding asks for warm ones, so nothing is kept in statics. Settings are
//! digested once, by [`Plugin::prepare`]; hooks read back what it stored. Use [`BTreeMap`](std::collections::BTreeMap)
//! rather than `HashMap` where order reaches an answer: calls are recorded, and replayed to the bit.

pub mod bindings;
mod export;
#[doc(hidden)]
pub mod glue;
#[cfg(any(target_family = "wasm", test))]
mod heap;
mod hook;
mod host;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testkit;

pub use hook::{Admission, Billing, Mutation, Placement, Plugin};
pub use host::{clock, config, log, metrics, state};

/// Values that every hook shares.
pub mod types {
    pub use crate::bindings::host::brood::policy::types::*;
}

/// What a component says of itself.
pub mod plugin {
    pub use crate::bindings::plugin::exports::brood::policy::plugin::{Description, Diagnostic};
}

/// Records of the admission hook.
pub mod admission {
    pub use crate::bindings::admission::exports::brood::policy::admission::{
        Deferral, Facts, Grant, Hold, Item, Verdict, WhenFull,
    };
}

/// Records of the placement hook.
pub mod placement {
    pub use crate::bindings::host::brood::policy::placement_types::{
        Amounts, Candidate, Column, Question,
    };
    pub use crate::bindings::placement::exports::brood::policy::placement::{Answer, Bid, Ranking};
}

/// Records of the mutation hook.
pub mod mutation {
    pub use crate::bindings::mutation::exports::brood::policy::mutation::{
        Brief, Content, File, Network, Outcome, Patch, Plan, Rule, Run, Secret, SecretTarget,
    };
}

/// Records of the billing hook.
pub mod billing {
    pub use crate::bindings::billing::exports::brood::policy::billing::{
        Account, Action, Balance, Batch, Budget, Line, Rated, Sample, Sku, Total,
    };
}
