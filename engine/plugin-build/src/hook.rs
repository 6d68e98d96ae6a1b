//! The hooks a component can export.

use std::fmt;
use std::str::FromStr;

/// A decision point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// May a fork happen?
    Admission,
    /// Where may daughters go?
    Placement,
    /// What differs between daughters?
    Mutation,
    /// What does usage cost?
    Billing,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Admission,
        Self::Placement,
        Self::Mutation,
        Self::Billing,
    ];

    /// The name of its interface.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Placement => "placement",
            Self::Mutation => "mutation",
            Self::Billing => "billing",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.interface())
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let hook = Self::ALL.into_iter().find(|hook| hook.interface() == name);
        hook.ok_or_else(|| {
            let names = Self::ALL.map(Self::interface);
            format!("`{name}` is no hook; hooks are {}", names.join(", "))
        })
    }
}
