//! The plan for the daughters of one brief: gifts laid over one another, then patches.
//!
//! Invariant: the plan never widens what was granted, a name appears in it once, and values of their own cost one rule for
//! each run of daughters that have the same.

use std::collections::BTreeMap;

use brood_plugin::mutation::{
    Brief, Content, File, Network, Outcome, Patch, Plan, Secret, SecretTarget,
};
use brood_plugin::types::{Denial, ForkRequest, Resources};

use crate::gift::{Gift, Place, Variable};
use crate::host_name::HostName;
use crate::own::{self, Own};
use crate::text::{placeholders, replaced};

/// Most rules, and most patches of all rules together, that the engine takes in one plan.
pub(crate) const MOST: usize = 4096;

/// The plan, or why there is none.
#[must_use]
pub fn plan(gifts: &[Gift], brief: &Brief) -> Outcome {
    let gifts = gifts
        .iter()
        .filter(|gift| gift.when.matches(&brief.request));
    let laid = Laid::over(gifts);
    match laid.plan(brief) {
        Ok(plan) => Outcome::Plan(plan),
        Err(message) => Outcome::Refuse(Denial {
            code: "policy".to_owned(),
            message,
            retry_after_ms: None,
        }),
    }
}

/// Gifts laid over one another.
#[derive(Default)]
struct Laid<'a> {
    hostname: Option<&'a str>,
    env: BTreeMap<&'a str, &'a Variable>,
    files: BTreeMap<&'a str, &'a Place>,
    labels: BTreeMap<&'a str, &'a str>,
    network_profile: Option<&'a str>,
    egress_allow: Option<&'a [String]>,
    rate_kbps: Option<u32>,
    vcpu_milli: Option<u32>,
    memory_mib: Option<u32>,
    disk_mib: Option<u32>,
    ttl_ms: Option<u64>,
}

impl<'a> Laid<'a> {
    fn over(gifts: impl Iterator<Item = &'a Gift>) -> Self {
        let mut laid = Self::default();
        for gift in gifts {
            laid.hostname = gift.hostname.as_deref().or(laid.hostname);
            laid.env.extend(
                gift.env
                    .iter()
                    .map(|(name, variable)| (name.as_str(), variable)),
            );
            laid.files.extend(
                gift.files
                    .iter()
                    .map(|(path, place)| (path.as_str(), place)),
            );
            laid.labels.extend(
                gift.labels
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            );
            laid.network_profile = gift.network_profile.as_deref().or(laid.network_profile);
            laid.egress_allow = gift.egress_allow.as_deref().or(laid.egress_allow);
            narrow(&mut laid.rate_kbps, gift.rate_kbps);
            narrow(&mut laid.vcpu_milli, gift.vcpu_milli);
            narrow(&mut laid.memory_mib, gift.memory_mib);
            narrow(&mut laid.disk_mib, gift.disk_mib);
            narrow(&mut laid.ttl_ms, gift.ttl_ms);
        }
        laid
    }

    fn plan(&self, brief: &Brief) -> Result<Plan, String> {
        let request = &brief.request;
        let mut shared = Vec::new();
        let mut own = Vec::new();
        for (name, variable) in &self.env {
            match variable {
                Variable::Set(text) => {
                    shared.push(Patch::SetEnv(((*name).to_owned(), filled(text, request)?)));
                }
                Variable::Unset => shared.push(Patch::UnsetEnv((*name).to_owned())),
                Variable::Secret(secret, version) => {
                    let target = SecretTarget::Env((*name).to_owned());
                    shared.push(secret_patch(secret, version.as_deref(), target));
                }
                Variable::Values(list, after) => {
                    own.push((*name, Own::Values(list, *after)));
                }
                Variable::Numbers(first, step) => {
                    own.push((*name, Own::Numbers(*first, *step)));
                }
            }
        }
        for (path, place) in &self.files {
            shared.push(file_patch(path, place, request)?);
        }
        for (key, value) in &self.labels {
            shared.push(Patch::Label(((*key).to_owned(), filled(value, request)?)));
        }
        shared.extend(self.network(request)?.map(Patch::Network));
        shared.extend(self.limits(request)?.map(Patch::Limits));
        if let Some(ttl) = self.ttl_ms
            && request.ttl_ms.is_none_or(|granted| ttl < granted)
        {
            shared.push(Patch::TtlMs(ttl));
        }
        let rules = own::rules(&own, brief)?;
        if shared.len() > MOST {
            return Err(format!(
                "{} changes for each daughter, {MOST} are possible",
                shared.len()
            ));
        }
        Ok(Plan { shared, rules })
    }

