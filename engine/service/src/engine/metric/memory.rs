//! What all cells cost together, by the kernel's own count.
//!
//! Invariant: however often somebody scrapes, counting takes at most a twentieth of one CPU: walking the page tables of a
//! thousand cells is not free, so that a count stands until twenty times what it took has passed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use brood_store::MachineKind;
use brood_units::MachineId;

use crate::process;

/// How much longer a count stands than it took.
const REST: u32 = 20;

/// The memory of all cells of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// Cells that are known, whether they could be looked at or have just ended.
    pub(super) cells: usize,
    pub(super) private_kib: u64,
    pub(super) pss_kib: u64,
}

/// The processes of machines and checkpoints, and what all cells cost.
#[derive(Default)]
pub(in crate::engine) struct Costs {
    // Leaf locks.
    cells: Mutex<HashMap<MachineId, (MachineKind, u32)>>,
    counted: Mutex<Option<Counted>>,
}

struct Counted {
    good_until: Instant,
    sums: Vec<(&'static str, Sum)>,
}

impl Costs {
    /// Somebody is there.
    pub(in crate::engine) fn add(&self, id: MachineId, kind: MachineKind, pid: u32) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.insert(id, (kind, pid));
    }

    /// Somebody has gone. Their number may soon be another process's.
    pub(in crate::engine) fn remove(&self, id: MachineId) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.remove(&id);
    }

    /// The sums by kind, with those of templates and of who is warm.
    pub(super) fn sums(&self, templates: &[u32], warm: &[u32]) -> Vec<(&'static str, Sum)> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        if let Some(counted) = counted.as_ref().filter(|last| begun < last.good_until) {
            return counted.sums.clone();
        }
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |wanted: MachineKind| -> Vec<u32> {
            let cells = cells.values().filter(|(kind, _)| *kind == wanted);
            cells.map(|(_, pid)| *pid).collect()
        };
        let (machines, points) = (of(MachineKind::Machine), of(MachineKind::Checkpoint));
        drop(cells);
        let sums = vec![
            ("machine", sum(&machines)),
            ("checkpoint", sum(&points)),
            ("template", sum(templates)),
            ("warm", sum(warm)),
        ];
        let rest: Duration = begun.elapsed() * REST;
        *counted = Some(Counted {
            good_until: Instant::now() + rest,
            sums: sums.clone(),
        });
        sums
    }
}

fn sum(pids: &[u32]) -> Sum {
    // One that has ended meanwhile costs nothing.
    let each = pids.iter().filter_map(|pid| process::memory(*pid).ok());
    let none = Sum {
        cells: pids.len(),
        ..Sum::default()
    };
    each.fold(none, |sum, one| Sum {
        cells: sum.cells,
        private_kib: sum.private_kib.saturating_add(one.private_kib),
        pss_kib: sum.pss_kib.saturating_add(one.pss_kib),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_costs_something_and_who_has_gone_nothing() {
        let costs = Costs::default();
        let id = MachineId::from_bytes([1; 16]);
        costs.add(id, MachineKind::Machine, std::process::id());
        let of = |sums: Vec<(&str, Sum)>, wanted: &str| {
            let found = sums.into_iter().find(|(kind, _)| *kind == wanted);
            found.expect("a kind").1
        };
        let here = of(costs.sums(&[], &[]), "machine");
        assert!(
            here.cells == 1 && here.private_kib > 0 && here.pss_kib >= here.private_kib,
            "{here:?}"
        );
        costs.remove(id);
        // A new count, as after its rest.
        *costs.counted.lock().expect("whole") = None;
        assert_eq!(of(costs.sums(&[], &[]), "machine"), Sum::default());
        *costs.counted.lock().expect("whole") = None;
        let gone = of(costs.sums(&[u32::MAX], &[]), "template");
        assert_eq!((gone.cells, gone.pss_kib), (1, 0));
    }

    #[test]
    fn a_count_stands_until_its_rest_is_over() {
        let costs = Costs::default();
        let stands = vec![(
            "machine",
            Sum {
                cells: 1,
                private_kib: 7,
                pss_kib: 9,
            },
        )];
        *costs.counted.lock().expect("whole") = Some(Counted {
            good_until: Instant::now() + Duration::from_secs(3600),
            sums: stands.clone(),
        });
        assert_eq!(costs.sums(&[], &[]), stands);
    }
}
