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
        tenants: BTreeMap<String, Tenant> = BTreeMap::new(),
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
    /// A tenant.
    pub struct Tenant {
        /// The class whose limits it has.
        class: Option<String> = None,
        /// Limits of its own.
        limits: Limits = Limits::none(),
    }
}

brood_plugin::settings! {
    /// Limits. Those of a tenant count everything it has at once; those that begin with `request-` look at one request.
    pub struct Limits {
        /// Most live machines.
        live: Option<u32> = None,
        /// Most live machines of one project.
        project_live: Option<u32> = None,
        /// Most virtual CPU, in 1/1000.
        vcpu_milli: Option<u32> = None,
        /// Most memory, MiB.
        memory_mib: Option<u32> = None,
        /// Most writable disk, MiB.
        disk_mib: Option<u32> = None,
        /// Most of other kinds of resources, by name, in the unit of the kind.
        other: Option<BTreeMap<String, u32>> = None,
        /// Most checkpoints and snapshots.
        points: Option<u32> = None,
        /// How many machines may begin within a time; all of them hold.
        rates: Option<Vec<Rate>> = None,
        /// Most machines of one request. A request that accepts fewer gets fewer.
        request_count: Option<NonZeroU32> = None,
        /// Most virtual CPU of one machine, in 1/1000. More is narrowed to this.
        request_vcpu_milli: Option<NonZeroU32> = None,
        /// Most memory of one machine, MiB. More is refused where the memory is inherited, and narrowed elsewhere.
        request_memory_mib: Option<NonZeroU32> = None,
        /// Most writable disk of one machine, MiB. More is narrowed to this.
        request_disk_mib: Option<NonZeroU32> = None,
        /// Longest life of a machine, milliseconds; also of one that asked for no end.
        request_ttl_ms: Option<NonZeroU64> = None,
        /// How many forks may lie between a machine and its template.
        depth: Option<u32> = None,
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
        live: Option<u32> = None,
        /// Most virtual CPU, in 1/1000.
        vcpu_milli: Option<u32> = None,
        /// Most memory, MiB.
        memory_mib: Option<u32> = None,
        /// Most writable disk, MiB.
        disk_mib: Option<u32> = None,
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

impl Settings {
    /// Checks what one field cannot say alone.
    pub(crate) fn check(&self, wrong: &mut Diagnostics) {
        self.default.check(&["default"], wrong);
        for (name, limits) in &self.classes {
            limits.check(&["classes", name], wrong);
        }
        for (name, tenant) in &self.tenants {
            tenant.limits.check(&["tenants", name, "limits"], wrong);
            if let Some(class) = &tenant.class
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
            live: None,
            project_live: None,
            vcpu_milli: None,
            memory_mib: None,
            disk_mib: None,
            other: None,
            points: None,
            rates: None,
            request_count: None,
            request_vcpu_milli: None,
            request_memory_mib: None,
            request_disk_mib: None,
            request_ttl_ms: None,
            depth: None,
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
        for (index, rate) in self.rates.iter().flatten().enumerate() {
            if rate.within_ms.get() > YEAR_MS {
                let index = index.to_string();
                add(&["rates", &index, "within-ms"], "longer than a year");
            }
        }
        if self.operations.as_ref().is_some_and(Vec::is_empty) {
            add(&["operations"], "an empty list would allow nothing at all");
        }
        if self.queue.as_ref().is_some_and(String::is_empty) {
            add(&["queue"], "a queue has a name");
        }
        for key in self.labels.iter().flatten().map(|(key, _)| key.as_str()) {
            if key.starts_with("brood.") {
                add(
                    &["labels", key],
                    "labels that begin with `brood.` are the engine's",
                );
            } else if !is_label_key(key) {
                add(
                    &["labels", key],
                    "a label is 1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`",
                );
            }
        }
    }
}

impl Total {
    /// No limit at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            live: None,
            vcpu_milli: None,
            memory_mib: None,
            disk_mib: None,
        }
    }
}

fn is_label_key(key: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    (1..=63).contains(&key.len()) && key.bytes().all(allowed)
}
