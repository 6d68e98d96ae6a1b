//! What one rule gives and to whom, as bytes hold it.

use std::collections::BTreeMap;

use brood_plugin::types::ForkRequest;
use serde::{Deserialize, Serialize};

use crate::host_name::HostName;
use crate::settings::{Beyond, Give};

/// What one rule gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gift {
    /// Its place among all rules.
    pub(crate) order: u32,
    pub(crate) when: When,
    pub(crate) hostname: Option<String>,
    pub(crate) env: BTreeMap<String, Variable>,
    pub(crate) files: BTreeMap<String, Place>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) network_profile: Option<String>,
    pub(crate) egress_allow: Option<Vec<String>>,
    pub(crate) rate_kbps: Option<u32>,
    pub(crate) vcpu_milli: Option<u32>,
    pub(crate) memory_mib: Option<u32>,
    pub(crate) disk_mib: Option<u32>,
    pub(crate) ttl_ms: Option<u64>,
}

/// Which requests a rule is for, besides its tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    pub(crate) projects: Vec<String>,
    pub(crate) operations: Vec<String>,
    pub(crate) mothers: Vec<String>,
    pub(crate) labels: Vec<(String, String)>,
}

/// What a variable becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Variable {
    Set(String),
    Unset,
    /// Name and version.
    Secret(String, Option<String>),
    Values(Texts, After),
    /// First and step.
    Numbers(i64, i64),
}

/// Texts of a list, in one string: a call that reads a thousand of them decodes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Texts {
    joined: String,
    /// Where each ends.
    ends: Vec<u32>,
    /// Whether any of them holds a placeholder.
    pub(crate) has_placeholders: bool,
}

impl Texts {
    /// None if they are more than 4 GiB together.
    fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (mut joined, mut ends) = (String::new(), Vec::new());
        for text in texts {
            joined.push_str(text);
            ends.push(u32::try_from(joined.len()).ok()?);
        }
        let has_placeholders = joined.contains('$');
        Some(Self {
            joined,
            ends,
            has_placeholders,
        })
    }

    pub(crate) const fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn at(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        self.joined.get(start..end)
    }
}

/// What comes after the last value of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum After {
    Refusal,
    Beginning,
    Last,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// Content and mode.
    File(String, u32),
    Nothing,
    /// Name and version.
    Secret(String, Option<String>),
}

impl When {
    /// Whether the rule is for this request.
    pub(crate) fn matches(&self, request: &ForkRequest) -> bool {
        let among = |list: &[String], one: &String| list.is_empty() || list.contains(one);
        among(&self.projects, &request.who.project)
            && among(&self.operations, &request.operation)
            && among(&self.mothers, &request.mother.kind)
            && self
                .labels
                .iter()
                .all(|label| request.labels.contains(label))
    }
}

impl Gift {
    pub(crate) fn new(order: u32, when: When, hostname: Option<&HostName>, give: &Give) -> Self {
        let labels = give
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.0.clone()));
        Self {
            order,
            when,
            hostname: hostname.map(|pattern| pattern.0.clone()),
            env: variables(give),
            files: places(give),
            labels: labels.collect(),
            network_profile: give.network_profile.clone(),
            egress_allow: give.egress_allow.clone(),
            rate_kbps: give.rate_kbps.map(Into::into),
            vcpu_milli: give.vcpu_milli.map(Into::into),
            memory_mib: give.memory_mib.map(Into::into),
            disk_mib: give.disk_mib.map(Into::into),
            ttl_ms: give.ttl_ms.map(Into::into),
        }
    }
}

fn variables(give: &Give) -> BTreeMap<String, Variable> {
    let set = give
        .env
        .iter()
        .map(|(name, text)| (name.clone(), Variable::Set(text.0.clone())));
    let unset = give
        .unset_env
        .iter()
        .map(|name| (name.0.clone(), Variable::Unset));
    let values = give.values.iter().filter_map(|(name, values)| {
        let list = Texts::of(values.list.iter().map(|value| value.0.as_str()))?;
        let after = match values.beyond {
            Beyond::Refuse => After::Refusal,
            Beyond::Repeat => After::Beginning,
            Beyond::Last => After::Last,
        };
        Some((name.clone(), Variable::Values(list, after)))
    });
    let numbers = give.numbers.iter().map(|(name, numbers)| {
        (
            name.clone(),
            Variable::Numbers(numbers.first, numbers.step.0),
        )
    });
    let secrets = give.secrets.iter().filter_map(|secret| {
        let variable = Variable::Secret(secret.name.clone(), secret.version.clone());
        Some((secret.env.as_ref()?.0.clone(), variable))
    });
    set.chain(unset)
        .chain(values)
        .chain(numbers)
        .chain(secrets)
        .collect()
}

fn places(give: &Give) -> BTreeMap<String, Place> {
    let files = give.files.iter().map(|file| {
        (
            file.path.0.clone(),
            Place::File(file.content.0.clone(), file.mode.0),
        )
    });
    let removed = give
        .remove_files
        .iter()
        .map(|path| (path.0.clone(), Place::Nothing));
    let secrets = give.secrets.iter().filter_map(|secret| {
        let place = Place::Secret(secret.name.clone(), secret.version.clone());
        Some((secret.file.as_ref()?.0.clone(), place))
    });
    files.chain(removed).chain(secrets).collect()
}
