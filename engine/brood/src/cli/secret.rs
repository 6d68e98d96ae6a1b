//! `brood secret`

use std::io::Read;
use std::process::ExitCode;

use brood_api::secret::{Secret, SecretSpec};
use brood_client::Client;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, DIM, Out, PLAIN, Table};
use super::time::{between, now};

/// `brood secret`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Give a secret the value that is on standard input, as a new version. A line break at its end is left out.
    Set {
        /// Its name.
        name: String,
    },
    /// List the tenant's secrets; values are never shown.
    Ls,
    /// Remove all versions of a secret; machines keep what they were given.
    Rm {
        /// Its name.
        name: String,
    },
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Set { name } => {
                let value = value()?;
                let secret = client.put_secret(&name, &SecretSpec { value })?;
                out.answer(&secret, || format!("{name} has version {}", secret.version))?;
            }
            Verb::Ls => {
                let secrets = client.list_secrets()?;
                out.answer(&secrets, || draw(&secrets.items))?;
            }
            Verb::Rm { name } => {
                client.remove_secret(&name)?;
                let removed = serde_json::json!({ "removed": name });
                out.answer(&removed, || format!("removed {name}"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Never an argument, which every user of the host sees (man 5 proc, cmdline).
fn value() -> Result<String, Failure> {
    let mut value = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut value);
    read.map_err(|error| {
        Failure::local(format!(
            "cannot read the value from standard input: {error}"
        ))
    })?;
    if value.ends_with('\n') {
        value.pop();
    }
    Ok(value)
}

fn draw(secrets: &[Secret]) -> String {
    let head = ["NAME", "VERSION", "KEPT", "AGE", "CHANGED"];
    let (mut table, now) = (Table::new(&head), now());
    for one in secrets {
        table.row([
            (BOLD, one.name.clone()),
            (PLAIN, one.version.to_string()),
            (DIM, one.versions.to_string()),
            (DIM, between(now, one.created_at)),
            (DIM, between(now, one.updated_at)),
        ]);
    }
    table.draw()
}
