//! What a component is, and whether this engine could load it: hooks, imports, size, memory, WIT version.
//!
//! Invariant: the names of imports and exports are read from the component itself and never from what stands beside it,
//! and its types are compared with the WIT package of this engine.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;
use wasmparser::{Encoding, Parser, Payload};

use crate::Hook;
use crate::wit::{self, PACKAGE, VERSION};

/// An import a component asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// `log`, `config`, `clock`, `state` or `metrics`.
    pub interface: String,
    /// The version it was built for.
    pub version: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// SHA-256 of the file, hexadecimal: the name a binding uses.
    pub digest: String,
    /// Bytes of the file.
    pub size: usize,
    /// The hooks it exports.
    pub hooks: Vec<Hook>,
    /// The host interfaces with functions that it asks for: what has to be granted.
    pub imports: Vec<Import>,
    /// The version of the WIT package it was built for.
    pub wit: String,
    /// Core modules in it; an interpreter has dozens.
    pub core_modules: u32,
    /// Linear memory before it has run, in KiB, of all its modules.
    pub memory_kib: u64,
    /// Table elements before it has run.
    pub table_elements: u64,
}

/// A file is no plugin for this engine.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It is machine code.
    #[error(
        "a precompiled artifact (.cwasm) and not a component: machine code is never taken from outside; hand over the .wasm it was made of"
    )]
    Precompiled,
    /// It is no WebAssembly at all.
    #[error("not WebAssembly: it begins with {begin:02x?}; `brood plugin build` makes components")]
    NotWasm {
        /// Its first bytes.
        begin: Vec<u8>,
    },
    /// It ends too early.
    #[error("a component that is cut short at {bytes} bytes: copy or build it again")]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// It breaks the rules of the format.
    #[error("a damaged component: copy or build it again")]
    Malformed(#[source] anyhow::Error),
    /// It is a core module.
    #[error("a core module and not a component; `brood plugin build` makes components")]
    CoreModule,
    /// It wants something the engine does not have.
    #[error(
        "imports {import}, and the engine has only {PACKAGE}; build without WASI (Python: --stub-wasi)"
    )]
    ForeignImport {
        /// The name of the import.
        import: String,
    },
    /// It was built for another version.
    #[error(
        "built for {PACKAGE} {found}, and this engine serves {VERSION}: build it against the SDK or wit/ of this engine"
    )]
    Version {
        /// The version it was built for.
        found: String,
    },
    /// It does not export `plugin`.
    #[error(
        "does not export {PACKAGE}/plugin, which says what it is: brood_plugin::export! does, other languages build for a world of wit/worlds.wit"
    )]
    NoPlugin,
    /// It exports no decision.
    #[error("exports no hook: name one in brood_plugin::export!, as in export!(Policy: admission)")]
    NoHook,
    /// The names are right and the types are not.
    #[error("its types are not those of {PACKAGE} {VERSION}")]
    Types(#[source] anyhow::Error),
}

/// Looks at a component without running it.
///
/// # Errors
///
/// This engine could not load it, and why.
pub fn check(component: &[u8]) -> Result<Report, CheckError> {
    recognise(component)?;
    let found = Found::read(component)?;
    let mut imports = Vec::new();
    let mut version: Option<String> = None;
    let mut same_version = |name: &Name| {
        let found = version.get_or_insert_with(|| name.version.clone());
        if *found == name.version && is_served(found) {
            return Ok(());
        }
        let found = name.version.clone();
        Err(CheckError::Version { found })
    };
    for import in &found.imports {
        let foreign = || CheckError::ForeignImport {
            import: import.clone(),
        };
        let name = Name::parse(import).ok_or_else(foreign)?;
        same_version(&name)?;
        if wit::HOST.contains(&name.interface.as_str()) {
            let Name { interface, version } = name;
            imports.push(Import { interface, version });
        } else if !wit::TYPES.contains(&name.interface.as_str()) {
            return Err(foreign());
        }
    }
    imports.sort();
    let (mut hooks, mut plugin) = (Vec::new(), false);
    for name in found.exports.iter().filter_map(|name| Name::parse(name)) {
        same_version(&name)?;
        plugin |= name.interface == "plugin";
        hooks.extend(name.interface.parse::<Hook>().ok());
    }
    hooks.sort();
    if !plugin {
        return Err(CheckError::NoPlugin);
    }
    if hooks.is_empty() {
        return Err(CheckError::NoHook);
    }
    has_types(component, &hooks).map_err(CheckError::Types)?;
    Ok(Report {
        digest: digest(component),
        size: component.len(),
        hooks,
        imports,
        wit: version.unwrap_or_default(),
        core_modules: found.core_modules,
        memory_kib: found.memory_pages.saturating_mul(64),
        table_elements: found.table_elements,
    })
}

