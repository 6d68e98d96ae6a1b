//! `brood policy`

use std::process::ExitCode;

use brood_api::policy::{Decision, Standing};
use brood_client::Client;
use brood_units::IntentId;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, Out, PLAIN, Table};

/// `brood policy`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show what policies said about a request.
    Decisions {
        /// The request: `intent` of a fork's answer or of an event.
        intent: IntentId,
    },
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let Verb::Decisions { intent } = self.verb;
        let decisions = client.decisions(intent)?;
        out.answer(&decisions, || draw(&decisions.items))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn draw(decisions: &[Decision]) -> String {
    let head = [
        "HOOK", "BINDING", "PLUGIN", "STANDING", "TOOK", "FUEL", "VERDICT",
    ];
    let mut table = Table::new(&head);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for one in decisions {
        let standing = match one.standing {
            Standing::Enforced => "enforced",
            Standing::Warned => "warned",
            Standing::FailedOpen => "failed open",
            Standing::FailedClosed => "failed closed",
            Standing::Shadow => "shadow",
        };
        let verdict = match &one.instead_of {
            Some(why) => format!("{} (instead: {why})", one.verdict),
            None => one.verdict.clone(),
        };
        let took = one
            .took_us
            .map_or_else(|| "-".to_owned(), |us| format!("{us} us"));
        table.row([
            (PLAIN, one.hook.clone()),
            (BOLD, one.binding.clone()),
            (PLAIN, one.plugin.clone()),
            (PLAIN, standing.to_owned()),
            (PLAIN, took),
            (PLAIN, number(one.fuel)),
            (PLAIN, verdict),
        ]);
    }
    table.draw()
}
