//! The review of one request: a function of the tenant's policy and the request.
//!
//! Invariant: what no wait can heal is denied at once, with every reason; what a wait can heal is a hold. Nothing here
//! computes with what is in use: that is the host's, which checks and adds in one step.

use brood_plugin::admission::{Deferral, Grant, Hold, Item, Verdict, WhenFull};
use brood_plugin::types::{Denial, ForkRequest, Resources};

use crate::policy::{Gauge, Policy, Rule, Scope, Standing};

/// Decides about one request.
#[must_use]
pub fn decide(standing: &Standing, item: &Item) -> Verdict {
    let tenant = &item.request.who.tenant;
    match standing {
        Standing::Limited(policy) => Review { policy, item }.decide(),
        Standing::Unknown => Verdict::Abstain,
        Standing::Denied => denied(
            "policy",
            format!("tenant {tenant} is not known here and may not fork"),
        ),
    }
}

/// What an operation takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It makes machines.
    Machine,
    /// It makes checkpoints or snapshots.
    Point,
    /// It makes nothing that is not held already.
    Neither,
}

impl Kind {
    fn of(operation: &str) -> Self {
        match operation {
            "checkpoint" | "snapshot" => Self::Point,
            "resume" | "extend" => Self::Neither,
            _ => Self::Machine,
        }
    }
}

/// Longest name of a counter that the engine takes.
const LONGEST_KEY: usize = 128;

struct Review<'a> {
    policy: &'a Policy,
    item: &'a Item,
}

/// A reason for a denial that no wait can heal.
struct Reason {
    code: &'static str,
    words: String,
}

