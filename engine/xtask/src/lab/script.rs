//! The shell script that runs inside the lab, around the command.
//!
//! Invariant: it prints [`UP`] once before the command starts and [`END`] with the status once after it, on standard
//! output and standard error alike, each a line that begins with [`MARK`]. It then waits for a line on its standard input,
//! since powering off drops whatever the serial ports have not handed over yet.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::steady::STANDS;

/// Begins a marker line: ASCII "record separator", which no test or tool prints.
pub(super) const MARK: u8 = 0x1e;
/// The lab is up, and the command starts now.
pub(super) const UP: &str = "brood-lab-up";
/// The command ended; a space and its status follow.
pub(super) const END: &str = "brood-lab-end";
/// What timeout(1) returns for a command that it ended, the second if it had to kill it.
pub(super) const TIMED_OUT: [u8; 2] = [124, 128 + 9];

/// What the script is made of.
pub(super) struct Script<'a> {
    pub(super) cwd: &'a Path,
    pub(super) environment: &'a [(OsString, OsString)],
    /// Seconds.
    pub(super) timeout: u64,
    pub(super) command: &'a [OsString],
    /// This program, which keeps the lab's kernel steady.
    pub(super) keeper: &'a Path,
}

impl Script<'_> {
    /// The script. Everything that comes from outside is one quoted word.
    pub(super) fn text(&self) -> Result<String> {
        let mut exports = String::new();
        for (name, value) in self.environment {
            let assignment = [name.as_bytes(), b"=", value.as_bytes()].concat();
            exports += &format!(
                "export {}\n",
                shell_words([OsStr::from_bytes(&assignment)])
                    .to_str()
                    .context(NOT_UTF8)?
            );
        }
        let command = shell_words(self.command.iter().map(OsString::as_os_str));
        let command = command.to_str().context(NOT_UTF8)?;
        let cwd = shell_words([self.cwd.as_os_str()]);
        let cwd = cwd.to_str().context(NOT_UTF8)?;
        let timeout = self.timeout;
        let keeper = shell_words([self.keeper.as_os_str()]);
        let steady = steady(keeper.to_str().context(NOT_UTF8)?);
        Ok(format!(
            "{PREPARE}{steady}\
             {exports}export BROOD_LAB=1 TMPDIR={TEMPORARY}\n\
             cd {cwd} || die \"no working directory\"\n\
             printf '\\{MARK:03o}{UP}\\n'\n\
             printf '\\{MARK:03o}{UP}\\n' >&2\n\
             timeout --kill-after=10 {timeout} {command} </dev/null\n\
             status=$?\n\
             printf '\\{MARK:03o}{END} %s\\n' $status >&2\n\
             printf '\\{MARK:03o}{END} %s\\n' $status\n\
             timeout {HANDOVER} head -n 1 >/dev/null\n"
        ))
    }
}

/// Seconds that the last output may take to be handed over.
const HANDOVER: u64 = 60;
/// The lab's own temporary directory.
const TEMPORARY: &str = "/run/tmp-lab";
const NOT_UTF8: &str = "a word for the lab's script is not UTF-8";

/// virtme-ng leaves copies of its serial ports open (3 to 5); a command that counts or inherits descriptors must not see
/// them. /run holds the upper layers of the writable directories, so its size bounds what /tmp takes; programs that ask
/// for a temporary directory get a tmpfs, where `O_TMPFILE`, sockets and huge pages behave as on a host.
const PREPARE: &str = r#"exec 3>&- 4>&- 5>&- 6>&-
die() { echo "lab: $*" >&2; exit 1; }
modprobe kvm_amd || die "kvm_amd does not load"
[ -c /dev/kvm ] || die "there is no /dev/kvm"
modprobe i6300esb || die "the watchdog's driver does not load"
[ -f /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup || die "no cgroup v2"
for controller in cpu cpuset io memory pids; do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control || die "no cgroup controller $controller"
done
mount -o remount,size=75% /run || die "/run cannot grow"
mkdir /run/tmp-lab && mount -t tmpfs -o size=2G,mode=1777 lab-tmp /run/tmp-lab || die "no temporary directory"
ulimit -n 65536 || die "no more than $(ulimit -n) open files"
"#;

/// Starts the keeper and waits until its machine stands.
fn steady(keeper: &str) -> String {
    format!(
        "{keeper} steady </dev/null >/dev/null &\n\
         tries=0\n\
         until [ -e {STANDS} ]; do\n\
             tries=$((tries + 1))\n\
             [ $tries -lt 600 ] || die \"no steady machine\"\n\
             sleep 0.1\n\
         done\n"
    )
}

/// Words joined and quoted for a POSIX shell.
pub(super) fn shell_words<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> OsString {
    let quoted = words.into_iter().map(|word| {
        let escaped = word
            .as_bytes()
            .split(|byte| *byte == b'\'')
            .collect::<Vec<_>>()
            .join(&b"'\\''"[..]);
        [b"'", escaped.as_slice(), b"'"].concat()
    });
    OsStr::from_bytes(&quoted.collect::<Vec<_>>().join(&b' ')).to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn quoted_words_reach_the_program_unchanged() {
        let hostile = ["a b", "it's", "$HOME `id`", "", "\\'\n*"].map(OsStr::new);
        let mut script = OsString::from("printf '<%s>' ");
        script.push(shell_words(hostile));
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "<a b><it's><$HOME `id`><><\\'\n*>"
        );
    }

    #[test]
    fn script_is_valid_shell_and_carries_words_from_outside_only_quoted() {
        let environment = [("CI".into(), "yes; $(reboot)".into())];
        let command = ["true".into(), "@timeout@".into()];
        let script = Script {
            cwd: Path::new("/a b"),
            environment: &environment,
            timeout: 9,
            command: &command,
            keeper: Path::new("/bin/true"),
        };
        let text = script.text().unwrap();
        assert!(text.contains("export 'CI=yes; $(reboot)'\n"), "{text}");
        assert!(
            text.contains("timeout --kill-after=10 9 'true' '@timeout@' </dev/null"),
            "{text}"
        );
        assert!(
            Command::new("sh")
                .args(["-n", "-c", &text])
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn status_of_the_command_stands_in_the_end_marker_of_both_outputs() {
        let command = ["sh", "-c", "echo out; exit 5"].map(OsString::from);
        let script = Script {
            cwd: Path::new("/"),
            environment: &[],
            timeout: 60,
            command: &command,
            keeper: Path::new("/bin/true"),
        };
        // What prepares a lab has no business on the machine that runs this test.
        let text = script
            .text()
            .unwrap()
            .replace(PREPARE, "")
            .replace(&steady("'/bin/true'"), "");
        let ran = Command::new("sh").args(["-c", &text]).output().unwrap();
        let output = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (output(ran.stdout), output(ran.stderr));
        assert_eq!(stdout, "\u{1e}brood-lab-up\nout\n\u{1e}brood-lab-end 5\n");
        assert_eq!(stderr, "\u{1e}brood-lab-up\n\u{1e}brood-lab-end 5\n");
    }
}
