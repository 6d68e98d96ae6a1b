//! What the code that [`export!`](crate::export!) writes calls.
//!
//! Invariant: every export enters here first, so that the text of a panic is told before the call traps.

use crate::hook::Plugin;
use crate::plugin::{Description, Diagnostic};
use crate::settings;

/// Called first in every export: from here on, panics are told to the host.
pub fn enter() {
    #[cfg(target_family = "wasm")]
    {
        use core::sync::atomic::{AtomicBool, Ordering};
        static TELLS: AtomicBool = AtomicBool::new(false);
        if !TELLS.swap(true, Ordering::Relaxed) {
            std::panic::set_hook(Box::new(|panic| {
                crate::log::write(crate::log::Level::Error, &panic.to_string(), &[]);
            }));
        }
    }
}

/// `plugin.describe`.
#[must_use]
pub fn describe<P: Plugin>() -> Description {
    enter();
    Description {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        settings_schema: settings::schema::<P::Settings>(),
        metrics: P::METRICS.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// `plugin.prepare`.
///
/// # Errors
///
/// Every mistake of the document, each with its place.
pub fn prepare<P: Plugin>(document: &str) -> Result<Vec<(String, Vec<u8>)>, Vec<Diagnostic>> {
    enter();
    settings::prepare::<P>(document)
}
