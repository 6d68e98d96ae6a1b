//! The steps that are files and system calls. Invariant: each writes what its name says below the stamp's root, and
//! says in its report what that was.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use brood_units::MachineId;
use serde::Serialize;

use super::{Applied, Stamp, StepError, env_file, path};

/// machine-id(5).
pub(super) const MACHINE_ID: &str = "/etc/machine-id";
/// D-Bus's own copy, in guests that have one.
const DBUS_MACHINE_ID: &str = "/var/lib/dbus/machine-id";
const BOOT_ID_FILE: &str = "/run/brood/boot_id";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const IDENTITY: &str = "/run/brood/identity.json";
/// A little-endian `u64`, one more after each stamp; always the same inode, so that it can be mapped and watched.
const GENERATION: &str = "/run/brood/generation";

/// Longest hostname (HOST_NAME_MAX, hostname(7)).
const LONGEST_HOSTNAME: usize = 64;

/// `/run/brood/identity.json`.
#[derive(Serialize)]
struct Identity<'a> {
    machine_id: String,
    hostname: &'a str,
    mother: Option<String>,
    generation: u32,
    fork_index: u32,
    boot_id: String,
}

impl Stamp<'_> {
    pub(super) fn validate(&mut self) -> Applied {
        let name = &self.spec.hostname;
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if name.is_empty()
            || name.len() > LONGEST_HOSTNAME
            || name.starts_with(['-', '.'])
            || !name.bytes().all(letters)
        {
            return Err(StepError::invalid("hostname"));
        }
        for file in &self.spec.files {
            if !path::is_plain(&file.path) || file.mode > 0o7777 {
                return Err(StepError::invalid(format!("file {}", file.path)));
            }
        }
        for command in &self.spec.commands {
            if command.argv.iter().all(String::is_empty) {
                return Err(StepError::invalid("a command without a program"));
            }
        }
        Ok("the stamp is sound".to_owned())
    }

    pub(super) fn entropy(&mut self) -> Applied {
        self.system
            .add_entropy(&self.spec.seed.bytes())
            .map_err(StepError::io("crediting the random number generator"))?;
        Ok("64 bytes credited, reseeded".to_owned())
    }

    pub(super) fn clock(&mut self) -> Applied {
        let before = self.system.clocks().realtime_ns;
        self.system
            .set_realtime(self.spec.wall_clock_ns)
            .map_err(StepError::io("clock_settime"))?;
        self.clock = (before, self.system.clocks().realtime_ns);
        Ok(format!(
            "moved by {} ns",
            i128::from(self.spec.wall_clock_ns) - i128::from(before)
        ))
    }

    pub(super) fn hostname(&mut self) -> Applied {
        let name = &self.spec.hostname;
        self.system
            .set_hostname(name)
            .map_err(StepError::io("sethostname"))?;
        self.write("/etc/hostname", 0o644, format!("{name}\n").as_bytes())?;
        Ok(name.clone())
    }

    pub(super) fn machine_id(&mut self) -> Applied {
        let text = format!("{}\n", self.spec.machine_id);
        self.write(MACHINE_ID, 0o444, text.as_bytes())?;
        // Usually a link to the file above.
        let dbus = path::below(self.root, DBUS_MACHINE_ID);
        if fs::symlink_metadata(dbus).is_ok_and(|meta| meta.is_file()) {
            self.write(DBUS_MACHINE_ID, 0o444, text.as_bytes())?;
        }
        Ok(self.spec.machine_id.to_string())
    }

    /// The kernel keeps its boot id where nobody can write, so a file is shown over it. Later stamps rewrite that file.
    pub(super) fn boot_id(&mut self) -> Applied {
        let file = path::below(self.root, BOOT_ID_FILE);
        let text = format!("{}\n", self.spec.boot_id);
        path::in_place(&file, text.as_bytes()).map_err(StepError::io(BOOT_ID_FILE))?;
        self.system
            .show_at(&file, &path::below(self.root, BOOT_ID))
            .map_err(StepError::io(BOOT_ID))?;
        Ok(self.spec.boot_id.to_string())
    }

    pub(super) fn env(&mut self) -> Applied {
        let text = env_file::format(&self.env);
        // It may hold secrets.
        self.write(env_file::FILE, 0o600, text.as_bytes())?;
        Ok(format!("{} variables", self.env.iter().count()))
    }

    pub(super) fn identity(&mut self) -> Applied {
        let text = |id: &MachineId| id.to_string();
        let identity = Identity {
            machine_id: text(&self.spec.machine_id),
            hostname: &self.spec.hostname,
            mother: self.spec.mother.as_ref().map(text),
            generation: self.spec.generation,
            fork_index: self.spec.fork_index,
            boot_id: self.spec.boot_id.to_string(),
        };
        let json =
            serde_json::to_vec(&identity).map_err(|error| StepError::io(IDENTITY)(error.into()))?;
        self.write(IDENTITY, 0o644, &json)?;
        Ok(format!("generation {}", self.spec.generation))
    }

    pub(super) fn files(&mut self) -> Applied {
        for file in &self.spec.files {
            self.write(&file.path, file.mode, &file.bytes.0)?;
        }
        Ok(format!("{} files", self.spec.files.len()))
    }

    pub(super) fn generation(&mut self) -> Applied {
        let path = path::below(self.root, GENERATION);
        let before = fs::read(&path)
            .ok()
            .and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
            .unwrap_or(0);
        let after = before.wrapping_add(1);
        path::in_place(&path, &after.to_le_bytes()).map_err(StepError::io(GENERATION))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
            .map_err(StepError::io(GENERATION))?;
        Ok(after.to_string())
    }

    fn write(&self, file: &str, mode: u32, bytes: &[u8]) -> Result<(), StepError> {
        path::replace(&path::below(self.root, file), mode, bytes).map_err(StepError::io(file))
    }
}
