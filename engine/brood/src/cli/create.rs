//! `brood create`

use std::process::ExitCode;

use brood_api::Span;
use brood_api::machine::{MachineSpec, NamedMachineSpec};
use brood_client::Client;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::list;
use super::out::Out;
use super::value::{Pair, map, pair, span};

/// `brood create`
#[derive(Args)]
pub struct Arguments {
    /// The template's name or id.
    template: String,
    /// A name, one of its kind among the tenant's living machines.
    #[arg(long)]
    name: Option<String>,
    /// Take the machine of this name if there is one.
    #[arg(long, requires = "name", conflicts_with = "idempotency_key")]
    reuse: bool,
    /// A label.
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<Pair>,
    /// How long it lives, such as 90s or 2h; until it is ended if not said.
    #[arg(long, value_parser = span)]
    ttl: Option<Span>,
    /// Ends it when nobody asked anything of it for so long, such as 30m.
    #[arg(long, value_parser = span)]
    idle: Option<Span>,
    /// Your own key for this request: repeated under it, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let labels = map(self.labels);
        let waiting = out.waiting(&format!("making a machine of {}", self.template));
        let made = match self.name {
            Some(name) if self.reuse => {
                let spec = NamedMachineSpec {
                    template: self.template,
                    labels,
                    ttl: self.ttl,
                    idle: self.idle,
                };
                client.named_machine(&name, &spec)
            }
            name => {
                let spec = MachineSpec {
                    template: self.template,
                    name,
                    labels,
                    ttl: self.ttl,
                    idle: self.idle,
                };
                client.create_machine(&spec, self.idempotency_key.as_deref())
            }
        };
        drop(waiting);
        let machine = made?;
        out.answer(&machine, || list::draw(std::slice::from_ref(&machine)))?;
        Ok(ExitCode::SUCCESS)
    }
}
