//! `brood tenant`

use std::process::ExitCode;

use brood_api::ListQuery;
use brood_api::tenant::{Tenant, TenantSpec};
use brood_client::Client;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::key::shown;
use super::out::{BOLD, Out, PLAIN, Table, pages};
use super::time::{between, now};

/// `brood tenant`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a tenant. Its first key is printed this once.
    Create {
        /// Its name.
        name: String,
        /// Your own key for this request: repeated under it, it is done once.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List all tenants.
    Ls,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Create {
                name,
                idempotency_key,
            } => {
                let once = idempotency_key.as_deref();
                let made = client.create_tenant(&TenantSpec { name }, once)?;
                out.answer(&made, || shown(&made.first_key))?;
            }
            Verb::Ls => {
                let all = pages(None, |limit, cursor| {
                    client.list_tenants(&ListQuery {
                        limit: Some(limit),
                        cursor,
                    })
                })?;
                out.answer(&all, || draw(&all.items))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn draw(tenants: &[Tenant]) -> String {
    let (mut table, now) = (Table::new(&["NAME", "AGE"]), now());
    for one in tenants {
        table.row([
            (BOLD, one.name.clone()),
            (PLAIN, between(now, one.created_at)),
        ]);
    }
    table.draw()
}