impl Review<'_> {
    fn request(&self) -> &ForkRequest {
        &self.item.request
    }

    fn decide(&self) -> Verdict {
        let request = self.request();
        if request.count == 0 || request.min_count == 0 || request.min_count > request.count {
            let words = format!(
                "{} daughters, at least {}: no such count",
                request.count, request.min_count
            );
            return denied("malformed", words);
        }
        let kind = Kind::of(&request.operation);
        let mut reasons = Vec::new();
        self.operation(&mut reasons);
        self.labels(&mut reasons);
        if kind != Kind::Neither {
            self.budget(&mut reasons);
        }
        let (count, shape) = match kind {
            Kind::Machine => {
                self.depth(&mut reasons);
                (self.count(&mut reasons), self.shape(&mut reasons))
            }
            Kind::Point | Kind::Neither => (request.count, None),
        };
        let narrowed = shape.as_ref().unwrap_or(&request.shape);
        let holds = self.holds(kind, narrowed, &mut reasons);
        match deny(reasons) {
            Some(denial) => denial,
            None => Verdict::Admit(self.grant(fitting(count, &holds), shape, holds)),
        }
    }

    fn operation(&self, reasons: &mut Vec<Reason>) {
        let operation = &self.request().operation;
        if let Some(allowed) = &self.policy.operations
            && !allowed.contains(operation)
        {
            let allowed = allowed.join(", ");
            reasons.push(policy(format!(
                "{operation} is not allowed, only {allowed}"
            )));
        }
    }

    /// A label cannot have two values; the operator's would be refused as a change of the request.
    fn labels(&self, reasons: &mut Vec<Reason>) {
        for (key, value) in &self.policy.labels {
            let asked = self.request().labels.iter().find(|(asked, _)| asked == key);
            if asked.is_some_and(|(_, asked)| asked != value) {
                reasons.push(policy(format!(
                    "label {key} is the operator's, and always {value}"
                )));
            }
        }
    }

    fn budget(&self, reasons: &mut Vec<Reason>) {
        if let (Some(least), Some(left)) =
            (self.policy.budget_nanos, self.item.facts.budget_left_nanos)
            && left < least
        {
            let words = format!(
                "{} of the budget are left, and {} are needed",
                money(left),
                money(least)
            );
            reasons.push(Reason {
                code: "budget",
                words,
            });
        }
    }

    fn depth(&self, reasons: &mut Vec<Reason>) {
        let request = self.request();
        // A machine made of an image or a snapshot has no mother that runs.
        if matches!(request.operation.as_str(), "create" | "wake" | "build") {
            return;
        }
        let depth = request.mother.generation.saturating_add(1);
        if let Some(most) = self.policy.depth
            && depth > most
        {
            let words = format!(
                "the daughters would be {depth} forks away from their template, {most} are allowed"
            );
            reasons.push(policy(words));
        }
    }

    /// At most the allowed count, if the caller accepts so few.
    fn count(&self, reasons: &mut Vec<Reason>) -> u32 {
        let request = self.request();
        let count = self.policy.count.unwrap_or(u32::MAX).min(request.count);
        if count < request.min_count {
            let words = format!(
                "{} machines in one request, {count} are allowed",
                request.min_count
            );
            reasons.push(policy(words));
        }
        count
    }

    /// The narrowed shape; none if it stays as it was asked.
    fn shape(&self, reasons: &mut Vec<Reason>) -> Option<Resources> {
        let request = self.request();
        let asked = &request.shape;
        let within = |most: Option<u32>, asked: u32| most.unwrap_or(u32::MAX).min(asked);
        let memory_mib = within(self.policy.memory_mib, asked.memory_mib);
        let inherits = matches!(request.mother.kind.as_str(), "running" | "checkpoint");
        if memory_mib < asked.memory_mib && inherits {
            let asked = asked.memory_mib;
            let words =
                format!("a daughter inherits {asked} MiB of memory, {memory_mib} are allowed");
            reasons.push(policy(words));
        }
        let shape = Resources {
            vcpu_milli: within(self.policy.vcpu_milli, asked.vcpu_milli),
            memory_mib,
            disk_mib: within(self.policy.disk_mib, asked.disk_mib),
            more: asked.more.clone(),
        };
        (shape != *asked).then_some(shape)
    }

    fn holds(&self, kind: Kind, shape: &Resources, reasons: &mut Vec<Reason>) -> Vec<Hold> {
        let mut holds = Vec::with_capacity(self.policy.rules.len());
        for rule in &self.policy.rules {
            let wanted = match rule.gauge {
                Gauge::Points => Kind::Point,
                _ => Kind::Machine,
            };
            if wanted == kind {
                holds.extend(self.hold(rule, shape, reasons));
            }
        }
        holds
    }

    /// The hold of one rule; a reason instead, if not even an idle host could grant it.
    fn hold(&self, rule: &Rule, shape: &Resources, reasons: &mut Vec<Reason>) -> Option<Hold> {
        let request = self.request();
        let per_daughter = match &rule.gauge {
            Gauge::Live | Gauge::Points | Gauge::Rate(_) => 1,
            Gauge::VcpuMilli => shape.vcpu_milli.into(),
            Gauge::MemoryMib => shape.memory_mib.into(),
            Gauge::DiskMib => shape.disk_mib.into(),
            Gauge::Other(kind) => quantity(shape, kind),
        };
        if per_daughter < 0 {
            let words = format!("a negative amount of a resource: {per_daughter}");
            let code = "malformed";
            reasons.push(Reason { code, words });
            return None;
        }
        let least = per_daughter.checked_mul(request.min_count.into());
        if least.is_none_or(|least| least > rule.limit) {
            let words = format!(
                "{} such machines never fit the limit of {}",
                request.min_count,
                rule.words()
            );
            reasons.push(Reason {
                code: "quota",
                words,
            });
            return None;
        }
        let key = self.counter(rule);
        if key.len() > LONGEST_KEY {
            let words = "the names of tenant and project are too long to be counted".to_owned();
            let code = "malformed";
            reasons.push(Reason { code, words });
            return None;
        }
        Some(Hold {
            key,
            per_request: 0,
            per_daughter,
            limit: rule.limit,
            lasts_ms: match rule.gauge {
                Gauge::Rate(ms) => Some(ms),
                _ => None,
            },
        })
    }

    /// The name of a rule's counter. Tenants and projects are escaped, so that no two share one by accident.
    fn counter(&self, rule: &Rule) -> String {
        let mut key = String::with_capacity(64);
        match &rule.gauge {
            Gauge::Live => key.push_str("live"),
            Gauge::VcpuMilli => key.push_str("vcpu-milli"),
            Gauge::MemoryMib => key.push_str("memory-mib"),
            Gauge::DiskMib => key.push_str("disk-mib"),
            Gauge::Points => key.push_str("points"),
            Gauge::Other(kind) => {
                key.push_str("other");
                push_escaped(&mut key, kind);
            }
            Gauge::Rate(ms) => {
                key.push_str("rate/");
                key.push_str(&ms.to_string());
            }
        }
        let who = &self.request().who;
        match rule.scope {
            Scope::Total => key.push_str("/total"),
            Scope::Tenant => {
                key.push_str("/tenant");
                push_escaped(&mut key, &who.tenant);
            }
            Scope::Project => {
                key.push_str("/project");
                push_escaped(&mut key, &who.tenant);
                push_escaped(&mut key, &who.project);
            }
        }
        key
    }

    fn grant(&self, count: u32, shape: Option<Resources>, holds: Vec<Hold>) -> Grant {
        let request = self.request();
        let ttl_ms = match (self.policy.ttl_ms, request.ttl_ms) {
            (Some(most), Some(asked)) if asked <= most => None,
            (most, _) => most,
        };
        let mut warnings = Vec::new();
        if count < request.count {
            warnings.push(format!(
                "{count} of {} machines: more do not fit the limits",
                request.count
            ));
        }
        if shape.is_some() {
            warnings.push(
                "the machines are made smaller than asked for, to the allowed size".to_owned(),
            );
        }
        if let (Some(ttl), Some(_)) = (ttl_ms, request.ttl_ms) {
            warnings.push(format!(
                "the machines live {ttl} ms, which is the longest allowed"
            ));
        }
        Grant {
            count,
            shape,
            ttl_ms,
            holds,
            when_full: self.when_full(),
            add_labels: self.policy.labels.clone(),
            warnings,
        }
    }

    /// What the caller hears, or where it waits, when a hold does not fit.
    fn when_full(&self) -> WhenFull {
        let request = self.request();
        let facts = &self.item.facts;
        let full = match &self.policy.queue {
            Some(queue) if facts.queued < queue.max_queued => {
                return WhenFull::Queue(Deferral {
                    queue: queue.name.clone(),
                    priority: request.priority.min(queue.priority),
                    max_wait_ms: queue.max_wait_ms,
                });
            }
            Some(queue) => format!(
                ", and {} of {} requests wait already",
                facts.queued, queue.max_queued
            ),
            None => String::new(),
        };
        let message = format!(
            "tenant {} has {} live machines, and {} more do not fit its limits: {}{full}",
            request.who.tenant, facts.live, request.min_count, self.policy.words,
        );
        WhenFull::Deny(Denial {
            code: "quota".to_owned(),
            message,
            retry_after_ms: self.policy.retry_ms,
        })
    }
}

