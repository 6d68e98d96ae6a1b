//! The package in `wit/` against what was frozen of it, by the growth rules at the top of `wit/types.wit`.
//!
//! To change what is frozen, deliberately: run this test, look at the file that it names, and copy it over
//! `wit/frozen-0.1.0.txt` in a commit of its own. After the release of 0.1.0 only lines may be added that way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wit_parser::{Function, Resolve, Type, TypeDef, TypeDefKind};

/// Interfaces that a plugin imports: they may gain functions. All others are exported, or types alone.
const IMPORTED: [&str; 5] = ["log", "config", "clock", "state", "metrics"];

/// One line an item: everything that a compiled component depends on, and nothing else.
fn rendered(directory: &Path) -> BTreeSet<String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(directory).expect("wit/ parses");
    let mut lines = BTreeSet::new();
    let package = &resolve.packages[package];
    lines.insert(format!("package {}", package.name));
    for (name, id) in &package.interfaces {
        let interface = &resolve.interfaces[*id];
        for (kind, id) in &interface.types {
            let definition = spelled_definition(&resolve, &resolve.types[*id]);
            lines.insert(format!("{name} type {kind} = {definition}"));
        }
        for (function, signature) in &interface.functions {
            let signature = spelled_function(&resolve, signature);
            lines.insert(format!("{name} func {function}{signature}"));
        }
    }
    for (name, id) in &package.worlds {
        let world = &resolve.worlds[*id];
        let names = |items: Vec<String>| items.join(" ");
        let imports = names(
            world
                .imports
                .keys()
                .map(|key| resolve.name_world_key(key))
                .collect(),
        );
        let exports = names(
            world
                .exports
                .keys()
                .map(|key| resolve.name_world_key(key))
                .collect(),
        );
        lines.insert(format!(
            "world {name}: imports {imports}; exports {exports}"
        ));
    }
    lines
}

fn spelled_function(resolve: &Resolve, function: &Function) -> String {
    let parameters = function.params.iter();
    let parameters: Vec<String> = parameters
        .map(|parameter| format!("{}: {}", parameter.name, spelled(resolve, &parameter.ty)))
        .collect();
    let result = match &function.result {
        Some(result) => format!(" -> {}", spelled(resolve, result)),
        None => String::new(),
    };
    format!("({}){result}", parameters.join(", "))
}

/// A type where it is used: by its name, if it has one.
fn spelled(resolve: &Resolve, kind: &Type) -> String {
    let Type::Id(id) = kind else {
        return format!("{kind:?}").to_lowercase();
    };
    let definition = &resolve.types[*id];
    match &definition.name {
        Some(name) => name.clone(),
        None => spelled_definition(resolve, definition),
    }
}

fn spelled_definition(resolve: &Resolve, definition: &TypeDef) -> String {
    let optional = |kind: &Option<Type>| match kind {
        Some(kind) => spelled(resolve, kind),
        None => "_".to_owned(),
    };
    let list = |items: Vec<String>| items.join(", ");
    match &definition.kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter();
            let fields =
                fields.map(|field| format!("{}: {}", field.name, spelled(resolve, &field.ty)));
            format!("record {{ {} }}", list(fields.collect()))
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant.cases.iter();
            let cases = cases.map(|case| format!("{}({})", case.name, optional(&case.ty)));
            format!("variant {{ {} }}", list(cases.collect()))
        }
        TypeDefKind::Enum(cases) => {
            let cases = cases.cases.iter().map(|case| case.name.clone());
            format!("enum {{ {} }}", list(cases.collect()))
        }
        TypeDefKind::Tuple(tuple) => {
            let types = tuple.types.iter().map(|kind| spelled(resolve, kind));
            format!("tuple<{}>", list(types.collect()))
        }
        TypeDefKind::List(inner) => format!("list<{}>", spelled(resolve, inner)),
        TypeDefKind::Option(inner) => format!("option<{}>", spelled(resolve, inner)),
        TypeDefKind::Result(result) => {
            format!(
                "result<{}, {}>",
                optional(&result.ok),
                optional(&result.err)
            )
        }
        TypeDefKind::Type(inner) => spelled(resolve, inner),
        other => panic!("{other:?} is new to this test"),
    }
}

/// What the growth rules refuse, line by line.
fn broken(frozen: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let gone = frozen.difference(now).map(|line| format!("gone: {line}"));
    let interface = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> = frozen.iter().map(|line| interface(line)).collect();
    let allowed = |line: &&String| {
        let name = interface(line);
        let grows = IMPORTED.contains(&name.as_str()) && line.contains(" func ");
        let new = !known.contains(&name) || name == "world";
        grows || new
    };
    let added = now.difference(frozen).filter(|line| !allowed(line));
    gone.chain(added.map(|line| format!("added: {line}")))
        .collect()
}

fn wit() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")
}

#[test]
fn package_is_what_was_frozen_or_has_grown_by_the_rules() {
    let now = rendered(&wit());
    let frozen = fs::read_to_string(wit().join("frozen-0.1.0.txt")).expect("it is committed");
    let frozen: BTreeSet<String> = frozen.lines().map(str::to_owned).collect();
    let wrong = broken(&frozen, &now);
    if wrong.is_empty() {
        return;
    }
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("frozen-0.1.0.txt");
    let text: String = now.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&new, text).expect("writes");
    panic!("{}\nwhat is there now: {}", wrong.join("\n"), new.display());
}

/// The package with some words replaced.
fn changed(from: &str, to: &str) -> Vec<String> {
    let copy = tempfile::tempdir().expect("a directory");
    for file in fs::read_dir(wit()).expect("wit/ is there") {
        let path = file.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "wit") {
            let text = fs::read_to_string(&path).expect("reads").replace(from, to);
            fs::write(copy.path().join(path.file_name().expect("a name")), text).expect("writes");
        }
    }
    broken(&rendered(&wit()), &rendered(copy.path()))
}

#[test]
fn rules_refuse_what_breaks_a_compiled_component_and_let_the_rest_grow() {
    let span = "record span { first: u32, count: u32 }";
    assert!(!changed(span, "record span { first: u32, count: u32, step: u32 }").is_empty());
    assert!(!changed(span, "record span { first: u32, count: u64 }").is_empty());
    assert!(!changed("warn, refuse-forks,", "warn, throttle, refuse-forks,").is_empty());
    let rate = "rate: func(batch: batch)";
    assert!(
        !changed(
            rate,
            "estimate: func(batch: batch) -> u64;\n    rate: func(batch: batch)"
        )
        .is_empty()
    );
    assert!(!changed("enabled: func(", "is-enabled: func(").is_empty());
    let now = "now: func() -> u64;";
    let grown = changed(now, "now: func() -> u64;\n    resolution: func() -> u64;");
    assert_eq!(grown, Vec::<String>::new());
    let interface = "/// Decision time:";
    let grown = changed(
        interface,
        "interface later { f: func(); }\n/// Decision time:",
    );
    assert_eq!(grown, Vec::<String>::new());
    assert_eq!(changed("///", "/// More words."), Vec::<String>::new());
}
