//! `brood fork`

use std::process::ExitCode;

use brood_api::Span;
use brood_api::fork::{ForkAnswer, ForkSpec, GiveSecret, OnError, Secrets};
use brood_api::machine::Kind;
use brood_client::Client;
use clap::{Args, ValueEnum};

use super::Run;
use super::failure::Failure;
use super::name;
use super::out::{BOLD, Out, PLAIN, Table, colour};
use super::time::micros;
use super::value::{Copied, Pair, copied, map, pair, span};

/// `brood fork`
#[derive(Args)]
pub struct Arguments {
    /// A machine or a checkpoint: its id, its name, or the end of its id.
    #[arg(required_unless_present = "template", conflicts_with = "template")]
    mother: Option<String>,
    /// Make machines of a template instead: its name or id.
    #[arg(long)]
    template: Option<String>,
    #[command(flatten)]
    spec: Spec,
}

/// How many daughters, and what they get.
#[derive(Args)]
pub(super) struct Spec {
    /// Daughters.
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    /// The fewest that are welcome; as many as asked for if not said.
    #[arg(long, value_name = "COUNT")]
    min_count: Option<u32>,
    /// A label of the daughters.
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<Pair>,
    /// How long they live, such as 90s or 2h; until they are ended if not said.
    #[arg(long, value_parser = span)]
    ttl: Option<Span>,
    /// Ends each when nobody asked anything of her for so long, such as 30m.
    #[arg(long, value_parser = span)]
    idle: Option<Span>,
    /// A variable of their later programs.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<Pair>,
    /// A file of text that they have before their workload runs.
    #[arg(long = "file", value_name = "GUEST=LOCAL", value_parser = copied)]
    files: Vec<Copied>,
    /// What becomes of the mother's secrets.
    #[arg(long, default_value = "drop")]
    secrets: Keeps,
    /// Higher goes first where a policy has requests wait, as far as it allows that.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// A secret that they get: in a variable, or in a file if PLACE begins with `/`.
    #[arg(long = "secret", value_name = "NAME=PLACE", value_parser = pair)]
    give: Vec<Pair>,
    /// What happens to the others if a daughter does not come to be.
    #[arg(long, default_value = "keep")]
    on_error: Others,
    /// Your own key for this request: repeated under it, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keeps {
    Drop,
    Inherit,
}

#[derive(Clone, Copy, ValueEnum)]
enum Others {
    Keep,
    End,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let (spec, once) = self.spec.read()?;
        let once = once.as_deref();
        let waiting = out.waiting(&match spec.count {
            1 => "forking 1 daughter".to_owned(),
            count => format!("forking {count} daughters"),
        });
        let forked = match (self.mother, self.template) {
            (Some(mother), _) => {
                let mother = name::either(client, &mother)?;
                match mother.kind {
                    Kind::Machine => client.fork_machine(mother.id, &spec, once),
                    Kind::Checkpoint => client.fork_checkpoint(mother.id, &spec, once),
                }
            }
            (None, template) => client.fork_template(&template.unwrap_or_default(), &spec, once),
        };
        drop(waiting);
        let fork = forked?;
        out.answer(&fork, || draw(&fork))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Spec {
    /// The request, and the caller's own key for it.
    pub(super) fn read(self) -> Result<(ForkSpec, Option<String>), Failure> {
        let files = self.files.into_iter().map(Copied::read);
        let spec = ForkSpec {
            count: self.count,
            min_count: self.min_count,
            labels: map(self.labels),
            ttl: self.ttl,
            idle: self.idle,
            env: map(self.env),
            files: files.collect::<Result<_, _>>()?,
            secrets: match self.secrets {
                Keeps::Drop => Secrets::Drop,
                Keeps::Inherit => Secrets::Inherit,
            },
            priority: self.priority,
            give_secrets: self.give.into_iter().map(given).collect(),
            on_error: match self.on_error {
                Others::Keep => OnError::Keep,
                Others::End => OnError::End,
            },
        };
        Ok((spec, self.idempotency_key))
    }
}

fn given(Pair(name, place): Pair) -> GiveSecret {
    let (env, file) = match place.starts_with('/') {
        true => (None, Some(place)),
        false => (Some(place), None),
    };
    GiveSecret {
        name,
        version: None,
        env,
        file,
    }
}

pub(super) fn draw(fork: &ForkAnswer) -> String {
    let mut table = Table::new(&["ID", "HOSTNAME", "STATE", "FIRST INSTRUCTION", "CONFIRMED"]);
    let time = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), micros);
    for one in &fork.daughters {
        if let Some(machine) = &one.machine {
            table.row([
                (PLAIN, machine.id.to_string()),
                (BOLD, one.hostname.clone().unwrap_or_else(|| "-".to_owned())),
                (colour(machine.state), super::list::state(machine)),
                (PLAIN, time(one.first_instruction_us)),
                (PLAIN, time(one.confirmed_us)),
            ]);
        }
    }
    let mut text = table.draw();
    for problem in fork.daughters.iter().filter_map(|one| one.problem.as_ref()) {
        text.push_str(&format!(
            "missing: {}\n",
            super::out::plain(&problem.detail)
        ));
    }
    for warning in &fork.warnings {
        text.push_str(&format!("warning: {}\n", super::out::plain(warning)));
    }
    let timing = &fork.timing;
    text.push_str(&format!(
        "{} of {} daughters; decided in {}, forked in {}",
        fork.ready,
        fork.requested,
        micros(timing.decided_us),
        micros(timing.forked_us)
    ));
    if let Some(pause) = timing.mother_pause_us {
        text.push_str(&format!(", mother paused {}", micros(pause)));
    }
    text.push_str(&format!("; intent {}\n", fork.intent));
    text
}
