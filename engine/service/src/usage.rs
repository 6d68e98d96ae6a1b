//! What machines used, as billing policies see it.
//!
//! Invariant: whole numbers, of what the engine knows: how long a machine lived and what it was given. No money here.

use brood_hooks::billing::{Account, Batch, Sample};
use brood_hooks::{Billing, Id128, Labels, Now, Resources, Said};
use brood_units::MachineId;

use crate::decision::{Decision, decisions};
use crate::path::Panels;

/// A window of one machine's life.
#[derive(Clone, Debug)]
pub struct Window {
    /// The machine.
    pub machine: MachineId,
    /// Who pays.
    pub account: Account,
    /// When it began to live, nanoseconds since the epoch.
    pub born_ns: u64,
    /// Begin of the window.
    pub start_ns: u64,
    /// End of the window.
    pub end_ns: u64,
    /// What it was given.
    pub shape: Resources,
    /// Its labels.
    pub labels: Labels,
}

/// What is measured: names and units of `wit/hooks.wit`.
const DIMENSIONS: [&str; 3] = ["vcpu-ns", "memory-mib-ms", "forks"];

/// One batch of all windows: vCPU time and memory time given, and one fork for each window that begins a life.
pub fn batch(sequence: u64, windows: &[Window]) -> Batch {
    let mut batch = Batch {
        sequence,
        dimensions: DIMENSIONS.map(str::to_owned).to_vec(),
        ..Batch::default()
    };
    for window in windows {
        let account = index_of(&mut batch.accounts, &window.account);
        let group = index_of(&mut batch.groups, &window.labels);
        let ns = window.end_ns.saturating_sub(window.start_ns);
        let vcpu_ns = u128::from(ns) * u128::from(window.shape.vcpu_milli) / 1000;
        let mib_ms = u128::from(ns / 1_000_000) * u128::from(window.shape.memory_mib);
        let born = u128::from(window.born_ns == window.start_ns);
        for (dimension, quantity) in (0..).zip([vcpu_ns, mib_ms, born]) {
            if quantity > 0 {
                batch.samples.push(Sample {
                    id: sample_id(window, dimension),
                    corrects: None,
                    daughter: window.machine.into(),
                    account,
                    dimension,
                    quantity: i64::try_from(quantity).unwrap_or(i64::MAX),
                    start_ms: window.start_ns / 1_000_000,
                    end_ms: window.end_ns / 1_000_000,
                    born_ms: window.born_ns / 1_000_000,
                    group,
                });
            }
        }
    }
    batch
}

/// The same machine, window and dimension are the same sample. Ids of sisters differ in their low half only, so the
/// window goes into the high one.
fn sample_id(window: &Window, dimension: u32) -> Id128 {
    let (hi, lo) = Id128::from(window.machine).halves();
    let within = window.start_ns.wrapping_mul(DIMENSIONS.len() as u64);
    Id128::from_halves(hi ^ within.wrapping_add(dimension.into()), lo)
}

fn index_of<T: Clone + PartialEq>(known: &mut Vec<T>, one: &T) -> u32 {
    let at = known.iter().position(|known| known == one);
    let at = at.unwrap_or_else(|| {
        known.push(one.clone());
        known.len() - 1
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What every billing policy makes of a batch, in one call each.
pub async fn rate(panels: &Panels, now: Now, batch: Batch) -> (Vec<Said<Billing>>, Vec<Decision>) {
    let panel = panels.billing.as_ref();
    let account = batch.accounts.first();
    let tenant = account.map_or_else(String::new, |account| account.tenant.clone());
    let said = panel.hear(now, batch).await;
    let decisions = decisions::<Billing>(panel, &tenant, &said);
    (said, decisions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(machine: u8, start_ns: u64, end_ns: u64) -> Window {
        Window {
            machine: MachineId::from_bytes([machine; 16]),
            account: Account::default(),
            born_ns: 1_000_000,
            start_ns,
            end_ns,
            shape: Resources {
                vcpu_milli: 500,
                memory_mib: 256,
                ..Resources::default()
            },
            labels: Labels::new(),
        }
    }

    #[test]
    fn windows_of_one_life_add_up_to_it_and_only_the_first_is_a_fork() {
        let split = [
            window(1, 1_000_000, 5_000_000),
            window(1, 5_000_000, 11_000_000),
        ];
        let batch = batch(0, &split);
        let sum = |dimension: u32| -> i64 {
            let of = batch
                .samples
                .iter()
                .filter(|sample| sample.dimension == dimension);
            of.map(|sample| sample.quantity).sum()
        };
        assert_eq!([sum(0), sum(1), sum(2)], [5_000_000, 2560, 1]);
        assert_eq!((batch.accounts.len(), batch.groups.len()), (1, 1));
        let mut ids: Vec<_> = batch.samples.iter().map(|sample| sample.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), batch.samples.len(), "no two samples are one");
    }
}
