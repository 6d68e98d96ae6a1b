//! Whether a plan keeps to its brief and to what the operator permits.
//!
//! Invariant: every template that passes expands, for every daughter, to something of the right form.

use super::{Brief, Content, Network, Outcome, Patch, Secret, SecretTarget};
use crate::admission::denial_is_right;
use crate::check::{Flaw, Malformed, at_most, in_range, not_wider};
use crate::{Permits, Template, text};

const MOST_RULES: usize = 4096;
const MOST_PATCHES: usize = 4096;
/// Environment values are limited by the kernel's `MAX_ARG_STRLEN` (128 KiB); this is far below.
const LONGEST_ENV: usize = 32 * 1024;
const LONGEST_FILE: usize = 256 * 1024;
const LONGEST_ENTROPY: usize = 256;
/// All that one plan carries, bytes.
const LARGEST_PLAN: usize = 1024 * 1024;

pub(crate) fn keeps_to(
    brief: &Brief,
    permits: &Permits,
    outcome: &Outcome,
) -> Result<(), Malformed> {
    let plan = match outcome {
        Outcome::Refuse(denial) => return denial_is_right(denial),
        Outcome::Plan(plan) => plan,
    };
    at_most("rules", MOST_RULES, plan.rules.len())?;
    let patches = plan.shared.len()
        + plan
            .rules
            .iter()
            .map(|rule| rule.patches.len())
            .sum::<usize>();
    at_most("patches", MOST_PATCHES, patches)?;
    let mut carried = 0;
    for (index, patch) in plan.shared.iter().enumerate() {
        carried += keeps(brief, permits, patch)
            .map_err(|flaw| flaw.within(format_args!("shared[{index}]")))?;
    }
    for (index, rule) in plan.rules.iter().enumerate() {
        let (span, outer) = (rule.daughters, brief.daughters);
        if span.count == 0 || !span.is_within(outer) {
            let flaw = Flaw::Span {
                first: span.first,
                count: span.count,
                outer_first: outer.first,
                outer_count: outer.count,
            };
            return Err(flaw.at(format_args!("rules[{index}].daughters")));
        }
        for (at, patch) in rule.patches.iter().enumerate() {
            carried += keeps(brief, permits, patch)
                .map_err(|flaw| flaw.within(format_args!("rules[{index}].patches[{at}]")))?;
        }
    }
    at_most("plan", LARGEST_PLAN, carried)
}

/// Checks one patch; the bytes that it carries.
fn keeps(brief: &Brief, permits: &Permits, patch: &Patch) -> Result<usize, Malformed> {
    match patch {
        Patch::SetEnv(name, template) => {
            text::env_name("set-env", name)?;
            template_fits(name, template, LONGEST_ENV)?;
            Ok(name.len() + template.len())
        }
        Patch::UnsetEnv(name) => text::env_name("unset-env", name).map(|()| name.len()),
        Patch::WriteFile(file) => {
            file_is_permitted(permits, &file.path)?;
            in_range("mode", 0..=0o777, file.mode.into())?;
            match &file.content {
                Content::Bytes(bytes) => at_most(&file.path, LONGEST_FILE, bytes.len())
                    .map(|()| file.path.len() + bytes.len()),
                Content::Template(template) => template_fits(&file.path, template, LONGEST_FILE)
                    .map(|_| file.path.len() + template.len()),
            }
        }
        Patch::RemoveFile(path) => file_is_permitted(permits, path).map(|()| path.len()),
        Patch::Network(network) => network_keeps(permits, network),
        Patch::Secret(secret) => secret_is_permitted(permits, secret),
        Patch::Limits(limits) => {
            let request = &brief.request;
            text::narrows(&request.shape, limits, request.mother.is_live())
                .map_err(|flaw| flaw.within("limits"))?;
            Ok(size_of_val(limits))
        }
        Patch::Label(label, template) => {
            text::own_key("label", label)?;
            template_fits(label, template, 256)?;
            Ok(label.len() + template.len())
        }
        Patch::EntropyContext(bytes) => {
            at_most("entropy-context", LONGEST_ENTROPY, bytes.len()).map(|()| bytes.len())
        }
        Patch::TtlMs(ttl) => {
            in_range("ttl-ms", 1..=u64::MAX.into(), (*ttl).into())?;
            let granted = brief.request.ttl_ms.unwrap_or(u64::MAX);
            not_wider("ttl-ms", granted.into(), (*ttl).into()).map(|()| size_of::<u64>())
        }
        // To skip what is not understood would loosen what the policy asked for.
        Patch::Other(name, _) => Err(text::not("a patch kind of this engine", name).at("other")),
    }
}

/// A template whose longest expansion fits, without NUL, which ends strings in the daughter.
fn template_fits(place: &str, template: &str, longest: usize) -> Result<Template, Malformed> {
    if template.contains('\0') {
        return Err(text::not("a text without NUL", template).at(place));
    }
    let parsed = Template::parse(place, template)?;
    at_most(place, longest, parsed.worst().len())?;
    Ok(parsed)
}

fn file_is_permitted(permits: &Permits, path: &str) -> Result<(), Malformed> {
    text::path("path", path)?;
    let below = |root: &String| {
        let root = root.trim_end_matches('/');
        path.strip_prefix(root)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    if permits.file_roots.iter().any(below) {
        return Ok(());
    }
    Err(not_permitted("file", path).at("path"))
}

fn secret_is_permitted(permits: &Permits, secret: &Secret) -> Result<usize, Malformed> {
    if !permits.secrets.contains(&secret.name) {
        return Err(not_permitted("secret", &secret.name).at("secret"));
    }
    match &secret.target {
        SecretTarget::Env(name) => text::env_name("target", name)?,
        SecretTarget::File(path) => file_is_permitted(permits, path)?,
    }
    Ok(secret.name.len())
}

fn network_keeps(permits: &Permits, network: &Network) -> Result<usize, Malformed> {
    if let Some(profile) = &network.profile
        && !permits.network_profiles.contains(profile)
    {
        return Err(not_permitted("network profile", profile).at("profile"));
    }
    let mut carried = 0;
    if let Some(hostname) = &network.hostname {
        let template = template_fits("hostname", hostname, 253)?;
        // The worst of an address has colons, so that none is in a host name.
        if !text::is_host_name(&template.worst()) {
            let expected = "a host name for every daughter, of ${index}, ${id} or ${node}";
            return Err(text::not(expected, hostname).at("hostname"));
        }
        carried += hostname.len();
    }
    let allowed = network.egress_allow.iter().flatten();
    at_most("egress-allow", 256, allowed.clone().count())?;
    for destination in allowed {
        text::destination("egress-allow", destination)?;
        carried += destination.len();
    }
    if let Some(rate) = network.rate_kbps {
        in_range("rate-kbps", 1..=u32::MAX.into(), rate.into())?;
    }
    Ok(carried)
}

fn not_permitted(what: &str, name: &str) -> Flaw {
    let name = name.chars().take(64).collect();
    Flaw::NotPermitted {
        what: what.to_owned(),
        name,
    }
}
