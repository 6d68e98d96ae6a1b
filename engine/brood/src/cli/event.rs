//! `brood events`

use std::process::ExitCode;

use brood_api::event::{Event, EventQuery, Gap};
use brood_client::{Client, Followed};
use clap::Args;
use serde::Serialize;

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, DIM, Out, plain, styled};
use super::time::clock;

/// `brood events`
#[derive(Args)]
pub struct Arguments {
    /// Go on with what happens from now on; in JSON one object a line.
    #[arg(short, long)]
    follow: bool,
    /// Begin behind the event of this number; 0, the beginning, if not said.
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// At most so many; 100 if not said.
    #[arg(long, value_name = "COUNT", conflicts_with = "follow")]
    limit: Option<u32>,
}

/// What a follower shows of a gap.
#[derive(Serialize)]
struct Missed<'a> {
    gap: &'a Gap,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        if self.follow {
            for told in client.follow(self.after.unwrap_or(0))? {
                match told? {
                    Followed::Event(event) => out.answer(&event, || line(&event))?,
                    Followed::Gap(gap) => out.answer(&Missed { gap: &gap }, || missed(&gap))?,
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        let query = EventQuery {
            after: self.after,
            limit: self.limit,
        };
        let events = client.events(&query)?;
        out.answer(&events, || {
            let gap = events.gap.as_ref().map(missed);
            gap.into_iter()
                .chain(events.items.iter().map(line))
                .collect()
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn line(event: &Event) -> String {
    let number = styled(DIM, &format!("{:>6}", event.number));
    let kind = styled(BOLD, &format!("{:<20}", plain(&event.kind)));
    let (at, subject) = (clock(event.at), event.subject);
    format!("{number}  {at}  {kind}  {subject}  {}\n", event.data)
}

fn missed(gap: &Gap) -> String {
    format!("events until {} are gone\n", gap.until)
}
