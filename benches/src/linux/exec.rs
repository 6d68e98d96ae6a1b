//! The row `linux/exec`: a program's start, output and end over HTTP, against the same over vsock alone.
//!
//! The two take turns, in two machines of the same shape: what HTTP adds is the server's way to the agent, the questions it
//! asks before and after, and two commits.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use brood_agent_proto::exec::{ExecSpec, ExecState};
use brood_service::machine::Machine;
use serde_json::json;

use super::SIZE;
use crate::report::Report;
use crate::service::server::Server;

/// Programs of each kind.
const PROGRAMS: usize = 30;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "linux/exec";

/// Times programs in `alone`, a machine of this process, and in one of a server of its own.
pub(super) fn run(
    alone: &mut Machine,
    (program, files): (&Path, &Path),
    report: &mut Report,
) -> anyhow::Result<()> {
    eprintln!("{NAME}");
    let server = Server::start_linux(program, files)?;
    let mut client = server.client()?;
    let template = json!({ "name": "linux", "memory_mib": SIZE.ram_mib });
    client.call("POST", "/v1/templates", &template)?;
    let machine = client.call("POST", "/v1/machines", &json!({ "template": "linux" }))?;
    let id = machine["id"].as_str().context("no id")?;
    let execs = format!("/v1/machines/{id}/execs");
    let argv = ["echo", "said"];
    // The first of each finds nothing warm.
    for sample in 0..=PROGRAMS {
        let begun = Instant::now();
        let ran = alone
            .agent()?
            .run(&ExecSpec::new(argv), PATIENCE, 1 << 10)?;
        let vsock = micros(begun);
        ensure!(ran.state == ExecState::Exited { code: 0 }, "{ran:?}");
        let begun = Instant::now();
        let ran = client.call("POST", &execs, &json!({ "argv": argv }))?;
        let http = micros(begun);
        ensure!(ran["stdout"] == "said\n", "{ran}");
        if sample > 0 {
            report.micros(NAME, "vsock", vsock);
            report.micros(NAME, "http", http);
        }
    }
    let mut median = |metric: &str| report.median(NAME, metric).context("no samples");
    let ratio = median("http")? / median("vsock")?;
    report.ratio(NAME, "http/vsock", ratio);
    server.stop()
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}
