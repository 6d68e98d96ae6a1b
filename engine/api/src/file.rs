//! Files of a guest.
//!
//! Contents go over the wire as they are, in both directions; only what is said about them is JSON.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::mistake::Mistakes;
use crate::page::from_text;
use crate::{Request, Time, limit};

/// Which path of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PathQuery {
    /// An absolute path.
    #[param(pattern = r"^/[^\x00]*$", max_length = 4095, example = "/etc")]
    pub path: String,
}

impl Request for PathQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        limit::guest_path("path", &self.path, mistakes);
    }
}

/// How a file is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WriteQuery {
    /// Permission bits in octal; a file that is there keeps its own if not said.
    #[param(value_type = Option<String>, pattern = "^[0-7]{3,4}$", example = "0644")]
    #[serde(default, deserialize_with = "octal")]
    pub mode: Option<u32>,
}

fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    let mode = u32::from_str_radix(&text, 8).ok().filter(|_| digits);
    mode.map(Some).ok_or_else(|| {
        let text = text.escape_debug();
        D::Error::custom(format!(
            "'{text}' are no permission bits: write three or four octal digits, like 0644"
        ))
    })
}

impl Request for WriteQuery {
    fn check(&self, _: &mut Mistakes) {}
}

/// How much goes when a path is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    /// `true` to remove a directory with all that is in it.
    #[serde(default, deserialize_with = "from_text")]
    pub recursive: Option<bool>,
}

impl Request for RemoveQuery {
    fn check(&self, _: &mut Mistakes) {}
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

/// What is known of a path. A symbolic link is not followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, as a number.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its contents last changed, by the guest's clock.
    pub modified_at: Time,
    /// Where a symbolic link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectoryEntry {
    /// Its name. Bytes that are no UTF-8 show as U+FFFD.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
}

/// What is in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Directory {
    /// By name, at most 10000.
    pub items: Vec<DirectoryEntry>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileWritten {
    /// How many bytes it has.
    pub bytes: u64,
}
