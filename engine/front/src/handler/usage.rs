//! Usage and the ledger.
//!
//! Invariant: lines are sent as they are read, some hundred at a time; what goes wrong after the first of them is a connection
//! that breaks off, since the status has been sent.

use std::collections::BTreeMap;
use std::io;

use axum::body::{Body, Bytes};
use brood_api::Code;
use brood_api::usage::{
    Balance, BudgetVerdict, ChainCheck, Corrected, CorrectionSpec, Credit, CreditSpec, DeadBatch,
    DeadBatches, Difference, Purse, PutBack, PutBackSpec, Rated, ReplaySpec, Replayed, UsageFormat,
    UsageQuery, UsageRows,
};
use brood_service::engine::usage::{
    Correction, CreditRow, GroupBy, Period, PostCredit, UsageFilter, Whose,
};
use brood_service::engine::{Caller, Engine, now};
use brood_units::Timestamp;
use futures_util::stream;

use crate::answer::Answer;
use crate::call::{Call, invalid};
use crate::fault::{Refusal, problem, refusal};
use crate::usage::{line, money, record, row, summary};

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

fn period(name: &str, words: Option<&str>) -> Result<Period, Refusal> {
    match words {
        None => Ok(Period::of(now().as_millis())),
        Some(words) => {
            words
                .parse()
                .map_err(|error: brood_service::engine::usage::ParsePeriodError| {
                    invalid(name, error.to_string())
                })
        }
    }
}

fn filter(query: &UsageQuery) -> UsageFilter {
    UsageFilter {
        whose: match query.tenant.as_deref() {
            None => Whose::Own,
            Some("*") => Whose::All,
            Some(tenant) => Whose::Tenant(tenant.to_owned()),
        },
        project: query.project.clone(),
        lineage: query.lineage,
        template: query.template,
        machine: query.machine,
        label: query
            .label()
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    }
}

fn by(query: &UsageQuery) -> GroupBy {
    match query.by.as_deref() {
        Some("tenant") => GroupBy::Tenant,
        Some("project") => GroupBy::Project,
        Some("lineage") => GroupBy::Lineage,
        Some("template") => GroupBy::Template,
        Some("machine") => GroupBy::Machine,
        Some(label) => label
            .strip_prefix("label:")
            .map_or(GroupBy::All, |key| GroupBy::Label(key.to_owned())),
        None => GroupBy::All,
    }
}

/// Reading a month may take as long as a disk does, so it is not done where requests are served.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(refusal(
            Code::Failed,
            format!("reading usage broke off: {error}"),
        ))
    })
}

pub(super) async fn show(call: &Call) -> Result<Answer, Refusal> {
    let query: UsageQuery = call.query()?;
    let period = period("period", query.period.as_deref())?;
    let format = query.format.unwrap_or_default();
    let (engine, caller) = (call.engine().clone(), call.caller()?.clone());
    if format == UsageFormat::Summary {
        let found = apart(move || {
            let found = engine.usage_summary(&caller, &filter(&query), &by(&query), period);
            found.map_err(problem)
        });
        return Answer::of(&summary(found.await?));
    }
    let mut lines = Lines {
        engine,
        caller,
        filter: filter(&query),
        period,
        format,
        rows: query.rows.unwrap_or_default(),
        after: query.after.unwrap_or(0),
        is_first: true,
    };
    // What is wrong with the request is a problem and no stream that breaks off.
    let (first, rest) = apart(move || lines.next().map(|first| (first, lines))).await?;
    let media = if format == UsageFormat::Csv {
        CSV
    } else {
        NDJSON
    };
    let pieces = stream::unfold(Some((Some(first), rest)), |state| async move {
        let (first, mut rest) = state?;
        if let Some(first) = first {
            let goes_on = first.1;
            return Some((Ok(Bytes::from(first.0)), goes_on.then_some((None, rest))));
        }
        let next = apart(move || rest.next().map(|next| (next, rest))).await;
        match next {
            Ok(((text, goes_on), rest)) => {
                Some((Ok(Bytes::from(text)), goes_on.then_some((None, rest))))
            }
            Err(error) => Some((Err(io::Error::other(error.detail)), None)),
        }
    });
    Ok(Answer::Lines(media, Body::from_stream(pieces)))
}

/// What is still to be sent.
struct Lines {
    engine: Engine,
    caller: Caller,
    filter: UsageFilter,
    period: Period,
    format: UsageFormat,
    rows: UsageRows,
    after: i64,
    is_first: bool,
}

impl Lines {
    /// The next piece of text, and whether there is more behind it.
    fn next(&mut self) -> Result<(String, bool), Refusal> {
        let mut text = String::new();
        let next = match self.rows {
            UsageRows::Records => self.records(&mut text)?,
            UsageRows::Lines => self.lines(&mut text)?,
        };
        self.is_first = false;
        self.after = next.unwrap_or(self.after);
        Ok((text, next.is_some()))
    }

    fn records(&self, text: &mut String) -> Result<Option<i64>, Refusal> {
        let at = |millis| Timestamp::from_millis(millis);
        let span = (at(self.period.start_ms()), at(self.period.end_ms()));
        let found = self
            .engine
            .usage_records(&self.caller, &self.filter, span, self.after);
        let found = found.map_err(problem)?;
        self.write(text, &row::RECORD, found.items.into_iter().map(record))?;
        Ok(found.next)
    }

