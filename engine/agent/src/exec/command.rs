//! From what the client asks to what execve(2) takes. Invariant: everything that allocates or looks anything up happens
//! here, before the clone.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use brood_agent_proto::blob::EnvMap;
use brood_agent_proto::errno::Errno;
use brood_agent_proto::exec::{ExecSpec, ProgramDefaults, Stdin, TtySize};
use brood_agent_proto::{AgentError, SpawnStep};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::spawn::Terminal;
use super::user::{self, User};
use crate::fail;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program, ready to be executed.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) argv: Vec<CString>,
    /// Files to try, in this order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) envp: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) user: Option<User>,
}

impl Command {
    /// Resolves user, environment and search path. `defaults` fill in what `spec` leaves out, `base` is the environment
    /// between theirs.
    pub(crate) fn prepare(
        spec: &ExecSpec,
        defaults: &ProgramDefaults,
        base: &EnvMap,
        root: &Path,
    ) -> Result<Self, AgentError> {
        let user = match spec.user.as_ref().or(defaults.user.as_ref()) {
            None => None,
            Some(name) => Some(user::look_up(name, root).ok_or(AgentError::Spawn {
                step: SpawnStep::User,
                errno: Errno(libc::ENOENT),
            })?),
        };
        let env = environment(spec, [&defaults.env, base], user.as_ref())?;
        let program = spec
            .argv
            .first()
            .filter(|program| !program.is_empty())
            .ok_or_else(|| fail::invalid("argv", "names no program"))?;
        let path = env.value("PATH").unwrap_or(DEFAULT_PATH);
        let envp = env
            .iter()
            .map(|(name, value)| c_string("env", format!("{name}={value}")))
            .collect::<Result<_, _>>()?;
        let cwd = spec.cwd.clone().or_else(|| defaults.cwd.clone());
        Ok(Self {
            candidates: search_path(program, path)?,
            argv: spec
                .argv
                .iter()
                .map(|word| c_string("argv", word.clone()))
                .collect::<Result<_, _>>()?,
            envp,
            cwd: c_string("cwd", cwd.unwrap_or_else(|| "/".to_owned()))?,
            user,
        })
    }
}

/// Where a program without `/` may be.
fn search_path(program: &str, path: &str) -> Result<Vec<CString>, AgentError> {
    if program.contains('/') {
        return Ok(vec![c_string("argv", program.to_owned())?]);
    }
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| c_string("PATH", format!("{directory}/{program}")))
        .collect()
}

fn c_string(field: &str, text: String) -> Result<CString, AgentError> {
    CString::new(text).map_err(|_| fail::invalid(field, "holds a NUL byte"))
}

/// Defaults, then what the image says and what stamps have set, then what the client asks.
fn environment(
    spec: &ExecSpec,
    bases: [&EnvMap; 2],
    user: Option<&User>,
) -> Result<EnvMap, AgentError> {
    let entry = user.and_then(|user| user.entry.as_ref());
    let mut defaults = vec![("PATH", DEFAULT_PATH)];
    match (user, entry) {
        (None, _) => defaults.extend([("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")]),
        (Some(_), Some(entry)) => defaults.extend([
            ("HOME", entry.home.as_str()),
            ("USER", entry.name.as_str()),
            ("LOGNAME", entry.name.as_str()),
            ("SHELL", entry.shell.as_str()),
        ]),
        (Some(_), None) => defaults.push(("HOME", "/")),
    }
    if spec.tty.is_some() {
        defaults.push(("TERM", "xterm-256color"));
    }
    let mut env = EnvMap::new();
    for (name, value) in defaults {
        env.insert(name, value)
            .map_err(|error| fail::invalid("user", error.to_string()))?;
    }
    for base in bases {
        env.extend(base);
    }
    env.extend(&spec.env);
    Ok(env)
}

/// The two ends of a program's stdin, stdout and stderr.
pub(crate) struct Stdio {
    /// What the program gets as descriptors 0, 1 and 2.
    pub(crate) theirs: [OwnedFd; 3],
    pub(crate) terminal: Terminal,
    /// To write stdin to. Non-blocking.
    pub(crate) stdin: Option<OwnedFd>,
    /// To read stdout from, or the terminal. Non-blocking.
    pub(crate) stdout: OwnedFd,
    /// To read stderr from. Non-blocking.
    pub(crate) stderr: Option<OwnedFd>,
    /// The terminal's master side.
    pub(crate) tty: Option<OwnedFd>,
}

