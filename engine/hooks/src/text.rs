//! Forms of strings: names, words for people, label keys, paths, environment names, host names.
//!
//! Invariant: a flaw quotes at most [`QUOTED`] characters of what it complains about.

use crate::check::{Flaw, Malformed, at_most};
use crate::{Labels, Resources};

const QUOTED: usize = 64;
/// Longest message or warning, bytes.
pub(crate) const LONGEST_WORDS: usize = 4096;
/// Longest value of a label, bytes.
const LONGEST_VALUE: usize = 256;
/// Most labels in one answer.
const MOST_LABELS: usize = 64;
/// Most further resource kinds.
const MOST_KINDS: usize = 32;

/// The flaw of a string that is not `expected`.
pub(crate) fn not(expected: &str, text: &str) -> Flaw {
    Flaw::Form {
        expected: expected.to_owned(),
        text: text
            .chars()
            .take(QUOTED)
            .collect::<String>()
            .escape_debug()
            .to_string(),
    }
}

/// Words for people: not empty, bounded, and nothing that moves a terminal's cursor but line ends and tabs.
pub(crate) fn words(place: &str, text: &str) -> Result<(), Malformed> {
    at_most(place, LONGEST_WORDS, text.len())?;
    let moves = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.trim().is_empty() || text.contains(moves) {
        return Err(not("words without control characters", text).at(place));
    }
    Ok(())
}

/// A key as of a label: `[a-z0-9._/-]{1,63}`.
pub(crate) fn key(place: &str, text: &str) -> Result<(), Malformed> {
    let right = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._/-".contains(&c);
    if (1..=63).contains(&text.len()) && text.bytes().all(right) {
        return Ok(());
    }
    Err(not("a key of [a-z0-9._/-]{1,63}", text).at(place))
}

/// A key that a policy may make: not one of the engine's own.
pub(crate) fn own_key(place: &str, text: &str) -> Result<(), Malformed> {
    key(place, text)?;
    if text.starts_with("brood.") {
        return Err(not("a key outside the engine's own `brood.`", text).at(place));
    }
    Ok(())
}

/// A counter's or a queue's name: 1 to 128 printable ASCII characters without spaces.
pub(crate) fn name(place: &str, text: &str) -> Result<(), Malformed> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    Err(not("a name of 1 to 128 printable characters", text).at(place))
}

/// Labels that a policy adds.
pub(crate) fn own_labels(place: &str, labels: &Labels) -> Result<(), Malformed> {
    at_most(place, MOST_LABELS, labels.len())?;
    for (index, (label, value)) in labels.iter().enumerate() {
        own_key(place, label)?;
        at_most(&format!("{place}.{label}"), LONGEST_VALUE, value.len())?;
        if labels
            .iter()
            .take(index)
            .any(|(earlier, _)| earlier == label)
        {
            return Err(Flaw::Duplicate {
                name: label.clone(),
            }
            .at(place));
        }
    }
    Ok(())
}

/// A resource vector that narrows another. A further kind that is not named keeps what was asked.
pub(crate) fn narrows(asked: &Resources, given: &Resources, live: bool) -> Result<(), Malformed> {
    use crate::check::{in_range, not_wider};
    not_wider(
        "vcpu-milli",
        asked.vcpu_milli.into(),
        given.vcpu_milli.into(),
    )?;
    not_wider(
        "memory-mib",
        asked.memory_mib.into(),
        given.memory_mib.into(),
    )?;
    not_wider("disk-mib", asked.disk_mib.into(), given.disk_mib.into())?;
    in_range(
        "vcpu-milli",
        1.min(asked.vcpu_milli.into())..=u32::MAX.into(),
        given.vcpu_milli.into(),
    )?;
    in_range(
        "memory-mib",
        1.min(asked.memory_mib.into())..=u32::MAX.into(),
        given.memory_mib.into(),
    )?;
    if live && given.memory_mib != asked.memory_mib {
        let (asked, found) = (asked.memory_mib.into(), given.memory_mib.into());
        return Err(Flaw::Inherited { asked, found }.at("memory-mib"));
    }
    at_most("more", MOST_KINDS, given.more.len())?;
    for (index, (kind, amount)) in given.more.iter().enumerate() {
        let place = format!("more.{kind}");
        let Some(most) = asked.further(kind) else {
            return Err(Flaw::NotAsked { name: kind.clone() }.at("more"));
        };
        in_range(&place, 0..=i64::MAX.into(), (*amount).into())?;
        not_wider(&place, most.into(), (*amount).into())?;
        if given
            .more
            .iter()
            .take(index)
            .any(|(earlier, _)| earlier == kind)
        {
            return Err(Flaw::Duplicate { name: kind.clone() }.at("more"));
        }
    }
    Ok(())
}

