//! `brood exec`

use std::io::Write;
use std::process::ExitCode;

use brood_api::Span;
use brood_api::exec::{Exec, ExecSpec, ExecState};
use brood_client::Client;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::name;
use super::out::{Out, raw};
use super::value::{Pair, map, pair, span};

/// As timeout(1) ends.
const TIMED_OUT: u8 = 124;
/// Of a program whose end nobody knows, as ssh(1) ends then.
const UNKNOWN: u8 = 255;

// What a program has around it. Not a doc comment, which would be the help of whoever flattens it.
#[derive(Args)]
pub(super) struct Around {
    /// A variable put over the guest's own.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<Pair>,
    /// The working directory; / if not said.
    #[arg(short = 'C', long)]
    cwd: Option<String>,
    /// name, uid, name:group or uid:gid; root if not said.
    #[arg(short, long)]
    user: Option<String>,
}

impl Around {
    /// A program that runs in it.
    pub(super) fn program(self, argv: Vec<String>) -> ExecSpec {
        ExecSpec {
            argv,
            env: map(self.env),
            cwd: self.cwd,
            user: self.user,
            timeout: None,
            tty: None,
            stdin: None,
            wait: None,
        }
    }
}

/// `brood exec`
#[derive(Args)]
pub struct Arguments {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
    #[command(flatten)]
    around: Around,
    /// Ends the program and its descendants after so long; 60s if not said.
    #[arg(long, value_parser = span)]
    timeout: Option<Span>,
    /// Starts it and answers at once, with its id.
    #[arg(short, long)]
    detach: bool,
    /// Your own key for this request: repeated under it, the program is started once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    argv: Vec<String>,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let machine = name::machine(client, &self.machine)?;
        let spec = ExecSpec {
            timeout: self.timeout,
            wait: Some(!self.detach),
            ..self.around.program(self.argv)
        };
        let ran = client.start_exec(machine, &spec, self.idempotency_key.as_deref())?;
        if self.detach {
            out.answer(&ran, || format!("{}\n", ran.exec.id))?;
            return Ok(ExitCode::SUCCESS);
        }
        if out.is_text() {
            raw(ran.stdout.as_deref().unwrap_or_default().as_bytes())?;
            let mut stderr = std::io::stderr().lock();
            // Where nobody reads, the status still says how it ended.
            let said = ran.stderr.as_deref().unwrap_or_default();
            stderr.write_all(said.as_bytes()).ok();
            if let Some(lost) = ran.lost.filter(|lost| *lost > 0) {
                writeln!(stderr, "brood: {lost} bytes of output are lost").ok();
            }
        } else {
            out.answer(&ran, String::new)?;
        }
        Ok(ExitCode::from(status(&ran.exec)))
    }
}

/// As a shell says how a program ended.
pub(super) fn status(exec: &Exec) -> u8 {
    match exec.state {
        ExecState::Exited => u8::try_from(exec.code.unwrap_or(1) & 0xff).unwrap_or(1),
        ExecState::Signaled => exec
            .signal
            .and_then(|signal| u8::try_from(signal).ok()?.checked_add(128))
            .unwrap_or(u8::MAX),
        ExecState::TimedOut => TIMED_OUT,
        ExecState::Running | ExecState::Lost => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use brood_api::Time;
    use brood_units::{MachineId, Timestamp};

    use super::*;

    #[test]
    fn a_programs_end_is_passed_on_as_a_shell_says_it() {
        let ended = |state, code, signal| Exec {
            id: 1,
            machine: MachineId::from_bytes([1; 16]),
            argv: Vec::new(),
            state,
            code,
            signal,
            created_at: Time(Timestamp::from_millis(0)),
            ended_at: None,
        };
        assert_eq!(status(&ended(ExecState::Exited, Some(7), None)), 7);
        assert_eq!(status(&ended(ExecState::Signaled, None, Some(9))), 137);
        assert_eq!(status(&ended(ExecState::TimedOut, None, None)), 124);
        assert_eq!(status(&ended(ExecState::Lost, None, None)), 255);
    }
}
