//! What the benches ask: one request, one question, one brief, one batch, each of the size its row says.

use brood_hooks::admission::{Facts, Item};
use brood_hooks::billing::{Account, Balance, Batch, Sample, Total};
use brood_hooks::mutation::Brief;
use brood_hooks::placement::{Amounts, Candidate, Question};
use brood_hooks::{ForkRequest, Id128, Origin, Principal, Resources, Span};

use super::provider::{DIMENSIONS, tenant};

/// Whom the requests are of; not the first of the settings.
const TENANT: u32 = 133;

fn id(number: u64) -> Id128 {
    Id128::from_halves(1, number)
}

fn shape() -> Resources {
    Resources {
        vcpu_milli: 1000,
        memory_mib: 256,
        disk_mib: 1024,
        ..Resources::default()
    }
}

/// A live fork.
fn request(count: u32) -> ForkRequest {
    ForkRequest {
        id: id(1),
        operation: "fork".to_owned(),
        who: Principal {
            tenant: tenant(TENANT),
            project: "web".to_owned(),
            subject: "key-1".to_owned(),
            labels: Vec::new(),
        },
        mother: Origin {
            kind: "running".to_owned(),
            id: id(2),
            template: id(3),
            generation: 2,
            memory_mib: 256,
            private_mib: 16,
            ..Origin::default()
        },
        count,
        min_count: count,
        shape: shape(),
        ttl_ms: Some(3_600_000),
        priority: 0,
        labels: vec![("app".to_owned(), "web".to_owned())],
        asks: Vec::new(),
    }
}

/// A request at admission.
pub(super) fn item(count: u32) -> Item {
    Item {
        request: request(count),
        facts: Facts {
            live: 3,
            budget_left_nanos: Some(1_000_000_000_000),
            ..Facts::default()
        },
    }
}

/// So many daughters, and so many places for them.
pub(super) fn question(candidates: u32, daughters: u32) -> Question {
    let candidate = |node: u32| Candidate {
        node: node / 2,
        numa: (node % 2) as u16,
        warm_shells: (node % 7) as u16,
        free: Amounts {
            vcpu_milli: 2_000_000 - node * 100,
            memory_mib: 524_288,
            disk_mib: 4_000_000,
        },
        parent_resident_mib: if node.is_multiple_of(5) { 256 } else { 0 },
        cpu_load: (node * 3 % 900) as u16,
        memory_pressure: (node % 40) as u16,
        tenant_live: node % 11,
        labelset: node % 4,
    };
    Question {
        request: request(daughters),
        wanted: Span {
            first: 0,
            count: daughters,
        },
        candidates: (0..candidates).map(candidate).collect(),
        columns: Vec::new(),
        labelsets: (0..4)
            .map(|zone| vec![("zone".to_owned(), format!("z{zone}"))])
            .collect(),
    }
}

/// A plan for so many daughters.
pub(super) fn brief(count: u32) -> Brief {
    Brief {
        request: request(count),
        first_id: id(1000),
        ..Brief::default()
    }
}

/// So many windows of 60 s, over so many accounts and all dimensions.
pub(super) fn batch(samples: u32, accounts: u32) -> Batch {
    let start_ms = 1_700_000_000_000;
    let dimensions = DIMENSIONS.len() as u32;
    let sample = |index: u32| {
        let dimension = index % dimensions;
        let quantity = match dimension {
            0 => 42_000_000_000,
            1 => 256 * 60_000,
            _ => 1,
        };
        Sample {
            id: id(u64::from(index)),
            corrects: None,
            daughter: id(u64::from(index / dimensions)),
            account: index / dimensions % accounts,
            dimension,
            quantity,
            start_ms,
            end_ms: start_ms + 60_000,
            born_ms: start_ms - 600_000,
            group: 0,
        }
    };
    let period_start_ms = start_ms - 1_000_000_000;
    Batch {
        sequence: 7,
        accounts: (0..accounts)
            .map(|index| Account {
                tenant: tenant(index),
                project: "web".to_owned(),
                labels: Vec::new(),
            })
            .collect(),
        dimensions: DIMENSIONS.map(str::to_owned).into(),
        samples: (0..samples).map(sample).collect(),
        groups: vec![vec![("app".to_owned(), "web".to_owned())]],
        totals: (0..accounts * dimensions)
            .map(|index| Total {
                account: index / dimensions,
                dimension: index % dimensions,
                period_start_ms,
                quantity: 1_000_000_000,
            })
            .collect(),
        balances: (0..accounts)
            .map(|account| Balance {
                account,
                currency: "EUR".to_owned(),
                spent_nanos: 1_000_000_000,
                credit_nanos: 0,
            })
            .collect(),
    }
}
