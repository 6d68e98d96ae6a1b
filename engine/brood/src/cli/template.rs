//! `brood template`

use std::process::ExitCode;

use brood_api::ListQuery;
use brood_api::template::{GuestKind, Template, TemplateSpec, Visibility};
use brood_client::Client;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, Out, PLAIN, Table, pages};
use super::time::{between, now};

/// `brood template`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a template; it is booted and sealed when it is first used.
    Create(Create),
    /// List the tenant's templates and public ones.
    Ls,
    /// Show a template.
    Show(Which),
    /// Remove a template; its machines stay.
    Rm(Which),
}

#[derive(Args)]
struct Which {
    /// Its name or its id.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    template: String,
}

#[derive(Args)]
struct Create {
    /// Its name.
    name: String,
    /// What runs in it.
    #[arg(long, default_value = "linux")]
    guest: Guest,
    /// vCPUs of each machine.
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// RAM of each machine, MiB.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// Let every tenant use it. Only an operator publishes.
    #[arg(long)]
    public: bool,
    /// Your own key for this request: repeated under it, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Guest {
    /// The Linux that the operator set up, with an agent.
    Linux,
    /// The engine's own test guest, which counts.
    Bare,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Create(create) => {
                let once = create.idempotency_key.clone();
                let template = client.create_template(&create.spec(), once.as_deref())?;
                out.answer(&template, || draw(std::slice::from_ref(&template)))?;
            }
            Verb::Ls => {
                let all = pages(None, |limit, cursor| {
                    client.list_templates(&ListQuery {
                        limit: Some(limit),
                        cursor,
                    })
                })?;
                out.answer(&all, || draw(&all.items))?;
            }
            Verb::Show(Which { template }) => {
                let template = client.show_template(&template)?;
                out.answer(&template, || draw(std::slice::from_ref(&template)))?;
            }
            Verb::Rm(Which { template }) => {
                client.remove_template(&template)?;
                let removed = serde_json::json!({ "removed": template });
                out.answer(&removed, || format!("removed {template}"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    fn spec(self) -> TemplateSpec {
        TemplateSpec {
            name: self.name,
            guest: match self.guest {
                Guest::Linux => GuestKind::Linux,
                Guest::Bare => GuestKind::Bare,
            },
            vcpus: self.vcpus,
            memory_mib: self.memory,
            visibility: if self.public {
                Visibility::Public
            } else {
                Visibility::Private
            },
        }
    }
}

fn draw(templates: &[Template]) -> String {
    let head = [
        "NAME",
        "ID",
        "GUEST",
        "VCPUS",
        "MEMORY",
        "VISIBILITY",
        "AGE",
    ];
    let (mut table, now) = (Table::new(&head), now());
    for one in templates {
        let guest = match one.guest {
            GuestKind::Linux => "linux",
            GuestKind::Bare => "bare",
        };
        let visibility = match (one.visibility, one.own) {
            (Visibility::Private, _) => "private",
            (Visibility::Public, true) => "public",
            (Visibility::Public, false) => "public, another's",
        };
        table.row([
            (BOLD, one.name.clone()),
            (PLAIN, one.id.to_string()),
            (PLAIN, guest.to_owned()),
            (PLAIN, one.vcpus.to_string()),
            (PLAIN, format!("{} MiB", one.memory_mib)),
            (PLAIN, visibility.to_owned()),
            (PLAIN, between(now, one.created_at)),
        ]);
    }
    table.draw()
}
