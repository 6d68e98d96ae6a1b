//! Goes on from the initramfs to a root disk. Invariant: until the new root is complete nothing is moved, so a disk that
//! is missing or broken leaves the agent running in the initramfs.
//!
//! The kernel's command line says which, in words `KEY=VALUE`, so that one initramfs serves any root disk; without the first
//! of them, lines of `/etc/brood/overlay` do:
//!
//! | word | line | value | default |
//! |---|---|---|---|
//! | `brood.root` | `root` | the device to mount | none: the agent stays in the initramfs |
//! | `brood.root-type` | `fstype` | its file system | `ext4` |
//! | `brood.root-mode` | `mode` | `rw`, `ro`, or `overlay` (read-only under a tmpfs) | `rw` |
//!
//! Then as switch_root(8): the mounts made so far move over, the new root moves to `/`, and the agent goes on as
//! process 1 with it as its root. The initramfs's own files stay in memory under it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};

pub(super) const COMMAND_LINE: &str = "/proc/cmdline";
pub(super) const SPEC: &str = "/etc/brood/overlay";

const NEW: &str = "/brood/root";
const LOWER: &str = "/brood/lower";
const UPPER: &str = "/brood/upper";

/// Mounts that go along.
const MOVED: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// How long a disk may take to appear after its driver was loaded.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
struct Spec {
    device: String,
    fstype: String,
    mode: Mode,
}

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    ReadWrite,
    ReadOnly,
    Overlay,
}

/// Enters the root that the kernel's command line or else the file at `spec` names; what failed, as lines. Neither means to
/// stay.
pub(super) fn enter_listed(command_line: &Path, spec: &Path) -> Vec<String> {
    let words = fs::read_to_string(command_line).unwrap_or_default();
    let (named, text) = match of_words(&words) {
        Some(text) => (command_line, text),
        None => match fs::read_to_string(spec) {
            Ok(text) => (spec, text),
            Err(_) => return Vec::new(),
        },
    };
    match parse(&text) {
        Ok(spec) => enter(&spec)
            .err()
            .map(|(what, error)| format!("{what}: {error}"))
            .into_iter()
            .collect(),
        Err(problem) => vec![format!("{}: {problem}", named.display())],
    }
}

/// The words of a kernel's command line that are about the root, as lines; none without the device.
fn of_words(words: &str) -> Option<String> {
    let ours = words.split_whitespace().filter_map(|word| {
        let (key, value) = word.strip_prefix("brood.root")?.split_once('=')?;
        let key = match key {
            "" => "root",
            "-type" => "fstype",
            "-mode" => "mode",
            _ => return None,
        };
        Some((key, value))
    });
    let lines: Vec<_> = ours.collect();
    let named = lines.iter().any(|(key, _)| *key == "root");
    named.then(|| {
        lines
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"))
            .collect()
    })
}

fn parse(text: &str) -> Result<Spec, String> {
    let (mut device, mut fstype, mut mode) = (None, "ext4".to_owned(), Mode::ReadWrite);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some(("root", value)) => device = Some(value.to_owned()),
            Some(("fstype", value)) => fstype = value.to_owned(),
            Some(("mode", "rw")) => mode = Mode::ReadWrite,
            Some(("mode", "ro")) => mode = Mode::ReadOnly,
            Some(("mode", "overlay")) => mode = Mode::Overlay,
            _ => return Err(format!("'{line}' is not understood")),
        }
    }
    let device = device.ok_or("no root")?;
    Ok(Spec {
        device,
        fstype,
        mode,
    })
}

type Failed = (String, io::Error);

