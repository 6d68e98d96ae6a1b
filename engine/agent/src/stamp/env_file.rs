//! `/run/brood/env`: what stamps have put into the environment of exec sessions, for the workload to source and for the
//! agent to find again after a restart. Invariant: what is written is read back exactly, newlines and quotes included.
//!
//! One variable after another as `NAME='value'`, a quote in a value as `'\''`, so that a POSIX shell reads it too.

use std::fs;
use std::path::Path;

use brood_agent_proto::blob::EnvMap;

use super::path;

pub(crate) const FILE: &str = "/run/brood/env";

/// The variables in the file below `root`; none if there is no file, or up to the first thing that is no variable.
pub(crate) fn load(root: &Path) -> EnvMap {
    fs::read_to_string(path::below(root, FILE))
        .map(|text| parse(&text))
        .unwrap_or_default()
}

/// The variables as the file holds them.
pub(crate) fn format(env: &EnvMap) -> String {
    env.iter()
        .map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''")))
        .collect()
}

fn parse(text: &str) -> EnvMap {
    let mut env = EnvMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("='") {
        let mut value = String::new();
        rest = after;
        loop {
            let Some((piece, after)) = rest.split_once('\'') else {
                return env;
            };
            value.push_str(piece);
            match after.strip_prefix(r"\''") {
                Some(after) => {
                    value.push('\'');
                    rest = after;
                }
                None => {
                    rest = after.strip_prefix('\n').unwrap_or(after);
                    break;
                }
            }
        }
        if env.insert(name, value).is_err() {
            return env;
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_newlines_survive() {
        let mut env = EnvMap::new();
        for (name, value) in [
            ("A", "it's"),
            ("B", "two\nlines"),
            ("C", ""),
            ("D", "='x'"),
            ("E", "'"),
        ] {
            env.insert(name, value).unwrap();
        }
        assert_eq!(parse(&format(&env)), env);
    }

    #[test]
    fn a_shell_reads_the_same_values() {
        let mut env = EnvMap::new();
        env.insert("A", "it's $HOME\n`x`").unwrap();
        let script = format!("{}printf %s \"$A\"", format(&env));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"it's $HOME\n`x`");
    }

    #[test]
    fn garbage_ends_the_reading_and_keeps_what_came_before() {
        let env = parse("A='1'\nB='unfinished");
        assert_eq!(env.value("A"), Some("1"));
        assert_eq!(env.value("B"), None);
    }
}
