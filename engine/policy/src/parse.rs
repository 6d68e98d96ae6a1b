//! From the text of a policy file to a [`PolicySet`].

use std::ops::Range;
use std::path::PathBuf;

use brood_hooks::HookName;
use toml_edit::TableLike;

use crate::mistake::{Mistakes, Notes, unknown};
use crate::table::{Table, json, read};
use crate::{
    BindingSpec, Breaker, Concurrency, Grants, Import, Limits, LogLevel, Mode, OnFailure,
    PluginSpec, PolicySet, Reuse, StateOptions, Tenants, conflict,
};

const BIG: i64 = i64::MAX;

/// A binding and where it was written.
pub(crate) struct Written {
    pub(crate) spec: BindingSpec,
    pub(crate) span: Option<Range<usize>>,
}

/// Reads a policy file. `file` is its name, for messages.
pub fn parse(file: &str, text: &str) -> Result<PolicySet, Mistakes> {
    let (mut set, written) = read(file, text, "a policy file", policy)?;
    set.plugins.sort_by(|one, other| one.id.cmp(&other.id));
    set.bindings = written.into_iter().map(|written| written.spec).collect();
    set.bindings
        .sort_by_key(|binding| (binding.hook, binding.order));
    Ok(set)
}

fn policy(root: &mut Table<'_, '_, '_>) -> (PolicySet, Vec<Written>) {
    let mut version = 0_u32;
    root.number("version", 1..=1, &mut version);
    let plugins = root.table("plugin");
    let hooks = [
        (HookName::Admission, root.item("admission")),
        (HookName::Placement, root.item("placement")),
        (HookName::Mutation, root.item("mutation")),
        (HookName::Billing, root.item("billing")),
    ];
    if !root.has("version") {
        root.mistake(None, "the file lacks 'version = 1'");
    }
    let notes = &mut *root.notes;
    let mut set = PolicySet::default();
    for (id, item) in plugins.into_iter().flat_map(|(plugins, _)| plugins.iter()) {
        match item.as_table_like() {
            Some(table) => set.plugins.extend(plugin(id, table, item.span(), notes)),
            None => notes.add(item.span(), format!("plugin.{id} must be a table")),
        }
    }
    let mut written = Vec::new();
    for (hook, item) in hooks {
        let Some((item, span)) = item else { continue };
        let Some(tables) = item.as_array_of_tables() else {
            notes.add(span, format!("write bindings of a hook as [[{hook}]]"));
            continue;
        };
        for table in tables {
            written.extend(binding(hook, table, table.span(), notes));
        }
    }
    conflict::find(&set.plugins, &written, notes);
    (set, written)
}

fn plugin(
    id: &str,
    table: &dyn TableLike,
    span: Option<Range<usize>>,
    notes: &mut Notes<'_>,
) -> Option<PluginSpec> {
    let right = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if !(1..=63).contains(&id.len()) || !id.bytes().all(right) {
        notes.add(
            span.clone(),
            format!("plugin id '{id}' must be 1 to 63 of a-z, 0-9 and -"),
        );
    }
    let mut table = Table::new(format!("[plugin.{id}]"), table, span, notes);
    let component = table
        .required("component")
        .map(|(path, _)| PathBuf::from(path));
    let digest = table.text("digest");
    let mut grants = Vec::new();
    let names: Vec<&str> = Import::ALL.into_iter().map(Import::as_str).collect();
    for (name, span) in table.texts("grants") {
        match Import::ALL
            .into_iter()
            .find(|import| import.as_str() == name)
        {
            Some(import) => grants.push(import),
            None => table.notes.add(span, unknown("an import", name, &names)),
        }
    }
    let mut log_level = LogLevel::default();
    let levels = [
        ("trace", LogLevel::Trace),
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
    ];
    table.word("log-level", &levels, &mut log_level);
    let settings = match table.table("settings") {
        Some(_) => table
            .item("settings")
            .map(|(item, _)| json(item, table.notes)),
        None => None,
    };
    let mut state = StateOptions::default();
    if let Some((inner, span)) = table.table("state") {
        let name = format!("[plugin.{id}.state]");
        let mut inner = Table::new(name, inner, span, table.notes);
        inner.number("keys", 1..=1_000_000, &mut state.keys);
        inner.number("kib", 1..=65_536, &mut state.kib);
        inner.number("value-kib", 1..=1024, &mut state.value_kib);
        inner.end();
    }
    if let Some((digest, span)) = &digest {
        let digits = digest.strip_prefix("sha256:").unwrap_or("");
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if digits.len() != 64 || !digits.bytes().all(hex) {
            let message = "a digest is sha256: and 64 lower-case hexadecimal digits";
            table.notes.add(span.clone(), message);
        }
    }
    table.end();
    Some(PluginSpec {
        id: id.to_owned(),
        component: component?,
        digest: digest.map(|(digest, _)| digest.to_owned()),
        grants: Grants(grants),
        settings: settings.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new())),
        state,
        log_level,
    })
}