fn enter(spec: &Spec) -> Result<(), Failed> {
    for directory in [NEW, LOWER, UPPER] {
        fs::create_dir_all(directory).map_err(|error| (format!("making {directory}"), error))?;
    }
    wait_for(&spec.device);
    let (at, flags) = match spec.mode {
        Mode::ReadWrite => (NEW, MountFlags::empty()),
        Mode::ReadOnly => (NEW, MountFlags::RDONLY),
        Mode::Overlay => (LOWER, MountFlags::RDONLY),
    };
    let failed = |what: String| move |errno: rustix::io::Errno| (what, io::Error::from(errno));
    mount(spec.device.as_str(), at, spec.fstype.as_str(), flags, c"")
        .map_err(failed(format!("mounting {}", spec.device)))?;
    if spec.mode == Mode::Overlay {
        overlay()?;
    }
    for from in MOVED {
        let to = format!("{NEW}{from}");
        if let Err(error) = fs::create_dir_all(&to)
            && error.kind() != io::ErrorKind::ReadOnlyFilesystem
        {
            return Err((format!("making {to}"), error));
        }
    }
    for from in MOVED {
        mount_move(from, format!("{NEW}{from}")).map_err(failed(format!("moving {from}")))?;
    }
    rustix::process::chdir(NEW).map_err(failed(format!("chdir {NEW}")))?;
    mount_move(".", "/").map_err(failed("moving the root".to_owned()))?;
    rustix::process::chroot(".").map_err(failed("chroot".to_owned()))?;
    rustix::process::chdir("/").map_err(failed("chdir /".to_owned()))
}

fn overlay() -> Result<(), Failed> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |errno: rustix::io::Errno| (what, io::Error::from(errno))
    };
    mount("tmpfs", UPPER, "tmpfs", MountFlags::empty(), c"mode=0755")
        .map_err(failed("mounting a tmpfs over the root disk"))?;
    for directory in ["data", "work"] {
        let path = format!("{UPPER}/{directory}");
        fs::create_dir(&path).map_err(|error| (format!("making {path}"), error))?;
    }
    let data = c"lowerdir=/brood/lower,upperdir=/brood/upper/data,workdir=/brood/upper/work";
    mount("overlay", NEW, "overlay", MountFlags::empty(), data)
        .map_err(failed("mounting the overlay"))
}

/// A disk's node appears some time after its driver was loaded, and nothing announces it but the node.
fn wait_for(device: &str) {
    let start = Instant::now();
    while device.starts_with("/dev/") && !Path::new(device).exists() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_a_writable_ext4() {
        assert_eq!(
            parse("# disk\nroot=/dev/vda\n"),
            Ok(Spec {
                device: "/dev/vda".to_owned(),
                fstype: "ext4".to_owned(),
                mode: Mode::ReadWrite
            })
        );
    }

    #[test]
    fn kernel_command_line_names_the_root_and_how_to_mount_it() {
        let line = "console=ttyS0 brood.root=/dev/vda brood.root-mode=ro quiet root=/dev/no\n";
        let spec = parse(&of_words(line).expect("a root"));
        assert_eq!(
            spec,
            Ok(Spec {
                device: "/dev/vda".to_owned(),
                fstype: "ext4".to_owned(),
                mode: Mode::ReadOnly
            })
        );
        assert_eq!(
            of_words("root=/dev/vda brood.root-mode=ro brood.rootless=1"),
            None
        );
    }

    #[test]
    fn command_line_comes_before_the_file_and_what_fails_is_said_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let (line, file) = (directory.path().join("line"), directory.path().join("file"));
        assert!(enter_listed(&line, &file).is_empty());
        fs::write(&line, "quiet brood.root=/dev/no brood.root-mode=odd").unwrap();
        fs::write(&file, "mode=strange").unwrap();
        let said = enter_listed(&line, &file).join(" ");
        assert!(said.contains("line") && said.contains("mode=odd"), "{said}");
        fs::write(&line, "quiet").unwrap();
        let said = enter_listed(&line, &file).join(" ");
        assert!(
            said.contains("file") && said.contains("mode=strange"),
            "{said}"
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_line() {
        assert_eq!(
            parse("root=/dev/vda\nmode=fast"),
            Err("'mode=fast' is not understood".to_owned())
        );
        assert_eq!(parse("mode=rw"), Err("no root".to_owned()));
    }
}
