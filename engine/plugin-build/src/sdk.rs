//! The SDK as text in the program, so that a crate can be started where there is neither a checkout nor a release of it.
//!
//! Invariant: what is unpacked is a crate of its own, with the very sources and the WIT package of this engine. It lies
//! within the author's crate and is committed with it, so that the crate builds the same everywhere.

use crate::wit;

/// Where it is unpacked, below the crate.
pub(crate) const DIRECTORY: &str = ".brood";

const MANIFEST: &str = include_str!("../templates/sdk.toml");

macro_rules! source {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../sdk/plugin/src/", $name)),
        )
    };
}

const SOURCES: &[(&str, &str)] = &[
    source!("bindings.rs"),
    source!("export.rs"),
    source!("glue.rs"),
    source!("heap.rs"),
    source!("heap/tests.rs"),
    source!("hook.rs"),
    source!("host.rs"),
    source!("lib.rs"),
    source!("settings/declare.rs"),
    source!("settings/diagnostic.rs"),
    source!("settings/json.rs"),
    source!("settings/mod.rs"),
    source!("settings/object.rs"),
    source!("settings/prepared.rs"),
    source!("settings/scalar.rs"),
    source!("settings/schema.rs"),
    source!("settings/tests.rs"),
    source!("settings/value.rs"),
    source!("testkit/backend.rs"),
    source!("testkit/fixture.rs"),
    source!("testkit/mod.rs"),
    source!("testkit/schema.rs"),
    source!("testkit/tests.rs"),
];

/// Its files: path below [`DIRECTORY`], and text.
pub(crate) fn files() -> Vec<(String, String)> {
    let manifest = ("sdk/plugin/Cargo.toml".to_owned(), MANIFEST.to_owned());
    // The sources name the package as `../../wit`, seen from their own crate.
    let package = wit::texts()
        .iter()
        .map(|(name, text)| (format!("wit/{name}"), (*text).to_owned()));
    let sources = SOURCES
        .iter()
        .map(|(name, text)| (format!("sdk/plugin/src/{name}"), (*text).to_owned()));
    std::iter::once(manifest)
        .chain(sources)
        .chain(package)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn sources(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                sources(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_source_of_the_sdk_is_in_the_program() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/plugin/src");
        let mut there = BTreeSet::new();
        sources(&directory, "", &mut there);
        let here: BTreeSet<String> = SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(here, there);
    }

    #[test]
    fn unpacked_manifest_depends_on_what_that_of_the_workspace_does() {
        let workspace = include_str!("../../../Cargo.toml");
        let own = include_str!("../../../sdk/plugin/Cargo.toml");
        let dependencies = |text: &str| -> BTreeSet<(String, String)> {
            let after = text.split("[dependencies]\n").nth(1).unwrap_or_default();
            let lines = after.lines().take_while(|line| !line.starts_with('['));
            let pairs = lines.filter_map(|line| line.split_once(" = "));
            pairs
                .map(|(name, what)| (name.to_owned(), what.to_owned()))
                .collect()
        };
        let inherited = |name: &str| {
            let line = workspace
                .lines()
                .find(|line| line.starts_with(&format!("{name} = ")));
            line.and_then(|line| line.split_once(" = "))
                .unwrap()
                .1
                .to_owned()
        };
        let wanted: BTreeSet<(String, String)> = dependencies(own)
            .into_iter()
            .map(|(name, what)| match what.contains("workspace = true") {
                true => (name.clone(), inherited(&name)),
                false => (name, what),
            })
            .collect();
        assert!(wanted.len() >= 4, "{wanted:?}");
        assert_eq!(dependencies(MANIFEST), wanted);
    }
}
