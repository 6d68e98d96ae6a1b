//! Recorded calls: files beside a plugin that say what it is asked, and what it answers.
//!
//! ```json
//! { "brood-calls": 1, "hook": "admission", "settings": {}, "permits": null,
//!   "calls": [ { "name": "…", "now-ms": 0, "ask": [], "answer": [] }, { "name": "…", "ask": [], "failure": "…" } ] }
//! ```
//!
//! Ask and answer are spelled as in decision records. The calls of a file are made in order by one plugin, so that a later
//! one finds the state that an earlier one left.
//!
//! Invariant: a call is made of the real component in the real host, and agrees only if its answer, or its failure, is
//! the recorded one to the last field. One that records neither is refused: it would agree with everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use brood_hooks::{Admission, Billing, HookName, Mutation, Now, Permits, Placement};
use brood_plugin_host::{Asked, BindableHook, Host, Record, Silent, VolatileState};
use brood_policy::{BindingSpec, Breaker};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::open;

/// The version of the form.
pub const CALLS_VERSION: u32 = 1;

/// A file of recorded calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CallFile {
    /// [`CALLS_VERSION`].
    #[serde(rename = "brood-calls")]
    pub version: u32,
    /// The hook that is called.
    pub hook: HookName,
    /// The plugin's settings.
    #[serde(default = "no_settings")]
    pub settings: Value,
    /// What the operator lets answers reach for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<Permits>,
    /// The calls, in order.
    pub calls: Vec<Call>,
}

fn no_settings() -> Value {
    Value::Object(serde_json::Map::new())
}

/// One recorded call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Call {
    /// What it shows.
    pub name: String,
    /// The instant of the call, milliseconds since the epoch.
    #[serde(default)]
    pub now_ms: u64,
    /// What is asked.
    pub ask: Value,
    /// What is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What became of a call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Played {
    /// The file.
    pub file: PathBuf,
    /// The call.
    pub name: String,
    /// Fuel it used.
    pub fuel: u64,
    /// How it differs from what is recorded, if it does.
    pub differs: Option<String>,
}

/// A file that was played: what became of its calls, the file as it would be recorded now, the decision records.
#[derive(Debug)]
pub struct PlayedFile {
    /// Call by call.
    pub calls: Vec<Played>,
    /// With the outcomes of now.
    pub recorded: CallFile,
    /// One a call.
    pub records: Vec<Arc<Record>>,
}

/// The files of recorded calls in a directory, by name.
///
/// # Errors
/// The directory cannot be read.
pub fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("no recorded calls in {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a file.
///
/// # Errors
/// It cannot be read, is of another version, or is not what a file of recorded calls holds.
pub fn read(path: &Path) -> anyhow::Result<CallFile> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let file: CallFile =
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    if file.version != CALLS_VERSION {
        bail!(
            "{}: its form has version {}, and this program reads version {CALLS_VERSION}",
            path.display(),
            file.version
        );
    }
    Ok(file)
}

/// Makes every call of a file.
///
/// # Errors
/// The component does not load with the settings of the file, or an ask is none of its hook.
pub fn play(component: &[u8], path: &Path) -> anyhow::Result<PlayedFile> {
    let file = read(path)?;
    let host = open::host()?;
    let at = || format!("{}", path.display());
    match file.hook {
        HookName::Admission => play_as::<Admission>(&host, component, file, path),
        HookName::Placement => play_as::<Placement>(&host, component, file, path),
        HookName::Mutation => play_as::<Mutation>(&host, component, file, path),
        HookName::Billing => play_as::<Billing>(&host, component, file, path),
    }
    .with_context(at)
}

