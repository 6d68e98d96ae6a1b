//! What contradicts itself over several tables.
//!
//! Invariant: nothing here is resolved by which line comes first; it is refused.

use brood_hooks::HookName;

use crate::mistake::{Notes, unknown};
use crate::parse::Written;
use crate::{Mode, OnFailure, PluginSpec};

pub(crate) fn find(plugins: &[PluginSpec], written: &[Written], notes: &mut Notes<'_>) {
    let ids: Vec<&str> = plugins.iter().map(|plugin| plugin.id.as_str()).collect();
    for (index, Written { spec, span }) in written.iter().enumerate() {
        if !ids.contains(&spec.plugin.as_str()) {
            notes.add(
                span.clone(),
                unknown("a [plugin.…] of this file", &spec.plugin, &ids),
            );
        }
        let others = written.iter().take(index).map(|other| &other.spec);
        for other in others.filter(|other| other.hook == spec.hook) {
            let hook = spec.hook;
            if other.plugin == spec.plugin {
                let message = format!("plugin '{}' is bound to {hook} twice", spec.plugin);
                notes.add(span.clone(), message);
            } else if other.order == spec.order {
                let message = format!(
                    "'{}' and '{}' are both bound to {hook} with order {}; give each its own",
                    other.plugin, spec.plugin, spec.order
                );
                notes.add(span.clone(), message);
            }
            let both = [other.mode, spec.mode] == [Mode::Enforce; 2];
            if hook == HookName::Billing && both && other.tenants.meets(&spec.tenants) {
                let message = format!(
                    "'{}' and '{}' would both bill the same usage: only one may enforce for each tenant",
                    other.plugin, spec.plugin
                );
                notes.add(span.clone(), message);
            }
        }
        fallback(&ids, written, index, notes);
    }
}

/// A fallback is bound to the same hook, is another plugin, and falls back to nothing itself.
fn fallback(ids: &[&str], written: &[Written], index: usize, notes: &mut Notes<'_>) {
    let Some(Written { spec, span }) = written.get(index) else {
        return;
    };
    let OnFailure::Fallback(name) = &spec.on_failure else {
        return;
    };
    if name.starts_with("builtin-") {
        return;
    }
    if *name == spec.plugin {
        return notes.add(span.clone(), format!("'{name}' cannot be its own fallback"));
    }
    let there = |other: &&Written| other.spec.hook == spec.hook && other.spec.plugin == *name;
    match written.iter().find(there) {
        None if ids.contains(&name.as_str()) => {
            let message = format!(
                "the fallback '{name}' is not bound to {}; bind it there, with mode = \"off\" if it is only a fallback",
                spec.hook
            );
            notes.add(span.clone(), message);
        }
        None => notes.add(span.clone(), unknown("a plugin to fall back to", name, ids)),
        Some(other) if matches!(other.spec.on_failure, OnFailure::Fallback(_)) => {
            let message =
                format!("the fallback '{name}' falls back itself; fallbacks do not chain");
            notes.add(span.clone(), message);
        }
        Some(_) => {}
    }
}
