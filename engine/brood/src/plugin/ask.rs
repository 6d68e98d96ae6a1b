//! Asks of ordinary size, for a bench without an input and as a start for recorded calls.
//!
//! Invariant: an ask is the same each time; what can be decided about it can be decided.

use brood_hooks::{ForkRequest, Id128, Origin, Principal, Resources, Span, admission, billing};
use brood_hooks::{mutation, placement};

const GIB: u32 = 1024;

/// Eight daughters of a running machine.
pub fn request() -> ForkRequest {
    ForkRequest {
        id: Id128::from_halves(1, 1),
        operation: "fork".to_owned(),
        who: Principal {
            tenant: "acme".to_owned(),
            project: "web".to_owned(),
            subject: "key/1".to_owned(),
            labels: Vec::new(),
        },
        mother: Origin {
            kind: "running".to_owned(),
            id: Id128::from_halves(2, 1),
            template: Id128::from_halves(3, 1),
            digest: None,
            generation: 1,
            memory_mib: GIB,
            private_mib: 16,
            labels: Vec::new(),
        },
        count: 8,
        min_count: 1,
        shape: Resources {
            vcpu_milli: 1000,
            memory_mib: GIB,
            disk_mib: 4 * GIB,
            more: Vec::new(),
        },
        ttl_ms: Some(3_600_000),
        ..ForkRequest::default()
    }
}

/// One request of a tenant with four live machines.
pub fn admission() -> Vec<admission::Item> {
    let facts = admission::Facts {
        live: 4,
        ..admission::Facts::default()
    };
    vec![admission::Item {
        request: request(),
        facts,
    }]
}

/// Four domains, each busier than the one before.
pub fn placement() -> placement::Question {
    let candidate = |index: u16| placement::Candidate {
        node: u32::from(index / 2),
        numa: index % 2,
        warm_shells: 4,
        free: placement::Amounts {
            vcpu_milli: 32_000,
            memory_mib: 64 * GIB,
            disk_mib: 256 * GIB,
        },
        parent_resident_mib: GIB * u32::from(index == 0),
        cpu_load: 300 * index,
        memory_pressure: 10 * index,
        tenant_live: u32::from(index),
        labelset: 0,
    };
    placement::Question {
        wanted: Span { first: 0, count: 8 },
        candidates: (0..4).map(candidate).collect(),
        columns: Vec::new(),
        labelsets: vec![vec![("zone".to_owned(), "a".to_owned())]],
        request: request(),
    }
}

/// Eight daughters on one node.
pub fn mutation() -> mutation::Brief {
    let daughters = Span { first: 0, count: 8 };
    mutation::Brief {
        request: request(),
        daughters,
        first_id: Id128::from_halves(4, 1),
        placed: vec![mutation::PlacedRun {
            daughters,
            node: 0,
            numa: 0,
        }],
    }
}

/// A minute of eight machines with one virtual CPU each.
pub fn billing() -> billing::Batch {
    const BEGIN_MS: u64 = 1_767_225_600_000;
    let sample = |index: u32| billing::Sample {
        id: Id128::from_halves(5, u64::from(index)),
        corrects: None,
        daughter: Id128::from_halves(4, 1).plus(index),
        account: 0,
        dimension: 0,
        quantity: 60_000_000_000,
        start_ms: BEGIN_MS,
        end_ms: BEGIN_MS + 60_000,
        born_ms: BEGIN_MS,
        group: 0,
    };
    billing::Batch {
        sequence: 1,
        accounts: vec![billing::Account {
            tenant: "acme".to_owned(),
            project: "web".to_owned(),
            labels: Vec::new(),
        }],
        dimensions: vec!["vcpu-ns".to_owned()],
        samples: (0..8).map(sample).collect(),
        groups: vec![Vec::new()],
        totals: Vec::new(),
        balances: Vec::new(),
    }
}
