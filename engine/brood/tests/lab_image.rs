//! A root disk that was made of an image's layers, as the root of a guest.

#![expect(clippy::panic, reason = "helpers of tests fail tests")]

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brood_agent_proto::exec::{ExecSpec, ExecState, ProgramDefaults};
use brood_rootfs::{BuildError, DiskOptions, Limits, PackedLayer, build};
use brood_service::host::Host;
use brood_service::machine::Machine;

use crate::common::{SMALL, boot, live};

/// How long a program may take that takes milliseconds on a good day.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a test finds what it cannot fetch; none (with a printed reason) where nobody insists.
fn fixture(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).map(PathBuf::from);
    if path.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{name} is not set: run `cargo xtask test`"
        );
        println!("skipped: {name} is not set; `cargo xtask test` sets it");
    }
    path
}

/// Guest files whose disk is a Debian with Python.
fn files(layers: &Path, guest: &Path, to: &Path) {
    let open = |name: &str| {
        let file = File::open(layers.join(name)).expect("a layer");
        Ok::<_, BuildError>(PackedLayer {
            packed: Box::new(BufReader::new(file)),
            diff_id: None,
        })
    };
    let layers = ["base.tar", "python.tar"].map(open);
    let options = DiskOptions { free: 64 << 20 };
    let disk = to.join("disk.ext4");
    build(layers, Limits::default(), options, to, &disk)
        .unwrap_or_else(|error| panic!("{:#}", anyhow::Error::from(error)));
    for name in ["vmlinux", "initramfs"] {
        let from = fs::canonicalize(guest.join(name)).expect("a guest file");
        symlink(from, to.join(name)).expect("linked");
    }
}

fn python(machine: &mut Machine, line: &str) -> String {
    let spec = ExecSpec::new(["python3", "-c", line]);
    let agent = machine.agent().expect("agent");
    let ended = agent.run(&spec, PATIENCE, 1 << 16).expect("it runs");
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.state, ExecState::Exited { code: 0 }, "{error}");
    String::from_utf8_lossy(&ended.stdout).trim_end().to_owned()
}

#[test]
fn lab_python_of_an_image_runs_as_the_image_says_in_mother_and_daughter() {
    let fixtures = fixture("BROOD_DEBIAN_LAYERS").zip(fixture("BROOD_GUEST_FILES"));
    let Some((layers, guest)) = fixtures else {
        return;
    };
    let place = tempfile::tempdir().expect("a directory");
    files(&layers, &guest, place.path());
    let program = std::env::var_os("BROOD_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_brood")), PathBuf::from);
    let host = Host::open(&program, Some(place.path()), &std::env::temp_dir());
    let host = host.expect("a host for Linux guests");
    let mut mother = boot(&host, SMALL, "brood.root=/dev/vda");
    assert_eq!(python(&mut mother, "print(6*7)"), "42");

    let mut defaults = ProgramDefaults {
        cwd: Some("/usr/share".to_owned()),
        user: Some("games".to_owned()),
        ..ProgramDefaults::default()
    };
    defaults.env.insert("OF_IMAGE", "yes").expect("a variable");
    mother.set_defaults(&defaults).expect("taken");
    let who = "import os; print(os.getuid(), os.getgid(), os.getcwd(), os.environ['OF_IMAGE'])";
    assert_eq!(python(&mut mother, who), "5 60 /usr/share yes");

    let daughters = live(&mut mother, 1, "daughter", None);
    for daughter in daughters {
        let mut daughter = daughter.machine;
        assert_eq!(python(&mut daughter, who), "5 60 /usr/share yes");
        daughter.end().expect("ended");
    }
    mother.end().expect("ended");
}
