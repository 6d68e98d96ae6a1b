//! `brood policy`

use std::process::ExitCode;

use brood_api::policy::{Binding, Decision, Standing};
use brood_client::Client;
use brood_units::IntentId;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, DIM, Out, PLAIN, Table};

/// `brood policy`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List who is bound to which hook, and what became of the calls.
    Ls,
    /// Show what policies said about a request.
    Decisions {
        /// The request: `intent` of a fork's answer or of an event.
        intent: IntentId,
    },
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Ls => {
                let bound = client.list_policies()?;
                out.answer(&bound, || draw_bound(&bound.items))?;
            }
            Verb::Decisions { intent } => {
                let decisions = client.decisions(intent)?;
                out.answer(&decisions, || draw(&decisions.items))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn draw_bound(bindings: &[Binding]) -> String {
    let head = [
        "HOOK",
        "BINDING",
        "PLUGIN",
        "VERSION",
        "MODE",
        "ON FAILURE",
        "ANSWERED",
        "REFUSED",
        "FAILED",
    ];
    let mut table = Table::new(&head);
    for one in bindings {
        let style = if one.mode == "off" { DIM } else { PLAIN };
        table.row([
            (style, one.hook.clone()),
            (if style == DIM { DIM } else { BOLD }, one.binding.clone()),
            (style, one.plugin.clone()),
            (style, one.version.clone().unwrap_or_else(|| "-".to_owned())),
            (style, one.mode.clone()),
            (style, one.on_failure.clone()),
            (style, one.calls.answered.to_string()),
            (style, one.calls.refused.to_string()),
            (style, one.calls.failed.values().sum::<u64>().to_string()),
        ]);
    }
    let mut text = table.draw();
    for (one, trouble) in bindings
        .iter()
        .filter_map(|one| Some((one, one.trouble.as_ref()?)))
    {
        let line = format!("{}/{}: {trouble}", one.hook, one.binding);
        text.push_str(&format!("{}\n", super::out::plain(&line)));
    }
    text
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
