//! The steps that run programs. Invariant: all of them together end by the stamp's deadline, in a cgroup that the next
//! quiesce freezes, so nothing they leave behind escapes a fork.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use brood_agent_proto::AgentError;
use brood_agent_proto::blob::EnvMap;
use brood_agent_proto::errno::Errno;
use brood_agent_proto::exec::ExecState;
use brood_agent_proto::fork::SshHostKeys;

use super::{Applied, Stamp, StepError, path};
use crate::cgroup;
use crate::helper;

/// Executables here run in every daughter, sorted by name.
const HOOKS: &str = "/etc/brood/fork.d";
/// The most of them.
const MOST_HOOKS: usize = 64;

const SSH: &str = "/etc/ssh";
const SSH_KEYGEN: &str = "/usr/bin/ssh-keygen";

impl Stamp<'_> {
    pub(super) fn ssh_host_keys(&mut self) -> Applied {
        let keys = self.host_keys()?;
        if keys.is_empty() {
            return Ok("none".to_owned());
        }
        let keygen = path::below(self.root, SSH_KEYGEN);
        match self.spec.ssh_host_keys {
            SshHostKeys::Keep => Ok(format!("{} kept", keys.len())),
            SshHostKeys::Regenerate if !keygen.exists() => {
                Ok(format!("{} kept: the guest has no ssh-keygen", keys.len()))
            }
            SshHostKeys::Remove => {
                for (key, _) in &keys {
                    remove_pair(key)?;
                }
                Ok(format!("{} removed", keys.len()))
            }
            SshHostKeys::Regenerate => {
                for (key, kind) in &keys {
                    remove_pair(key)?;
                    let argv = [
                        keygen.to_string_lossy().into_owned(),
                        "-q".to_owned(),
                        "-t".to_owned(),
                        kind.clone(),
                        "-N".to_owned(),
                        String::new(),
                        "-f".to_owned(),
                        key.to_string_lossy().into_owned(),
                    ];
                    self.run_program(&argv)?;
                }
                Ok(format!("{} regenerated", keys.len()))
            }
        }
    }

    /// Private host keys with their types, `ssh_host_TYPE_key`.
    fn host_keys(&self) -> Result<Vec<(PathBuf, String)>, StepError> {
        let entries = match fs::read_dir(path::below(self.root, SSH)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StepError::io(SSH)(error)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StepError::io(SSH))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = name
                .strip_prefix("ssh_host_")
                .and_then(|rest| rest.strip_suffix("_key"));
            if let Some(kind) = kind {
                keys.push((entry.path(), kind.to_owned()));
            }
        }
        keys.sort();
        Ok(keys)
    }

    pub(super) fn hooks(&mut self) -> Applied {
        let hooks = executables(&path::below(self.root, HOOKS)).map_err(StepError::io(HOOKS))?;
        if hooks.len() > MOST_HOOKS {
            return Err(StepError::invalid(format!("more than {MOST_HOOKS} hooks")));
        }
        for hook in &hooks {
            self.run_program(&[hook.to_string_lossy().into_owned()])?;
        }
        Ok(format!("{} hooks", hooks.len()))
    }

    pub(super) fn commands(&mut self) -> Applied {
        for command in &self.spec.commands {
            self.run_program(&command.argv)?;
        }
        Ok(format!("{} commands", self.spec.commands.len()))
    }

    fn run_program(&mut self, argv: &[String]) -> Result<(), StepError> {
        let name = argv.first().cloned().unwrap_or_default();
        let cgroup = match &self.cgroup {
            Some(cgroup) => cgroup.clone(),
            None => {
                let made = self.freezer.make_stamp_cgroup();
                let made = made.map_err(StepError::io("making a cgroup"))?;
                self.cgroup.insert(made).clone()
            }
        };
        let env = self.program_env();
        let ended = helper::run(argv, &env, &cgroup, self.deadline).map_err(|error| {
            let errno = match &error {
                AgentError::Spawn { errno, .. } | AgentError::Os { errno, .. } => *errno,
                _ => Errno(libc::EINVAL),
            };
            StepError {
                errno,
                detail: format!("{name}: {error}"),
            }
        })?;
        if ended.succeeded() {
            return Ok(());
        }
        let (errno, how) = match ended.state {
            ExecState::TimedOut => (libc::ETIMEDOUT, "ran out of time".to_owned()),
            ExecState::Exited { code } => (libc::EIO, format!("exited with {code}")),
            ExecState::Signaled { signal } => (libc::EIO, format!("ended by signal {signal}")),
            ExecState::Running => (libc::EIO, "did not end".to_owned()),
        };
        Err(StepError {
            errno: Errno(errno),
            detail: format!("{name} {how}: {}", ended.tail.trim_end()),
        })
    }

    /// Later exec sessions' environment, and who the daughter is.
    fn program_env(&self) -> EnvMap {
        let mut env = self.env.clone();
        let spec = self.spec;
        let facts = [
            ("BROOD_MACHINE_ID", spec.machine_id.to_string()),
            ("BROOD_HOSTNAME", spec.hostname.clone()),
            ("BROOD_GENERATION", spec.generation.to_string()),
            ("BROOD_FORK_INDEX", spec.fork_index.to_string()),
            ("BROOD_BOOT_ID", spec.boot_id.to_string()),
        ];
        for (name, value) in facts {
            // A checked hostname and numbers hold no NUL, so this is never refused.
            if env.insert(name, value).is_err() {
                eprintln!("brood-agent: {name} is missing from a hook's environment");
            }
        }
        env
    }

    /// Removes the programs' cgroup, unless one of them left something running in it.
    pub(super) fn leave_cgroup(&mut self) {
        if let Some(cgroup) = self.cgroup.take()
            && let Err(error) = fs::remove_dir(&cgroup)
            && !cgroup::is_gone(&error)
            && error.raw_os_error() != Some(libc::EBUSY)
        {
            eprintln!("brood-agent: {} stays: {error}", cgroup.display());
        }
    }
}

fn remove_pair(key: &Path) -> Result<(), StepError> {
    let mut public = key.as_os_str().to_owned();
    public.push(".pub");
    for file in [key, Path::new(&public)] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StepError::io(file.to_string_lossy())(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Executable files in `directory`, sorted by name; none if there is no such directory.
fn executables(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let meta = fs::metadata(&path)?;
        if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
