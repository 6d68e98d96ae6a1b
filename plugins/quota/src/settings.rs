//! The settings, and what one field of them cannot say alone.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use brood_plugin::settings::Diagnostics;

brood_plugin::settings! {
    /// Limits on forks, by tenant. A limit that is absent does not exist; one that is given for a tenant overrides that of
    /// its class, which overrides the default.
    pub struct Settings {
        /// Limits of every tenant.
        default: Limits = Limits::none(),
        /// Named sets of limits, for tenants of one kind.
        classes: BTreeMap<String, Limits> = BTreeMap::new(),
        /// Tenants with limits of their own, or of a class.
        tenants: BTreeMap<String, Limits> = BTreeMap::new(),
        /// What happens to tenants that `tenants` does not list.
        others: Others = Others::Default,
        /// Limits over all tenants together.
        total: Total = Total::none(),
    }
}

brood_plugin::settings! {
    /// What happens to tenants that are not listed.
    pub enum Others {
        /// They have the default limits.
        Default = "default",
        /// They may not fork.
        Deny = "deny",
        /// Other bindings decide.
        Abstain = "abstain",
    }
}

brood_plugin::settings! {
    /// Limits. `max-` counts what a tenant has at once, or looks at one request; `machine-` looks at one machine.
    pub struct Limits {
        /// The class whose limits a tenant has; only for tenants.
        class: Option<String> = None,
        /// Most live machines.
        max_live: Option<u32> = None,
        /// Most live machines of one project.
        max_live_per_project: Option<u32> = None,
        /// Most virtual CPU, in 1/1000.
        max_vcpu_milli: Option<u32> = None,
        /// Most memory, MiB.
        max_memory_mib: Option<u32> = None,
        /// Most writable disk, MiB.
        max_disk_mib: Option<u32> = None,
        /// Most of other kinds of resources, by name, in the unit of the kind.
        max_other: Option<BTreeMap<String, u32>> = None,
        /// Most checkpoints and snapshots.
        max_points: Option<u32> = None,
        /// How many machines may begin within a time; all of them hold.
        rates: Option<Vec<Rate>> = None,
        /// Most machines of one request. A request that accepts fewer gets fewer.
        max_per_request: Option<NonZeroU32> = None,
        /// Most virtual CPU of one machine, in 1/1000. More is narrowed to this.
        machine_vcpu_milli: Option<NonZeroU32> = None,
        /// Most memory of one machine, MiB. More is refused where the memory is inherited, and narrowed elsewhere.
        machine_memory_mib: Option<NonZeroU32> = None,
        /// Most writable disk of one machine, MiB. More is narrowed to this.
        machine_disk_mib: Option<NonZeroU32> = None,
        /// Longest life of a machine, milliseconds; also of one that asked for no end.
        max_ttl_ms: Option<NonZeroU64> = None,
        /// How many forks may lie between a machine and its template.
        max_depth: Option<u32> = None,
        /// The operations that are allowed; all if absent.
        operations: Option<Vec<String>> = None,
        /// Least budget left, in 1e-9 currency units, below which nothing new begins. Applies where a budget is kept.
        budget_nanos: Option<i64> = None,
        /// What happens when a limit is reached: `deny` if absent.
        when_full: Option<WhenFull> = None,
        /// The queue for waiting requests; `default` if absent.
        queue: Option<String> = None,
        /// Longest wait in the queue, milliseconds; one minute if absent.
        max_wait_ms: Option<NonZeroU32> = None,
        /// Most waiting requests of the tenant; 16 if absent.
        max_queued: Option<u32> = None,
        /// Highest priority in the queue, whatever a request asks; 0 if absent.
        priority: Option<i32> = None,
        /// Labels on every machine.
        labels: Option<BTreeMap<String, String>> = None,
    }
}

brood_plugin::settings! {
    /// So many machines within a time.
    pub struct Rate {
        /// How many machines may begin.
        machines: NonZeroU32,
        /// Within so many milliseconds, at most a year.
        within_ms: NonZeroU64,
    }
}

brood_plugin::settings! {
    /// Limits over all tenants together.
    pub struct Total {
        /// Most live machines.
        max_live: Option<u32> = None,
        /// Most virtual CPU, in 1/1000.
        max_vcpu_milli: Option<u32> = None,
        /// Most memory, MiB.
        max_memory_mib: Option<u32> = None,
        /// Most writable disk, MiB.
        max_disk_mib: Option<u32> = None,
    }
}

brood_plugin::settings! {
    /// What happens when a limit is reached.
    pub enum WhenFull {
        /// The request is refused.
        Deny = "deny",
        /// The request waits.
        Queue = "queue",
    }
}

