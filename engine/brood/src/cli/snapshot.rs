//! `brood snapshot`, `hibernate`, `wake`
//!
//! Invariant: an exported file is there whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use brood_api::ListQuery;
use brood_api::machine::Kind;
use brood_api::snapshot::{ImportQuery, Snapshot, SnapshotSpec};
use brood_api::template::GuestKind;
use brood_client::Client;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::Run;
use super::copy::{Passed, pass};
use super::failure::Failure;
use super::fork::{Spec, draw as draw_fork};
use super::machine::show;
use super::out::{BOLD, Out, PLAIN, Table, pages};
use super::time::{between, now};
use super::value::{Pair, map, pair};
use super::{list, name};

/// `brood snapshot`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Take a snapshot of a machine, which runs on, or of a checkpoint.
    Create(Create),
    /// List the tenant's snapshots.
    Ls,
    /// Show a snapshot.
    Show(Which),
    /// Remove a snapshot; machines that were made of it live on.
    Rm(Which),
    /// Make machines of a snapshot; each begins a lineage.
    Fork(Box<Fork>),
    /// Write a snapshot to a file, with the machine's memory and whatever secrets are in it.
    Export(Export),
    /// Take a snapshot that was exported, here or elsewhere.
    Import(Import),
}

#[derive(Args)]
struct Which {
    /// Its name or its id.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    snapshot: String,
}

#[derive(Args)]
struct Create {
    /// A machine or a checkpoint: its id, its name, or the end of its id.
    machine: String,
    /// Its name.
    #[arg(long)]
    name: Option<String>,
    /// A label of it; those of the machine if none is given.
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<Pair>,
    /// Your own key for this request: repeated under it, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Args)]
struct Fork {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    spec: Spec,
}

#[derive(Args)]
struct Export {
    #[command(flatten)]
    which: Which,
    /// The file to write, readable by its owner alone; `-` is standard output.
    file: PathBuf,
}

#[derive(Args)]
struct Import {
    /// The file to read; `-` is standard input.
    file: PathBuf,
    /// Its name here.
    #[arg(long)]
    name: Option<String>,
}

/// `brood hibernate`
#[derive(Args)]
pub struct Hibernate {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
}

/// `brood wake`
#[derive(Args)]
pub struct Wake {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
}

impl Run for Hibernate {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let id = name::machine(client, &self.machine)?;
        let waiting = out.waiting("saving the machine");
        let slept = client.hibernate_machine(id);
        drop(waiting);
        show(out, &slept?)
    }
}

impl Run for Wake {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let id = name::machine(client, &self.machine)?;
        let waiting = out.waiting("waking the machine");
        let woken = client.wake_machine(id);
        drop(waiting);
        show(out, &woken?)
    }
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Create(create) => create.run(client, out),
            Verb::Ls => {
                let all = pages(None, |limit, cursor| {
                    client.list_snapshots(&ListQuery {
                        limit: Some(limit),
                        cursor,
                    })
                })?;
                out.answer(&all, || draw(&all.items))?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Show(Which { snapshot }) => answer(out, &client.show_snapshot(&snapshot)?),
            Verb::Rm(Which { snapshot }) => {
                client.remove_snapshot(&snapshot)?;
                let removed = serde_json::json!({ "removed": snapshot });
                out.answer(&removed, || format!("removed {snapshot}"))?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Fork(fork) => {
                let (spec, once) = fork.spec.read()?;
                let waiting = out.waiting("restoring daughters");
                let forked = client.fork_snapshot(&fork.which.snapshot, &spec, once.as_deref());
                drop(waiting);
                let forked = forked?;
                out.answer(&forked, || draw_fork(&forked))?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Export(export) => export.run(client, out),
            Verb::Import(import) => import.run(client, out),
        }
    }
}

impl Create {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let of = name::either(client, &self.machine)?;
        let spec = SnapshotSpec {
            name: self.name,
            labels: map(self.labels),
        };
        let once = self.idempotency_key.as_deref();
        let waiting = out.waiting("taking a snapshot");
        let taken = match of.kind {
            Kind::Machine => client.create_snapshot(of.id, &spec, once),
            Kind::Checkpoint => client.snapshot_checkpoint(of.id, &spec, once),
        };
        drop(waiting);
        answer(out, &taken?)
    }
}

impl Export {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let which = &self.which.snapshot;
        let mut progress = out.progress("exported");
        if self.file.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                return Err(Failure::usage(
                    "a snapshot is bytes, not text: name a file, or pipe it somewhere",
                ));
            }
            let mut from = progress.reading(client.export_snapshot(which)?);
            io::copy(&mut from, &mut io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        let failed = |error: io::Error| Failure::local(format!("{}: {error}", self.file.display()));
        let directory = self.file.parent().filter(|one| !one.as_os_str().is_empty());
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory.unwrap_or(Path::new(".")))
            .map_err(failed)?;
        let mut from = progress.reading(client.export_snapshot(which)?);
        let bytes = pass(&mut from, file.as_file_mut()).map_err(|error| match error {
            Passed::From(error) => Failure::local(format!(
                "snapshot {which} broke off: {error}; nothing was written"
            )),
            Passed::To(error) => failed(error),
        })?;
        file.as_file_mut().flush().map_err(failed)?;
        file.persist(&self.file)
            .map_err(|error| failed(error.error))?;
        drop(from);
        drop(progress);
        let exported = serde_json::json!({ "exported": which, "bytes": bytes });
        out.answer(&exported, || format!("exported {which}, {}", mib(bytes)))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Import {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let query = ImportQuery { name: self.name };
        let mut progress = out.progress("imported");
        let from: Box<dyn Read> =
            match self.file.as_os_str() == "-" {
                true => Box::new(io::stdin().lock()),
                false => {
                    let file = File::open(&self.file);
                    Box::new(file.map_err(|error| {
                        Failure::local(format!("{}: {error}", self.file.display()))
                    })?)
                }
            };
        let imported = client.import_snapshot(&query, progress.reading(from));
        drop(progress);
        answer(out, &imported?)
    }
}

fn answer(out: Out, snapshot: &Snapshot) -> Result<ExitCode, Failure> {
    out.answer(snapshot, || draw(std::slice::from_ref(snapshot)))?;
    Ok(ExitCode::SUCCESS)
}

/// Bytes as MiB, to a tenth.
fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn draw(snapshots: &[Snapshot]) -> String {
    let head = [
        "ID", "NAME", "OF", "GUEST", "VCPUS", "MEMORY", "DISK", "AGE", "HOLDS", "LABELS",
    ];
    let (mut table, now) = (Table::new(&head), now());
    for one in snapshots {
        let guest = match one.guest {
            GuestKind::Linux => "linux",
            GuestKind::Bare => "bare",
        };
        let asleep = one
            .hibernates
            .map(|id| format!("{}, hibernated", list::end_of(id)));
        table.row([
            (PLAIN, one.id.to_string()),
            (BOLD, one.name.clone().unwrap_or_else(|| "-".to_owned())),
            (PLAIN, list::end_of(one.machine)),
            (PLAIN, guest.to_owned()),
            (PLAIN, list::milli(one.vcpu_milli)),
            (PLAIN, format!("{} MiB", one.memory_mib)),
            (PLAIN, mib(one.bytes)),
            (PLAIN, between(now, one.created_at)),
            (PLAIN, asleep.unwrap_or_else(|| "-".to_owned())),
            (PLAIN, list::pairs(&one.labels)),
        ]);
    }
    table.draw()
}
