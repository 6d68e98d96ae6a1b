//! The page of fork hazards names tests as its proof: each exists, and each file it names does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Underscores that only names of tests have so many of.
const LEAST_UNDERSCORES: usize = 4;

fn engine() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands between backquotes.
fn quoted(page: &str) -> Vec<&str> {
    page.split('`').skip(1).step_by(2).collect()
}

/// Names of the functions below `directory`.
fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let names = text.lines().filter_map(|line| {
                let (name, _) = line.trim_start().strip_prefix("fn ")?.split_once('(')?;
                Some(name.to_owned())
            });
            found.extend(names);
        }
    }
}

#[test]
fn every_test_and_file_that_the_hazards_page_names_exists() {
    let page = fs::read_to_string(engine().join("docs/fork-hazards.md")).expect("the page");
    let mut known = BTreeSet::new();
    functions(&engine(), &mut known);
    let is_test = |name: &&str| {
        name.matches('_').count() >= LEAST_UNDERSCORES
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let tests: BTreeSet<_> = quoted(&page).into_iter().filter(is_test).collect();
    assert!(tests.len() > 30, "the page names its proofs: {tests:?}");
    let missing: Vec<_> = tests
        .iter()
        .filter(|name| !known.contains(**name))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    let is_file = |name: &&str| name.contains('/') && !name.starts_with('/') && !name.contains(' ');
    // `engine/` is the place that the page's paths are below.
    let exists = |file: &str| file == "engine/" || engine().join(file).exists();
    let lost: Vec<_> = quoted(&page)
        .into_iter()
        .filter(is_file)
        .filter(|file| !exists(file))
        .collect();
    assert!(lost.is_empty(), "no such files: {lost:?}");
}
