//! `brood usage`

use std::io::Read;
use std::process::ExitCode;

use brood_api::usage::{
    ChainCheck, CorrectionSpec, Replayed, UsageFormat, UsageGroup, UsageQuery, UsageRows,
    UsageSummary,
};
use brood_client::Client;
use brood_units::MachineId;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::out::{self, BOLD, Out, PLAIN, Table, styled};

/// `brood usage`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Args)]
struct Shown {
    /// The calendar month in UTC, as in 2026-11; this one if not said.
    #[arg(long)]
    period: Option<String>,
    /// Sum up apart: tenant, project, lineage, template, machine, or label:KEY.
    #[arg(long, value_name = "WHAT")]
    by: Option<String>,
    /// Of this tenant, or `*` for all; wants an operator's key.
    #[arg(long)]
    tenant: Option<String>,
    /// Only of this project.
    #[arg(long)]
    project: Option<String>,
    /// Only of this lineage.
    #[arg(long, value_name = "ID")]
    lineage: Option<MachineId>,
    /// Only of machines of this template.
    #[arg(long, value_name = "ID")]
    template: Option<MachineId>,
    /// Only of this machine, alive or ended.
    #[arg(long, value_name = "ID")]
    machine: Option<MachineId>,
    /// Only of machines with this label.
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Option<String>,
    /// Print each record of a machine's window as a row of CSV.
    #[arg(long)]
    csv: bool,
    /// Rated lines instead of records; as JSON objects, one a line, without --csv.
    #[arg(long)]
    lines: bool,
    /// Records, as JSON objects, one a line.
    #[arg(long, conflicts_with_all = ["csv", "lines"])]
    ndjson: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Rate a month once more and compare; nothing is changed. The status is 1 if anything came out differently.
    Replay {
        /// The month, as in 2026-11.
        period: String,
    },
    /// Look through all records for one that is not what was written. The status is 1 if there is one.
    Check,
    /// Count and rate now what would be later.
    Rate,
    /// Put a record right: what was billed of it is taken back and billed anew.
    Correct {
        /// Its number.
        record: i64,
        /// Its length, microseconds.
        #[arg(long)]
        span_us: Option<u64>,
        /// CPU time in it, nanoseconds.
        #[arg(long)]
        cpu_ns: Option<u64>,
        /// Memory that nobody shared with her, KiB.
        #[arg(long)]
        private_kib: Option<u64>,
    },
    /// List batches that were tried in vain too often.
    Dead,
    /// Have them tried again.
    PutBack {
        /// This one; all if not said.
        batch: Option<i64>,
    },
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self.verb {
            None => self.shown.run(client, out),
            Some(verb) => verb.run(client, out),
        }
    }
}

