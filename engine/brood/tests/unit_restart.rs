//! What ships for systemd, stopped and started as systemd does it: a control group of its own, the unit's own line to
//! start, and the signals that its `KillMode` means.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use brood_testkit::{is_alive, scratch, settle};
use serde_json::Value;

use crate::program::{Program, cells, components, kvm, program};

/// Where the unit says that things are.
const INSTALLED: &str = "/usr/local/bin/brood";
const CONFIG: &str = "/etc/brood/brood.toml";

fn shipped(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/systemd");
    fs::read_to_string(directory.join(name)).expect("it ships")
}

/// The unit, with a control group and files of this test's own.
struct Unit {
    text: String,
    cgroup: PathBuf,
    directory: tempfile::TempDir,
}

impl Unit {
    /// None, having said so, where no control group can be made and nobody insists.
    fn install(components: &Path) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let at = fields.next()?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(at))
        });
        let cgroup = root.map(|root| root.join(format!("brood-unit-{}", std::process::id())));
        let Some(cgroup) = cgroup.filter(|cgroup| fs::create_dir(cgroup).is_ok()) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI needs a writable cgroup2"
            );
            println!("skipped: no writable cgroup2 here");
            return None;
        };
        let directory = scratch();
        let own = |line: &str| match line.split_once(" = ").map(|(key, _)| key) {
            Some("listen") => "listen = \"127.0.0.1:0\"".to_owned(),
            Some("state") => format!("state = \"{}\"", directory.path().join("state").display()),
            Some("plugins") => format!("plugins = \"{}\"", components.display()),
            _ => line.to_owned(),
        };
        let config: Vec<_> = shipped("brood.toml").lines().map(own).collect();
        fs::write(directory.path().join("brood.toml"), config.join("\n")).expect("written");
        Some(Self {
            text: shipped("brood.service"),
            cgroup,
            directory,
        })
    }

    /// What the unit says for a key.
    fn says(&self, key: &str) -> &str {
        let mut lines = self.text.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| unreachable!("no {key}"))
    }

    /// `systemctl start`: the unit's line, in the unit's control group.
    fn start(&self) -> Program {
        let config = self.directory.path().join("brood.toml");
        let line = self
            .says("ExecStart")
            .replace(INSTALLED, &program().to_string_lossy())
            .replace(CONFIG, &config.to_string_lossy());
        let enter = "echo $$ > \"$0\"; umask \"$1\"; shift; exec \"$@\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", enter])
            .arg(self.cgroup.join("cgroup.procs"))
            .arg(self.says("UMask"))
            .args(line.split(' '));
        let started = Program::launch(&mut command);
        assert!(started.is_serving(), "{}", started.words());
        started
    }

    /// `systemctl stop` (systemd.kill(5)).
    fn stop(&self, main: &mut Program) {
        match self.says("KillMode") {
            "process" => main.terminate(),
            // It would wait for those who do not heed a request, and kill them.
            "mixed" | "control-group" => self.kill_all(),
            other => unreachable!("KillMode={other} is not what a test of stops knows"),
        }
        main.wait();
    }

    fn kill_all(&self) {
        fs::write(self.cgroup.join("cgroup.kill"), "1").expect("killed");
    }

    fn holds(&self, pid: u32) -> bool {
        let all = fs::read_to_string(self.cgroup.join("cgroup.procs")).expect("a control group");
        all.lines().any(|line| line.parse() == Ok(pid))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // After a test that failed; what is killed is gone a moment later.
        self.kill_all();
        settle("its control group can be removed", || {
            remove(&self.cgroup).is_ok()
        });
    }
}

/// A control group and those that were made below it.
fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// Asks for what is done, and gives the answer.
fn good(engine: &Program, key: &str, line: &str, body: &str) -> Value {
    let (status, answer) = engine.ask(key, line, None, body).expect("it answers");
    assert!(status < 300, "{line}: {status} {answer}");
    answer
}

fn living(engine: &Program, key: &str) -> Vec<String> {
    let list = good(engine, key, "GET /v1/machines", "");
    let items = list["items"].as_array().expect("a list").iter();
    let ids = items.map(|one| one["id"].as_str().expect("an id").to_owned());
    ids.collect()
}

#[test]
fn a_restart_of_the_unit_leaves_its_machines_running_and_they_fork_under_the_next_engine() {
    let (Some(components), true) = (components(), kvm()) else {
        return;
    };
    brood_cell::become_reaper().expect("reaper");
    let Some(unit) = Unit::install(&components) else {
        return;
    };
    let mut first = unit.start();
    let key = first.key().expect("the first key");
    let template = r#"{"name": "counter", "guest": "bare", "memory_mib": 64}"#;
    good(&first, &key, "POST /v1/templates", template);
    let mother = good(
        &first,
        &key,
        "POST /v1/machines",
        r#"{"template": "counter"}"#,
    );
    let forks = format!(
        "POST /v1/machines/{}/forks",
        mother["id"].as_str().expect("an id")
    );
    good(&first, &key, &forks, r#"{"count": 2}"#);
    let before = living(&first, &key);
    assert_eq!(before.len(), 3);
    let supervisor = first.supervisor().expect("a supervisor");
    assert!(unit.holds(supervisor), "it is the unit's");

    unit.stop(&mut first);
    assert!(is_alive(supervisor), "nobody signalled it");
    settle("only machines are left", || cells(supervisor) == 3);
    assert!(unit.holds(supervisor), "systemd finds it there");

    let mut second = unit.start();
    assert_eq!(second.key(), None, "there is a key");
    assert_eq!(living(&second, &key), before);
    assert_eq!(second.supervisor(), Some(supervisor), "taken over");
    for id in &before {
        let forks = format!("POST /v1/machines/{id}/forks");
        good(&second, &key, &forks, r#"{"count": 1}"#);
    }
    assert_eq!(living(&second, &key).len(), 6);

    // A stop that takes the whole group takes the machines, and the next engine says so: that is what the unit avoids.
    unit.kill_all();
    second.wait();
    let mut third = unit.start();
    assert_eq!(living(&third, &key), Vec::<String>::new());
    let ended = good(&third, &key, "GET /v1/machines?ended=true", "");
    assert_eq!(ended["items"].as_array().map(Vec::len), Some(6), "{ended}");
    third.interrupt();
}
