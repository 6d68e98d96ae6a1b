//! The command line, as a person uses it.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};
use std::time::Instant as Stopwatch;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// `brood`, knowing of a server.
pub(super) struct Command {
    program: PathBuf,
    url: String,
    key: String,
}

impl Command {
    pub(super) fn new(program: &Path, url: &str, key: &str) -> Self {
        let (url, key) = (url.to_owned(), key.to_owned());
        Self {
            program: program.to_owned(),
            url,
            key,
        }
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Process::new(&self.program)
            .args(arguments)
            .env("BROOD_URL", &self.url)
            .env("BROOD_KEY", &self.key)
            .stdin(Stdio::null())
            .output()
            .context("starting the command line")
    }

    /// Its answer in JSON, without being shown.
    pub(super) fn quietly(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let words = self.text(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&words).with_context(|| format!("what it answered: {words}"))
    }

    /// Shows the line, runs it, and gives its answer in JSON with the microseconds it took.
    pub(super) fn does(&self, arguments: &[&str]) -> anyhow::Result<(Value, f64)> {
        println!("  $ brood {}", quoted(arguments));
        let watch = Stopwatch::now();
        let answer = self.quietly(arguments)?;
        Ok((answer, watch.elapsed().as_secs_f64() * 1e6))
    }

    /// Shows the line, runs it, and gives what it says to people.
    pub(super) fn show(&self, arguments: &[&str]) -> anyhow::Result<String> {
        println!("  $ brood {}", quoted(arguments));
        self.text(arguments)
    }

    /// What it says to people, without the line.
    pub(super) fn text(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "brood {}: {words}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(words)
    }

    /// Shows the line, runs it, and gives the problem that it ends with, and its exit status.
    pub(super) fn refused(&self, arguments: &[&str]) -> anyhow::Result<(Value, i32)> {
        println!("  $ brood {}", quoted(arguments));
        let output = self.run(&[arguments, &["-o", "json"]].concat())?;
        let words = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            bail!("brood {} was not refused: {words}", arguments.join(" "));
        }
        let problem = serde_json::from_str(&words);
        let problem = problem.with_context(|| format!("what it answered: {words}"))?;
        Ok((problem, output.status.code().unwrap_or(-1)))
    }
}

/// As a shell takes it.
fn quoted(arguments: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let each = arguments.iter().map(|argument| {
        if !argument.is_empty() && argument.chars().all(plain) {
            (*argument).to_owned()
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    });
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_as_a_shell_takes_it() {
        let line = quoted(&["exec", "m", "--", "sh", "-c", "echo $i 'a'", ""]);
        assert_eq!(line, r"exec m -- sh -c 'echo $i '\''a'\''' ''");
    }
}