impl Stdio {
    /// Pipes, or a terminal that `user` may use.
    pub(crate) fn open(
        stdin: Stdin,
        tty: Option<TtySize>,
        user: Option<&User>,
    ) -> Result<Self, AgentError> {
        let failed = |step| {
            move |error: io::Error| AgentError::Spawn {
                step,
                errno: Errno::from(&error),
            }
        };
        match tty {
            None => Self::pipes(stdin).map_err(failed(SpawnStep::Pipe)),
            Some(size) => Self::terminal(stdin, size, user).map_err(failed(SpawnStep::Pty)),
        }
    }

    fn pipes(stdin: Stdin) -> io::Result<Self> {
        let (our_stdin, their_stdin) = match stdin {
            Stdin::None => (
                None,
                OpenOptions::new().read(true).open("/dev/null")?.into(),
            ),
            Stdin::Pipe => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (Some(write), read)
            }
        };
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in our_stdin.iter().chain([&stdout, &stderr]) {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        Ok(Self {
            theirs: [their_stdin, their_stdout, their_stderr],
            terminal: Terminal::None,
            stdin: our_stdin,
            stdout,
            stderr: Some(stderr),
            tty: None,
        })
    }

    fn terminal(stdin: Stdin, size: TtySize, user: Option<&User>) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        // TIOCGPTPEER needs no /dev/pts path.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        set_size(&master, size)?;
        if let Some(user) = user {
            let uid = rustix::fs::Uid::from_raw(user.uid);
            rustix::fs::fchown(&slave, Some(uid), None)?;
        }
        rustix::io::ioctl_fionbio(&master, true)?;
        let typed = match stdin {
            Stdin::None => None,
            Stdin::Pipe => Some(master.try_clone()?),
        };
        Ok(Self {
            theirs: [slave.try_clone()?, slave.try_clone()?, slave],
            terminal: Terminal::Controlling,
            stdin: typed,
            stdout: master.try_clone()?,
            stderr: None,
            tty: Some(master),
        })
    }
}

/// Resizes a terminal; its foreground process group gets `SIGWINCH`.
pub(crate) fn set_size(master: impl AsFd, size: TtySize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_variable_wins_over_the_stamps_that_over_the_images_and_that_over_the_default() {
        let mut base = EnvMap::new();
        base.insert("HOME", "/stamped").unwrap();
        base.insert("A", "stamped").unwrap();
        let mut spec = ExecSpec::new(["true"]);
        spec.env.insert("A", "asked").unwrap();
        let mut image = EnvMap::new();
        image.insert("A", "image").unwrap();
        image.insert("LANG", "C").unwrap();
        let env = environment(&spec, [&image, &base], None).unwrap();
        assert_eq!(env.value("LANG"), Some("C"));
        assert_eq!(env.value("HOME"), Some("/stamped"));
        assert_eq!(env.value("A"), Some("asked"));
        assert_eq!(env.value("PATH"), Some(DEFAULT_PATH));
    }

    #[test]
    fn only_a_program_without_a_slash_is_searched_for() {
        let here = search_path("./x", "/bin:/sbin").unwrap();
        assert_eq!(here, [c"./x".to_owned()]);
        let found = search_path("x", "/bin::/sbin").unwrap();
        assert_eq!(
            found,
            [
                c"/bin/x".to_owned(),
                c"./x".to_owned(),
                c"/sbin/x".to_owned()
            ]
        );
    }

    #[test]
    fn nul_and_an_empty_command_are_refused() {
        let base = EnvMap::new();
        for argv in [vec![], vec![""], vec!["a\0b"]] {
            let spec = ExecSpec::new(argv);
            assert!(matches!(
                Command::prepare(&spec, &ProgramDefaults::default(), &base, Path::new("/")),
                Err(AgentError::Invalid { .. })
            ));
        }
    }

    #[test]
    fn image_says_who_and_where_unless_the_client_does() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let users = "ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n";
        std::fs::write(root.path().join("etc/passwd"), users).unwrap();
        let defaults = ProgramDefaults {
            cwd: Some("/app".to_owned()),
            user: Some("ann".to_owned()),
            ..ProgramDefaults::default()
        };
        let mut spec = ExecSpec::new(["true"]);
        let prepare = |spec: &ExecSpec| {
            let base = EnvMap::new();
            let command = Command::prepare(spec, &defaults, &base, root.path()).unwrap();
            (command.cwd, command.user.map(|user| user.uid))
        };
        assert_eq!(prepare(&spec), (c"/app".to_owned(), Some(1000)));
        spec.cwd = Some("/".to_owned());
        spec.user = Some("bob".to_owned());
        assert_eq!(prepare(&spec), (c"/".to_owned(), Some(1001)));
    }
}