    fn network(&self, request: &ForkRequest) -> Result<Option<Network>, String> {
        let hostname = self
            .hostname
            .map(|pattern| hostname(pattern, request))
            .transpose()?;
        let network = Network {
            profile: self.network_profile.map(str::to_owned),
            hostname,
            egress_allow: self.egress_allow.map(<[String]>::to_vec),
            rate_kbps: self.rate_kbps,
        };
        let says = network.profile.is_some()
            || network.hostname.is_some()
            || network.egress_allow.is_some()
            || network.rate_kbps.is_some();
        Ok(says.then_some(network))
    }

    /// The granted shape, narrowed; none if it stays as it is.
    fn limits(&self, request: &ForkRequest) -> Result<Option<Resources>, String> {
        let granted = &request.shape;
        let within = |most: Option<u32>, granted: u32| most.unwrap_or(u32::MAX).min(granted);
        let memory_mib = within(self.memory_mib, granted.memory_mib);
        let inherits = matches!(request.mother.kind.as_str(), "running" | "checkpoint");
        if inherits && memory_mib < granted.memory_mib {
            let granted = granted.memory_mib;
            return Err(format!(
                "a daughter inherits {granted} MiB of memory, {memory_mib} are allowed"
            ));
        }
        let vcpu_milli = within(self.vcpu_milli, granted.vcpu_milli);
        let disk_mib = within(self.disk_mib, granted.disk_mib);
        let same = (vcpu_milli, memory_mib, disk_mib)
            == (granted.vcpu_milli, granted.memory_mib, granted.disk_mib);
        // A further kind that is not named keeps what was granted.
        Ok((!same).then(|| Resources {
            vcpu_milli,
            memory_mib,
            disk_mib,
            more: Vec::new(),
        }))
    }
}

fn narrow<T: Ord + Copy>(so_far: &mut Option<T>, most: Option<T>) {
    *so_far = match (*so_far, most) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
}

/// A text with the names of the request filled in.
pub(crate) fn filled(text: &str, request: &ForkRequest) -> Result<String, String> {
    // Most texts have no placeholder, and a search for one byte costs a tenth of one for two.
    if !text.contains('$') {
        return Ok(text.to_owned());
    }
    let who = &request.who;
    let of_request = |name: &str| match name {
        "tenant" => Some(who.tenant.as_str()),
        "project" => Some(who.project.as_str()),
        "subject" => Some(who.subject.as_str()),
        _ => None,
    };
    let used = placeholders(text).unwrap_or_default();
    for name in used {
        if let Some(value) =
            of_request(name).filter(|value| value.contains("${") || value.contains('\0'))
        {
            let value = value.escape_debug();
            return Err(format!(
                "the {name} {value} cannot stand in a text: it would be a placeholder itself"
            ));
        }
    }
    Ok(replaced(text, of_request))
}

fn hostname(pattern: &str, request: &ForkRequest) -> Result<String, String> {
    let name = filled(pattern, request)?;
    if HostName::is_right(&name) {
        return Ok(name);
    }
    let name = name.escape_debug();
    Err(format!(
        "{name} is not a host name for every daughter: letters, digits and hyphens, 63 in a part"
    ))
}

fn secret_patch(name: &str, version: Option<&str>, target: SecretTarget) -> Patch {
    Patch::Secret(Secret {
        name: name.to_owned(),
        version: version.map(str::to_owned),
        target,
    })
}

fn file_patch(path: &str, place: &Place, request: &ForkRequest) -> Result<Patch, String> {
    Ok(match place {
        Place::Nothing => Patch::RemoveFile(path.to_owned()),
        Place::Secret(name, version) => secret_patch(
            name,
            version.as_deref(),
            SecretTarget::File(path.to_owned()),
        ),
        Place::File(content, mode) => Patch::WriteFile(File {
            path: path.to_owned(),
            mode: *mode,
            content: Content::Template(filled(content, request)?),
        }),
    })
}
