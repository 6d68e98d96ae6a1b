//! Which secrets a machine was given, and where they went.
//!
//! Invariant: a row names a version and a place and never holds a value; rows end with their machine.

use brood_units::MachineId;

use crate::row::{get, number, word};
use crate::{Read, StoreError, Write};

/// Where a value went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenTarget {
    /// Into a variable.
    Env,
    /// Into a file.
    File,
}

impl GivenTarget {
    const ALL: [Self; 2] = [Self::Env, Self::File];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
        }
    }
}

/// One secret that a machine was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenRow {
    /// Where the value went.
    pub target: GivenTarget,
    /// The variable's name or the file's path.
    pub place: String,
    /// The secret.
    pub name: String,
    /// Its version.
    pub version: u32,
}

impl Read<'_> {
    /// What a living machine was given, by place.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn given(&self, machine: MachineId) -> Result<Vec<GivenRow>, StoreError> {
        self.all(
            "SELECT * FROM machine_secrets WHERE machine = ?1 ORDER BY target, place",
            [machine.as_bytes()],
            |row| {
                Ok(GivenRow {
                    target: word(row, "target", &GivenTarget::ALL, GivenTarget::as_str)?,
                    place: get(row, "place")?,
                    name: get(row, "name")?,
                    version: number(row, "version")?,
                })
            },
        )
    }
}

impl Write<'_> {
    /// Writes down what a machine was given.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn add_given(&mut self, machine: MachineId, given: &[GivenRow]) -> Result<(), StoreError> {
        for row in given {
            self.execute(
                "INSERT INTO machine_secrets VALUES (?1, ?2, ?3, ?4, ?5)",
                (
                    machine.as_bytes(),
                    row.target.as_str(),
                    &row.place,
                    &row.name,
                    row.version,
                ),
            )?;
        }
        Ok(())
    }

    /// A frozen point of a machine holds what she was given.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn pass_given_on(&mut self, mother: MachineId, point: MachineId) -> Result<(), StoreError> {
        let copy = "INSERT INTO machine_secrets
             SELECT ?2, target, place, name, version FROM machine_secrets WHERE machine = ?1";
        self.execute(copy, (mother.as_bytes(), point.as_bytes()))?;
        Ok(())
    }
}
