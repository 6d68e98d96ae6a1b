//! Programs in a machine, run to their end.
//!
//! Invariant: output is taken up to a bound, and what was lost of it is said.

use std::collections::BTreeMap;
use std::time::Duration;

use brood_agent_proto::exec::{ExecSpec, ExecState};
use brood_units::MachineId;

use super::life::Living;
use super::owner::After;
use super::{Caller, Engine, EngineError, Scope};

/// The most output of one program that is answered.
const OUTPUT_BYTES: usize = 1 << 20;
/// How long a program may run if nobody says.
const TIMEOUT_MS: u64 = 60_000;
/// How much longer than the program the conversation with the agent may last.
const GRACE: Duration = Duration::from_secs(30);

/// A program to run.
#[derive(Clone, Debug)]
pub struct RunProgram {
    /// It and its arguments.
    pub argv: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// Who runs it.
    pub user: Option<String>,
    /// How long it may run, milliseconds.
    pub timeout_ms: Option<u64>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAnswer {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether its time was over.
    pub timed_out: bool,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Bytes of either that are lost.
    pub lost: u64,
}

impl Engine {
    /// Runs a program in a machine with an agent, to its end.
    ///
    /// # Errors
    /// There is no such machine, it has no agent, or the program cannot be started.
    pub async fn run(
        &self,
        caller: &Caller,
        id: MachineId,
        program: RunProgram,
    ) -> Result<RunAnswer, EngineError> {
        caller.may(Scope::Write)?;
        if program.argv.first().is_none_or(String::is_empty) {
            let words = "argv is empty: name a program";
            return Err(EngineError::Invalid(words.to_owned()));
        }
        let row = self.living(caller, id)?;
        let _busy = self.busy(id);
        let living = Living::of(&row.born);
        // Another conversation with the agent, so that the machine is not away while the program runs.
        let agent = self
            .work_with(living, move |mut guest| {
                let agent = match guest.linux() {
                    Some(machine) => machine.connect().map_err(|error| EngineError::failed(&error)),
                    None => Err(EngineError::Conflict(format!(
                        "{id} has no agent that could run programs: use a template with a Linux guest"
                    ))),
                };
                (agent, After::back(guest))
            })
            .await?;
        let run = move || run(agent, program);
        let ran = tokio::task::spawn_blocking(run).await;
        ran.unwrap_or_else(|error| Err(EngineError::Failed(error.to_string())))
    }
}

fn run(
    mut agent: brood_agent_proto::Client,
    program: RunProgram,
) -> Result<RunAnswer, EngineError> {
    let timeout_ms = program.timeout_ms.unwrap_or(TIMEOUT_MS);
    let mut spec = ExecSpec::new(program.argv);
    for (name, value) in program.env {
        let inserted = spec.env.insert(name, value);
        inserted.map_err(|error| EngineError::Invalid(error.to_string()))?;
    }
    spec.cwd = program.cwd;
    spec.user = program.user;
    spec.timeout_ms = Some(timeout_ms);
    let limit = Duration::from_millis(timeout_ms).saturating_add(GRACE);
    let output = agent
        .run(&spec, limit, OUTPUT_BYTES)
        .map_err(|error| EngineError::Failed(error.to_string()))?;
    let (code, signal) = match output.state {
        ExecState::Exited { code } => (Some(code), None),
        ExecState::Signaled { signal } => (None, Some(signal)),
        ExecState::Running | ExecState::TimedOut => (None, None),
    };
    Ok(RunAnswer {
        code,
        signal,
        timed_out: output.state == ExecState::TimedOut,
        stdout: output.stdout,
        stderr: output.stderr,
        lost: output.lost,
    })
}
