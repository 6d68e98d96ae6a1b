//! The demo: `brood up` as a server of its own, and one lineage from boot to its bill, driven with the command line.
//!
//! Boot a template, claim a mother of it, start a workload in her that counts in memory and on disk, fork her live into
//! eight daughters, show what each policy said, talk to each daughter, be denied, fork a daughter again, keep a checkpoint,
//! let time pass, fork the past, claim from the warm pool, show the bill and the tree, end everything and count what is left.
//!
//! Invariant: every line that is shown with a `$` is run as it stands, by a person's means: the program, the server's address
//! and a key. Every number is measured in this run.
//!
//! Machines that have shown what they can are paused: a workload that never rests would slow the rest of the demo.

mod command;
mod residue;
mod server;
mod step;

use std::path::Path;

use anyhow::ensure;
use serde_json::{Value, json};

use command::Command;
use server::Server;

/// What the demo is made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// A directory made by `brood prepare`.
    pub files: &'a Path,
    /// The file that binds plugins to hooks.
    pub policy: &'a Path,
    /// The directory with the components that it names.
    pub plugins: &'a Path,
}

/// Runs the demo. With `json` the last line of standard output is one object.
///
/// # Errors
/// Any step that does not do what it should.
pub fn run(sources: &Sources<'_>, json: bool) -> anyhow::Result<()> {
    let before = residue::look()?;
    let directory = tempfile::Builder::new().prefix("brood-demo-").tempdir()?;
    say("start a server: brood up");
    let server = Server::start(sources, &directory.path().join("state"))?;
    let shown = lineage(&server.command()?)?;
    server.stop()?;
    directory.close()?;
    let left = residue::look()?.beyond(&before);
    println!("left behind: {}", left.describe());
    if json {
        let mut shown = shown;
        if let Some(all) = shown.as_object_mut() {
            all.insert("left_behind".to_owned(), left.count().into());
        }
        println!("{shown}");
    }
    ensure!(left.count() == 0, "something was left behind");
    Ok(())
}

/// Builds the whole lineage, shows it and ends it; what there is to say of it in JSON.
fn lineage(brood: &Command) -> anyhow::Result<Value> {
    say("boot a template with a stock kernel, seal it, and claim a mother from its warm pool");
    let boot_us = step::boot(brood)?;

    say("start a workload in her that counts, in memory and on her disk");
    step::start_workload(brood)?;

    say("fork the running machine into 8 daughters");
    let fork = step::fork_live(brood)?;

    say("what policies said of that");
    let decisions = step::decisions(brood, &fork)?;

    say("talk to each daughter");
    let answers = step::talk(brood, &fork, boot_us)?;

    say("ask for more daughters than the policy allows");
    let denied = step::denied(brood)?;

    say("fork a daughter again");
    step::granddaughter(brood, &fork)?;

    say("keep a checkpoint, let time pass, fork the past");
    let past = step::past(brood)?;

    say("claim again from the warm pool");
    step::claim(brood)?;

    say(
        "what that comes to: usage is counted by the kernel's clocks, and rated by the billing policy",
    );
    let bill = step::bill(brood)?;

    say("the lineages, with what each machine costs");
    println!("{}", brood.show(&["tree"])?);
    let trees = brood.quietly(&["tree"])?;

    say("end everything");
    step::end_all(brood)?;
    Ok(json!({
        "boot_us": boot_us,
        "fork": fork.timing(),
        "answers": answers,
        "decisions": decisions,
        "denied": denied,
        "past": past,
        "bill": bill,
        "lineages": trees["items"],
    }))
}

fn say(what: &str) {
    println!("● {what}");
}
