//! `brood pause`, `resume`, `ttl`, `checkpoint`, `kill`

use std::process::ExitCode;

use brood_api::Span;
use brood_api::machine::{EndQuery, Kind, Machine, TtlSpec};
use brood_client::Client;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::out::Out;
use super::value::span;
use super::{list, name};

/// `brood pause`
#[derive(Args)]
pub struct Pause {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
}

/// `brood ttl`
#[derive(Args)]
pub struct Ttl {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
    /// How long it lives from now, such as 90s or 2h; as long as it was admitted to if not said.
    #[arg(value_parser = span)]
    ttl: Option<Span>,
}

/// `brood resume`
#[derive(Args)]
pub struct Resume {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
}

/// `brood checkpoint`
#[derive(Args)]
pub struct Checkpoint {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
    /// Your own key for this request: repeated under it, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// `brood kill`
#[derive(Args)]
pub struct Kill {
    /// The machine or checkpoint: its id, its name, or the end of its id.
    machine: String,
    /// End all its descendants as well.
    #[arg(long)]
    cascade: bool,
}

impl Run for Pause {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let id = name::machine(client, &self.machine)?;
        show(out, &client.pause_machine(id)?)
    }
}

impl Run for Ttl {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let id = name::machine(client, &self.machine)?;
        show(out, &client.set_ttl(id, &TtlSpec { ttl: self.ttl })?)
    }
}

impl Run for Resume {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let id = name::machine(client, &self.machine)?;
        show(out, &client.resume_machine(id)?)
    }
}

impl Run for Checkpoint {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let id = name::machine(client, &self.machine)?;
        let once = self.idempotency_key.as_deref();
        show(out, &client.create_checkpoint(id, once)?)
    }
}

impl Run for Kill {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let found = name::either(client, &self.machine)?;
        let ended = match found.kind {
            Kind::Machine => {
                let how = EndQuery {
                    cascade: self.cascade.then_some(true),
                };
                client.end_machine(found.id, &how)?
            }
            Kind::Checkpoint => client.end_checkpoint(found.id)?,
        };
        out.answer(&ended, || {
            let ended = ended.ended.iter();
            ended.map(|id| format!("ended {id}\n")).collect()
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn show(out: Out, machine: &Machine) -> Result<ExitCode, Failure> {
    out.answer(machine, || list::draw(std::slice::from_ref(machine)))?;
    Ok(ExitCode::SUCCESS)
}
