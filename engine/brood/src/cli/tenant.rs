//! `brood tenant`

use std::process::ExitCode;

use brood_api::ListQuery;
use brood_api::tenant::{Tenant, TenantSpec};
use brood_api::usage::{Balance, CreditSpec};
use brood_client::Client;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::key::shown;
use super::out::{BOLD, Out, PLAIN, Table, pages, plain};
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
    /// Post a credit to a tenant, once for each key.
    Credit {
        /// Its name.
        name: String,
        /// How much, as in 25.00; negative takes it back.
        #[arg(allow_hyphen_values = true)]
        amount: String,
        /// ISO 4217, or `credit`.
        #[arg(long, default_value = "EUR")]
        currency: String,
        /// Your own name for this credit: the same name is the same credit, for ever.
        #[arg(long, value_name = "KEY")]
        idempotency_key: String,
        /// What it is for.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Show what a tenant has paid in advance, has spent and has left.
    Balance {
        /// Its name.
        name: String,
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
            Verb::Credit {
                name,
                amount,
                currency,
                idempotency_key,
                note,
            } => {
                let spec = CreditSpec {
                    currency,
                    amount,
                    note,
                };
                let posted = client.post_credit(&name, &idempotency_key, &spec)?;
                out.answer(&posted, || {
                    format!(
                        "entry {}: {} {}\n",
                        posted.entry,
                        posted.amount,
                        plain(&posted.currency)
                    )
                })?;
            }
            Verb::Balance { name } => {
                let balance = client.show_balance(&name)?;
                out.answer(&balance, || draw_balance(&balance))?;
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

fn draw_balance(balance: &Balance) -> String {
    let mut table = Table::new(&["CURRENCY", "SPENT THIS MONTH", "PAID IN ADVANCE"]);
    for purse in &balance.purses {
        table.row([
            (BOLD, purse.currency.clone()),
            (PLAIN, purse.spent.clone()),
            (PLAIN, purse.credit.clone()),
        ]);
    }
    let mut text = table.draw();
    if let Some(budget) = &balance.budget {
        let (left, action) = (plain(&budget.left), plain(&budget.action));
        text.push_str(&format!(
            "{left} left, {action} {}\n",
            plain(&budget.message)
        ));
    }
    text
}
