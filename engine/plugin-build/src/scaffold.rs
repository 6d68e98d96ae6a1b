//! A plugin crate to start from: one hook, settings, tests that pass, recorded calls, a policy file that binds it.
//!
//! Invariant: nothing that exists is overwritten. The sources are those in `templates/`, which this crate's own tests
//! compile and run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{Hook, sdk};

/// What to start.
#[derive(Clone, Debug)]
pub struct ScaffoldSpec {
    /// The name of the crate: lower-case letters, digits and hyphens.
    pub name: String,
    /// The decision it makes.
    pub hook: Hook,
    /// The directory, which must not exist or be empty.
    pub directory: PathBuf,
    /// Where the SDK comes from.
    pub sdk: Sdk,
}

/// Where `brood-plugin` comes from.
#[derive(Clone, Debug)]
pub enum Sdk {
    /// Unpacked from this program into the crate itself.
    Unpacked,
    /// A directory.
    Path(PathBuf),
    /// A version in the registry.
    Version(String),
    /// A git repository, at a revision.
    Git {
        /// Its URL.
        url: String,
        /// A commit or tag.
        revision: String,
    },
}

/// No crate was started.
#[derive(Debug, Error)]
pub enum ScaffoldError {
    /// The name is none that cargo takes.
    #[error(
        "`{name}` is no name for a crate: begin with a letter, go on with a-z, 0-9 and hyphens"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Something is there already.
    #[error("{directory} is not empty")]
    Occupied {
        /// The directory.
        directory: PathBuf,
    },
    /// A file could not be written.
    #[error("writing {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// Starts a crate; the files that were written.
///
/// # Errors
///
/// The name is wrong, the directory is not empty, or a file cannot be written.
pub fn scaffold(spec: &ScaffoldSpec) -> Result<Vec<PathBuf>, ScaffoldError> {
    if !is_name(&spec.name) {
        let name = spec.name.clone();
        return Err(ScaffoldError::Name { name });
    }
    let directory = &spec.directory;
    let is_empty = |entries: io::Result<fs::ReadDir>| {
        entries.is_ok_and(|mut entries| entries.next().is_none())
    };
    if directory.exists() && !is_empty(fs::read_dir(directory)) {
        let directory = directory.clone();
        return Err(ScaffoldError::Occupied { directory });
    }
    let mut files = vec![
        ("Cargo.toml".to_owned(), manifest(spec)),
        ("src/lib.rs".to_owned(), source(spec)),
        (".gitignore".to_owned(), "/target\n".to_owned()),
    ];
    let (calls, policy) = bound(spec);
    files.push(("calls/first.json".to_owned(), calls.to_owned()));
    files.push(("policy.toml".to_owned(), policy));
    if matches!(spec.sdk, Sdk::Unpacked) {
        let unpacked = sdk::files().into_iter();
        files.extend(unpacked.map(|(name, text)| (format!("{}/{name}", sdk::DIRECTORY), text)));
    }
    let mut written = Vec::with_capacity(files.len());
    for (name, text) in files {
        let path = directory.join(name);
        write(&path, &text)?;
        written.push(path);
    }
    Ok(written)
}

fn write(path: &Path, text: &str) -> Result<(), ScaffoldError> {
    let failed = |error| ScaffoldError::Write {
        path: path.to_path_buf(),
        error,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}

/// Cargo takes more; what is left out are names that differ only in `-` and `_`.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 64
        && name.bytes().all(allowed)
}

fn manifest(spec: &ScaffoldSpec) -> String {
    let sdk = match &spec.sdk {
        Sdk::Unpacked => format!(
            "{{ path = {} }}",
            quoted(&format!("{}/sdk/plugin", sdk::DIRECTORY))
        ),
        Sdk::Path(path) => format!("{{ path = {} }}", quoted(&path.to_string_lossy())),
        Sdk::Version(version) => quoted(version),
        Sdk::Git { url, revision } => {
            format!("{{ git = {}, rev = {} }}", quoted(url), quoted(revision))
        }
    };
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"
publish = false

[dependencies]
brood-plugin = {sdk}

# A workspace of its own, wherever it lies.
[workspace]
"#,
        name = spec.name
    )
}

/// A basic string of TOML 1.0.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => {
                out.push_str(&format!("\\u{:04X}", u32::from(control)))
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn source(spec: &ScaffoldSpec) -> String {
    let text = match spec.hook {
        Hook::Admission => include_str!("../templates/admission.rs"),
        Hook::Placement => include_str!("../templates/placement.rs"),
        Hook::Mutation => include_str!("../templates/mutation.rs"),
        Hook::Billing => include_str!("../templates/billing.rs"),
    };
    format!(
        "//! {}: a plugin at the {} hook.\n\n{text}",
        spec.name, spec.hook
    )
}

/// Recorded calls, and a policy file that binds the component where `brood plugin build` puts it.
fn bound(spec: &ScaffoldSpec) -> (&'static str, String) {
    let (calls, settings) = match spec.hook {
        Hook::Admission => (include_str!("../templates/admission.json"), "max-live = 8"),
        Hook::Placement => (
            include_str!("../templates/placement.json"),
            "max-cpu-load = 900",
        ),
        Hook::Mutation => (
            include_str!("../templates/mutation.json"),
            "hostname = \"vm-${index}\"",
        ),
        Hook::Billing => (
            include_str!("../templates/billing.json"),
            "hour-nanos = 50000000",
        ),
    };
    let policy = format!(
        r#"# Binds the plugin at its hook. `component` is relative to this file.
version = 1

[plugin.{name}]
component = "target/{name}.wasm"
grants = ["log", "config"]

[plugin.{name}.settings]
{settings}

[[{hook}]]
plugin = "{name}"
on-failure = "closed"
"#,
        name = spec.name,
        hook = spec.hook,
    );
    (calls, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, directory: &Path) -> ScaffoldSpec {
        ScaffoldSpec {
            name: name.to_owned(),
            hook: Hook::Admission,
            directory: directory.to_path_buf(),
            sdk: Sdk::Path("/some \"where\"".into()),
        }
    }

    #[test]
    fn crate_is_written_whole_and_never_over_another() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("mine");
        let files = scaffold(&spec("my-quota", &directory)).unwrap();
        assert!(files.len() == 5 && files.iter().all(|file| file.is_file()));
        let manifest = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("name = \"my-quota\"")
                && manifest.contains(r#"path = "/some \"where\"""#),
            "{manifest}"
        );
        let source = fs::read_to_string(directory.join("src/lib.rs")).unwrap();
        assert!(
            source.starts_with("//! my-quota: a plugin at the admission hook.\n"),
            "{source}"
        );

        fs::write(directory.join("src/lib.rs"), "mine").unwrap();
        let again = scaffold(&spec("my-quota", &directory));
        assert!(matches!(again, Err(ScaffoldError::Occupied { .. })));
        assert_eq!(
            fs::read_to_string(directory.join("src/lib.rs")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn name_that_cargo_would_refuse_is_refused_before_anything_is_written() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("x");
        for name in ["", "1a", "a b", "A", "a_b", "../a", &"a".repeat(65)] {
            let refused = scaffold(&spec(name, &directory));
            assert!(matches!(refused, Err(ScaffoldError::Name { .. })), "{name}");
        }
        assert!(!directory.exists());
    }
}
