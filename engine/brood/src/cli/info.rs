//! `brood info`

use std::process::ExitCode;

use brood_client::Client;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::out::{Out, plain};

/// `brood info`
#[derive(Args)]
pub struct Arguments {}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let info = client.info()?;
        out.answer(&info, || {
            let scopes: Vec<&str> = info.scopes.iter().map(|scope| scope.as_str()).collect();
            let text = format!(
                "server    {}\nversion   {}\ntenant    {}\nproject   {}\nscopes    {}\nlimits    {} daughters a fork, {} bytes a body\n",
                client.address(),
                info.version,
                info.tenant,
                info.project,
                scopes.join(", "),
                info.limits.daughters,
                info.limits.body_bytes
            );
            plain(&text)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
