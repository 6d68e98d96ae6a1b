//! Forms of texts, as the engine checks them, and placeholders.

/// Placeholders that the engine expands for each daughter, and the longest that each can become.
const OF_A_DAUGHTER: [(&str, &str); 5] = [
    ("index", "4294967295"),
    ("id", "ffffffffffffffffffffffffffffffff"),
    ("node", "4294967295"),
    ("ip", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("mac", "ff:ff:ff:ff:ff:ff"),
];
/// Placeholders that are the same for all daughters of a request.
const OF_A_REQUEST: [&str; 3] = ["tenant", "project", "subject"];

/// The placeholders of a text; none if one is unknown or not closed.
pub(crate) fn placeholders(text: &str) -> Option<Vec<&str>> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((_, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}')?;
        let known =
            OF_A_DAUGHTER.iter().any(|(known, _)| *known == name) || OF_A_REQUEST.contains(&name);
        if !known {
            return None;
        }
        found.push(name);
        rest = after;
    }
    Some(found)
}

/// A text with its placeholders replaced; those that `with` has nothing for stay.
pub(crate) fn replaced<'a>(text: &str, with: impl Fn(&str) -> Option<&'a str>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        match with(name) {
            Some(value) => out.push_str(value),
            None => out.extend(["${", name, "}"]),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A text at least as long, and with all the characters, of what it becomes for any daughter.
pub(crate) fn worst(text: &str) -> String {
    replaced(text, |name| {
        let known = OF_A_DAUGHTER.iter().find(|(known, _)| *known == name);
        known.map(|(_, worst)| *worst)
    })
}

/// POSIX.1-2024, 8.1, lower case allowed.
pub(crate) fn is_env_name(text: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_wrong = text.starts_with(|first: char| first.is_ascii_digit());
    (1..=128).contains(&text.len()) && text.bytes().all(right) && !starts_wrong
}

/// An absolute path in its shortest form.
pub(crate) fn is_path(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    text.len() <= 4095
        && !text.contains(char::is_control)
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(plain))
}

/// `[a-z0-9._/-]{1,63}`
pub(crate) fn is_label(text: &str) -> bool {
    let right =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(right)
}

/// RFC 1123, 2.1.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
