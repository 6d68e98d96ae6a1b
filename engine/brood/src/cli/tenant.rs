//! `brood tenant`

use std::process::ExitCode;

use brood_api::tenant::TenantSpec;
use brood_client::Client;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::key::shown;
use super::out::Out;

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
    },
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let Verb::Create { name } = self.verb;
        let made = client.create_tenant(&TenantSpec { name })?;
        out.answer(&made, || shown(&made.first_key))?;
        Ok(ExitCode::SUCCESS)
    }
}
