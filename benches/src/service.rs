//! The rows of `bench service`: the shipped program as a server of its own, asked over HTTP by a client on this host.
//!
//! `http-fork/256MiB` takes turns with forks of the same guest by a cell alone, so that `overhead` is what HTTP, hooks,
//! supervisor and store add: the difference of two neighbours. A daughter is ended before the next is asked for, outside of
//! the times.

pub(crate) mod client;
pub(crate) mod server;
mod step;

use std::sync::{Arc, Barrier};
use std::time::Instant as Stopwatch;

use anyhow::{Context, ensure};
use brood_cell::Cell;
use brood_cell::protocol::{Checkpoint, Start};
use serde_json::json;

use crate::Shipped;
use crate::host::Host;
use crate::report::Report;
use client::Client;
use server::{LABEL, Server};
use step::Steps;

/// RAM of the machines, MiB.
const RAM_MIB: u64 = 256;
/// Forks of a burst, all at once.
const BURST: usize = 100;
/// Rows of machines that have ended, and machines that live, of which a page is listed by label.
const ENDED: u32 = 9800;
const LIVE: usize = 200;
/// Daughters of one fork where many are made.
const FEW: usize = 50;

/// Where things are, and how many samples are wanted.
pub(crate) struct Plan {
    pub(crate) samples: usize,
    pub(crate) shipped: Shipped,
}

/// Runs every wanted row.
pub(crate) fn run(host: &Host, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let server = Server::start(&plan.shipped.program, &plan.shipped.plugins, ENDED)?;
    let mut client = server.client()?;
    let template = json!({ "name": "bench", "guest": "bare", "memory_mib": RAM_MIB });
    client.call("POST", "/v1/templates", &template)?;
    let machine = json!({ "template": "bench", "name": "mother" });
    let mother = client.call("POST", "/v1/machines", &machine)?;
    let mother = mother["id"].as_str().context("no id")?;
    let forks = format!("/v1/machines/{mother}/forks");
    if plan.shipped.wants("http-fork/256MiB") {
        http_fork(host, &mut client, &forks, plan.samples, report)?;
    }
    if plan.shipped.wants("burst/100") {
        burst(&server, &mut client, &forks, plan.samples, report)?;
    }
    if plan.shipped.wants("list/10000") {
        list(&mut client, &forks, plan.samples, report)?;
    }
    server.stop()
}

/// A fork of one, over HTTP and by the cell alone, in turns.
fn http_fork(
    host: &Host,
    client: &mut Client,
    forks: &str,
    samples: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = "http-fork/256MiB";
    let mut alone = host.bare(RAM_MIB, 1)?;
    alone.first_instruction()?;
    let one = json!({ "count": 1 });
    let mut steps = Steps::default();
    // The first of each finds nothing warm.
    for sample in 0..=samples {
        if sample == 1 {
            steps = Steps::look(client)?;
        }
        let bare = bare_fork(&mut alone)?;
        let begun = Stopwatch::now();
        let forked = client.call("POST", forks, &one)?;
        let latency = micros(begun);
        end(client, &forked)?;
        if sample > 0 {
            report.micros(name, "latency", latency);
            report.micros(name, "bare-fork", bare);
            report.micros(name, "overhead", latency - bare);
            for stage in ["decided_us", "forked_us", "mother_pause_us"] {
                let micros = forked["timing"][stage].as_f64().context("no timing")?;
                let metric = stage.trim_end_matches("_us").replace('_', "-");
                report.micros(name, &metric, micros);
            }
        }
    }
    for (step, micros) in Steps::look(client)?.since(&steps) {
        report.micros(name, &format!("mean/{step}"), micros);
    }
    Ok(())
}

/// From the call to the daughter's first instruction being known, as the engine waits for it.
fn bare_fork(mother: &mut Cell) -> anyhow::Result<f64> {
    let begun = Stopwatch::now();
    let mut fork = mother.fork(1, Checkpoint::Drop, Start::Run)?;
    let mut daughter = fork.daughters.pop().context("no daughter")??;
    daughter.first_instruction()?;
    let took = micros(begun);
    daughter.end()?;
    Ok(took)
}

/// Ends everybody whom a fork brought.
fn end(client: &mut Client, forked: &serde_json::Value) -> anyhow::Result<()> {
    for daughter in forked["daughters"].as_array().context("no daughters")? {
        let id = daughter["machine"]["id"].as_str().context("no id")?;
        client.call("DELETE", &format!("/v1/machines/{id}"), &json!(null))?;
    }
    Ok(())
}

/// So many callers who ask at the same moment, each for one daughter of the same mother.
fn burst(
    server: &Server,
    client: &mut Client,
    forks: &str,
    samples: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = "burst/100";
    for _ in 0..samples.div_ceil(BURST) {
        let start = Arc::new(Barrier::new(BURST + 1));
        let callers: Vec<_> = (0..BURST)
            .map(|_| {
                let (mut client, start, forks) =
                    (server.client()?, Arc::clone(&start), forks.to_owned());
                Ok(std::thread::spawn(move || {
                    start.wait();
                    let begun = Stopwatch::now();
                    let forked = client.call("POST", &forks, &json!({ "count": 1 }));
                    (forked, micros(begun))
                }))
            })
            .collect::<anyhow::Result<_>>()?;
        start.wait();
        let begun = Stopwatch::now();
        let mut answers = Vec::new();
        for caller in callers {
            let answer = caller.join().ok().context("a caller broke off")?;
            answers.push(answer);
        }
        let took = begun.elapsed().as_secs_f64();
        report.count(name, "forks-per-second", BURST as f64 / took);
        let mut failed = 0.0;
        for (forked, latency) in answers {
            match forked {
                Ok(forked) => {
                    report.micros(name, "latency", latency);
                    end(client, &forked)?;
                }
                Err(error) => {
                    eprintln!("{name}: {error:#}");
                    failed += 1.0;
                }
            }
        }
        report.count(name, "failed", failed);
    }
    Ok(())
}

/// A page of 100 by label.
fn list(
    client: &mut Client,
    forks: &str,
    samples: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = "list/10000";
    let (key, value) = LABEL;
    for _ in 0..LIVE / FEW {
        let spec = json!({ "count": FEW, "labels": { key: value } });
        client.call("POST", forks, &spec)?;
    }
    let path = format!("/v1/machines?limit=100&label={key}%3D{value}");
    for _ in 0..samples {
        let begun = Stopwatch::now();
        let page = client.call("GET", &path, &json!(null))?;
        let latency = micros(begun);
        let items = page["items"].as_array().context("no items")?;
        ensure!(items.len() == 100, "{} of 100 were listed", items.len());
        report.micros(name, "latency", latency);
    }
    Ok(())
}

fn micros(since: Stopwatch) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}
