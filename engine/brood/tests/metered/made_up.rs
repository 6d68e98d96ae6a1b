//! Machines that never were, for what real ones do not show in seconds: their readings are written as the engine writes them.

use std::collections::BTreeMap;

use brood_meter::{Cause, Last, Motion, Reading, Subject};
use brood_store::{Store, StoreError, Write};
use brood_units::{Instant, MachineId, Timestamp};

/// A machine with 1 vCPU and 1 GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MadeUp {
    id: MachineId,
    tenant: &'static str,
    born_ms: i64,
}

/// An hour, in milliseconds.
pub(crate) const HOUR: u64 = 3_600_000;

impl MadeUp {
    pub(crate) fn born(store: &Store, number: u8, tenant: &'static str, born_ms: i64) -> Self {
        let made = Self {
            id: MachineId::from_bytes([number; 16]),
            tenant,
            born_ms,
        };
        let subject = Subject {
            machine: made.id,
            is_checkpoint: false,
            tenant: tenant.to_owned(),
            project: format!("p{}", number % 2),
            lineage: made.id,
            template: MachineId::from_bytes([0xff; 16]),
            vcpu_milli: 1000,
            memory_mib: 1024,
            disk_mib: 0,
            labels: BTreeMap::from([("team".to_owned(), format!("t{number}"))]),
            born: Timestamp::from_millis(born_ms),
        };
        let last = Last::at_birth(subject.born, made.instant(0), Motion::Running);
        let written = store.write(move |write| write.open_meter(&subject, &last));
        written.wait().expect("written");
        made
    }

    fn instant(&self, millis: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    pub(crate) fn id(&self) -> MachineId {
        self.id
    }

    pub(crate) fn tenant(&self) -> &'static str {
        self.tenant
    }

    /// Counted at several ages, in one commit.
    pub(crate) fn counted_all(&self, store: &Store, ages_ms: Vec<u64>) {
        let own = *self;
        let count = move |write: &mut Write<'_>| -> Result<(), StoreError> {
            for age_ms in ages_ms {
                let counted = write.count(own.id, &own.reading(age_ms, 0), Cause::Tick)?;
                assert!(counted.is_some(), "{age_ms} is no later");
            }
            Ok(())
        };
        store.write(count).wait().expect("counted");
    }

    fn reading(&self, age_ms: u64, jump_ms: i64) -> Reading {
        Reading {
            at: Timestamp::from_millis(self.born_ms + age_ms.cast_signed() + jump_ms),
            instant: Some(self.instant(age_ms)),
            cpu_ns: Some(age_ms * 10_000),
            private_kib: Some(2048),
        }
    }

    /// Counted at an age; what it used is a hundredth of a vCPU. The wall clock may be somewhere else.
    pub(crate) fn counted_at(&self, store: &Store, age_ms: u64, jump_ms: i64) -> Option<i64> {
        let (id, reading) = (self.id, self.reading(age_ms, jump_ms));
        let counted = store.write(move |write| write.count(id, &reading, Cause::Tick));
        counted.wait().expect("counted")
    }

    pub(crate) fn counted(&self, store: &Store, age_ms: u64) -> Option<i64> {
        self.counted_at(store, age_ms, 0)
    }
}