impl Shown {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let query = UsageQuery {
            period: self.period,
            format: self.csv.then_some(UsageFormat::Csv),
            rows: self.lines.then_some(UsageRows::Lines),
            tenant: self.tenant,
            project: self.project,
            lineage: self.lineage,
            template: self.template,
            machine: self.machine,
            label: self.label,
            by: self.by,
            after: None,
        };
        if self.csv || self.lines || self.ndjson {
            let mut reader = client.read_usage(&query)?;
            let mut piece = vec![0; 64 << 10];
            loop {
                let read = reader.read(&mut piece)?;
                if read == 0 {
                    return Ok(ExitCode::SUCCESS);
                }
                out::raw(piece.get(..read).unwrap_or_default())?;
            }
        }
        let summary = client.show_usage(&query)?;
        out.answer(&summary, || draw(&summary))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verb {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self {
            Self::Replay { period } => {
                let replayed = client.replay_usage(&period)?;
                out.answer(&replayed, || compared(&replayed))?;
                Ok(good(replayed.different.is_empty()))
            }
            Self::Check => {
                let seen = client.check_usage()?;
                out.answer(&seen, || looked_through(&seen))?;
                Ok(good(seen.breaks.is_empty()))
            }
            Self::Rate => {
                let rated = client.rate_usage()?;
                out.answer(&rated, || {
                    format!(
                        "{} rated, {} held, {} dead\n",
                        rated.settled, rated.held, rated.dead
                    )
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Correct {
                record,
                span_us,
                cpu_ns,
                private_kib,
            } => {
                let corrected = client.correct_usage(&CorrectionSpec {
                    record,
                    span_us,
                    cpu_ns,
                    private_kib,
                })?;
                out.answer(&corrected, || {
                    format!("record {} corrects {record}\n", corrected.record)
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Dead => {
                let dead = client.list_dead_batches()?;
                out.answer(&dead, || {
                    let mut table =
                        Table::new(&["BATCH", "TENANT", "PERIOD", "TRIED", "WHY IN VAIN"]);
                    for one in &dead.items {
                        table.row([
                            (BOLD, one.batch.to_string()),
                            (PLAIN, one.tenant.clone()),
                            (PLAIN, one.period.clone()),
                            (PLAIN, one.attempts.to_string()),
                            (PLAIN, one.trouble.clone()),
                        ]);
                    }
                    table.draw()
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Self::PutBack { batch } => {
                let put = client.put_back_batches(batch)?;
                out.answer(&put, || format!("{} put back\n", put.batches))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn compared(replayed: &Replayed) -> String {
    let (same, lines) = (replayed.identical, replayed.lines);
    let mut text = format!("{same} batches with {lines} lines are identical\n");
    for one in &replayed.different {
        let why = out::plain(&one.why);
        text.push_str(&format!("batch {} differs: {why}\n", one.batch));
    }
    if replayed.open > 0 {
        text.push_str(&format!("{} batches were not rated yet\n", replayed.open));
    }
    text
}

fn looked_through(seen: &ChainCheck) -> String {
    let mut text = format!(
        "{} records, hash {}\n",
        seen.records,
        out::plain(&seen.hash)
    );
    if seen.anchor > 0 {
        text.push_str(&format!(
            "records up to {} are no longer kept\n",
            seen.anchor
        ));
    }
    for one in &seen.breaks {
        text.push_str(&format!("{}\n", out::plain(one)));
    }
    text
}

fn good(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn draw(summary: &UsageSummary) -> String {
    let mut table = Table::new(&[
        "",
        "VCPU-HOURS",
        "CPU-HOURS",
        "GIB-HOURS",
        "PRIVATE",
        "FORKS",
    ]);
    let name = |group: &UsageGroup| match group.group.as_str() {
        "" => summary.period.clone(),
        name => name.to_owned(),
    };
    for group in &summary.groups {
        let measured = &group.measured;
        let cells = [
            &measured.vcpu_hours,
            &measured.cpu_hours,
            &measured.gib_hours,
            &measured.private_gib_hours,
            &measured.forks,
        ];
        let cells = cells.map(|cell| (PLAIN, cell.clone()));
        table.row([(BOLD, name(group))].into_iter().chain(cells));
    }
    let mut text = table.draw();
    let mut bill = Table::new(&["", "ITEM", "UNITS", "AMOUNT", "", "LINES"]);
    for group in &summary.groups {
        for charge in &group.charges {
            bill.row([
                (BOLD, name(group)),
                (PLAIN, charge.item.clone()),
                (PLAIN, charge.units.clone()),
                (PLAIN, charge.amount.clone()),
                (PLAIN, charge.currency.clone()),
                (PLAIN, charge.lines.to_string()),
            ]);
        }
    }
    if summary.totals.is_empty() {
        text.push_str("\nnothing is billed\n");
    } else {
        text.push('\n');
        text.push_str(&bill.draw());
    }
    for sum in &summary.totals {
        let total = format!("total {} {}", sum.amount, sum.currency);
        text.push_str(&format!("{}\n", styled(BOLD, &out::plain(&total))));
    }
    let waits = [
        (summary.unsealed, "records are not rated yet"),
        (summary.held, "batches are held until they can be rated"),
        (
            summary.dead,
            "batches wait for an operator: brood usage dead",
        ),
    ];
    for (count, words) in waits.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("{count} {words}\n"));
    }
    text
}
