//! Gives a daughter its identity. Invariant: steps are taken in the order of [`StampStep`], the first failure ends the
//! stamp, and nothing of the workload runs meanwhile. Randomness comes first, so that every later step that draws a
//! random number draws this daughter's own; given files come after what the agent writes itself, so that they win.

pub(crate) mod env_file;
mod identity;
pub(crate) mod path;
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use brood_agent_proto::AgentError;
use brood_agent_proto::blob::EnvMap;
use brood_agent_proto::errno::Errno;
use brood_agent_proto::fork::{ConfirmReport, StampReport, StampSpec, StampStep, StepReport};

use crate::agent::Agent;
use crate::fail;
use crate::freezer::Freezer;
use crate::serial::enter;
use crate::system::System;

/// Why a step failed.
pub(crate) struct StepError {
    pub(crate) errno: Errno,
    pub(crate) detail: String,
}

impl StepError {
    /// `error` came from `what`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let detail = what.into();
        move |error| Self {
            errno: Errno::from(&error),
            detail,
        }
    }

    /// A value of the stamp makes no sense.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self {
            errno: Errno(libc::EINVAL),
            detail: detail.into(),
        }
    }
}

/// What a step applied, in a few words.
pub(crate) type Applied = Result<String, StepError>;

/// A stamp being applied.
pub(crate) struct Stamp<'a> {
    pub(crate) spec: &'a StampSpec,
    /// Below this are the files.
    pub(crate) root: &'a Path,
    pub(crate) system: &'a dyn System,
    pub(crate) freezer: &'a mut Freezer,
    /// The environment of later exec sessions.
    pub(crate) env: EnvMap,
    /// By when all programs must have ended.
    pub(crate) deadline: Instant,
    /// Where programs run, once one has.
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) clock: (u64, u64),
}

/// Applies `spec`.
pub(crate) fn apply(
    agent: &Agent,
    freezer: &mut Freezer,
    spec: &StampSpec,
) -> Result<StampReport, AgentError> {
    let mut env = enter(&agent.env).clone();
    env.extend(&spec.env);
    let now = Instant::now();
    let mut stamp = Stamp {
        spec,
        root: &agent.options.root_prefix,
        system: agent.system.as_ref(),
        freezer,
        env,
        deadline: now
            .checked_add(Duration::from_millis(u64::from(spec.hook_timeout_ms)))
            .unwrap_or(now),
        cgroup: None,
        clock: (0, 0),
    };
    let steps = stamp.run();
    stamp.leave_cgroup();
    let steps = steps?;
    let (clock_before_ns, clock_after_ns) = stamp.clock;
    *enter(&agent.env) = stamp.env;
    Ok(StampReport {
        steps,
        clock_before_ns,
        clock_after_ns,
        host_monotonic_ns: spec.host_monotonic_ns,
    })
}

type Step<'a> = (StampStep, fn(&mut Stamp<'a>) -> Applied);

impl<'a> Stamp<'a> {
    const STEPS: [Step<'a>; 13] = [
        (StampStep::Validate, Self::validate),
        (StampStep::Entropy, Self::entropy),
        (StampStep::Clock, Self::clock),
        (StampStep::Hostname, Self::hostname),
        (StampStep::MachineId, Self::machine_id),
        (StampStep::BootId, Self::boot_id),
        (StampStep::Env, Self::env),
        (StampStep::Identity, Self::identity),
        (StampStep::SshHostKeys, Self::ssh_host_keys),
        (StampStep::Files, Self::files),
        (StampStep::Generation, Self::generation),
        (StampStep::Hooks, Self::hooks),
        (StampStep::Commands, Self::commands),
    ];

    fn run(&mut self) -> Result<Vec<StepReport>, AgentError> {
        let mut reports = Vec::with_capacity(Self::STEPS.len());
        for (step, take) in Self::STEPS {
            let start = Instant::now();
            let applied = take(self).map_err(|error| AgentError::StampFailed {
                step,
                errno: error.errno,
                detail: error.detail,
            })?;
            reports.push(StepReport {
                step,
                took_ns: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
                applied,
            });
        }
        Ok(reports)
    }
}

/// Who this machine is, as the workload will see it.
pub(crate) fn confirm(agent: &Agent) -> Result<ConfirmReport, AgentError> {
    let path = path::below(&agent.options.root_prefix, identity::MACHINE_ID);
    let machine_id =
        fs::read_to_string(path).map_err(|error| fail::os("reading machine-id", &error))?;
    let clocks = agent.system.clocks();
    Ok(ConfirmReport {
        hostname: agent.system.hostname(),
        machine_id: machine_id.trim_end().to_owned(),
        boot_id: agent
            .system
            .boot_id()
            .map_err(|error| fail::os("reading boot_id", &error))?,
        random: agent
            .system
            .random()
            .map_err(|error| fail::os("getrandom", &error))?,
        realtime_ns: clocks.realtime_ns,
        monotonic_ns: clocks.monotonic_ns,
    })
}