fn binding(
    hook: HookName,
    table: &dyn TableLike,
    span: Option<Range<usize>>,
    notes: &mut Notes<'_>,
) -> Option<Written> {
    let mut table = Table::new(format!("[[{hook}]]"), table, span.clone(), notes);
    let plugin = table.required("plugin").map(|(plugin, _)| plugin);
    let mut spec = BindingSpec::new(hook, plugin.unwrap_or_default());
    table.number("order", 0..=1_000_000, &mut spec.order);
    if hook == HookName::Placement {
        table.number("weight", 1..=1000, &mut spec.weight);
    }
    let modes = [
        ("off", Mode::Off),
        ("shadow", Mode::Shadow),
        ("warn", Mode::Warn),
        ("enforce", Mode::Enforce),
    ];
    table.word("mode", &modes, &mut spec.mode);
    let reuses = [("fresh", Reuse::Fresh), ("warm", Reuse::Warm)];
    table.word("instances", &reuses, &mut spec.reuse);
    on_failure(hook, &mut table, &mut spec.on_failure);
    tenants(&mut table, &mut spec.tenants);
    if let Some((inner, span)) = table.table("limits") {
        limits(
            Table::new("limits", inner, span, table.notes),
            &mut spec.limits,
        );
    }
    if let Some((inner, span)) = table.table("concurrency") {
        let mut inner = Table::new("concurrency", inner, span, table.notes);
        let Concurrency { running, waiting } = &mut spec.concurrency;
        inner.number("running", 1..=64, running);
        inner.number("waiting", 0..=65_536, waiting);
        inner.end();
    }
    if let Some((inner, span)) = table.table("breaker") {
        let mut inner = Table::new("breaker", inner, span, table.notes);
        let Breaker {
            failures,
            window_ms,
            open_ms,
        } = &mut spec.breaker;
        inner.number("failures", 1..=1000, failures);
        inner.number("window-ms", 1..=3_600_000, window_ms);
        inner.number("open-ms", 1..=3_600_000, open_ms);
        inner.end();
    }
    if hook == HookName::Mutation
        && let Some((inner, span)) = table.table("permits")
    {
        permits(Table::new("permits", inner, span, table.notes), &mut spec);
    }
    table.end();
    plugin.map(|_| Written { spec, span })
}

fn on_failure(hook: HookName, table: &mut Table<'_, '_, '_>, place: &mut OnFailure) {
    let Some((text, span)) = table.text("on-failure") else {
        return;
    };
    *place = match text.split_once(':') {
        Some(("fallback", name)) if !name.is_empty() => OnFailure::Fallback(name.to_owned()),
        _ if text == "closed" => OnFailure::Closed,
        _ if text == "open" && hook != HookName::Billing => OnFailure::Open,
        _ if text == "open" => {
            let message = "billing cannot fail open: usage that is not rated is held until it is";
            return table.notes.add(span, message);
        }
        _ => {
            let message = unknown(
                "an 'on-failure'",
                text,
                &["closed", "open", "fallback:PLUGIN"],
            );
            return table.notes.add(span, message);
        }
    };
}

fn tenants(table: &mut Table<'_, '_, '_>, place: &mut Tenants) {
    for key in ["tenants", "except-tenants"] {
        let Some((item, span)) = table.item(key) else {
            continue;
        };
        let names = table.texts(key).into_iter();
        let names: Vec<_> = names.map(|(name, _)| name.to_owned()).collect();
        if names.is_empty() && !item.is_array() {
            // Something else than a list is a mistake already.
        } else if names.is_empty() {
            let message = format!("'{key}' names nobody: leave it out for everybody");
            table.mistake(span, message);
        } else if *place != Tenants::All {
            let message = "write 'tenants' or 'except-tenants', not both";
            table.mistake(span, message);
        } else if key == "tenants" {
            *place = Tenants::Only(names);
        } else {
            *place = Tenants::Except(names);
        }
    }
}

fn limits(mut table: Table<'_, '_, '_>, limits: &mut Limits) {
    table.number("fuel", 1..=BIG, &mut limits.fuel);
    table.number("deadline-ms", 1..=600_000, &mut limits.deadline_ms);
    table.number("memory-mib", 1..=64, &mut limits.memory_mib);
    table.number("table-elements", 0..=20_000, &mut limits.table_elements);
    table.number("answer-kib", 1..=65_536, &mut limits.answer_kib);
    table.number("host-calls", 0..=1_000_000, &mut limits.host_calls);
    table.number("host-answer-kib", 0..=65_536, &mut limits.host_answer_kib);
    table.number("log-lines", 0..=10_000, &mut limits.log_lines);
    table.number("log-kib", 0..=1024, &mut limits.log_kib);
    table.end();
}

fn permits(mut table: Table<'_, '_, '_>, spec: &mut BindingSpec) {
    let owned = |texts: Vec<(&str, Option<Range<usize>>)>| {
        texts.into_iter().map(|(text, _)| text.to_owned()).collect()
    };
    spec.permits.secrets = owned(table.texts("secrets"));
    spec.permits.network_profiles = owned(table.texts("network-profiles"));
    let roots = table.texts("file-roots");
    for (root, span) in &roots {
        if !root.starts_with('/') || root.contains("..") {
            table.notes.add(
                span.clone(),
                format!("'{root}' is not an absolute directory"),
            );
        }
    }
    spec.permits.file_roots = owned(roots);
    table.end();
}
