//! The allowed edges between the project's own crates, and what a crate must never reach.
//!
//! Invariant: a crate without a row in [`CRATES`] is an error, so that a new one states what it stands on. Who may use a
//! crate of others directly is `deny.toml`'s business; what may be reached through others is the table's.

mod table;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::place::Place;
use crate::process::{output, say};
use table::{BENCHES, CRATES, ONLY_FOR_TESTS, TESTS_MAY_USE, TOPS};

/// Checks the workspace as it is.
pub(crate) fn check(place: &Place) -> Result<()> {
    say("edges between crates");
    let metadata =
        output(&mut place.cargo(&["metadata", "--format-version", "1", "--all-features"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("parsing cargo metadata")?;
    let wrong = Graph::read(&metadata)
        .context("cargo metadata has another shape than expected")?
        .violations();
    if wrong.is_empty() {
        return Ok(());
    }
    for violation in &wrong {
        eprintln!("    {violation}");
    }
    bail!(
        "{} forbidden edges between crates; the table is engine/xtask/src/edges/table.rs",
        wrong.len()
    )
}

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Test,
}

/// Crates by name and the edges between them. Two versions of one crate are one node.
#[derive(Default)]
struct Graph {
    own: BTreeSet<String>,
    edges: BTreeMap<String, BTreeMap<String, Vec<Kind>>>,
}

impl Graph {
    /// Reads `cargo metadata`, format 1, resolved.
    fn read(metadata: &Value) -> Option<Self> {
        let mut names = BTreeMap::new();
        for package in metadata.get("packages")?.as_array()? {
            names.insert(package.get("id")?.as_str()?, package.get("name")?.as_str()?);
        }
        let name_of = |id: &Value| Some((*names.get(id.as_str()?)?).to_owned());
        let mut graph = Self::default();
        for member in metadata.get("workspace_members")?.as_array()? {
            graph.own.insert(name_of(member)?);
        }
        for node in metadata.get("resolve")?.get("nodes")?.as_array()? {
            let from = name_of(node.get("id")?)?;
            for dependency in node.get("deps")?.as_array()? {
                let to = name_of(dependency.get("pkg")?)?;
                let kinds = dependency.get("dep_kinds")?.as_array()?.iter().map(kind);
                graph
                    .edges
                    .entry(from.clone())
                    .or_default()
                    .entry(to)
                    .or_default()
                    .extend(kinds);
            }
        }
        Some(graph)
    }

    /// Every broken rule, as a sentence.
    fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for own in &self.own {
            if TOPS.contains(&own.as_str()) {
                let forbidden = |name: &str, kind| {
                    (TOPS.contains(&name) && own != BENCHES)
                        || (kind == Kind::Normal
                            && own == "brood"
                            && ONLY_FOR_TESTS.contains(&name))
                };
                wrong.extend(self.own_edges(own, forbidden));
                continue;
            }
            let Some(rule) = CRATES.iter().find(|rule| rule.name == own) else {
                wrong.push(format!("{own} has no row in the table"));
                continue;
            };
            wrong.extend(self.own_edges(own, |name, kind| {
                let for_tests = kind == Kind::Test && TESTS_MAY_USE.contains(&name);
                !rule.may_use.contains(&name) && !for_tests
            }));
            let reached = self.reached(own);
            let forbidden = rule
                .must_not_reach
                .iter()
                .filter(|name| reached.contains(**name));
            wrong.extend(forbidden.map(|name| format!("{own} must not reach {name}")));
        }
        wrong
    }

    /// The edges of one crate to others of the workspace that are forbidden.
    fn own_edges(&self, own: &str, forbidden: impl Fn(&str, Kind) -> bool) -> Vec<String> {
        let edges = self
            .edges
            .get(own)
            .into_iter()
            .flatten()
            .filter(|(name, _)| self.own.contains(*name));
        let wrong = edges.filter(|(name, kinds)| kinds.iter().any(|kind| forbidden(name, *kind)));
        wrong
            .map(|(name, _)| format!("{own} must not depend on {name}"))
            .collect()
    }

    /// What a crate needs to run, directly or through others.
    fn reached<'a>(&'a self, start: &'a str) -> BTreeSet<&'a str> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(name) = open.pop() {
            for (next, kinds) in self.edges.get(name).into_iter().flatten() {
                if kinds.contains(&Kind::Normal) && reached.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        reached
    }
}

/// `kind` is null for an ordinary dependency, else `dev` or `build`.
fn kind(dependency: &Value) -> Kind {
    match dependency.get("kind").and_then(Value::as_str) {
        Some("dev") => Kind::Test,
        _ => Kind::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(own: &[&str], edges: &[(&str, &str, Kind)]) -> Graph {
        let mut graph = Graph {
            own: own.iter().map(|name| (*name).to_owned()).collect(),
            ..Graph::default()
        };
        for (from, to, kind) in edges {
            let targets = graph.edges.entry((*from).to_owned()).or_default();
            targets.entry((*to).to_owned()).or_default().push(*kind);
        }
        graph
    }

    #[test]
    fn arrow_that_points_back_up_is_refused() {
        let own = ["brood-vmm", "brood-cell", "brood-units"];
        let good = [
            ("brood-cell", "brood-vmm", Kind::Normal),
            ("brood-vmm", "brood-units", Kind::Normal),
        ];
        assert_eq!(graph(&own, &good).violations(), Vec::<String>::new());
        let bad = [("brood-vmm", "brood-cell", Kind::Normal)];
        assert_eq!(
            graph(&own, &bad).violations(),
            ["brood-vmm must not depend on brood-cell"]
        );
    }

    #[test]
    fn test_dependency_may_use_the_testkit_and_an_ordinary_one_may_not() {
        let own = ["brood-cell", "brood-testkit", "brood"];
        assert!(
            graph(&own, &[("brood-cell", "brood-testkit", Kind::Test)])
                .violations()
                .is_empty()
        );
        assert!(
            graph(&own, &[("brood", "brood-testkit", Kind::Test)])
                .violations()
                .is_empty()
        );
        assert_eq!(
            graph(&own, &[("brood-cell", "brood-testkit", Kind::Normal)])
                .violations()
                .len(),
            1
        );
        assert_eq!(
            graph(&own, &[("brood", "brood-testkit", Kind::Normal)])
                .violations()
                .len(),
            1
        );
    }

    #[test]
    fn forbidden_crate_is_found_behind_others_but_not_behind_tests() {
        let own = ["brood-agent-proto"];
        let through = |kind| {
            [
                ("brood-agent-proto", "helper", kind),
                ("helper", "kvm-ioctls", Kind::Normal),
            ]
        };
        let found = graph(&own, &through(Kind::Normal)).violations();
        assert_eq!(found, ["brood-agent-proto must not reach kvm-ioctls"]);
        assert!(graph(&own, &through(Kind::Test)).violations().is_empty());
    }

    #[test]
    fn crate_without_a_row_is_refused() {
        assert_eq!(
            graph(&["brood-new"], &[]).violations(),
            ["brood-new has no row in the table"]
        );
    }

    #[test]
    fn table_names_lower_crates_first_so_it_has_no_cycle() {
        for (index, rule) in CRATES.iter().enumerate() {
            let lower: Vec<&str> = CRATES.iter().take(index).map(|rule| rule.name).collect();
            assert!(
                rule.may_use.iter().all(|name| lower.contains(name)),
                "{}",
                rule.name
            );
        }
    }

    #[test]
    fn metadata_of_cargo_is_understood() {
        let metadata = serde_json::json!({
            "packages": [{"id": "a 1", "name": "brood-vmm"}, {"id": "b 1", "name": "brood-cell"}],
            "workspace_members": ["a 1", "b 1"],
            "resolve": {"nodes": [
                {"id": "a 1", "deps": [{"pkg": "b 1", "dep_kinds": [{"kind": "dev"}, {"kind": null}]}]},
                {"id": "b 1", "deps": []},
            ]},
        });
        let found = Graph::read(&metadata).unwrap().violations();
        assert_eq!(found, ["brood-vmm must not depend on brood-cell"]);
        assert!(Graph::read(&serde_json::json!({"packages": []})).is_none());
    }
}
