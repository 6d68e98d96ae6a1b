//! The chain of records: each carries the hash of everything before it.
//!
//! ```text
//!  0…0 ─► SHA-256(hash before, record 1) ─► SHA-256(hash before, record 2) ─► …
//! ```
//!
//! Invariant: whoever changes, removes or inserts a record changes the hash of each record behind it. It proves that the
//! records are those of before to whoever has kept an earlier hash elsewhere; to nobody else.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{Record, Subject};

/// A place in the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Hash {
    /// The hash of a record behind this one. What is hashed has a fixed order, and text its length before it.
    pub fn then(&self, seq: i64, subject: &Subject, record: &Record) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(b"brood.usage/1");
        bytes.extend_from_slice(&self.0);
        bytes.extend_from_slice(&seq.to_le_bytes());
        who(&mut bytes, subject);
        what(&mut bytes, record);
        Self(Sha256::digest(&bytes).into())
    }
}

fn who(bytes: &mut Vec<u8>, subject: &Subject) {
    bytes.extend_from_slice(subject.machine.as_bytes());
    bytes.push(subject.is_checkpoint.into());
    bytes.extend_from_slice(subject.lineage.as_bytes());
    bytes.extend_from_slice(subject.template.as_bytes());
    for number in [subject.vcpu_milli, subject.memory_mib, subject.disk_mib] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&subject.born.as_millis().to_le_bytes());
    text(bytes, &subject.tenant);
    text(bytes, &subject.project);
    length(bytes, subject.labels.len());
    for (key, value) in &subject.labels {
        text(bytes, key);
        text(bytes, value);
    }
}

fn what(bytes: &mut Vec<u8>, record: &Record) {
    bytes.push(record.cause as u8);
    bytes.push(record.motion as u8);
    bytes.push(record.doubt.cpu.into());
    bytes.push(record.doubt.memory.into());
    bytes.extend_from_slice(&record.end.as_millis().to_le_bytes());
    let numbers = [
        record.age_us,
        record.span_us,
        record.cpu_ns,
        record.cpu_total_ns,
        record.private_kib,
    ];
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    // No record has this number.
    bytes.extend_from_slice(&record.corrects.unwrap_or(0).to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    length(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
}

/// Where a chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// Records are not there.
    #[error("usage records {from} to {to} are missing")]
    Missing {
        /// The first that is not there.
        from: i64,
        /// The last.
        to: i64,
    },
    /// A record is not what was written.
    #[error(
        "usage record {seq} of machine {machine} is not what was written: its hash is {found}, and should be {expected}"
    )]
    Changed {
        /// Which.
        seq: i64,
        /// Whose.
        machine: brood_units::MachineId,
        /// What the chain so far makes of it.
        expected: Hash,
        /// What stands with it.
        found: Hash,
    },
}

/// A chain that is being looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The number of the last record that was seen.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
}

impl Chain {
    /// Takes the next record.
    ///
    /// # Errors
    /// It is not the next, or not what was written. The chain goes on behind it, so that each break is found.
    pub fn take(
        &mut self,
        seq: i64,
        subject: &Subject,
        record: &Record,
        found: Hash,
    ) -> Result<(), Break> {
        let due = self.seq + 1;
        let expected = self.hash.then(seq, subject, record);
        *self = Self { seq, hash: found };
        if seq != due {
            return Err(Break::Missing {
                from: due,
                to: seq - 1,
            });
        }
        if expected != found {
            return Err(Break::Changed {
                seq,
                machine: subject.machine,
                expected,
                found,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use brood_units::Timestamp;

    use super::*;
    use crate::{Cause, Doubt, Motion};

    fn record() -> Record {
        Record {
            cause: Cause::Fork,
            motion: Motion::Paused,
            doubt: Doubt {
                cpu: false,
                memory: true,
            },
            end: Timestamp::from_millis(61_000),
            age_us: 60_000_000,
            span_us: 59_000_000,
            cpu_ns: 5,
            cpu_total_ns: 6,
            private_kib: 7,
            corrects: Some(3),
        }
    }

    #[test]
    fn a_hash_is_that_of_the_format_and_of_no_other() {
        let subject = crate::batch::tests::subject(1);
        // Made by another program of what `who` and `what` say.
        let expected = "ce4c0d56582ed62778e5b9531b8a013c3ae735317501ce636e4d25600c40d305";
        let hash = Hash([9; 32]).then(7, &subject, &record());
        assert_eq!(hash.to_string(), expected);
    }

    #[test]
    fn a_chain_goes_on_behind_each_break_and_names_it() {
        let subject = crate::batch::tests::subject(1);
        let start = Chain {
            seq: 4,
            hash: Hash([1; 32]),
        };
        let fifth = start.hash.then(5, &subject, &record());
        let sixth = fifth.then(6, &subject, &record());
        let mut chain = start;
        assert_eq!(chain.take(5, &subject, &record(), fifth), Ok(()));
        assert_eq!(chain.take(6, &subject, &record(), sixth), Ok(()));
        assert_eq!(
            chain,
            Chain {
                seq: 6,
                hash: sixth
            }
        );
        let missing = Break::Missing { from: 7, to: 9 };
        assert_eq!(chain.take(10, &subject, &record(), fifth), Err(missing));
        let other = Hash([2; 32]);
        let changed = Break::Changed {
            seq: 11,
            machine: subject.machine,
            expected: fifth.then(11, &subject, &record()),
            found: other,
        };
        assert_eq!(chain.take(11, &subject, &record(), other), Err(changed));
        let next = other.then(12, &subject, &record());
        assert_eq!(chain.take(12, &subject, &record(), next), Ok(()));
    }
}
