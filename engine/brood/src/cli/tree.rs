//! `brood tree`

use std::collections::BTreeSet;
use std::process::ExitCode;

use brood_api::Code;
use brood_api::machine::{Kind, Tree, TreeQuery};
use brood_client::Client;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::forest::{Shown, draw};
use super::name;
use super::out::Out;
use super::time::now;

/// With what each costs.
const COST: TreeQuery = TreeQuery { stats: Some(true) };

/// `brood tree`
#[derive(Args)]
pub struct Arguments {
    /// Whose lineage: an id, a name, or the end of an id; all that have somebody alive if not said.
    machine: Option<String>,
    /// Show those that have ended as well. In JSON they are always there.
    #[arg(short, long)]
    all: bool,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let shown = if self.all { Shown::All } else { Shown::Living };
        match self.machine {
            Some(machine) => {
                let id = name::machine(client, &machine)?;
                let tree = client.show_tree(id, COST)?;
                out.answer(&tree, || draw(std::slice::from_ref(&tree), shown, now()))?;
            }
            None => {
                let trees = living(client)?;
                let answer = serde_json::json!({ "items": trees });
                out.answer(&answer, || draw(&trees, shown, now()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Each lineage in which somebody lives.
pub(super) fn living(client: &Client) -> Result<Vec<Tree>, Failure> {
    let (mut seen, mut trees) = (BTreeSet::new(), Vec::new());
    let machines = name::list(client, Kind::Machine)?;
    let points = name::list(client, Kind::Checkpoint)?;
    for one in machines.iter().chain(&points) {
        if !seen.insert(one.lineage) {
            continue;
        }
        match client.show_tree(one.id, COST) {
            Ok(tree) => trees.push(tree),
            // It went meanwhile.
            Err(error)
                if error
                    .problem()
                    .is_some_and(|one| one.code == Code::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(trees)
}
