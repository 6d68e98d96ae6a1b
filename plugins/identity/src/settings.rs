//! The settings, and what one field of them cannot say alone.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use brood_plugin::settings::Diagnostics;

use crate::gift::{Gift, When};
use crate::host_name::HostName;
use crate::text::is_env_name;
use crate::value::{EnvName, FilePath, Mode, Template, is_own_label};

brood_plugin::settings! {
    /// What daughters are given.
    pub struct Settings {
        /// Host name of every daughter; a rule may give another.
        hostname: Option<HostName> = None,
        /// What every daughter is given.
        give: Give = Give::nothing(),
        /// What some are given besides, the later over the earlier.
        rules: Vec<Rule> = Vec::new(),
    }
}

brood_plugin::settings! {
    /// What some daughters are given. A list that is empty matches everything; all lists must match.
    pub struct Rule {
        /// Tenants.
        tenants: Vec<String> = Vec::new(),
        /// Projects.
        projects: Vec<String> = Vec::new(),
        /// Operations: `fork`, `create`, `claim`, and so on.
        operations: Vec<String> = Vec::new(),
        /// What the mother is: `image`, `template`, `running`, `checkpoint`, `snapshot`.
        mothers: Vec<String> = Vec::new(),
        /// Labels that the request must have.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Their host name.
        hostname: Option<HostName> = None,
        /// What they are given.
        give: Give = Give::nothing(),
    }
}

brood_plugin::settings! {
    /// What daughters are given.
    pub struct Give {
        /// Environment variables.
        env: BTreeMap<String, Template> = BTreeMap::new(),
        /// Environment variables to remove.
        unset_env: Vec<EnvName> = Vec::new(),
        /// Environment variables with a value for each daughter, from a list.
        values: BTreeMap<String, Values> = BTreeMap::new(),
        /// Environment variables with a number for each daughter.
        numbers: BTreeMap<String, Numbers> = BTreeMap::new(),
        /// Files.
        files: Vec<FileSettings> = Vec::new(),
        /// Files to remove.
        remove_files: Vec<FilePath> = Vec::new(),
        /// Secrets, which the engine resolves; this plugin never sees their values.
        secrets: Vec<SecretSettings> = Vec::new(),
        /// Labels.
        labels: BTreeMap<String, Template> = BTreeMap::new(),
        /// A network profile that the operator defined.
        network_profile: Option<String> = None,
        /// Where they may talk to, within the profile: CIDRs and host names.
        egress_allow: Option<Vec<String>> = None,
        /// Most traffic, kbit/s.
        rate_kbps: Option<NonZeroU32> = None,
        /// Most virtual CPU, 1/1000.
        vcpu_milli: Option<NonZeroU32> = None,
        /// Most memory, MiB. Daughters that inherit more are refused.
        memory_mib: Option<NonZeroU32> = None,
        /// Most writable disk, MiB.
        disk_mib: Option<NonZeroU32> = None,
        /// Longest life, milliseconds.
        ttl_ms: Option<NonZeroU64> = None,
    }
}

brood_plugin::settings! {
    /// A value for each daughter: the first for index 0, and so on.
    pub struct Values {
        /// The values.
        list: Vec<Template>,
        /// What daughters beyond the list get.
        beyond: Beyond = Beyond::Refuse,
    }
}

brood_plugin::settings! {
    /// What daughters beyond a list get.
    pub enum Beyond {
        /// Nothing: the fork is refused.
        Refuse = "refuse",
        /// The list from its beginning.
        Repeat = "repeat",
        /// The last value.
        Last = "last",
    }
}

brood_plugin::settings! {
    /// A number for each daughter: `first + index × step`.
    pub struct Numbers {
        /// That of index 0.
        first: i64,
        /// How much more each next one has.
        step: Step = Step(1),
    }
}

brood_plugin::settings! {
    /// A file.
    pub struct FileSettings {
        /// Where it is.
        path: FilePath,
        /// What it holds.
        content: Template,
        /// Its permissions.
        mode: Mode = Mode(0o644),
    }
}

brood_plugin::settings! {
    /// A secret, by name, in a variable or a file.
    pub struct SecretSettings {
        /// Its name.
        name: String,
        /// Its version; the newest if absent.
        version: Option<String> = None,
        /// The environment variable that gets it.
        env: Option<EnvName> = None,
        /// The file that gets it.
        file: Option<FilePath> = None,
    }
}

/// A whole number other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(pub i64);

impl brood_plugin::settings::Value for Step {
    fn read(node: &brood_plugin::settings::Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        match i64::read(node, wrong)? {
            0 => node.refuse(
                wrong,
                "0 would give all the same; that is what `env` is for".to_owned(),
            ),
            step => Some(Self(step)),
        }
    }

