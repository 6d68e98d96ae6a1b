//! What a person calls a machine: its id, its name, or the end of its id.
//!
//! Invariant: what is meant is one object or none; where it could be two, both are named and nothing is done.

use brood_api::Code;
use brood_api::machine::{Kind, Machine, MachineListQuery};
use brood_client::{Client, ClientError};
use brood_units::MachineId;

use super::failure::Failure;
use super::out::pages;

/// The fewest digits that stand for an id.
const FEWEST: usize = 4;

/// The id of a machine that lives, or any id.
pub(super) fn machine(client: &Client, text: &str) -> Result<MachineId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let machines = list(client, Kind::Machine)?;
    one(&machines, text, "machine").map(|machine| machine.id)
}

/// A machine or a checkpoint.
pub(super) fn either(client: &Client, text: &str) -> Result<Machine, Failure> {
    if let Ok(id) = text.parse::<MachineId>() {
        return match client.show_machine(id) {
            Err(error) if is_not_found(&error) => Ok(client.show_checkpoint(id)?),
            found => Ok(found?),
        };
    }
    let mut all = list(client, Kind::Machine)?;
    all.extend(list(client, Kind::Checkpoint)?);
    one(&all, text, "machine or checkpoint").cloned()
}

fn is_not_found(error: &ClientError) -> bool {
    error
        .problem()
        .is_some_and(|problem| problem.code == Code::NotFound)
}

/// All that live.
pub(super) fn list(client: &Client, kind: Kind) -> Result<Vec<Machine>, Failure> {
    let found = pages(None, |limit, cursor| {
        let query = MachineListQuery {
            limit: Some(limit),
            cursor,
            ..MachineListQuery::default()
        };
        match kind {
            Kind::Machine => client.list_machines(&query),
            Kind::Checkpoint => client.list_checkpoints(&query),
        }
    });
    Ok(found?.items)
}

fn one<'a>(all: &'a [Machine], text: &str, what: &str) -> Result<&'a Machine, Failure> {
    let named = all.iter().find(|one| one.name.as_deref() == Some(text));
    if let Some(named) = named {
        return Ok(named);
    }
    let digits = text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
    let ends =
        |one: &&Machine| digits && text.len() >= FEWEST && one.id.to_string().ends_with(text);
    let meant: Vec<&Machine> = all.iter().filter(ends).collect();
    match meant.as_slice() {
        [one] => Ok(one),
        [] => Err(Failure::not_found(format!(
            "no living {what} has the name '{text}', or an id that ends so; ended ones are named by their whole id"
        ))),
        many => {
            let ids: Vec<String> = many.iter().map(|one| one.id.to_string()).collect();
            Err(Failure::usage(format!(
                "'{text}' is the end of several ids: {}; write more of it",
                ids.join(", ")
            )))
        }
    }
}
