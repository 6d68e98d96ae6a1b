//! What ships for systemd, read by systemd's own reader and by the engine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use brood::serve::Config;
use brood_testkit::scratch;

const INSTALLED: &str = "/usr/local/bin/brood";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/systemd")
        .join(name)
}

/// What systemd finds wrong with a unit; none, with a printed reason, if its reader is not here and nobody insists.
fn found_wrong(unit: &str) -> Option<String> {
    let directory = scratch();
    let file = directory.path().join("brood.service");
    fs::write(&file, unit).expect("it is written");
    // Pages of a manual may be missing on a host that serves.
    let mut reader = Command::new("systemd-analyze");
    let output = match reader.args(["verify", "--man=no"]).arg(&file).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "systemd-analyze: {error}");
            println!("skipped: systemd-analyze: {error}");
            return None;
        }
    };
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || !words.is_empty());
    Some(words)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_and_would_with_a_wrong_one() {
    let unit = fs::read_to_string(shipped("brood.service")).expect("it ships");
    // It is asked whether the program is there: this one is.
    let unit = unit.replace(INSTALLED, env!("CARGO_BIN_EXE_brood"));
    let Some(words) = found_wrong(&unit) else {
        return;
    };
    assert_eq!(words, "");
    for (right, wrong) in [
        ("KillMode=process", "KillMod=process"),
        ("KillMode=process", "KillMode=never"),
        ("OOMPolicy=continue", "OOMPolicy=perhaps"),
    ] {
        assert!(unit.contains(right), "{right}");
        let words = found_wrong(&unit.replace(right, wrong));
        assert!(words.is_some_and(|words| !words.is_empty()), "{wrong}");
    }
}

#[test]
fn the_unit_starts_what_its_configuration_means() {
    let unit = fs::read_to_string(shipped("brood.service")).expect("it ships");
    let line = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| unreachable!("no {key}"))
    };
    assert_eq!(
        line("ExecStart="),
        format!("{INSTALLED} serve --config /etc/brood/brood.toml")
    );
    let text = fs::read_to_string(shipped("brood.toml")).expect("it ships");
    let usual = Config::usual(Path::new(INSTALLED));
    let config = usual.parse(Path::new("/etc/brood/brood.toml"), &text);
    let config = config.unwrap_or_else(|mistakes| unreachable!("{mistakes}"));
    let state = Path::new("/var/lib").join(line("StateDirectory="));
    assert_eq!(
        config.state, state,
        "systemd makes the directory that is used"
    );
    // What is left out by a `#` reads as well.
    let all = text
        .replace("# guest-files", "guest-files")
        .replace("# policy", "policy");
    let config =
        Config::usual(Path::new(INSTALLED)).parse(Path::new("/etc/brood/brood.toml"), &all);
    let config = config.unwrap_or_else(|mistakes| unreachable!("{mistakes}"));
    assert_eq!(
        config.policy.as_deref(),
        Some(Path::new("/etc/brood/policy.toml"))
    );
    assert!(config.guest_files.is_some());
}
