//! What all cells cost together, by the kernel's own count.
//!
//! Invariant: however often somebody scrapes, counting takes at most a twentieth of one CPU: walking the page tables of a
//! thousand cells is not free, so that a count stands until twenty times what it took has passed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// What all cells cost.
#[derive(Default)]
pub(in crate::engine) struct Costs {
    // A leaf lock, held while cells are counted: who scrapes at the same time gets the same count.
    counted: Mutex<Option<Counted>>,
}

/// Processes of one kind.
pub(super) type Cells = (&'static str, Vec<u32>);

struct Counted {
    good_until: Instant,
    sums: Vec<(&'static str, Sum)>,
}

impl Costs {
    /// The sums by kind.
    pub(super) fn sums(&self, cells: &[Cells]) -> Vec<(&'static str, Sum)> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        if let Some(counted) = counted.as_ref().filter(|last| begun < last.good_until) {
            return counted.sums.clone();
        }
        let sums: Vec<_> = cells
            .iter()
            .map(|(kind, pids)| (*kind, sum(pids)))
            .collect();
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
        let cells = |machines: &[u32], templates: &[u32]| {
            [
                ("machine", machines.to_vec()),
                ("template", templates.to_vec()),
            ]
        };
        let of = |sums: Vec<(&str, Sum)>, wanted: &str| {
            let found = sums.into_iter().find(|(kind, _)| *kind == wanted);
            found.expect("a kind").1
        };
        let here = of(costs.sums(&cells(&[std::process::id()], &[])), "machine");
        assert!(
            here.cells == 1 && here.private_kib > 0 && here.pss_kib >= here.private_kib,
            "{here:?}"
        );
        // A new count, as after its rest.
        *costs.counted.lock().expect("whole") = None;
        assert_eq!(of(costs.sums(&cells(&[], &[])), "machine"), Sum::default());
        *costs.counted.lock().expect("whole") = None;
        let gone = of(costs.sums(&cells(&[], &[u32::MAX])), "template");
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
        assert_eq!(costs.sums(&[]), stands);
    }
}