/// Rates over longer times belong into a budget.
const YEAR_MS: u64 = 366 * 24 * 3600 * 1000;
/// Longest wait that the engine takes.
const DAY_MS: u32 = 24 * 3600 * 1000;
/// With these, all limits of a tenant are fewer holds than the 64 that the engine takes.
const MOST_RATES: usize = 8;
const MOST_KINDS: usize = 32;
const MOST_LABELS: usize = 64;

impl Settings {
    /// Checks what one field cannot say alone.
    pub(crate) fn check(&self, wrong: &mut Diagnostics) {
        self.default.check(&["default"], wrong);
        for (name, limits) in &self.classes {
            limits.check(&["classes", name], wrong);
        }
        let classes = self
            .classes
            .iter()
            .map(|(name, limits)| (vec!["classes", name], limits));
        for (place, limits) in classes.chain([(vec!["default"], &self.default)]) {
            if limits.class.is_some() {
                let place = [&place[..], &["class"]].concat();
                wrong.add(&place, "only a tenant has a class");
            }
        }
        for (name, limits) in &self.tenants {
            limits.check(&["tenants", name], wrong);
            if let Some(class) = &limits.class
                && !self.classes.contains_key(class)
            {
                let message = format!("there is no class `{class}`");
                wrong.add(&["tenants", name, "class"], &message);
            }
        }
    }
}

impl Limits {
    /// No limit at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            class: None,
            max_live: None,
            max_live_per_project: None,
            max_vcpu_milli: None,
            max_memory_mib: None,
            max_disk_mib: None,
            max_other: None,
            max_points: None,
            rates: None,
            max_per_request: None,
            machine_vcpu_milli: None,
            machine_memory_mib: None,
            machine_disk_mib: None,
            max_ttl_ms: None,
            max_depth: None,
            operations: None,
            budget_nanos: None,
            when_full: None,
            queue: None,
            max_wait_ms: None,
            max_queued: None,
            priority: None,
            labels: None,
        }
    }

    fn check(&self, place: &[&str], wrong: &mut Diagnostics) {
        let mut add = |rest: &[&str], message: &str| {
            let place: Vec<&str> = place.iter().chain(rest).copied().collect();
            wrong.add(&place, message);
        };
        let rates = self.rates.as_deref().unwrap_or_default();
        for (index, rate) in rates.iter().enumerate() {
            let at = index.to_string();
            let within = rate.within_ms.get();
            if within > YEAR_MS {
                add(&["rates", &at, "within-ms"], "longer than a year");
            }
            if rates
                .iter()
                .take(index)
                .any(|other| other.within_ms.get() == within)
            {
                add(
                    &["rates", &at, "within-ms"],
                    "another rate has the same time",
                );
            }
        }
        if rates.len() > MOST_RATES {
            add(&["rates"], &format!("more than {MOST_RATES}"));
        }
        if self.operations.as_ref().is_some_and(Vec::is_empty) {
            add(&["operations"], "an empty list would allow nothing at all");
        }
        if self.queue.as_ref().is_some_and(|queue| !is_name(queue)) {
            add(
                &["queue"],
                "a name is 1 to 128 printable characters without spaces",
            );
        }
        if self.max_wait_ms.is_some_and(|wait| wait.get() > DAY_MS) {
            add(&["max-wait-ms"], "longer than a day");
        }
        let kinds = self.max_other.iter().flatten().map(|(kind, _)| kind);
        if kinds.clone().count() > MOST_KINDS {
            add(&["max-other"], &format!("more than {MOST_KINDS} kinds"));
        }
        for kind in kinds.filter(|kind| !is_key(kind)) {
            add(&["max-other", kind], A_KEY);
        }
        let labels = self.labels.iter().flatten();
        if labels.clone().count() > MOST_LABELS {
            add(&["labels"], &format!("more than {MOST_LABELS}"));
        }
        for (key, value) in labels {
            if key.starts_with("brood.") {
                add(
                    &["labels", key],
                    "labels that begin with `brood.` are the engine's",
                );
            } else if !is_key(key) {
                add(&["labels", key], A_KEY);
            }
            if value.len() > 256 {
                add(&["labels", key], "a value is at most 256 bytes");
            }
        }
    }
}

impl Total {
    /// No limit at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            max_live: None,
            max_vcpu_milli: None,
            max_memory_mib: None,
            max_disk_mib: None,
        }
    }
}

const A_KEY: &str = "1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`";

fn is_key(key: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    (1..=63).contains(&key.len()) && key.bytes().all(allowed)
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}