fn play_as<H: BindableHook>(
    host: &Host,
    component: &[u8],
    mut file: CallFile,
    path: &Path,
) -> anyhow::Result<PlayedFile> {
    let plugin = host.add(&open::spec("plugin", file.settings.clone()), component)?;
    let binding = host.bind::<H>(patient(&file), &plugin, None)?;
    let mut calls = Vec::with_capacity(file.calls.len());
    for call in &mut file.calls {
        let ask: H::Ask = serde_json::from_value(call.ask.clone())
            .with_context(|| format!("the ask of `{}`", call.name))?;
        let now = Now::from_unix_nanos(call.now_ms.saturating_mul(1_000_000));
        let (answer, failure) = match binding.call_here(now, &Asked::new(ask)) {
            Ok(answer) => (Some(serde_json::to_value(answer.answer())?), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        calls.push(Played {
            file: path.to_owned(),
            name: call.name.clone(),
            fuel: host
                .records()
                .all(now)
                .last()
                .map_or(0, |record| record.fuel_used),
            differs: differs(call, answer.as_ref(), failure.as_deref()),
        });
        (call.answer, call.failure) = (answer, failure);
    }
    let records = host.records().all(Now::default());
    Ok(PlayedFile {
        calls,
        recorded: file,
        records,
    })
}

/// Fuel is the budget. The clock of a busy machine decides nothing, and neither do failures that are recorded on purpose.
fn patient(file: &CallFile) -> BindingSpec {
    let mut spec = BindingSpec::new(file.hook, "plugin");
    spec.permits = file.permits.clone().unwrap_or_default();
    spec.limits.deadline_ms = 60_000;
    spec.breaker = Breaker {
        failures: u32::MAX,
        ..Breaker::default()
    };
    spec
}

fn differs(call: &Call, answer: Option<&Value>, failure: Option<&str>) -> Option<String> {
    let outcome = |answer: Option<&Value>, failure: Option<&str>| match (answer, failure) {
        (Some(answer), _) => format!("the answer {answer}"),
        (None, Some(failure)) => format!("the failure '{failure}'"),
        (None, None) => "nothing".to_owned(),
    };
    match (&call.answer, answer) {
        (None, _) if call.failure.is_none() => Some(format!(
            "nothing is recorded, and it gave {}; record it with --record",
            outcome(answer, failure)
        )),
        (Some(recorded), Some(now)) => difference("", recorded, now),
        (None, None) if call.failure.as_deref() == failure => None,
        (recorded, _) => Some(format!(
            "recorded {}, now {}",
            outcome(recorded.as_ref(), call.failure.as_deref()),
            outcome(answer, failure)
        )),
    }
}

/// The first place where two values differ.
pub fn difference(at: &str, recorded: &Value, now: &Value) -> Option<String> {
    match (recorded, now) {
        (Value::Object(one), Value::Object(other)) if one.keys().eq(other.keys()) => one
            .iter()
            .zip(other.values())
            .find_map(|((key, one), other)| difference(&format!("{at}/{key}"), one, other)),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .enumerate()
            .find_map(|(index, (one, other))| difference(&format!("{at}/{index}"), one, other)),
        (one, other) if one == other => None,
        (one, other) => {
            let at = if at.is_empty() { "/" } else { at };
            Some(format!("{at}: recorded {one}, now {other}"))
        }
    }
}

/// A host that keeps nothing.
pub(super) fn volatile() -> (Arc<VolatileState>, Arc<Silent>) {
    (Arc::new(VolatileState::default()), Arc::new(Silent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(answer: Option<Value>, failure: Option<&str>) -> Call {
        Call {
            name: "x".to_owned(),
            now_ms: 0,
            ask: Value::Null,
            answer,
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn first_difference_is_named_by_its_place() {
        let one = json!([{"Deny": {"code": "quota", "retry": 1}}]);
        let other = json!([{"Deny": {"code": "budget", "retry": 2}}]);
        assert_eq!(
            difference("", &one, &other).as_deref(),
            Some(r#"/0/Deny/code: recorded "quota", now "budget""#)
        );
        assert_eq!(difference("", &one, &one), None);
        assert!(difference("", &json!([1]), &json!([1, 2])).is_some());
        assert!(difference("", &json!({"a": 1}), &json!({"b": 1})).is_some());
    }

    #[test]
    fn call_that_records_nothing_agrees_with_nothing() {
        let answer = json!(["Abstain"]);
        assert!(differs(&call(None, None), Some(&answer), None).is_some());
        assert!(differs(&call(None, None), None, Some("trapped")).is_some());
        assert!(differs(&call(None, Some("trapped")), Some(&answer), None).is_some());
        assert!(differs(&call(Some(answer.clone()), None), None, Some("trapped")).is_some());
        assert!(differs(&call(Some(answer.clone()), None), Some(&answer), None).is_none());
        assert!(differs(&call(None, Some("trapped")), None, Some("trapped")).is_none());
    }

    #[test]
    fn file_of_another_version_or_with_a_word_too_much_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.json");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write(r#"{"brood-calls": 2, "hook": "admission", "calls": []}"#);
        assert!(read(&path).unwrap_err().to_string().contains("version 2"));
        write(r#"{"brood-calls": 1, "hook": "admission", "calls": [], "more": 1}"#);
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("more"));
        write(r#"{"brood-calls": 1, "hook": "admission", "calls": []}"#);
        assert!(read(&path).unwrap().calls.is_empty());
    }
}
