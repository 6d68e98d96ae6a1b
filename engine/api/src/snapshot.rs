//! Snapshots: states and memories of machines on disk.
//!
//! What is exported is bytes that another server takes as they are; only what is said about a snapshot is JSON.

use std::collections::BTreeMap;

use brood_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::mistake::Mistakes;
use crate::template::GuestKind;
use crate::{IdText, Request, Time, limit, shape};

/// The last part of the path under which snapshots are imported.
const TAKEN: &str = "import";

/// A snapshot to take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// Its name, one of its kind in the tenant. It cannot be `import`.
    #[schema(pattern = "^(?!import$)[a-z0-9][a-z0-9._-]{0,62}$", example = "warm")]
    pub name: Option<String>,
    /// Labels; those of the machine if there are none.
    #[schema(schema_with = shape::labels)]
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Request for SnapshotSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        check_name("/name", self.name.as_deref(), mistakes);
        limit::labels(&self.labels, mistakes);
    }
}

/// How an imported snapshot is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    /// Its name, one of its kind in the tenant. It cannot be `import`.
    #[param(pattern = "^(?!import$)[a-z0-9][a-z0-9._-]{0,62}$", example = "warm")]
    pub name: Option<String>,
}

impl Request for ImportQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        check_name("name", self.name.as_deref(), mistakes);
    }
}

fn check_name(pointer: &str, name: Option<&str>, mistakes: &mut Mistakes) {
    match name {
        Some(TAKEN) => mistakes.out_of_range(
            pointer,
            "'import' is where snapshots are imported: choose another name",
        ),
        Some(name) => limit::name(pointer, name, mistakes),
        None => {}
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its id.
    #[schema(value_type = IdText)]
    pub id: MachineId,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whom it was taken of. Of one that was imported this is a machine of another server.
    #[schema(value_type = IdText)]
    pub machine: MachineId,
    /// The machine that is hibernated in it. It goes when she wakes or ends, and not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<IdText>)]
    pub hibernates: Option<MachineId>,
    /// The template at the root of that machine's lineage.
    #[schema(value_type = IdText)]
    pub template: MachineId,
    /// The first machine of that lineage.
    #[schema(value_type = IdText)]
    pub lineage: MachineId,
    /// Forks between that one and the machine.
    pub generation: u32,
    /// What runs in it.
    pub guest: GuestKind,
    /// 1/1000 vCPU that each daughter may use.
    pub vcpu_milli: u32,
    /// RAM that each daughter may use, MiB.
    pub memory_mib: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it takes on disk if nothing of it is shared with another, bytes.
    pub bytes: u64,
    /// When it was taken.
    pub created_at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_not_named_as_the_path_of_imports() {
        let named = |name: &str| {
            let body = serde_json::json!({ "name": name }).to_string();
            crate::decode::<SnapshotSpec>(body.as_bytes())
        };
        assert!(named("imports").is_ok());
        for name in ["import", "Import", "", "a/b"] {
            assert!(named(name).is_err(), "{name}");
        }
        let query = |name: &str| [("name".to_owned(), name.to_owned())];
        assert!(crate::decode_parameters::<ImportQuery>(query("warm")).is_ok());
        assert!(crate::decode_parameters::<ImportQuery>(query("import")).is_err());
    }
}