/// An environment variable's name (POSIX.1-2024, 8.1), lower case allowed.
pub(crate) fn env_name(place: &str, text: &str) -> Result<(), Malformed> {
    let right = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let starts_wrong = text.starts_with(|c: char| c.is_ascii_digit());
    if (1..=128).contains(&text.len()) && text.bytes().all(right) && !starts_wrong {
        return Ok(());
    }
    Err(not("the name of an environment variable", text).at(place))
}

/// An absolute path in its shortest form, to a file.
pub(crate) fn path(place: &str, text: &str) -> Result<(), Malformed> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    let right = text.len() <= 4095
        && !text.contains(|c: char| c.is_control())
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(plain));
    if right {
        return Ok(());
    }
    Err(not("an absolute path without '.', '..' and empty parts", text).at(place))
}

/// Where a daughter may talk to: a host name, optionally with `*.` before it, an address, or a CIDR.
pub(crate) fn destination(place: &str, text: &str) -> Result<(), Malformed> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let right = match (address.parse::<std::net::IpAddr>(), length) {
        (Ok(_), None) => true,
        (Ok(address), Some(length)) => {
            let most = if address.is_ipv4() { 32 } else { 128 };
            length.parse::<u8>().is_ok_and(|bits| bits <= most)
        }
        (Err(_), None) => is_host_name(address.strip_prefix("*.").unwrap_or(address)),
        (Err(_), Some(_)) => false,
    };
    if right {
        return Ok(());
    }
    Err(not("a CIDR or a host name", text).at(place))
}

/// A host name (RFC 1123, 2.1).
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_that_climbs_or_is_not_absolute_is_refused() {
        assert!(path("", "/etc/app/config").is_ok());
        for wrong in [
            "",
            "/",
            "etc/app",
            "/etc/../root/x",
            "/etc//x",
            "/etc/./x",
            "/a\n",
            "/etc/",
        ] {
            assert!(path("", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn words_that_move_a_cursor_are_refused() {
        assert!(words("", "over quota:\n\t8 of 8").is_ok());
        for wrong in ["", "  ", "\u{1b}[2J", "a\rb", "\u{9b}1m"] {
            assert!(words("", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn destination_is_a_network_or_a_name() {
        for right in [
            "10.0.0.0/8",
            "::1/128",
            "192.0.2.1",
            "example.org",
            "*.example.org",
        ] {
            assert!(destination("", right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "-a.org",
            "a..b",
            "example.org/8",
            "*",
        ] {
            assert!(destination("", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn further_kind_is_narrowed_by_name_and_none_can_be_added() {
        let kinds = |more: &[(&str, i64)]| Resources {
            vcpu_milli: 1000,
            memory_mib: 512,
            disk_mib: 0,
            more: more
                .iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect(),
        };
        let asked = kinds(&[("gpu", 2)]);
        assert!(narrows(&asked, &kinds(&[("gpu", 1)]), false).is_ok());
        assert!(narrows(&asked, &kinds(&[]), false).is_ok());
        for wrong in [
            &[("gpu", 3)][..],
            &[("gpu", -1)],
            &[("tpu", 1)],
            &[("gpu", 1), ("gpu", 2)],
        ] {
            assert!(narrows(&asked, &kinds(wrong), false).is_err(), "{wrong:?}");
        }
    }
}
