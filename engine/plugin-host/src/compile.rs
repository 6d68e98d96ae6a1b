//! Components to artifacts: compiled once by a limited child, kept by digest.
//!
//! Invariant: an artifact is machine code that this process will run, so it comes from our own child or from our own
//! cache and from nowhere else. One that is handed in is refused, whatever it is called. A file of the cache counts only
//! in a directory that nobody else can write, and only if it is still what was written.
//!
//! This is the one module with `unsafe`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Digest;
use crate::child::{Diagnostic, SchemaCheck, Task};

/// How components are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// The program to run as the child, and arguments before the task; it ends up in [`crate::child::run`].
    pub program: PathBuf,
    /// Arguments before the task.
    pub arguments: Vec<String>,
    /// Address space of the child, MiB.
    pub memory_mib: u64,
    /// Processor time of the child, seconds.
    pub seconds: u64,
    /// Time by the clock that the child may take, milliseconds: for one that neither works nor answers.
    pub patience_ms: u64,
    /// Largest component, MiB.
    pub component_mib: u64,
    /// Directory of artifacts, made if it is missing; none compiles anew each time.
    pub cache: Option<PathBuf>,
}

impl CompileOptions {
    /// With this child, no cache, and default limits.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            memory_mib: 2048,
            seconds: 60,
            patience_ms: 120_000,
            component_mib: 32,
            cache: None,
        }
    }
}

/// A component could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is too large.
    #[error("the component has {bytes} bytes, more than the {limit_mib} MiB allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// Most that is allowed.
        limit_mib: u64,
    },
    /// It is machine code.
    #[error(
        "this is a precompiled artifact (.cwasm): machine code is never taken from outside; bind the .wasm component"
    )]
    Precompiled,
    /// It is something else.
    #[error("this is not a WebAssembly component: it begins with {begin:02x?}")]
    NotWasm {
        /// Its first bytes.
        begin: Vec<u8>,
    },
    /// It is a core module.
    #[error(
        "this is a core WebAssembly module, not a component: make one of it with `brood plugin build` or wit-component"
    )]
    CoreModule,
    /// The compiler refuses it.
    #[error("the component does not compile: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The child ran into its limits.
    #[error(
        "the compiler ended with {status}: the component needs more than {memory_mib} MiB or {seconds} s to compile; {message}"
    )]
    Died {
        /// How.
        status: ExitStatus,
        /// Its memory.
        memory_mib: u64,
        /// Its time.
        seconds: u64,
        /// What it said last.
        message: String,
    },
    /// The child did not answer.
    #[error("the compiler {program} did not answer within {patience_ms} ms and was ended")]
    Silent {
        /// The program.
        program: PathBuf,
        /// How long it had.
        patience_ms: u64,
    },
    /// The child could not be run.
    #[error("the compiler {program} could not be run")]
    Child {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cache cannot be trusted or written.
    #[error("the cache {path} {message}")]
    Cache {
        /// Directory or file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// wasmtime does not take the artifact.
    #[error("the artifact cannot be loaded: {message}")]
    Artifact {
        /// Why.
        message: String,
    },
}

/// Compiles a component, or finds it compiled.
pub(crate) fn load(
    engine: &Engine,
    options: &CompileOptions,
    bytes: &[u8],
) -> Result<(Digest, Component), CompileError> {
    recognise(options, bytes)?;
    let digest = Digest::of(bytes);
    let slot = match &options.cache {
        Some(directory) => Some(slot(engine, directory, digest)?),
        None => None,
    };
    if let Some(kept) = slot.as_deref().and_then(read_kept) {
        // An artifact of another wasmtime is refused by its own header and made anew.
        if let Ok(component) = adopt(engine, &kept) {
            return Ok((digest, component));
        }
    }
    let artifact = ask(options, Task::Compile, bytes)?;
    let component = adopt(engine, &artifact)?;
    if let Some(path) = slot {
        keep(&path, &artifact).map_err(|error| CompileError::Cache {
            message: format!("cannot be written: {error}"),
            path,
        })?;
    }
    Ok((digest, component))
}

/// Checks settings against a schema, in the child: a schema can be endless.
pub(crate) fn check_schema(
    options: &CompileOptions,
    schema: &str,
    document: &str,
) -> Result<Vec<Diagnostic>, CompileError> {
    let check = SchemaCheck {
        schema: schema.to_owned(),
        document: document.to_owned(),
    };
    let refused = |error: serde_json::Error| CompileError::Refused {
        message: error.to_string(),
    };
    let input = serde_json::to_vec(&check).map_err(refused)?;
    let output = ask(options, Task::Schema, &input)?;
    serde_json::from_slice(&output).map_err(refused)
}

fn recognise(options: &CompileOptions, bytes: &[u8]) -> Result<(), CompileError> {
    let limit_mib = options.component_mib;
    if bytes.len() as u64 > limit_mib << 20 {
        return Err(CompileError::TooLarge {
            bytes: bytes.len() as u64,
            limit_mib,
        });
    }
    if bytes.starts_with(b"\x7fELF") || Engine::detect_precompiled(bytes).is_some() {
        return Err(CompileError::Precompiled);
    }
    // Component Model, binary format: `\0asm`, version, and a layer that is 0 for modules and 1 for components.
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', _, _, 0, 0]) => Err(CompileError::CoreModule),
        _ => Err(CompileError::NotWasm {
            begin: bytes.iter().take(8).copied().collect(),
        }),
    }
}

