//! `brood cp`
//!
//! Invariant: a file is there whole or as it was, on both sides. What a guest calls its files never leads out of the
//! directory that is copied into.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use brood_api::Code;
use brood_api::exec::ExecSpec;
use brood_api::file::{FileKind, FileStat};
use brood_client::{Client, ClientError};
use brood_units::MachineId;
use clap::Args;
use serde::Serialize;

use super::Run;
use super::failure::Failure;
use super::name;
use super::out::Out;

/// `brood cp`
#[derive(Args)]
pub struct Arguments {
    /// From where: MACHINE:/PATH, or a path here; `-` is standard input.
    from: Place,
    /// To where: MACHINE:/PATH, or a path here; `-` is standard output.
    to: Place,
    /// Copy directories with all that is in them; symbolic links and devices are left out, and named.
    #[arg(short, long)]
    recursive: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Here(PathBuf),
    There { machine: String, path: String },
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            // `./a:/b` is a path here.
            Some((machine, path)) if !machine.contains('/') && !machine.is_empty() => {
                if !path.starts_with('/') {
                    return Err(format!(
                        "'{path}' is not absolute: write it {machine}:/PATH"
                    ));
                }
                Ok(Self::There {
                    machine: machine.to_owned(),
                    path: path.to_owned(),
                })
            }
            _ => Ok(Self::Here(text.into())),
        }
    }
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Copied {
    files: u64,
    bytes: u64,
}

/// One side is a guest.
struct Guest<'a> {
    client: &'a Client,
    id: MachineId,
    recursive: bool,
    copied: Copied,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let guest = |machine: &str| -> Result<Guest<'_>, Failure> {
            Ok(Guest {
                client,
                id: name::machine(client, machine)?,
                recursive: self.recursive,
                copied: Copied::default(),
            })
        };
        let waiting = out.waiting("copying");
        let copied = match (&self.from, &self.to) {
            (Place::There { machine, path }, Place::Here(here)) => {
                let mut guest = guest(machine)?;
                guest.fetch(path, here)?;
                if here.as_os_str() == "-" {
                    return Ok(ExitCode::SUCCESS);
                }
                guest.copied
            }
            (Place::Here(here), Place::There { machine, path }) => {
                let mut guest = guest(machine)?;
                guest.bring(here, path)?;
                guest.copied
            }
            _ => {
                let words = "one side is a machine's, MACHINE:/PATH, and the other is here";
                return Err(Failure::usage(words));
            }
        };
        drop(waiting);
        out.answer(&copied, String::new)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Guest<'_> {
    fn fetch(&mut self, path: &str, here: &Path) -> Result<(), Failure> {
        if here.as_os_str() == "-" {
            let mut from = self.client.read_file(self.id, path)?;
            io::copy(&mut from, &mut io::stdout().lock())?;
            return Ok(());
        }
        let stat = self.client.stat_file(self.id, path)?;
        let target = match here.is_dir() {
            true => here.join(last(path)?),
            false => here.to_owned(),
        };
        match stat.kind {
            FileKind::Directory => self.fetch_directory(path, &target),
            FileKind::Symlink => self.fetch_file(path, &target, None),
            FileKind::Regular => self.fetch_file(path, &target, Some(&stat)),
            FileKind::Other => Err(Failure::usage(format!(
                "{path} is no file and no directory"
            ))),
        }
    }

    fn fetch_directory(&mut self, path: &str, target: &Path) -> Result<(), Failure> {
        self.want_directories(path)?;
        // What is open is on a list: a guest's directories may be deeper than a stack.
        let mut open = vec![(path.to_owned(), target.to_owned())];
        while let Some((path, target)) = open.pop() {
            make_directory(&target)?;
            for entry in self.client.list_directory(self.id, &path)?.items {
                let name = child(&entry.name)?;
                let (path, target) = (format!("{path}/{name}"), target.join(name));
                match entry.kind {
                    FileKind::Directory => open.push((path, target)),
                    FileKind::Regular => {
                        let stat = self.client.stat_file(self.id, &path)?;
                        self.fetch_file(&path, &target, Some(&stat))?;
                    }
                    FileKind::Symlink | FileKind::Other => left_out(&path),
                }
            }
        }
        Ok(())
    }

    fn fetch_file(
        &mut self,
        path: &str,
        target: &Path,
        stat: Option<&FileStat>,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::local(format!("{}: {error}", target.display()));
        let mut from = self.client.read_file(self.id, path)?;
        let directory = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory.unwrap_or(Path::new(".")))
            .map_err(failed)?;
        let bytes = pass(&mut from, file.as_file_mut()).map_err(|error| match error {
            Passed::From(error) => Failure::local(format!("{path} broke off: {error}")),
            Passed::To(error) => failed(error),
        })?;
        let mode = stat.map_or(0o644, |stat| stat.mode & 0o777);
        let set = file.as_file().set_permissions(Permissions::from_mode(mode));
        set.map_err(failed)?;
        file.persist(target).map_err(|error| failed(error.error))?;
        self.count(bytes);
        Ok(())
    }

    fn bring(&mut self, here: &Path, path: &str) -> Result<(), Failure> {
        if here.as_os_str() == "-" {
            let written = self
                .client
                .write_file(self.id, path, None, io::stdin().lock())?;
            self.count(written.bytes);
            return Ok(());
        }
        let about = about(here)?;
        let target = match self.is_directory(path)? {
            true => format!("{}/{}", path.trim_end_matches('/'), own_name(here)?),
            false => path.to_owned(),
        };
        if !about.is_dir() {
            return self.bring_file(here, &target, about.permissions().mode());
        }
        self.want_directories(&here.display().to_string())?;
        let mut open = vec![(here.to_owned(), target)];
        while let Some((here, target)) = open.pop() {
            self.make_directory(&target)?;
            let failed = |error: io::Error| Failure::local(format!("{}: {error}", here.display()));
            for entry in fs::read_dir(&here).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                let target = format!("{target}/{}", own_name(&entry.path())?);
                if kind.is_dir() {
                    open.push((entry.path(), target));
                } else if kind.is_file() {
                    let mode = entry.metadata().map_err(failed)?.permissions().mode();
                    self.bring_file(&entry.path(), &target, mode)?;
                } else {
                    left_out(&entry.path().display().to_string());
                }
            }
        }
        Ok(())
    }

    fn bring_file(&mut self, here: &Path, target: &str, mode: u32) -> Result<(), Failure> {
        let file = File::open(here);
        let file = file.map_err(|error| Failure::local(format!("{}: {error}", here.display())))?;
        let mode = Some(mode & 0o777);
        let written = self.client.write_file(self.id, target, mode, file)?;
        self.count(written.bytes);
        Ok(())
    }

    fn is_directory(&self, path: &str) -> Result<bool, Failure> {
        match self.client.stat_file(self.id, path) {
            Ok(stat) => Ok(stat.kind == FileKind::Directory),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The guest's own program does it: no operation makes directories.
    fn make_directory(&self, path: &str) -> Result<(), Failure> {
        let spec = ExecSpec {
            argv: ["mkdir", "-p", "--", path].map(str::to_owned).to_vec(),
            env: std::collections::BTreeMap::new(),
            cwd: None,
            user: None,
            timeout: None,
            tty: None,
            stdin: None,
            wait: Some(true),
        };
        let made = self.client.start_exec(self.id, &spec)?;
        match made.exec.code {
            Some(0) => Ok(()),
            _ => Err(Failure::local(format!(
                "the guest's mkdir failed: {}",
                made.stderr.unwrap_or_default().trim()
            ))),
        }
    }

    fn want_directories(&self, path: &str) -> Result<(), Failure> {
        match self.recursive {
            true => Ok(()),
            false => Err(Failure::usage(format!(
                "{path} is a directory: copy it with --recursive"
            ))),
        }
    }

    fn count(&mut self, bytes: u64) {
        self.copied.files += 1;
        self.copied.bytes += bytes;
    }
}

pub(super) enum Passed {
    From(io::Error),
    To(io::Error),
}

/// As std's `copy`, and says which side failed.
pub(super) fn pass(from: &mut impl Read, to: &mut impl Write) -> Result<u64, Passed> {
    let (mut piece, mut bytes) = (vec![0; 64 << 10], 0);
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Passed::From(error)),
        };
        let read = piece.get(..read).unwrap_or_default();
        to.write_all(read).map_err(Passed::To)?;
        bytes += u64::try_from(read.len()).unwrap_or(u64::MAX);
    }
}

