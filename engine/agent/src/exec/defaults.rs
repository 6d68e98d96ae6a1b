//! Reads [`ProgramDefaults`], which the engine writes after boot.
//!
//! Invariant: no file is defaults that say nothing; one that cannot be understood fails the program, which would else run as
//! somebody else, somewhere else.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use brood_agent_proto::AgentError;
use brood_agent_proto::exec::{DEFAULTS_FILE, ProgramDefaults};

use crate::fail;
use crate::stamp::path::below;

/// Bytes of it that are read.
const LONGEST: u64 = 1 << 20;

/// Those of the guest whose root is `root`.
pub(crate) fn load(root: &Path) -> Result<ProgramDefaults, AgentError> {
    // Without waiting for the other end of what is no file.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(below(root, DEFAULTS_FILE));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ProgramDefaults::default());
        }
        Err(error) => return Err(wrong(&error)),
    };
    let mut text = String::new();
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}

fn wrong(error: &dyn std::error::Error) -> AgentError {
    fail::invalid("defaults", format!("{DEFAULTS_FILE}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with(text: &str) -> Result<ProgramDefaults, AgentError> {
        let root = tempfile::tempdir().unwrap();
        let path = below(root.path(), DEFAULTS_FILE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        load(root.path())
    }

    #[test]
    fn what_the_engine_writes_is_read_and_no_file_says_nothing() {
        let mut defaults = ProgramDefaults {
            cwd: Some("/app".to_owned()),
            user: Some("ann".to_owned()),
            ..ProgramDefaults::default()
        };
        defaults.env.insert("A", "b=c").unwrap();
        let text = serde_json::to_string(&defaults).unwrap();
        assert_eq!(with(&text).unwrap(), defaults);
        let none = load(Path::new("/no/such/root")).unwrap();
        assert_eq!(none, ProgramDefaults::default());
    }

    #[test]
    fn file_that_cannot_be_understood_stops_the_program() {
        for text in ["", "{", r#"{"usr": "ann"}"#, r#"{"env": {"A=B": "c"}}"#] {
            assert!(
                matches!(with(text), Err(AgentError::Invalid { .. })),
                "{text}"
            );
        }
    }
}
