//! The WIT package this engine serves, as text in the program: authors need no copy of their own.

use wit_parser::{PackageId, Resolve, SourceMap};

use crate::Hook;

/// The package.
pub const PACKAGE: &str = "brood:policy";
/// Its version.
pub const VERSION: &str = "0.1.0";

const TEXTS: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("hooks.wit", include_str!("../../../wit/hooks.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// Interfaces a component may import: those with functions; and those that only hold types.
pub(crate) const HOST: [&str; 5] = ["log", "config", "clock", "state", "metrics"];
pub(crate) const TYPES: [&str; 2] = ["types", "placement-types"];

/// The files of the package: name and text.
#[must_use]
pub fn texts() -> &'static [(&'static str, &'static str)] {
    &TEXTS
}

/// The package, and a world `component` that exports `plugin` and these hooks and may import every host interface.
pub(crate) fn world(hooks: &[Hook]) -> anyhow::Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let mut sources = SourceMap::new();
    for (name, text) in TEXTS {
        sources.push_str(name, text);
    }
    let package = sources.parse().map_err(|(_, error)| error)?;
    resolve.push_group(package)?;
    let mut world = String::from("package brood:check;\nworld component {\n");
    for interface in HOST {
        world.push_str(&format!("import {PACKAGE}/{interface}@{VERSION};\n"));
    }
    for interface in hooks.iter().map(|hook| hook.interface()).chain(["plugin"]) {
        world.push_str(&format!("export {PACKAGE}/{interface}@{VERSION};\n"));
    }
    world.push('}');
    let package = resolve.push_source("check.wit", &world)?;
    Ok((resolve, package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_package_parses_and_has_the_version_that_is_announced() {
        let (resolve, _) = world(&Hook::ALL).unwrap();
        let names: Vec<String> = resolve
            .packages
            .iter()
            .map(|(_, package)| package.name.to_string())
            .collect();
        assert!(names.contains(&format!("{PACKAGE}@{VERSION}")), "{names:?}");
    }
}