fn is_not_found(error: &ClientError) -> bool {
    let problem = error.problem();
    problem.is_some_and(|problem| problem.code == Code::NotFound)
}

fn left_out(path: &str) {
    eprintln!("brood: left out: {}", super::out::plain(path));
}

fn about(here: &Path) -> Result<fs::Metadata, Failure> {
    let about = fs::metadata(here);
    about.map_err(|error| Failure::local(format!("{}: {error}", here.display())))
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
            Err(Failure::local(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// The last name of a guest's path.
fn last(path: &str) -> Result<&str, Failure> {
    let name = path.trim_end_matches('/').rsplit('/').next();
    child(name.unwrap_or_default())
}

/// What a guest calls a file, as the name of one here.
fn child(name: &str) -> Result<&str, Failure> {
    if name.is_empty() || name.contains(['/', '\0']) || [".", ".."].contains(&name) {
        let name = name.escape_debug();
        return Err(Failure::usage(format!(
            "'{name}' cannot be the name of a file here"
        )));
    }
    Ok(name)
}

/// What a file here is called.
fn own_name(path: &Path) -> Result<String, Failure> {
    // `.` and `..` are called something as well.
    let whole = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().unwrap_or_else(|_| path.to_owned()),
    };
    let name = whole.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| Failure::usage(format!("the name of {} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_machines_where_it_says_so() {
        let there = |machine: &str, path: &str| Place::There {
            machine: machine.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!("m:/a b".parse(), Ok(there("m", "/a b")));
        assert_eq!("m:/a:b".parse(), Ok(there("m", "/a:b")));
        for here in ["-", "a", "./m:/a", "/m:/a", ":/a"] {
            assert_eq!(here.parse(), Ok(Place::Here(here.into())), "{here}");
        }
        assert!(
            "m:a"
                .parse::<Place>()
                .is_err_and(|why| why.contains("m:/PATH"))
        );
    }

    #[test]
    fn what_a_guest_calls_a_file_never_leads_out_of_a_directory() {
        for bad in ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\0"] {
            assert!(child(bad).is_err(), "{bad:?}");
        }
        assert!(child("..a").is_ok());
        assert!(last("/a/b/").is_ok_and(|name| name == "b"));
        assert!(last("/").is_err());
    }
}
