//! What the image of a root disk says about its programs: environment, directory, user. The engine writes it to
//! `/run/brood/image.json` after boot; that is guest memory, so daughters have it too.
//!
//! Invariant: it only fills in what the client left out, and what stamps set comes over it. No file is an image that says
//! nothing; one that cannot be read fails the program, which would else run as somebody else.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use brood_agent_proto::AgentError;
use brood_agent_proto::blob::EnvMap;
use serde::Deserialize;

use crate::fail;

/// Where it is, below the root.
const PATH: &str = "run/brood/image.json";
/// Bytes of it that are read.
const LONGEST: u64 = 1 << 20;

/// What a program gets that its client said nothing about.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Image {
    pub(crate) env: EnvMap,
    pub(crate) cwd: Option<String>,
    pub(crate) user: Option<String>,
}

impl Image {
    /// Of the root disk below `root`.
    pub(crate) fn load(root: &Path) -> Result<Self, AgentError> {
        // Without waiting for the other end of what is no file.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(root.join(PATH));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(&error)),
        };
        let mut text = String::new();
        file.take(LONGEST)
            .read_to_string(&mut text)
            .map_err(|error| wrong(&error))?;
        serde_json::from_str(&text).map_err(|error| wrong(&error))
    }
}

fn wrong(error: &dyn std::error::Error) -> AgentError {
    fail::invalid("image", format!("/{PATH}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with(text: &str) -> (tempfile::TempDir, Result<Image, AgentError>) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/brood")).unwrap();
        fs::write(root.path().join(PATH), text).unwrap();
        let image = Image::load(root.path());
        (root, image)
    }

    #[test]
    fn what_the_image_says_is_read_and_no_file_says_nothing() {
        let (_root, image) = with(r#"{"env": {"A": "b=c"}, "cwd": "/app", "user": "ann"}"#);
        let image = image.unwrap();
        assert_eq!(image.env.value("A"), Some("b=c"));
        let said = (image.cwd.as_deref(), image.user.as_deref());
        assert_eq!(said, (Some("/app"), Some("ann")));
        let none = Image::load(Path::new("/no/such/root")).unwrap();
        assert!(none.cwd.is_none() && none.user.is_none());
    }

    #[test]
    fn file_that_cannot_be_understood_stops_the_program() {
        for text in ["", "{", r#"{"usr": "ann"}"#, r#"{"env": {"A=B": "c"}}"#] {
            let (_root, image) = with(text);
            assert!(matches!(image, Err(AgentError::Invalid { .. })), "{text}");
        }
    }
}
