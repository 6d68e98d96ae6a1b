//! Programs of Debian that look at the engine from outside: Python, with the libraries that `cargo xtask test` installs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Debian's own Python, which sees Debian's libraries.
const PYTHON: &str = "/usr/bin/python3";

/// A scrape, parsed by Prometheus's own parser.
pub(crate) struct Scrape(Vec<Value>);

/// One of this directory's programs; none, with a printed reason, where Python lacks one of the modules.
pub(crate) fn python(modules: &[&str]) -> Option<Command> {
    let import = format!("import {}", modules.join(", "));
    let there = Command::new(PYTHON).args(["-c", &import]).output();
    if there.is_ok_and(|there| there.status.success()) {
        return Some(Command::new(PYTHON));
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{PYTHON} lacks one of {modules:?}: run `cargo xtask packages`"
    );
    println!("skipped: {PYTHON} lacks one of {modules:?}; `cargo xtask packages` installs them");
    None
}

/// A file of this directory.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/watch")
        .join(name)
}

/// The workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Scrape {
    /// None where there is no parser.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parser = python(&["prometheus_client"])?;
        let mut parser = parser
            .arg(file("metrics.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = parser.stdin.take().expect("its input");
        stdin.write_all(text.as_bytes()).expect("it is written");
        drop(stdin);
        let parsed = parser.wait_with_output().expect("it ends");
        assert!(parsed.status.success(), "no OpenMetrics: {text}");
        Some(Self(serde_json::from_slice(&parsed.stdout).expect("JSON")))
    }

    /// All metrics: name, type, help.
    pub(crate) fn families(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().map(|one| {
            let word = |name: &str| one[name].as_str().unwrap_or_default();
            (word("name"), word("type"), word("help"))
        })
    }

    /// The sum of all samples of a name that have these labels, or none if there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self.0.iter().flat_map(|one| {
            let samples = one["samples"].as_array();
            samples.into_iter().flatten()
        });
        let fitting = samples.filter(|one| {
            let has = |(key, value): &(&str, &str)| one[1][*key] == **value;
            one[0] == name && labels.iter().all(has)
        });
        let values: Vec<f64> = fitting.filter_map(|one| one[2].as_f64()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}
