//! The key that secrets are sealed with: a file of the state directory, or a credential of systemd's.
//!
//! Invariant: a key is made once, whole and readable by its owner alone, and never in place of one that is damaged. A key
//! that other users can read is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use brood_service::identity;
use brood_service::secret::{KEY_BYTES, SecretKey};

/// The file in the state directory.
const FILE: &str = "secrets.key";
/// The credential (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "brood-secrets-key";

/// The key of a credentials directory, if it has one, or of the state directory, where it is made if there is none.
///
/// # Errors
/// It cannot be read, is no key, or others can read it.
pub(super) fn load(state: &Path, credentials: Option<&Path>) -> anyhow::Result<SecretKey> {
    if let Some(path) = credentials.map(|directory| directory.join(CREDENTIAL))
        && path.exists()
    {
        // systemd sees to who can read it.
        return read(&path);
    }
    let path = state.join(FILE);
    match fs::metadata(&path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => bail!(
            "{} can be read by others than its owner: `chmod 600` it, and put secrets anew if somebody may have read it",
            path.display()
        ),
        Ok(_) => read(&path),
        Err(error) if error.kind() == ErrorKind::NotFound => make(&path),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// 64 hexadecimal digits, with or without a line break.
fn read(path: &Path) -> anyhow::Result<SecretKey> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let Some(bytes) = decode(text.trim_end()) else {
        bail!(
            "{} is not a key, which is {} hexadecimal digits: restore the one that the secrets were put under",
            path.display(),
            KEY_BYTES * 2
        );
    };
    Ok(SecretKey::of(&bytes))
}

fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    let is_hex = text.len() == KEY_BYTES * 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    for (index, byte) in bytes.iter_mut().enumerate().filter(|_| is_hex) {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    is_hex.then_some(bytes)
}

/// Under another name until it is whole: who dies half-way leaves no damaged key.
fn make(path: &Path) -> anyhow::Result<SecretKey> {
    let bytes: [u8; KEY_BYTES] = identity::random()?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = path.with_extension("key.new");
    let write = || -> std::io::Result<()> {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        // The name is durable before anything is sealed with it.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("making {}", path.display()))?;
    Ok(SecretKey::of(&bytes))
}

#[cfg(test)]
mod tests {
    use brood_service::secret::{Label, Value};

    use super::*;

    const LABEL: Label<'_> = Label {
        tenant: "acme",
        name: "token",
        version: 1,
    };

    fn sealed(key: &SecretKey) -> Vec<u8> {
        let value = Value::from("canary".to_owned());
        key.seal(LABEL, &value).expect("sealed")
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_and_found_again() {
        let state = tempfile::tempdir().expect("a directory");
        let first = load(state.path(), None).expect("made");
        let file = state.path().join(FILE);
        let mode = fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = load(state.path(), None).expect("found");
        assert!(again.open(LABEL, &sealed(&first)).is_ok());
    }

    #[test]
    fn a_damaged_key_and_one_that_others_can_read_are_refused_and_stay_as_they_are() {
        let state = tempfile::tempdir().expect("a directory");
        let file = state.path().join(FILE);
        for text in ["", "7", &"x".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            fs::write(&file, text).expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
            let refused = load(state.path(), None).expect_err("no key").to_string();
            assert!(refused.contains("64 hexadecimal digits"), "{refused}");
            assert_eq!(fs::read_to_string(&file).expect("there"), *text);
        }
        fs::write(&file, "7".repeat(64)).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
        let refused = load(state.path(), None).expect_err("others").to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn a_credential_comes_before_the_file() {
        let state = tempfile::tempdir().expect("a directory");
        let credentials = tempfile::tempdir().expect("a directory");
        let of_file = load(state.path(), Some(credentials.path())).expect("no credential yet");
        let text = format!("{}\n", "7".repeat(64));
        fs::write(credentials.path().join(CREDENTIAL), text).expect("written");
        let key = load(state.path(), Some(credentials.path())).expect("a credential");
        assert!(key.open(LABEL, &sealed(&of_file)).is_err());
        let same = SecretKey::of(&[0x77; KEY_BYTES]);
        assert!(same.open(LABEL, &sealed(&key)).is_ok());
    }
}
