//! What is looked at: the server itself, problems, events, decisions.

use brood_api::event::{Event, EventQuery, Events, Gap};
use brood_api::info::{Health, Info, Limits};
use brood_api::policy::{
    Binding, Bindings, CallCounts, Decision, DecisionLog, DecisionQuery, Decisions, LoggedDecision,
};
use brood_api::{Code, MAX_DAUGHTERS, Registry, RegistryEntry, Time};
use brood_service::engine::{
    Caller, DecisionQuery as StoredQuery, Engine, EngineError, EventsAnswer,
};
use brood_units::{IntentId, MachineId};
use serde::Deserialize;

use crate::answer::Answer;
use crate::call::{Call, bearer, invalid, service_scope};
use crate::fault::{Refusal, problem, refusal};
use crate::stream::{Follow, Source, follow};

const JSON: &str = "application/json";
const STREAM: &str = "text/event-stream";
/// Events of an answer if nobody says.
const EVENTS: u32 = 100;

pub(super) async fn metrics(call: Call) -> Result<Answer, Refusal> {
    let page = call.shared.metrics.scrape().await?;
    Ok(Answer::Text(page.into()))
}

pub(super) fn live() -> Result<Answer, Refusal> {
    Answer::of(&Health {
        status: "ok".to_owned(),
    })
}

/// Ready is who can look into the database and is not about to stop.
pub(super) fn ready(call: &Call) -> Result<Answer, Refusal> {
    if *call.shared.stopping.borrow() {
        let words = "the server is about to stop";
        return Err(refusal(Code::Stopping, words));
    }
    match call.engine().authenticate("") {
        // Nobody has this key, and the database has said so.
        Ok(_) | Err(EngineError::Unauthenticated(_)) => live(),
        Err(error) => Err(problem(error)),
    }
}

pub(super) fn info(call: &Call) -> Result<Answer, Refusal> {
    let caller = call.caller()?;
    let all = brood_api::key::Scope::ALL.iter().copied();
    Answer::of(&Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tenant: caller.tenant().to_owned(),
        project: caller.principal.project.clone(),
        scopes: all
            .filter(|scope| caller.may(service_scope(*scope)).is_ok())
            .collect(),
        last_event: *call.engine().last_event().borrow(),
        limits: Limits {
            daughters: MAX_DAUGHTERS,
            body_bytes: u64::try_from(call.shared.options.body_bytes).unwrap_or(u64::MAX),
        },
    })
}

pub(super) fn problems() -> Result<Answer, Refusal> {
    Answer::of(&Registry::all())
}

pub(super) fn show_problem(call: &Call) -> Result<Answer, Refusal> {
    let word = call.text("code")?;
    let known = Code::ALL.iter().find(|code| code.as_str() == word);
    match known {
        Some(code) => Answer::of(&RegistryEntry::from(*code)),
        None => {
            let words = format!("there is no problem '{}'", word.escape_debug());
            Err(refusal(Code::NotFound, words))
        }
    }
}

pub(super) fn decisions(call: &Call) -> Result<Answer, Refusal> {
    let intent: IntentId = call.id("intent")?;
    let rows = call.engine().decisions(call.caller()?, intent);
    let rows = rows.map_err(problem)?;
    let items = rows.iter().map(|row| {
        serde_json::from_str(&row.body).map_err(|error| {
            let words = format!("a decision of {intent} cannot be read: {error}");
            refusal(Code::Failed, words)
        })
    });
    Answer::of(&Decisions {
        items: items.collect::<Result<_, _>>()?,
    })
}

/// What of a kept decision is beside what was said.
#[derive(Deserialize)]
struct Kept {
    subject: Option<MachineId>,
    #[serde(flatten)]
    decision: Decision,
}

/// Entries of the log behind a number, or the newest.
pub(crate) fn log(
    engine: &Engine,
    caller: &Caller,
    query: &StoredQuery,
    after: Option<i64>,
    limit: u32,
) -> Result<DecisionLog, Refusal> {
    let found = engine.decision_log(caller, query, after, limit);
    let entries = found.map_err(problem)?.into_iter().map(|entry| {
        let kept: Kept = serde_json::from_str(&entry.row.body).map_err(|error| {
            let words = format!("decision {} cannot be read: {error}", entry.seq);
            refusal(Code::Failed, words)
        })?;
        Ok(LoggedDecision {
            number: entry.seq,
            at: Time(entry.row.at),
            tenant: entry.row.tenant,
            intent: entry.row.intent,
            subject: kept.subject,
            decision: kept.decision,
        })
    });
    Ok(DecisionLog {
        items: entries.collect::<Result<_, Refusal>>()?,
    })
}

