//! What the agent is told when it starts. Invariant: as the first process of a guest every option has a default and an
//! unknown word (the kernel passes on those of its command line that it does not know) is no reason to stop.

use std::path::PathBuf;

use brood_agent_proto::AGENT_PORT;

/// Where the agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// This vsock port, for any CID.
    Vsock(u32),
    /// A Unix socket at this path, for tests on a host.
    Unix(PathBuf),
}

/// What the agent is in its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first process: it mounts, reaps and powers off.
    Init,
    /// A service among others.
    Service,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--listen vsock:PORT` or `--listen unix:PATH`. Default: vsock, port 1024.
    pub listen: Listen,
    /// `--mode init` or `--mode service`. Default: init for process 1.
    pub role: Role,
    /// `--cgroup-root PATH`: the cgroup2 directory below which the workload and the agent live. Default:
    /// `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
    /// `--root-prefix PATH`: the root of the files that the stamp writes and that user names are looked up in.
    /// Default: `/`.
    pub root_prefix: PathBuf,
}

/// The command line makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An option without its value.
    #[error("{option} needs a value")]
    NoValue {
        /// The option.
        option: String,
    },
    /// A value that is none of those the option takes.
    #[error("{option}: '{value}' is not {wanted}")]
    BadValue {
        /// The option.
        option: String,
        /// What was given.
        value: String,
        /// What may be given.
        wanted: &'static str,
    },
    /// A word that is no option.
    #[error("unknown word '{word}'")]
    Unknown {
        /// The word.
        word: String,
    },
}

impl Options {
    /// Defaults for `role`.
    pub fn new(role: Role) -> Self {
        Self {
            listen: Listen::Vsock(AGENT_PORT),
            role,
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            root_prefix: PathBuf::from("/"),
        }
    }

    /// Parses `words` (without the program's name). Process 1 skips words it does not know.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn parse(
        words: impl IntoIterator<Item = String>,
        default_role: Role,
    ) -> Result<Self, OptionsError> {
        let mut options = Self::new(default_role);
        let mut words = words.into_iter();
        while let Some(option) = words.next() {
            if !matches!(
                option.as_str(),
                "--listen" | "--mode" | "--cgroup-root" | "--root-prefix"
            ) {
                match default_role {
                    Role::Init => continue,
                    Role::Service => return Err(OptionsError::Unknown { word: option }),
                }
            }
            let Some(value) = words.next() else {
                return Err(OptionsError::NoValue { option });
            };
            options.set(option, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, option: String, value: String) -> Result<(), OptionsError> {
        let bad = |value: String, wanted| OptionsError::BadValue {
            option: option.clone(),
            value,
            wanted,
        };
        match option.as_str() {
            "--cgroup-root" => self.cgroup_root = PathBuf::from(value),
            "--root-prefix" => self.root_prefix = PathBuf::from(value),
            "--mode" => {
                self.role = match value.as_str() {
                    "init" => Role::Init,
                    "service" => Role::Service,
                    _ => return Err(bad(value, "init or service")),
                }
            }
            _ => {
                self.listen = match value.split_once(':') {
                    Some(("unix", path)) if !path.is_empty() => Listen::Unix(PathBuf::from(path)),
                    Some(("vsock", port)) => match port.parse() {
                        Ok(port) => Listen::Vsock(port),
                        Err(_) => return Err(bad(value, "vsock:PORT or unix:PATH")),
                    },
                    _ => return Err(bad(value, "vsock:PORT or unix:PATH")),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, role: Role) -> Result<Options, OptionsError> {
        Options::parse(line.split_whitespace().map(str::to_owned), role)
    }

    #[test]
    fn all_options_are_taken() {
        let options = parse(
            "--listen unix:/run/a.sock --mode service --cgroup-root /c --root-prefix /r",
            Role::Init,
        )
        .unwrap();
        assert_eq!(options.listen, Listen::Unix("/run/a.sock".into()));
        assert_eq!(options.role, Role::Service);
        assert_eq!(options.cgroup_root, PathBuf::from("/c"));
        assert_eq!(options.root_prefix, PathBuf::from("/r"));
    }

    #[test]
    fn words_of_the_kernel_command_line_stop_a_service_only() {
        assert_eq!(
            parse("splash nosmp", Role::Init),
            Ok(Options::new(Role::Init))
        );
        assert_eq!(
            parse("splash", Role::Service),
            Err(OptionsError::Unknown {
                word: "splash".into()
            })
        );
    }

    #[test]
    fn a_port_that_is_no_number_is_refused() {
        assert!(matches!(
            parse("--listen vsock:ssh", Role::Service),
            Err(OptionsError::BadValue { .. })
        ));
        assert!(matches!(
            parse("--listen", Role::Init),
            Err(OptionsError::NoValue { .. })
        ));
    }
}
