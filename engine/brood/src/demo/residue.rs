//! What a run leaves behind: processes, descriptors (sockets, memfds), files, mounts.

use std::collections::BTreeSet;
use std::fs;

use brood_service::process;

/// What exists now that could have been left by the engine.
pub(super) struct Residue {
    things: BTreeSet<String>,
}

/// Looks at this process's children and descriptors, the temporary directory and the mounts.
pub(super) fn look() -> anyhow::Result<Residue> {
    let mut things = BTreeSet::new();
    let own = std::process::id();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process that has gone meanwhile is not left behind.
        if process::parent(pid) == Some(own) {
            things.insert(format!("process {pid}"));
        }
    }
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        if let Ok(target) = fs::read_link(entry.path()) {
            let target = target.display().to_string();
            if !target.starts_with("/proc/") {
                things.insert(format!(
                    "descriptor {} {target}",
                    entry.file_name().to_string_lossy()
                ));
            }
        }
    }
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("brood-") {
            things.insert(format!("file {name}"));
        }
    }
    for mount in fs::read_to_string("/proc/self/mounts")?.lines() {
        things.insert(format!("mount {mount}"));
    }
    Ok(Residue { things })
}

impl Residue {
    /// What is here and was not there before.
    pub(super) fn beyond(self, before: &Self) -> Self {
        Self {
            things: self.things.difference(&before.things).cloned().collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.things.len()
    }

    pub(super) fn describe(&self) -> String {
        if self.things.is_empty() {
            return "nothing".to_owned();
        }
        self.things
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
