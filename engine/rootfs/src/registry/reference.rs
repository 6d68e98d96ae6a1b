//! Names of images in registries: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, by the grammar of the distribution project.
//!
//! Invariant: each part is a part of a URL as it is. As everywhere, a first part with neither dot nor colon is no host but
//! part of a name at Docker Hub, where a name of one part is below `library`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

const HUB: &str = "docker.io";
/// Where Docker Hub answers.
const HUB_HOST: &str = "registry-1.docker.io";
/// Bytes of a repository's name with its host (distribution/reference, `NameTotalLengthMax`).
const LONGEST: usize = 255;

/// The name of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' names no image: {why}", .text.escape_debug())]
pub struct ParseReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// The host, with its port if one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Where the host answers.
    pub(super) fn host(&self) -> &str {
        if self.registry == HUB {
            HUB_HOST
        } else {
            &self.registry
        }
    }

    /// The repository in it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// What the manifest is asked for by: the digest if there is one, else the tag, else `latest`.
    pub(super) fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The digest that the manifest must have.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether the host is this one, to which plain HTTP goes nowhere else.
    pub(super) fn is_local(&self) -> bool {
        let host = self
            .registry
            .rsplit_once(':')
            .map_or(&*self.registry, |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address
                .parse()
                .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| ParseReferenceError {
            text: text.chars().take(300).collect(),
            why,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let why = "what follows '@' has to be sha256: and 64 digits of 0-9 and a-f";
                (rest, Some(digest.parse().map_err(|_| wrong(why))?))
            }
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => {
                (Some(host), rest)
            }
            _ => (None, rest),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if registry.is_some_and(|host| !is_host(host)) {
            return Err(wrong("the host is none: say HOST or HOST:PORT"));
        }
        if name.is_empty() || !name.split('/').all(is_part) {
            return Err(wrong(
                "parts of a name are of a-z and 0-9, with one of '.', '_', '__' or dashes between them",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag is of at most 128 letters, digits, '_', '.' and '-', and begins with none of the last two",
            ));
        }
        let registry = match registry {
            None | Some("index.docker.io") => HUB,
            Some(host) => host,
        };
        let repository = if registry == HUB && !name.contains('/') {
            format!("library/{name}")
        } else {
            name.to_owned()
        };
        if registry.len() + repository.len() > LONGEST {
            return Err(wrong("it has more than 255 characters"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let name = |host: &str| {
        host.split('.').all(|label| {
            let inner = label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
        })
    };
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let fits = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name(host),
    };
    fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    let separators =
        part.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    ends.is_some_and(|(first, last)| is_word(*first) && is_word(*last))
        && separators.into_iter().all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(is_word)
        && bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> String {
        text.parse::<Reference>().expect(text).to_string()
    }

    #[test]
    fn short_names_are_at_the_hub() {
        assert_eq!(whole("python"), "docker.io/library/python");
        assert_eq!(
            whole("python:3.12-slim"),
            "docker.io/library/python:3.12-slim"
        );
        assert_eq!(whole("me/app"), "docker.io/me/app");
        assert_eq!(whole("index.docker.io/me/app"), "docker.io/me/app");
        let hub: Reference = "python".parse().expect("a name");
        assert_eq!((hub.host(), hub.version().as_str()), (HUB_HOST, "latest"));
    }

    #[test]
    fn host_port_tag_and_digest_are_told_apart() {
        let digest = Digest::of(b"x");
        for text in [
            "localhost/app",
            "localhost:5000/a/b:v1",
            "ghcr.io/a-b/c__d/e.f:V_1.0-x",
            "[::1]:5000/app",
            "127.0.0.1:80/x",
        ] {
            assert_eq!(whole(text), text);
            let pinned: Reference = format!("{text}@{digest}").parse().expect(text);
            assert_eq!(pinned.version(), digest.to_string());
        }
    }

    #[test]
    fn what_would_be_another_url_is_refused() {
        let bad_digest = "a@sha256:12";
        let long = "a".repeat(300);
        for text in [
            "",
            "A",
            "a//b",
            "/a",
            "a/",
            "a:b:c",
            "a:",
            "a:-x",
            "../a",
            "a..b",
            "a___b",
            "-a",
            "a b",
            "a?b",
            "a#b",
            "host:port/a",
            "ho_st.x/a",
            "x.y:0/a",
            "x.y/",
            "a@",
            bad_digest,
            &long,
            "user:pw@host.x/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_host_is_local() {
        for (text, is) in [
            ("localhost:5000/a", true),
            ("127.0.0.2:5000/a", true),
            ("[::1]:5000/a", true),
            ("localhost.example.com/a", false),
            ("192.168.0.1:5000/a", false),
            ("python", false),
        ] {
            assert_eq!(
                text.parse::<Reference>().expect(text).is_local(),
                is,
                "{text}"
            );
        }
    }
}
