//! Templates: one string that names a thousand daughters.
//!
//! `${index}`, `${id}`, `${node}`, `${ip}` and `${mac}` are replaced by what the engine knows about each daughter;
//! nothing else may stand in `${…}`. A `$` without a brace is itself.
//!
//! Invariant: a placeholder expands to letters, digits, `.` and `:` only, and never to nothing. What a template is for all
//! daughters can therefore be checked without expanding it a thousand times, by [`Template::worst`].

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::check::{Flaw, Malformed};
use crate::{Id128, text};

/// What the engine knows about a daughter before she exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daughter {
    /// Her index in the request.
    pub index: u32,
    /// Her id.
    pub id: Id128,
    /// The node she is placed on.
    pub node: u32,
    /// Her address, if she has a network.
    pub ip: Option<IpAddr>,
    /// Her hardware address, if she has a network.
    pub mac: Option<[u8; 6]>,
}

/// What may stand in `${…}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// Her index, decimal.
    Index,
    /// Her id, 32 hexadecimal digits.
    Id,
    /// Her node, decimal.
    Node,
    /// Her address.
    Ip,
    /// Her hardware address, `02:00:00:00:00:01`.
    Mac,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 5] = [
        ("index", Self::Index),
        ("id", Self::Id),
        ("node", Self::Node),
        ("ip", Self::Ip),
        ("mac", Self::Mac),
    ];

    /// The longest and oddest that it can become for any daughter.
    const fn worst(self) -> &'static str {
        match self {
            Self::Index | Self::Node => "4294967295",
            Self::Id => "ffffffffffffffffffffffffffffffff",
            Self::Ip => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Self::Mac => "ff:ff:ff:ff:ff:ff",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Id => "id",
            Self::Node => "node",
            Self::Ip => "ip",
            Self::Mac => "mac",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Place(Placeholder),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Parses; unknown or unclosed placeholders are refused, not passed through.
    pub fn parse(place: &str, text: &str) -> Result<Self, Malformed> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                parts.push(Part::Literal(before.to_owned()));
            }
            let unknown = || {
                text::not(
                    "a template with ${index}, ${id}, ${node}, ${ip}, ${mac} only",
                    text,
                )
                .at(place)
            };
            let (name, after) = after.split_once('}').ok_or_else(unknown)?;
            let known = Placeholder::ALL
                .into_iter()
                .find(|(known, _)| *known == name);
            parts.push(Part::Place(known.ok_or_else(unknown)?.1));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The expansion for one daughter.
    pub fn expand(&self, daughter: &Daughter) -> Result<String, Malformed> {
        let mut out = String::new();
        for part in &self.0 {
            let unfilled = |placeholder: Placeholder| {
                let what = placeholder.name().to_owned();
                Flaw::Unfilled {
                    what,
                    daughter: daughter.index,
                }
                .at("template")
            };
            let written = match part {
                Part::Literal(text) => out.write_str(text),
                Part::Place(Placeholder::Index) => write!(out, "{}", daughter.index),
                Part::Place(Placeholder::Id) => write!(out, "{}", daughter.id),
                Part::Place(Placeholder::Node) => write!(out, "{}", daughter.node),
                Part::Place(place @ Placeholder::Ip) => {
                    write!(out, "{}", daughter.ip.ok_or_else(|| unfilled(*place))?)
                }
                Part::Place(place @ Placeholder::Mac) => {
                    let [a, b, c, d, e, f] = daughter.mac.ok_or_else(|| unfilled(*place))?;
                    write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
                }
            };
            written.map_err(|_| Flaw::Overflow.at("template"))?;
        }
        Ok(out)
    }

    /// A string at least as long, and with all the kinds of characters, of the expansion for any daughter at all.
    pub fn worst(&self) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(text) => text.as_str(),
            Part::Place(place) => place.worst(),
        });
        parts.collect()
    }

    /// Whether daughters differ by it.
    pub fn is_the_same_for_all(&self) -> bool {
        !self.0.iter().any(|part| matches!(part, Part::Place(_)))
    }

    /// Whether the placeholder is in it.
    pub fn uses(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Part::Place(placeholder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAUGHTER: Daughter = Daughter {
        index: 7,
        id: Id128::from_halves(0, 0xab),
        node: 3,
        ip: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7))),
        mac: Some([2, 0, 0, 0, 0, 7]),
    };

    fn expand(text: &str, daughter: &Daughter) -> Result<String, Malformed> {
        Template::parse("", text)?.expand(daughter)
    }

    #[test]
    fn each_placeholder_is_filled_in_and_a_plain_dollar_stays() {
        let expanded = expand("w${index}-${node} ${ip} ${mac} ${id} $5 $", &DAUGHTER);
        let expected = "w7-3 10.0.0.7 02:00:00:00:00:07 000000000000000000000000000000ab $5 $";
        assert_eq!(expanded.as_deref(), Ok(expected));
    }

    #[test]
    fn unknown_or_unclosed_placeholder_is_refused_not_passed_through() {
        for wrong in [
            "${idx}",
            "${index",
            "a${}",
            "${ index}",
            "${PATH}",
            "${index}${",
        ] {
            assert!(Template::parse("", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn daughter_without_a_network_cannot_fill_in_an_address() {
        let alone = Daughter {
            ip: None,
            mac: None,
            ..DAUGHTER
        };
        assert!(expand("${ip}", &alone).is_err());
        assert!(expand("${mac}", &alone).is_err());
        assert!(expand("${index}", &alone).is_ok());
    }

    #[test]
    fn worst_expansion_is_at_least_as_long_as_any() {
        for index in [0, 9, 10, 4096, u32::MAX] {
            let daughter = Daughter {
                index,
                node: index,
                id: Id128::default().plus(index),
                ..DAUGHTER
            };
            for text in ["", "x", "${index}", "a${id}b${node}", "${ip}${mac}"] {
                let template = Template::parse("", text).expect("a right template");
                let expanded = template.expand(&daughter).expect("all is known");
                assert!(template.worst().len() >= expanded.len(), "{text} {index}");
            }
        }
    }
}