    fn schema(schema: &mut brood_plugin::settings::Schema) {
        i64::schema(schema);
        schema.raw("default", "1");
    }
}

/// Under this, gifts are prepared that any tenant may get.
pub(crate) const EVERYBODY: &str = "everybody";

/// Under this, gifts are prepared that only one tenant may get.
pub(crate) fn key(tenant: &str) -> String {
    ["tenant/", tenant].concat()
}

impl Settings {
    /// Checks what one field cannot say alone.
    pub(crate) fn check(&self, wrong: &mut Diagnostics) {
        self.give.check(&["give"], wrong);
        for (index, rule) in self.rules.iter().enumerate() {
            rule.give
                .check(&["rules", &index.to_string(), "give"], wrong);
        }
    }

    /// The gifts by key: a rule for certain tenants stands under each of them, so that a call reads only what can match.
    pub(crate) fn gifts(&self) -> BTreeMap<String, Vec<Gift>> {
        let mut gifts: BTreeMap<String, Vec<Gift>> = BTreeMap::new();
        let first = Gift::new(0, When::default(), self.hostname.as_ref(), &self.give);
        gifts.entry(EVERYBODY.to_owned()).or_default().push(first);
        for (order, rule) in (1..).zip(&self.rules) {
            let when = When {
                projects: rule.projects.clone(),
                operations: rule.operations.clone(),
                mothers: rule.mothers.clone(),
                labels: rule.labels.clone().into_iter().collect(),
            };
            let gift = Gift::new(order, when, rule.hostname.as_ref(), &rule.give);
            let mut keys: Vec<String> = rule.tenants.iter().map(|tenant| key(tenant)).collect();
            if keys.is_empty() {
                keys.push(EVERYBODY.to_owned());
            }
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                gifts.entry(key).or_default().push(gift.clone());
            }
        }
        gifts
    }
}

impl Give {
    fn nothing() -> Self {
        Self {
            env: BTreeMap::new(),
            unset_env: Vec::new(),
            values: BTreeMap::new(),
            numbers: BTreeMap::new(),
            files: Vec::new(),
            remove_files: Vec::new(),
            secrets: Vec::new(),
            labels: BTreeMap::new(),
            network_profile: None,
            egress_allow: None,
            rate_kbps: None,
            vcpu_milli: None,
            memory_mib: None,
            disk_mib: None,
            ttl_ms: None,
        }
    }

    fn check(&self, place: &[&str], wrong: &mut Diagnostics) {
        let mut add = |rest: &[&str], message: &str| wrong.add(&[place, rest].concat(), message);
        let names = [
            ("env", self.env.keys().collect::<Vec<&String>>()),
            ("values", self.values.keys().collect()),
            ("numbers", self.numbers.keys().collect()),
        ];
        for (list, names) in names {
            for name in names.into_iter().filter(|name| !is_env_name(name)) {
                add(&[list, name], "not the name of an environment variable");
            }
        }
        for (name, values) in &self.values {
            if values.list.is_empty() {
                add(&["values", name, "list"], "an empty list has no values");
            }
        }
        for key in self.labels.keys().filter(|key| !is_own_label(key)) {
            add(
                &["labels", key],
                "1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`, not beginning with `brood.`",
            );
        }
        for (index, secret) in self.secrets.iter().enumerate() {
            let at = index.to_string();
            if secret.name.is_empty() {
                add(&["secrets", &at, "name"], "a secret has a name");
            }
            if secret.env.is_some() == secret.file.is_some() {
                add(
                    &["secrets", &at],
                    "a secret goes to `env` or to `file`, one of them",
                );
            }
        }
        self.check_twice(&mut add);
    }

    /// Within one list of gifts there is no earlier and later: nothing may be given twice.
    fn check_twice(&self, add: &mut impl FnMut(&[&str], &str)) {
        let mut seen = BTreeMap::new();
        let env = self
            .env
            .keys()
            .chain(self.values.keys())
            .chain(self.numbers.keys());
        let unset = self.unset_env.iter().map(|name| &name.0);
        let secret = self.secrets.iter().filter_map(|secret| secret.env.as_ref());
        for name in env.chain(unset).chain(secret.map(|name| &name.0)) {
            *seen.entry(name).or_insert(0) += 1;
        }
        let files = self.files.iter().map(|file| &file.path.0);
        let removed = self.remove_files.iter().map(|path| &path.0);
        let secret = self
            .secrets
            .iter()
            .filter_map(|secret| secret.file.as_ref());
        for path in files.chain(removed).chain(secret.map(|path| &path.0)) {
            *seen.entry(path).or_insert(0) += 1;
        }
        for (name, _) in seen.into_iter().filter(|(_, count)| *count > 1) {
            add(&[], &format!("{name} is given twice"));
        }
    }
}
