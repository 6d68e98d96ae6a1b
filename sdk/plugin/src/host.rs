//! The host's interfaces as plain functions: log, settings, clock, state, metrics.
//!
//! Invariant: each function reaches exactly one import, so that a component imports only what its code calls. Away from
//! WebAssembly the same functions reach the [`testkit`](crate::testkit) that runs the test; without one they panic,
//! because there is no host to ask.

#[cfg(target_family = "wasm")]
use crate::bindings::host::brood::policy as backend;
#[cfg(not(target_family = "wasm"))]
use crate::testkit::backend;

/// Structured log lines. They are dropped and counted over the binding's cap; a call never blocks.
pub mod log {
    use super::backend;
    pub use crate::bindings::host::brood::policy::log::Level;

    /// Writes a line. The host adds plugin, hook, request and tenant.
    pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
        let fields: Vec<(String, String)> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        backend::log::write(level, message, &fields);
    }

    /// Whether a line of this level would be kept: spares the formatting of one that would not.
    #[must_use]
    pub fn enabled(level: Level) -> bool {
        backend::log::enabled(level)
    }
}

/// The settings of the binding.
pub mod config {
    use super::backend;

    /// The whole settings document, JSON. Prefer [`prepared`], which nobody has to parse.
    #[must_use]
    pub fn document() -> String {
        backend::config::document()
    }

    /// What [`Plugin::prepare`](crate::Plugin::prepare) stored under each key, in the order of the keys.
    #[must_use]
    pub fn prepared(keys: &[String]) -> Vec<Option<Vec<u8>>> {
        backend::config::prepared(keys)
    }

    /// Changes exactly when the settings do.
    #[must_use]
    pub fn revision() -> u64 {
        backend::config::revision()
    }
}

/// Decision time.
pub mod clock {
    use super::backend;

    /// Nanoseconds since the Unix epoch; one instant for the whole call.
    #[must_use]
    pub fn now() -> u64 {
        backend::clock::now()
    }
}

/// Small durable state of this plugin, shared by its hooks. Writes commit when the hook returns an answer.
pub mod state {
    use super::backend;
    pub use crate::bindings::host::brood::policy::state::Error;

    /// The values of these keys, in their order.
    #[must_use]
    pub fn get(keys: &[String]) -> Vec<Option<Vec<u8>>> {
        backend::state::get(keys)
    }

    /// Writes, or removes where the value is `None`. With `expires_ms` the entries vanish that long after the commit.
    ///
    /// # Errors
    ///
    /// An entry is too large, or the plugin's share of the store is used up; nothing is written then.
    pub fn set(
        entries: &[(String, Option<Vec<u8>>)],
        expires_ms: Option<u64>,
    ) -> Result<(), Error> {
        backend::state::set(entries, expires_ms)
    }

    /// Adds to 64-bit counters and returns their new values.
    ///
    /// # Errors
    ///
    /// A key holds something that is not a counter, or the plugin's share of the store is used up.
    pub fn add(deltas: &[(String, i64)]) -> Result<Vec<i64>, Error> {
        backend::state::add(deltas)
    }
}

/// Metrics under the plugin's own prefix.
pub mod metrics {
    use super::backend;
    use crate::bindings::host::brood::policy::metrics::Point;

    /// Emits one point. A name that [`Plugin::METRICS`](crate::Plugin::METRICS) does not list is dropped and counted.
    pub fn emit(name: &str, value: i64, labels: &[(&str, &str)]) {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let name = name.to_owned();
        backend::metrics::emit(&[Point {
            name,
            value,
            labels,
        }]);
    }
}
