//! Limits that the API itself sets, so that a request is refused before anything is asked about it.
//!
//! What a host or a tenant may use is not decided here.

use std::collections::BTreeMap;

use crate::Span;
use crate::mistake::Mistakes;

/// Most daughters of one fork.
pub const MAX_DAUGHTERS: u32 = 240;
/// Most labels or variables of one request.
pub(crate) const MAX_ENTRIES: usize = 256;
/// Longest name of an object, bytes.
const MAX_NAME: usize = 63;
/// Longest value of a label, bytes.
const MAX_LABEL_VALUE: usize = 255;

/// What a name looks like, as a regular expression.
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";

/// A name that people give: it goes into paths and lists.
pub(crate) fn name(pointer: &str, name: &str, mistakes: &mut Mistakes) {
    let right = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let begins = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(right)
        && name.as_bytes().first().is_some_and(begins);
    if !good {
        let name: String = name.chars().take(MAX_NAME).collect();
        let name = name.escape_debug();
        mistakes.out_of_range(
            pointer,
            format!("'{name}' is not a name: [a-z0-9][a-z0-9._-]{{0,62}}"),
        );
    }
}

/// A template is named by its name or its id.
pub(crate) fn named(pointer: &str, text: &str, mistakes: &mut Mistakes) {
    if text.parse::<brood_units::MachineId>().is_err() {
        name(pointer, text, mistakes);
    }
}

pub(crate) fn labels(labels: &BTreeMap<String, String>, mistakes: &mut Mistakes) {
    few("/labels", labels.len(), mistakes);
    for (key, value) in labels {
        let pointer = || format!("/labels/{}", key.replace('~', "~0").replace('/', "~1"));
        let right = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._/-".contains(&c);
        if !(1..=63).contains(&key.len()) || !key.bytes().all(right) {
            mistakes.out_of_range(pointer(), "a label's key is [a-z0-9._/-]{1,63}");
        }
        if key.starts_with("brood.") {
            mistakes.out_of_range(
                pointer(),
                "labels that begin with 'brood.' are the engine's: choose another key",
            );
        }
        if value.len() > MAX_LABEL_VALUE {
            mistakes.out_of_range(
                pointer(),
                format!("a label's value has at most {MAX_LABEL_VALUE} bytes"),
            );
        }
    }
}

pub(crate) fn env(env: &BTreeMap<String, String>, mistakes: &mut Mistakes) {
    few("/env", env.len(), mistakes);
    for (name, value) in env {
        let pointer = || format!("/env/{}", name.replace('~', "~0").replace('/', "~1"));
        variable(&pointer(), name, mistakes);
        if value.contains('\0') {
            mistakes.out_of_range(pointer(), "a variable's value has no NUL");
        }
    }
}

/// The name of a variable.
pub(crate) fn variable(pointer: &str, name: &str, mistakes: &mut Mistakes) {
    if name.is_empty() || name.contains(['=', '\0']) {
        mistakes.out_of_range(pointer, "a variable's name is not empty and has no '='");
    }
}

pub(crate) fn ttl(ttl: Option<Span>, mistakes: &mut Mistakes) {
    if ttl.is_some_and(|ttl| ttl.as_millis() == 0) {
        mistakes.out_of_range(
            "/ttl",
            "a machine does not end before it begins: leave ttl out for one that lives until it is ended",
        );
    }
}

pub(crate) fn idle(idle: Option<Span>, mistakes: &mut Mistakes) {
    if idle.is_some_and(|idle| idle.as_millis() == 0) {
        mistakes.out_of_range(
            "/idle",
            "a machine is idle from its birth on: leave idle out for one that may stay so",
        );
    }
}

/// An absolute path in a guest.
pub(crate) fn guest_path(pointer: &str, path: &str, mistakes: &mut Mistakes) {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4095 {
        mistakes.out_of_range(
            pointer,
            "a path in the guest begins with '/', has no NUL and at most 4095 bytes",
        );
    }
}

pub(crate) fn mode(pointer: &str, mode: Option<u32>, mistakes: &mut Mistakes) {
    if mode.is_some_and(|mode| mode > 0o7777) {
        mistakes.out_of_range(pointer, "permission bits are at most 4095 (0o7777)");
    }
}

fn few(pointer: &str, count: usize, mistakes: &mut Mistakes) {
    if count > MAX_ENTRIES {
        mistakes.out_of_range(pointer, format!("{count} entries: at most {MAX_ENTRIES}"));
    }
}
