//! The child that does what an input could make endless or enormous: compiling a component, checking settings against a
//! schema that a plugin wrote.
//!
//! Invariant: it limits itself before it reads a byte of input. It opens no file, and whatever becomes of it, its parent
//! sees an answer, a refusal, or that it died. Running out of processor time ends it; its parent ends it when it has taken
//! too long by the clock.

use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use crate::engine::compiling;

/// What is wrong with a settings document, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// JSON Pointer into the document; empty for the whole of it.
    pub at: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = if self.at.is_empty() { "/" } else { &self.at };
        write!(f, "{at}: {}", self.message)
    }
}

/// What the child is asked to do, as its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// A component in, an artifact of this wasmtime out.
    Compile,
    /// A [`SchemaCheck`] in, diagnostics out.
    Schema,
}

impl Task {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Schema => "schema",
        }
    }
}

/// Settings and the schema that they are to follow.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SchemaCheck {
    pub(crate) schema: String,
    pub(crate) document: String,
}

/// Most diagnostics that are reported.
const MOST_DIAGNOSTICS: usize = 32;

/// Runs the child. `arguments` are the task, MiB of address space, and seconds of processor time.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    match answer(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn answer(arguments: &[String]) -> Result<(), String> {
    let [task, memory_mib, seconds] = arguments else {
        return Err("expected a task, MiB of memory and seconds of processor time".to_owned());
    };
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{text}: {error}"))
    };
    limit(number(memory_mib)?, number(seconds)?)?;
    let mut input = Vec::new();
    let read = std::io::stdin().read_to_end(&mut input);
    read.map_err(|error| format!("reading the input: {error}"))?;
    let output = match task.as_str() {
        "compile" => compile(&input)?,
        "schema" => schema(&input)?,
        other => return Err(format!("'{other}' is not a task")),
    };
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&output).and_then(|()| stdout.flush());
    written.map_err(|error| format!("writing the output: {error}"))
}

fn limit(memory_mib: u64, seconds: u64) -> Result<(), String> {
    let limits = [
        (Resource::As, memory_mib << 20),
        (Resource::Cpu, seconds),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in limits {
        let most = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, most).map_err(|error| format!("limiting {resource:?}: {error}"))?;
    }
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("asking to end with the parent: {error}"))
}

fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
    let engine = compiling().map_err(|error| error.to_string())?;
    engine
        .precompile_component(component)
        .map_err(|error| format!("{error:#}"))
}

fn schema(input: &[u8]) -> Result<Vec<u8>, String> {
    let check: SchemaCheck =
        serde_json::from_slice(input).map_err(|error| format!("the question: {error}"))?;
    let schema = serde_json::from_str(&check.schema)
        .map_err(|error| format!("the plugin's schema is not JSON: {error}"))?;
    let document = serde_json::from_str(&check.document)
        .map_err(|error| format!("the settings are not JSON: {error}"))?;
    let validator = jsonschema::draft202012::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(&schema)
        .map_err(|error| format!("the plugin's schema is not JSON Schema 2020-12: {error}"))?;
    let wrong: Vec<Diagnostic> = validator
        .iter_errors(&document)
        .take(MOST_DIAGNOSTICS)
        .map(|error| Diagnostic {
            at: error.instance_path().to_string(),
            message: error.to_string(),
        })
        .collect();
    serde_json::to_vec(&wrong).map_err(|error| error.to_string())
}
