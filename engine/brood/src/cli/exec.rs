//! `brood exec`

use std::io::Write;
use std::process::ExitCode;

use brood_api::Span;
use brood_api::exec::{ExecEnd, ExecSpec};
use brood_client::Client;
use clap::Args;

use super::Run;
use super::failure::Failure;
use super::name;
use super::out::{Out, raw};
use super::value::{Pair, map, pair, span};

/// As timeout(1) ends.
const TIMED_OUT: u8 = 124;

/// `brood exec`
#[derive(Args)]
pub struct Arguments {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
    /// A variable put over the guest's own.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<Pair>,
    /// The working directory; / if not said.
    #[arg(short = 'C', long)]
    cwd: Option<String>,
    /// name, uid, name:group or uid:gid; root if not said.
    #[arg(short, long)]
    user: Option<String>,
    /// Ends the program and its descendants after so long; 60s if not said.
    #[arg(long, value_parser = span)]
    timeout: Option<Span>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    argv: Vec<String>,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let machine = name::machine(client, &self.machine)?;
        let spec = ExecSpec {
            argv: self.argv,
            env: map(self.env),
            cwd: self.cwd,
            user: self.user,
            timeout: self.timeout,
        };
        let exec = client.run(machine, &spec)?;
        if out.is_text() {
            raw(exec.stdout.as_bytes())?;
            let mut stderr = std::io::stderr().lock();
            // Where nobody reads, the status still says how it ended.
            stderr.write_all(exec.stderr.as_bytes()).ok();
            if exec.lost > 0 {
                writeln!(stderr, "brood: {} bytes of output are lost", exec.lost).ok();
            }
        } else {
            out.answer(&exec, String::new)?;
        }
        Ok(ExitCode::from(status(exec.end)))
    }
}

/// As a shell says how a program ended.
fn status(end: ExecEnd) -> u8 {
    match end {
        ExecEnd::Exited { code } => u8::try_from(code & 0xff).unwrap_or(1),
        ExecEnd::Signaled { signal } => u8::try_from(signal)
            .ok()
            .and_then(|signal| signal.checked_add(128))
            .unwrap_or(u8::MAX),
        ExecEnd::TimedOut => TIMED_OUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_end_is_passed_on_as_a_shell_says_it() {
        assert_eq!(status(ExecEnd::Exited { code: 7 }), 7);
        assert_eq!(status(ExecEnd::Signaled { signal: 9 }), 137);
        assert_eq!(status(ExecEnd::TimedOut), 124);
    }
}
