//! Requests, candidates and samples to start a test from: ordinary values, to be changed field by field.

use crate::admission::{Facts, Item};
use crate::billing::Sample;
use crate::mutation::{Brief, Run};
use crate::placement::{Amounts, Candidate, Question};
use crate::types::{ForkRequest, Id128, Origin, Principal, Resources, Span};

/// The id `n`.
#[must_use]
pub fn id(n: u64) -> Id128 {
    Id128 { hi: 0, lo: n }
}

/// Labels from pairs.
#[must_use]
pub fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A fork of a running machine into `count` daughters of 1 vCPU, 512 MiB of memory and 1 GiB of disk, all or nothing, by
/// subject `ada` of project `web` of tenant `acme`.
#[must_use]
pub fn fork_request(count: u32) -> ForkRequest {
    ForkRequest {
        id: id(1),
        operation: "fork".to_owned(),
        who: Principal {
            tenant: "acme".to_owned(),
            project: "web".to_owned(),
            subject: "ada".to_owned(),
            labels: Vec::new(),
        },
        mother: Origin {
            kind: "running".to_owned(),
            id: id(2),
            template: id(3),
            digest: None,
            generation: 1,
            memory_mib: 512,
            private_mib: 64,
            labels: Vec::new(),
        },
        count,
        min_count: count,
        shape: Resources {
            vcpu_milli: 1000,
            memory_mib: 512,
            disk_mib: 1024,
            more: Vec::new(),
        },
        ttl_ms: None,
        priority: 0,
        labels: Vec::new(),
        asks: Vec::new(),
    }
}

/// A tenant who has nothing yet.
#[must_use]
pub fn facts() -> Facts {
    Facts {
        live: 0,
        queued: 0,
        in_use: Resources {
            vcpu_milli: 0,
            memory_mib: 0,
            disk_mib: 0,
            more: Vec::new(),
        },
        budget_left_nanos: None,
        more: Vec::new(),
    }
}

/// [`fork_request`] by a tenant who has nothing yet.
#[must_use]
pub fn item(count: u32) -> Item {
    Item {
        request: fork_request(count),
        facts: facts(),
    }
}

/// An idle domain with room for sixteen daughters of [`fork_request`], of NUMA domain 0 of a node.
#[must_use]
pub fn candidate(node: u32) -> Candidate {
    Candidate {
        node,
        numa: 0,
        warm_shells: 0,
        free: Amounts {
            vcpu_milli: 16_000,
            memory_mib: 8192,
            disk_mib: 16_384,
        },
        parent_resident_mib: 0,
        cpu_load: 0,
        memory_pressure: 0,
        tenant_live: 0,
        labelset: 0,
    }
}

/// Where `count` daughters of [`fork_request`] may go; one empty label set.
#[must_use]
pub fn question(count: u32, candidates: Vec<Candidate>) -> Question {
    Question {
        request: fork_request(count),
        wanted: Span { first: 0, count },
        candidates,
        columns: Vec::new(),
        labelsets: vec![Vec::new()],
    }
}

/// What `count` daughters of [`fork_request`], all on node 0, differ in.
#[must_use]
pub fn brief(count: u32) -> Brief {
    let daughters = Span { first: 0, count };
    Brief {
        request: fork_request(count),
        daughters,
        first_id: id(1000),
        placed: vec![Run {
            daughters,
            node: 0,
            numa: 0,
        }],
    }
}

/// The first second of a daughter: `quantity` of dimension 0 for account 0, group 0, born when the sample starts.
#[must_use]
pub fn sample(n: u64, quantity: i64) -> Sample {
    Sample {
        id: id(n),
        corrects: None,
        daughter: id(1000 + n),
        account: 0,
        dimension: 0,
        quantity,
        start_ms: 1_800_000_000_000,
        end_ms: 1_800_000_001_000,
        born_ms: 1_800_000_000_000,
        group: 0,
    }
}