/// The largest count that not even an idle host could exceed. Each hold has room for the least count already.
fn fitting(count: u32, holds: &[Hold]) -> u32 {
    let most = holds
        .iter()
        .filter_map(|hold| hold.limit.checked_div(hold.per_daughter))
        .min();
    most.map_or(count, |most| {
        count.min(u32::try_from(most).unwrap_or(u32::MAX))
    })
}

/// How much of another kind of resource a machine takes.
fn quantity(shape: &Resources, kind: &str) -> i64 {
    let found = shape.more.iter().find(|(name, _)| name == kind);
    found.map_or(0, |(_, amount)| *amount)
}

/// Appends `/NAME`, with what could end it or cannot stand in a counter's name as `%xx`.
fn push_escaped(key: &mut String, name: &str) {
    key.push('/');
    for byte in name.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' && byte != b'/' {
            key.push(char::from(byte));
        } else {
            key.push_str(&format!("%{byte:02x}"));
        }
    }
}

/// Nanos of a currency unit as a decimal, without trailing zeros.
fn money(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, rest) = (
        nanos.unsigned_abs() / 1_000_000_000,
        nanos.unsigned_abs() % 1_000_000_000,
    );
    let text = format!("{sign}{whole}.{rest:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn policy(words: String) -> Reason {
    Reason {
        code: "policy",
        words,
    }
}

/// All reasons in one denial, under the code of the first.
fn deny(reasons: Vec<Reason>) -> Option<Verdict> {
    let code = reasons.first()?.code;
    let words: Vec<String> = reasons.into_iter().map(|reason| reason.words).collect();
    Some(denied(code, words.join("; ")))
}

fn denied(code: &str, message: String) -> Verdict {
    Verdict::Deny(Denial {
        code: code.to_owned(),
        message,
        retry_after_ms: None,
    })
}