/// Tells by its first bytes what a file is that is no WebAssembly.
fn recognise(bytes: &[u8]) -> Result<(), CheckError> {
    const MAGIC: &[u8] = b"\0asm";
    if bytes.starts_with(b"\x7fELF") {
        return Err(CheckError::Precompiled);
    }
    // A file shorter than its magic number may be the beginning of one.
    let begin: Vec<u8> = bytes.iter().take(MAGIC.len()).copied().collect();
    match !begin.is_empty() && MAGIC.starts_with(&begin) {
        true => Ok(()),
        false => Err(CheckError::NotWasm { begin }),
    }
}

/// Whether a component of that version can be loaded. Below 1.0, patch versions of one minor fit each other.
fn is_served(version: &str) -> bool {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(version) == minor(VERSION)
}

/// Compares the component's types with those of the package.
fn has_types(component: &[u8], hooks: &[Hook]) -> anyhow::Result<()> {
    let (resolve, package) = wit::world(hooks)?;
    let world = resolve.select_world(&[package], Some("component"))?;
    // A patch version of the same minor is compared by structure.
    let semver_compatible = true;
    wit_component::targets(&resolve, world, component, semver_compatible)
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `brood:policy/INTERFACE@VERSION`
struct Name {
    interface: String,
    version: String,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
        let (interface, version) = rest.split_once('@')?;
        Some(Self {
            interface: interface.to_owned(),
            version: version.to_owned(),
        })
    }
}

/// What the sections of a component say.
#[derive(Default)]
struct Found {
    imports: Vec<String>,
    exports: Vec<String>,
    core_modules: u32,
    memory_pages: u64,
    table_elements: u64,
}

impl Found {
    fn read(bytes: &[u8]) -> Result<Self, CheckError> {
        let malformed = |error: wasmparser::BinaryReaderError| {
            // The parser says so where it wants more bytes than there are.
            if error.message().contains("unexpected end") || error.offset() >= bytes.len() as u64 {
                return CheckError::Truncated { bytes: bytes.len() };
            }
            CheckError::Malformed(error.into())
        };
        let mut found = Self::default();
        // How deep below the component itself a section stands: only the outermost imports and exports are its own.
        let mut depth = 0_u32;
        let mut ended = false;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(malformed)? {
                Payload::Version { encoding, .. } => {
                    if depth == 0 && encoding == Encoding::Module {
                        return Err(CheckError::CoreModule);
                    }
                    depth += 1;
                    found.core_modules += u32::from(encoding == Encoding::Module);
                }
                Payload::End(_) => {
                    depth = depth.saturating_sub(1);
                    ended = depth == 0;
                }
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        found
                            .imports
                            .push(import.map_err(malformed)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        found
                            .exports
                            .push(export.map_err(malformed)?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let pages = memory.map_err(malformed)?.initial;
                        found.memory_pages = found.memory_pages.saturating_add(pages);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        let elements = table.map_err(malformed)?.ty.initial;
                        found.table_elements = found.table_elements.saturating_add(elements);
                    }
                }
                _ => {}
            }
        }
        if ended {
            Ok(found)
        } else {
            Err(CheckError::Truncated { bytes: bytes.len() })
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |names: Vec<&str>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        let hooks = self.hooks.iter().map(|hook| hook.interface()).collect();
        let imports = self.imports.iter().map(|import| import.interface.as_str());
        writeln!(formatter, "digest   sha256:{}", self.digest)?;
        writeln!(formatter, "size     {} bytes", self.size)?;
        writeln!(formatter, "wit      {PACKAGE} {}", self.wit)?;
        writeln!(formatter, "hooks    {}", join(hooks))?;
        writeln!(formatter, "imports  {}", join(imports.collect()))?;
        write!(
            formatter,
            "needs    {} KiB of memory and {} table elements to start, {} core module{}",
            self.memory_kib,
            self.table_elements,
            self.core_modules,
            if self.core_modules == 1 { "" } else { "s" },
        )
    }
}

#[cfg(test)]
mod tests;
