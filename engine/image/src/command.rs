//! Programs of the host that make images. Invariant: a failure says which program, what it was asked and what it said.

use std::io;
use std::process::{Command, ExitStatus, Output, Stdio};

/// Where programs for administrators lie; the PATH of a user often leaves it out.
const ADMIN_PATH: &str = "/usr/sbin:/sbin";

/// A program of the host did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("{program} is not installed: install Debian's package {package}")]
    Missing {
        /// The program.
        program: String,
        /// The package that has it.
        package: &'static str,
    },
    /// It could not be started.
    #[error("{program} cannot be started")]
    Start {
        /// The program.
        program: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{command} ended with {status}: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to its error output.
        said: String,
    },
}

/// Runs `command`, which comes with `package`, and gives its output.
pub(crate) fn run(command: &mut Command, package: &'static str) -> Result<Vec<u8>, CommandError> {
    ended_well(command, package).map(|output| output.stdout)
}

/// Runs `command` for what it writes to its error output although it succeeds.
pub(crate) fn run_loudly(
    command: &mut Command,
    package: &'static str,
) -> Result<String, CommandError> {
    // The rest is an echo of what it was asked, which may be long.
    command.stdout(Stdio::null());
    ended_well(command, package).map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn ended_well(command: &mut Command, package: &'static str) -> Result<Output, CommandError> {
    let path = std::env::var("PATH").unwrap_or_default();
    // Messages are shown, and some are parsed: keep them in one language.
    command
        .env("PATH", format!("{path}:{ADMIN_PATH}"))
        .env("LC_ALL", "C.UTF-8");
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CommandError::Missing { program, package },
        _ => CommandError::Start { program, source },
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(CommandError::Failed {
        command: words(command),
        status: output.status,
        said: tail(&output.stderr),
    })
}

fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The last lines, at most a screen of them.
fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<_> = text.lines().rev().take(20).collect();
    lines.reverse();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_names_its_package() {
        let error = run(&mut Command::new("brood-no-such-program"), "e2fsprogs");
        let text = error.expect_err("not installed").to_string();
        assert!(text.contains("brood-no-such-program") && text.contains("e2fsprogs"));
    }

    #[test]
    fn failure_shows_command_status_and_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo reason >&2; exit 3"]);
        let text = run(&mut command, "dash").expect_err("fails").to_string();
        assert!(text.contains("sh -c") && text.contains("3") && text.contains("reason"));
    }

    #[test]
    fn output_of_a_success_is_given() {
        let output = run(Command::new("echo").arg("yes"), "coreutils");
        assert_eq!(output.expect("succeeds"), b"yes\n");
    }
}
