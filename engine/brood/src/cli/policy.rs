//! `brood policy`

use std::process::ExitCode;

use brood_api::policy::{Binding, Decision, DecisionQuery, LoggedDecision, Standing};
use brood_client::{Client, Followed};
use brood_units::{IntentId, MachineId};
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, DIM, Out, PLAIN, Table, plain, styled};
use super::time::clock;

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
    /// Show the log of all that policies said, the newest at the end.
    Log {
        #[command(flatten)]
        query: LogOptions,
        /// Go on with what is decided from now on; in JSON one object a line.
        #[arg(short, long, conflicts_with = "limit")]
        follow: bool,
    },
}

#[derive(Args)]
struct LogOptions {
    /// Only requests about this machine, or that it came of.
    #[arg(long, value_name = "ID")]
    machine: Option<MachineId>,
    /// Only what stopped its request.
    #[arg(long)]
    denied: bool,
    /// Of another tenant, or `*` for all, as an operator.
    #[arg(long)]
    tenant: Option<String>,
    /// Begin behind the one of this number; with the newest if not said.
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// At most so many; 100 if not said.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
}

impl From<LogOptions> for DecisionQuery {
    fn from(options: LogOptions) -> Self {
        Self {
            after: options.after,
            limit: options.limit,
            machine: options.machine,
            denied: options.denied.then_some(true),
            tenant: options.tenant,
        }
    }
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
            Verb::Log { query, follow } => {
                let query = DecisionQuery::from(query);
                if !follow {
                    let log = client.decision_log(&query)?;
                    out.answer(&log, || log.items.iter().map(line).collect())?;
                    return Ok(ExitCode::SUCCESS);
                }
                for told in client.follow_decisions(&query)? {
                    // Decisions are never trimmed, so that there is no gap.
                    if let Followed::Event(one) = told? {
                        out.answer(&one, || line(&one))?;
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Enforced => "enforced",
        Standing::Warned => "warned",
        Standing::FailedOpen => "failed open",
        Standing::FailedClosed => "failed closed",
        Standing::Shadow => "shadow",
    }
}

fn line(one: &LoggedDecision) -> String {
    let said = &one.decision;
    let number = styled(DIM, &format!("{:>6}", one.number));
    let binding = styled(BOLD, &format!("{:<22}", plain(&said.binding)));
    let denies = if said.denies { "denies" } else { "" };
    let (at, standing, verdict) = (clock(one.at), standing(said.standing), plain(&said.verdict));
    let (tenant, intent) = (plain(&one.tenant), one.intent);
    format!(
        "{number}  {at}  {tenant}  {intent}  {binding}  {standing:<13}  {denies:<6}  {verdict}\n"
    )
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
        let standing = standing(one.standing);
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
