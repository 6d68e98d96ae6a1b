//! Components are made here of dummy modules: right types, and bodies that trap.

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve, SourceMap};

use super::*;

const IMPORTS: &str = "import brood:policy/log@0.1.0; import brood:policy/config@0.1.0;";

/// A component of a world, given in the package's WIT with some of its text replaced.
fn component(world: &str, replace: (&str, &str)) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let mut sources = SourceMap::new();
    for (name, text) in wit::texts() {
        sources.push_str(name, text.replace(replace.0, replace.1));
    }
    let package = sources.parse().map_err(|(_, error)| error).unwrap();
    resolve.push_group(package).unwrap();
    resolve
        .push_str(
            "wasi.wit",
            "package wasi:cli@0.2.0; interface stdin { get: func(); }",
        )
        .unwrap();
    let text = format!("package brood:test; world test {{ {world} }}");
    let package = resolve.push_str("test.wit", &text).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).unwrap().encode().unwrap()
}

fn plain(world: &str) -> Vec<u8> {
    component(world, ("", ""))
}

#[test]
fn report_holds_what_the_component_asks_for() {
    let exports = "export brood:policy/plugin@0.1.0; export brood:policy/billing@0.1.0;
        export brood:policy/admission@0.1.0;";
    let component = plain(&format!("{IMPORTS} {exports}"));
    let report = check(&component).unwrap();
    assert_eq!(report.hooks, [Hook::Admission, Hook::Billing]);
    let imports: Vec<&str> = report
        .imports
        .iter()
        .map(|import| import.interface.as_str())
        .collect();
    assert_eq!(imports, ["config", "log"]);
    assert_eq!(
        (report.wit.as_str(), report.size),
        ("0.1.0", component.len())
    );
    assert_eq!(report.digest.len(), 64);
    assert!(
        report.to_string().contains("hooks    admission, billing"),
        "{report}"
    );
}

#[test]
fn component_without_plugin_or_without_hook_is_refused() {
    let bare = plain("export brood:policy/admission@0.1.0;");
    assert!(matches!(check(&bare), Err(CheckError::NoPlugin)));
    let idle = plain("export brood:policy/plugin@0.1.0;");
    assert!(matches!(check(&idle), Err(CheckError::NoHook)));
}

#[test]
fn wasi_is_refused_by_the_name_of_the_import() {
    let exports = "export brood:policy/plugin@0.1.0; export brood:policy/admission@0.1.0;";
    let component = plain(&format!("import wasi:cli/stdin@0.2.0; {exports}"));
    let refused = check(&component).unwrap_err();
    assert!(
        matches!(&refused, CheckError::ForeignImport { import } if import == "wasi:cli/stdin@0.2.0")
    );
}

#[test]
fn another_version_is_named_and_another_patch_version_is_served() {
    let world = |version: &str| {
        let exports =
            ["plugin", "admission"].map(|name| format!("export brood:policy/{name}@{version};"));
        component(
            &exports.join(" "),
            ("brood:policy@0.1.0", &format!("brood:policy@{version}")),
        )
    };
    let newer = check(&world("0.2.0"));
    assert!(matches!(newer, Err(CheckError::Version { found }) if found == "0.2.0"));
    let patched = check(&world("0.1.7")).unwrap();
    assert_eq!(patched.wit, "0.1.7");
}

#[test]
fn right_names_with_other_types_are_refused() {
    let exports = "export brood:policy/plugin@0.1.0; export brood:policy/admission@0.1.0;";
    let component = component(exports, ("live: u32,", "live: u64,"));
    assert!(matches!(check(&component), Err(CheckError::Types(_))));
}

#[test]
fn core_module_garbage_and_a_cut_component_are_told_apart() {
    assert!(matches!(
        check(b"\0asm\x01\0\0\0"),
        Err(CheckError::CoreModule)
    ));
    assert!(matches!(check(b"\x7fELF"), Err(CheckError::Precompiled)));
    assert!(matches!(
        check(b"#!/bin/sh"),
        Err(CheckError::NotWasm { .. })
    ));
    assert!(matches!(check(b""), Err(CheckError::NotWasm { .. })));
    let whole = plain("export brood:policy/plugin@0.1.0; export brood:policy/admission@0.1.0;");
    for length in [4, 8, 9, whole.len() / 2, whole.len() - 1] {
        let refused = check(&whole[..length]);
        assert!(
            matches!(
                refused,
                Err(CheckError::Truncated { .. } | CheckError::NoPlugin)
            ),
            "{length}"
        );
    }
}
