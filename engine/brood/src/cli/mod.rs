//! The commands that ask a server: one small file a noun.
//!
//! Invariant: nothing here can do what the API cannot; everything goes through the client. In JSON, standard output is one
//! value, the answer or the problem (one a line where a command goes on), and the exit status says which.

mod completion;
mod copy;
mod create;
mod event;
mod exec;
mod exit;
mod failure;
mod forest;
mod fork;
mod info;
mod key;
mod list;
mod log;
mod machine;
mod name;
mod out;
mod policy;
mod secret;
mod session;
mod shell;
mod snapshot;
mod template;
mod tenant;
mod time;
mod top;
mod tree;
mod usage;
mod value;

use std::process::ExitCode;

use anstream::eprintln;
use brood_client::Client;
use clap::{Args, Subcommand};

pub use completion::Completion;
pub use exit::Exit;
pub use failure::Failure;
pub use session::{Format, Session};

use out::Out;

/// The commands that ask a server.
#[derive(Subcommand)]
pub enum Command {
    /// Make, list, show and remove templates.
    Template(To<template::Arguments>),
    /// Make a machine of a template.
    Create(To<create::Arguments>),
    /// Fork a running machine, a checkpoint or a template into daughters.
    Fork(To<fork::Arguments>),
    /// Show lineages as trees.
    Tree(To<tree::Arguments>),
    /// List machines or checkpoints.
    Ls(To<list::Arguments>),
    /// Run a program in a machine to its end.
    Exec(To<exec::Arguments>),
    /// Sit down at a shell, or another program, in a machine.
    Shell(To<shell::Arguments>),
    /// Copy files into a machine or out of it.
    Cp(To<copy::Arguments>),
    /// Show what a machine's programs have written.
    Logs(To<log::Arguments>),
    /// Have a machine end sooner, or as late as it was admitted to.
    Ttl(To<machine::Ttl>),
    /// Have a machine's vCPUs stand still.
    Pause(To<machine::Pause>),
    /// Have them run again.
    Resume(To<machine::Resume>),
    /// Keep a frozen point of a machine, to be forked at any time.
    Checkpoint(To<machine::Checkpoint>),
    /// Take, list, fork, export and import snapshots: machines on disk.
    Snapshot(To<snapshot::Arguments>),
    /// Have a machine sleep on disk, under her own id.
    Hibernate(To<snapshot::Hibernate>),
    /// Have a hibernated machine go on.
    Wake(To<snapshot::Wake>),
    /// End a machine or a checkpoint.
    Kill(To<machine::Kill>),
    /// Watch what lives, and what it costs.
    Top(To<top::Arguments>),
    /// List what happened, or follow what happens.
    Events(To<event::Arguments>),
    /// Show who is bound to which hook, and what policies decided.
    Policy(To<policy::Arguments>),
    /// Make, list, rotate and revoke keys.
    Key(To<key::Arguments>),
    /// Set, list and remove secrets.
    Secret(To<secret::Arguments>),
    /// Make and list tenants.
    Tenant(To<tenant::Arguments>),
    /// Show what was used and what it comes to.
    Usage(To<usage::Arguments>),
    /// Show what the server is, and what the key allows.
    Info(To<info::Arguments>),
}

/// A command with the server that it goes to.
#[derive(Args)]
pub struct To<A: Args> {
    #[command(flatten)]
    session: Session,
    #[command(flatten)]
    arguments: A,
}

/// What a command does with its arguments.
trait Run {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure>;
}

fn ask<A: Args + Run>(to: To<A>) -> ExitCode {
    let format = to.session.output;
    let client = to.session.client();
    let done = client.and_then(|client| to.arguments.run(&client, Out::new(format)));
    done.unwrap_or_else(|failure| fail(&failure, format))
}

/// Says why something was not done.
pub fn fail(failure: &Failure, format: Format) -> ExitCode {
    match format {
        Format::Json => {
            let json = failure.json().map(|json| format!("{json}\n"));
            // Where nobody reads, the status says that something went wrong.
            json.map(|json| out::raw(json.as_bytes()).ok());
        }
        Format::Text => {
            if let Some(text) = failure.text() {
                eprintln!("brood: {text}");
            }
        }
    }
    failure.exit().into()
}

/// Does what a command says.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Template(to) => ask(to),
        Command::Create(to) => ask(to),
        Command::Fork(to) => ask(to),
        Command::Tree(to) => ask(to),
        Command::Ls(to) => ask(to),
        Command::Exec(to) => ask(to),
        Command::Shell(to) => ask(to),
        Command::Cp(to) => ask(to),
        Command::Logs(to) => ask(to),
        Command::Ttl(to) => ask(to),
        Command::Pause(to) => ask(to),
        Command::Resume(to) => ask(to),
        Command::Checkpoint(to) => ask(to),
        Command::Snapshot(to) => ask(to),
        Command::Hibernate(to) => ask(to),
        Command::Wake(to) => ask(to),
        Command::Kill(to) => ask(to),
        Command::Top(to) => ask(to),
        Command::Events(to) => ask(to),
        Command::Policy(to) => ask(to),
        Command::Key(to) => ask(to),
        Command::Secret(to) => ask(to),
        Command::Tenant(to) => ask(to),
        Command::Usage(to) => ask(to),
        Command::Info(to) => ask(to),
    }
}

/// Whether a command line that cannot be read asks for JSON all the same.
pub fn wants_json(arguments: &[String]) -> bool {
    let joined = ["-ojson", "-o=json", "--output=json"];
    let pairs = arguments.windows(2);
    let mut apart = pairs.filter(|pair| ["-o", "--output"].contains(&pair[0].as_str()));
    arguments.iter().any(|one| joined.contains(&one.as_str()))
        || apart.any(|pair| pair[1] == "json")
}