    fn lines(&self, text: &mut String) -> Result<Option<i64>, Refusal> {
        let found = self
            .engine
            .usage_lines(&self.caller, &self.filter, self.period, self.after);
        let found = found.map_err(problem)?;
        self.write(text, &row::LINE, found.items.into_iter().map(line))?;
        Ok(found.next)
    }

    fn write<T: serde::Serialize>(
        &self,
        text: &mut String,
        columns: &[&str],
        items: impl Iterator<Item = T>,
    ) -> Result<(), Refusal> {
        if self.format == UsageFormat::Csv && self.is_first {
            text.push_str(&columns.join(","));
            text.push_str("\r\n");
        }
        for item in items {
            let json = serde_json::to_value(&item).map_err(|error| {
                refusal(
                    Code::Failed,
                    format!("a line cannot be written down: {error}"),
                )
            })?;
            match self.format {
                UsageFormat::Csv => row::csv(text, columns, &json),
                _ => {
                    text.push_str(&json.to_string());
                    text.push('\n');
                }
            }
        }
        Ok(())
    }
}

pub(super) async fn correct(call: &Call) -> Result<Answer, Refusal> {
    let spec: CorrectionSpec = call.body()?;
    let correction = Correction {
        span_us: spec.span_us,
        cpu_ns: spec.cpu_ns,
        private_kib: spec.private_kib,
    };
    let made = call
        .engine()
        .correct_usage(call.caller()?, spec.record, correction)
        .await;
    Answer::of(&Corrected {
        record: made.map_err(problem)?,
        corrects: spec.record,
    })
}

pub(super) async fn check(call: &Call) -> Result<Answer, Refusal> {
    let (engine, caller) = (call.engine().clone(), call.caller()?.clone());
    let seen = apart(move || engine.verify_usage(&caller).map_err(problem)).await?;
    Answer::of(&ChainCheck {
        records: seen.records,
        anchor: seen.anchor,
        hash: seen.hash.to_string(),
        breaks: seen.breaks.iter().map(ToString::to_string).collect(),
    })
}

pub(super) async fn rate(call: &Call) -> Result<Answer, Refusal> {
    let rated = call
        .engine()
        .rate_at_once(call.caller()?)
        .await
        .map_err(problem)?;
    Answer::of(&Rated {
        settled: rated.settled,
        held: rated.held,
        dead: rated.dead,
    })
}

pub(super) async fn replay(call: &Call) -> Result<Answer, Refusal> {
    let spec: ReplaySpec = call.body()?;
    let period = period("/period", Some(&spec.period))?;
    let replayed = call.engine().replay_usage(call.caller()?, period).await;
    let replayed = replayed.map_err(problem)?;
    let different = replayed.different.into_iter();
    Answer::of(&Replayed {
        identical: replayed.identical,
        lines: replayed.lines,
        different: different
            .map(|(batch, why)| Difference { batch, why })
            .collect(),
        open: replayed.open,
    })
}

pub(super) fn dead(call: &Call) -> Result<Answer, Refusal> {
    let found = call
        .engine()
        .dead_batches(call.caller()?)
        .map_err(problem)?;
    let items = found.into_iter().map(|row| DeadBatch {
        batch: row.sequence,
        tenant: row.batch.tenant,
        period: Period::of(row.batch.period_ms).to_string(),
        attempts: row.attempts,
        trouble: row.trouble,
    });
    Answer::of(&DeadBatches {
        items: items.collect(),
    })
}

pub(super) async fn put_back(call: &Call) -> Result<Answer, Refusal> {
    let spec: PutBackSpec = call.body()?;
    let put = call.engine().put_back(call.caller()?, spec.batch).await;
    Answer::of(&PutBack {
        batches: put.map_err(problem)? as u64,
    })
}

pub(super) async fn post_credit(mut call: Call) -> Result<Answer, Refusal> {
    let spec: CreditSpec = call.body()?;
    let Some(idempotency) = call.idempotency() else {
        let words = "a credit is posted under a key of its own, so that it is posted once: send an Idempotency-Key";
        return Err(invalid("Idempotency-Key", words.to_owned()));
    };
    let post = PostCredit {
        tenant: call.text("tenant")?.to_owned(),
        key: idempotency.key,
        nanos: spec.nanos().unwrap_or(0),
        currency: spec.currency,
        note: spec.note,
    };
    let posted = call.engine().post_credit(call.caller()?, post).await;
    Answer::of(&credit(posted.map_err(problem)?))
}

fn credit(row: CreditRow) -> Credit {
    Credit {
        entry: row.seq,
        tenant: row.credit.tenant,
        key: row.credit.key,
        currency: row.credit.currency,
        amount: money(row.credit.nanos.into()),
        note: row.credit.note,
        at: brood_api::Time(row.at),
    }
}

pub(super) fn balance(call: &Call) -> Result<Answer, Refusal> {
    let whose = Whose::Tenant(call.text("tenant")?.to_owned());
    let found = call
        .engine()
        .balance(call.caller()?, &whose)
        .map_err(problem)?;
    let balances: BTreeMap<_, _> = found.balances;
    let purse = |(currency, (spent, credit)): (String, (i64, i64))| Purse {
        currency,
        spent: money(spent.into()),
        credit: money(credit.into()),
    };
    Answer::of(&Balance {
        purses: balances.into_iter().map(purse).collect(),
        budget: found.budget.map(|budget| BudgetVerdict {
            left: money(budget.left_nanos.into()),
            action: budget.action,
            message: budget.message,
            at: brood_api::Time(budget.at),
        }),
        credits: found.credits.into_iter().map(credit).collect(),
    })
}
