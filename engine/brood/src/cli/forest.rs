//! Lineages drawn as trees, one line a machine.
//!
//! Invariant: everybody who is shown stands once, below her mother if she is shown, else at the root.

use std::collections::BTreeMap;

use brood_api::machine::{Kind, Machine, MachineStats, State, Tree};
use brood_units::MachineId;

use super::list::{end_of, ends, labels, state, vcpus};
use super::out::{DIM, PLAIN, Table, colour};
use super::time::between;

/// Who is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Everybody, alive and ended.
    All,
    /// Those alive, and those ended that they descend from.
    Living,
}

/// Draws lineages.
pub(super) fn draw(trees: &[Tree], shown: Shown, now: i64) -> String {
    let mut table = Table::new(&[
        "LINEAGE", "STATE", "AGE", "ENDS IN", "VCPUS", "MEMORY", "PRIVATE", "PSS", "LABELS",
    ]);
    for tree in trees {
        for (branch, machine) in lines(tree, shown) {
            let mark = match (machine.kind, machine.state) {
                (_, State::Ended) => '○',
                (Kind::Machine, _) => '●',
                (Kind::Checkpoint, _) => '◆',
            };
            let rest = if machine.state == State::Ended {
                DIM
            } else {
                PLAIN
            };
            table.row([
                (rest, format!("{branch}{}", called(machine))),
                (colour(machine.state), format!("{mark} {}", state(machine))),
                (rest, between(now, machine.created_at)),
                (rest, ends(machine, now)),
                (rest, vcpus(machine)),
                (rest, format!("{} MiB", machine.memory_mib)),
                (rest, cost(machine, |stats| stats.private_kib)),
                (rest, cost(machine, |stats| stats.pss_kib)),
                (rest, labels(machine)),
            ]);
        }
    }
    table.draw()
}

fn cost(machine: &Machine, of: impl Fn(MachineStats) -> u64) -> String {
    machine
        .stats
        .map_or_else(|| "-".to_owned(), |stats| mib(of(stats)))
}

/// KiB in MiB.
pub(super) fn mib(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

fn called(machine: &Machine) -> String {
    let name = machine.name.as_deref().unwrap_or_default();
    format!("{name} {}", end_of(machine.id))
        .trim_start()
        .to_owned()
}

/// Everybody who is shown, mothers before daughters, with the branch that leads there.
fn lines(tree: &Tree, shown: Shown) -> Vec<(String, &Machine)> {
    let mut kept: BTreeMap<MachineId, &Machine> = BTreeMap::new();
    let all: BTreeMap<MachineId, &Machine> = tree.nodes.iter().map(|one| (one.id, one)).collect();
    for one in &tree.nodes {
        if shown == Shown::Living && one.state == State::Ended {
            continue;
        }
        let mut next = Some(one);
        while let Some(node) = next {
            // Whoever is kept has kept her mothers.
            if kept.insert(node.id, node).is_some() {
                break;
            }
            next = node.mother.and_then(|mother| all.get(&mother).copied());
        }
    }
    let mut daughters: BTreeMap<Option<MachineId>, Vec<&Machine>> = BTreeMap::new();
    for one in tree.nodes.iter().filter(|one| kept.contains_key(&one.id)) {
        let mother = one.mother.filter(|mother| kept.contains_key(mother));
        daughters.entry(mother).or_default().push(one);
    }
    let mut lines = Vec::new();
    // Depth first, without recursion: a lineage may be deeper than a stack.
    let mut open: Vec<(String, String, &Machine)> = Vec::new();
    let roots = daughters.get(&None).into_iter().flatten().rev();
    open.extend(roots.map(|root| (String::new(), String::new(), *root)));
    while let Some((branch, trunk, machine)) = open.pop() {
        let own = daughters
            .get(&Some(machine.id))
            .map_or(&[][..], Vec::as_slice);
        for (index, daughter) in own.iter().enumerate().rev() {
            let (branch, below) = if index + 1 == own.len() {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            open.push((
                format!("{trunk}{branch}"),
                format!("{trunk}{below}"),
                daughter,
            ));
        }
        lines.push((branch, machine));
    }
    lines
}

#[cfg(test)]
mod tests {
    use brood_api::Time;
    use brood_units::Timestamp;

    use super::*;

    fn machine(id: u8, mother: Option<u8>, state: State) -> Machine {
        let id_of = |byte| MachineId::from_bytes([byte; 16]);
        Machine {
            id: id_of(id),
            kind: Kind::Machine,
            name: (id == 1).then(|| "mother".to_owned()),
            project: "default".to_owned(),
            state,
            mother: mother.map(id_of),
            lineage: id_of(1),
            template: id_of(9),
            generation: 0,
            vcpu_milli: 1500,
            memory_mib: 64,
            labels: BTreeMap::new(),
            created_at: Time(Timestamp::from_millis(0)),
            expires_at: None,
            idle: None,
            ended_at: None,
            ending: (state == State::Ended).then(|| "asked to".to_owned()),
            stats: (state != State::Ended).then_some(MachineStats {
                private_kib: 1536,
                pss_kib: 3 << 20,
            }),
        }
    }

    fn family() -> Tree {
        let nodes = vec![
            machine(1, None, State::Ended),
            machine(2, Some(1), State::Running),
            machine(3, Some(1), State::Ended),
            machine(4, Some(2), State::Paused),
            machine(5, Some(1), State::Running),
        ];
        Tree {
            lineage: MachineId::from_bytes([1; 16]),
            nodes,
        }
    }

    #[test]
    fn a_lineage_is_drawn_with_its_branches_and_the_dead_only_where_they_lead_to_the_living() {
        let drawn = draw(&[family()], Shown::Living, 61_000);
        let drawn = anstream::adapter::strip_str(&drawn).to_string();
        let expected = "\
LINEAGE          STATE              AGE  ENDS IN  VCPUS  MEMORY  PRIVATE  PSS         LABELS
mother 01010101  ○ ended: asked to  1m   -        1.5    64 MiB  -        -
├─ 02020202      ● running          1m   -        1.5    64 MiB  1.5 MiB  3072.0 MiB
│  └─ 04040404   ● paused           1m   -        1.5    64 MiB  1.5 MiB  3072.0 MiB
└─ 05050505      ● running          1m   -        1.5    64 MiB  1.5 MiB  3072.0 MiB
";
        assert_eq!(drawn, expected);
        let all = draw(&[family()], Shown::All, 61_000);
        assert_eq!(all.lines().count(), 6);
    }
}