pub(super) fn decision_log(call: Call) -> Result<Answer, Refusal> {
    let query: DecisionQuery = call.query()?;
    let after = match last_event_id(&call)? {
        Some(last) => Some(last),
        None => query.after.and_then(|after| i64::try_from(after).ok()),
    };
    let caller = call.caller()?;
    let own = || Some(caller.tenant().to_owned());
    let stored = StoredQuery {
        tenant: match query.tenant {
            None => own(),
            Some(tenant) => Some(tenant).filter(|tenant| tenant != "*"),
        },
        machine: query.machine,
        denied: query.denied.unwrap_or(false),
    };
    if call.prefers(JSON, STREAM)? == STREAM {
        // From now on, if nobody says from when.
        let last = log(call.engine(), caller, &stored, None, 1)?;
        let newest = last.items.last().map_or(0, |one| one.number);
        let key = bearer(&call.headers)?.to_owned();
        return Ok(Answer::Stream(follow(Follow {
            shared: call.shared,
            key,
            after: after.unwrap_or(newest),
            source: Source::Decisions(stored),
        })));
    }
    let limit = query.limit.unwrap_or(EVENTS);
    Answer::of(&log(call.engine(), caller, &stored, after, limit)?)
}

fn last_event_id(call: &Call) -> Result<Option<i64>, Refusal> {
    let Some(last) = call.headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = last.to_str().ok().and_then(|last| last.parse::<i64>().ok());
    let number = number.filter(|number| *number >= 0);
    number.map(Some).ok_or_else(|| {
        let words = "it is the number that the stream sent as `id`";
        invalid("Last-Event-ID", words.to_owned())
    })
}

pub(super) fn policies(call: &Call) -> Result<Answer, Refusal> {
    let bound = call.engine().policies(call.caller()?).map_err(problem)?;
    let items = bound.into_iter().map(|(hook, bound)| Binding {
        hook: hook.as_str().to_owned(),
        binding: bound.binding,
        plugin: bound.plugin,
        version: bound.version,
        digest: bound.digest,
        mode: bound.mode,
        order: bound.order,
        on_failure: bound.on_failure,
        tenants: bound.tenants,
        except_tenants: bound.except_tenants,
        trouble: bound.trouble,
        calls: CallCounts {
            answered: bound.calls.answered,
            refused: bound.calls.refused,
            failed: bound.calls.failed,
            failed_open: bound.calls.failed_open,
            fell_back: bound.calls.fell_back,
            agreed: bound.calls.agreed,
            disagreed: bound.calls.disagreed,
            fuel: bound.calls.fuel,
        },
    });
    Answer::of(&Bindings {
        items: items.collect(),
    })
}

pub(super) fn events(call: Call) -> Result<Answer, Refusal> {
    let query: EventQuery = call.query()?;
    let after = match last_event_id(&call)? {
        Some(last) => last,
        None => query
            .after
            .and_then(|after| i64::try_from(after).ok())
            .unwrap_or(0),
    };
    if call.prefers(JSON, STREAM)? == STREAM {
        let key = bearer(&call.headers)?.to_owned();
        return Ok(Answer::Stream(follow(Follow {
            shared: call.shared,
            key,
            after,
            source: Source::Events,
        })));
    }
    let limit = query.limit.unwrap_or(EVENTS);
    Answer::of(&page(call.engine(), call.caller()?, after, limit)?)
}

/// Events behind a number.
pub(crate) fn page(
    engine: &Engine,
    caller: &Caller,
    after: i64,
    limit: u32,
) -> Result<Events, Refusal> {
    let EventsAnswer { gap, events } = engine.events(caller, after, limit).map_err(problem)?;
    let event = |row: brood_service::engine::EventRow| {
        let data = serde_json::from_str(&row.event.data).map_err(|error| {
            let words = format!("event {} cannot be read: {error}", row.seq);
            refusal(Code::Failed, words)
        })?;
        Ok(Event {
            number: row.seq,
            kind: row.event.kind,
            subject: row.event.subject,
            at: Time(row.event.at),
            data,
        })
    };
    Ok(Events {
        gap: gap.map(|until| Gap { until }),
        items: events
            .into_iter()
            .map(event)
            .collect::<Result<_, Refusal>>()?,
    })
}