fn ask(options: &CompileOptions, task: Task, input: &[u8]) -> Result<Vec<u8>, CompileError> {
    let failed = |source| CompileError::Child {
        program: options.program.clone(),
        source,
    };
    let child = Command::new(&options.program)
        .args(&options.arguments)
        .args([
            task.as_str(),
            &options.memory_mib.to_string(),
            &options.seconds.to_string(),
        ])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (program, patience_ms) = (options.program.clone(), options.patience_ms);
    let (written, output, patience) = converse(child, input, patience_ms).map_err(failed)?;
    if patience == Patience::Lost {
        return Err(CompileError::Silent {
            program,
            patience_ms,
        });
    }
    if output.status.success() {
        written.map_err(failed)?;
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message: String = said.trim().chars().take(2000).collect();
    if output.status.code() == Some(1) {
        return Err(CompileError::Refused { message });
    }
    let (memory_mib, seconds) = (options.memory_mib, options.seconds);
    Err(CompileError::Died {
        status: output.status,
        memory_mib,
        seconds,
        message,
    })
}

/// Whether the child was waited for to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Kept,
    Lost,
}

/// Tells the child its input and hears its output; ends it once it has taken too long.
fn converse(
    mut child: Child,
    input: &[u8],
    patience_ms: u64,
) -> io::Result<(io::Result<()>, Output, Patience)> {
    // The child is not waited for before this descriptor is open, so it is of no other process.
    let own = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(&child),
        rustix::process::PidfdFlags::empty(),
    );
    let own = match own {
        Ok(own) => own,
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error.into());
        }
    };
    std::thread::scope(|scope| {
        let watch = std::thread::Builder::new()
            .name("policy-patience".to_owned())
            .spawn_scoped(scope, || outlive(&own, patience_ms));
        let watch = match watch {
            Ok(watch) => watch,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        // It answers only after it has read everything, so writing first cannot wait for ever. One that dies before that
        // breaks the pipe, and its status tells why.
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(input),
            None => Ok(()),
        };
        let output = child.wait_with_output()?;
        let panicked = |_| io::Error::other("the watch over the compiler panicked");
        let patience = watch.join().map_err(panicked)??;
        Ok((written, output, patience))
    })
}

/// Waits until the process has ended, and ends it once the time is over.
fn outlive(process: &OwnedFd, patience_ms: u64) -> io::Result<Patience> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let timeout = Timespec {
        tv_sec: i64::try_from(patience_ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(patience_ms % 1000 * 1_000_000).unwrap_or(0),
    };
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    let ended = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout)))?;
    if ended > 0 {
        return Ok(Patience::Kept);
    }
    match rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL) {
        // It has ended meanwhile.
        Err(rustix::io::Errno::SRCH) => Ok(Patience::Kept),
        sent => Ok(sent.map(|()| Patience::Lost)?),
    }
}

/// An artifact as a component.
fn adopt(engine: &Engine, artifact: &[u8]) -> Result<Component, CompileError> {
    // SAFETY: `deserialize` trusts that the bytes are an artifact of wasmtime. They are what `ask` read from the pipe of
    // our own child, or what `read_kept` found unchanged, by its digest, in a directory that `slot` has found to be ours
    // and writable by nobody else. `recognise` has refused artifacts from anywhere else.
    let component = unsafe { Component::deserialize(engine, artifact) };
    component.map_err(|error| CompileError::Artifact {
        message: format!("{error:#}"),
    })
}

/// The file of an artifact, in a directory that is ours alone.
fn slot(engine: &Engine, directory: &Path, digest: Digest) -> Result<PathBuf, CompileError> {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let wrong = |message: String| CompileError::Cache {
        path: directory.to_owned(),
        message,
    };
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(|error| wrong(format!("cannot be made: {error}")))?;
    let about =
        fs::metadata(directory).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(wrong(format!(
            "belongs to user {}, not to this one",
            about.uid()
        )));
    }
    if about.mode() & 0o022 != 0 {
        let mode = about.mode() & 0o777;
        return Err(wrong(format!(
            "can be written by others (mode {mode:o}): chmod go-w it"
        )));
    }
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let name = format!("{}-{:016x}.artifact", digest.hex(), hasher.finish());
    Ok(directory.join(name))
}

/// A kept artifact, if it is still what was written: its digest, then itself.
fn read_kept(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    let (digest, artifact) = bytes.split_at_checked(32)?;
    (Digest::of(artifact).as_bytes() == digest).then(|| artifact.to_vec())
}

/// Writes beside the place and renames, so that a reader sees all or nothing.
fn keep(path: &Path, artifact: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    file.write_all(Digest::of(artifact).as_bytes())?;
    file.write_all(artifact)?;
    fs::rename(&beside, path)
}
