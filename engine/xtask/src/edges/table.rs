//! The table: each crate of the workspace, what it may use and what it must not reach.

/// A crate of the workspace.
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// The crates of the workspace it may depend on.
    pub(super) may_use: &'static [&'static str],
    /// Crates, ours or not, that it must not reach, however far down.
    pub(super) must_not_reach: &'static [&'static str],
}

/// What a test may stand on besides what its crate may use.
pub(super) const TESTS_MAY_USE: &[&str] = &["brood-testkit", "brood-bare-guest"];

const KVM: &[&str] = &["kvm-ioctls", "kvm-bindings", "vm-memory", "virtio-queue"];
const SERVERS: &[&str] = &["tokio", "hyper", "axum", "wasmtime", "rusqlite"];
const KVM_AND_SERVERS: &[&str] = &[
    "kvm-ioctls",
    "kvm-bindings",
    "vm-memory",
    "virtio-queue",
    "tokio",
    "hyper",
    "axum",
    "wasmtime",
    "rusqlite",
];
const SERVICE_MAY_USE: &[&str] = &[
    "brood-units",
    "brood-crash-point",
    "brood-agent-proto",
    "brood-image",
    "brood-cell",
    "brood-hooks",
    "brood-policy",
    "brood-store",
    "brood-meter",
    "brood-supervisor",
];

/// Every crate but those at the top, lower crates first. Crates still to come have their rows before they exist.
pub(super) const CRATES: &[Rule] = &[
    rule("brood-units", &[], KVM_AND_SERVERS),
    // Passed by whatever sends a message or commits.
    rule("brood-crash-point", &[], KVM_AND_SERVERS),
    // What cells, the supervisor and the engine, separate processes, have in common.
    rule("brood-control", &[], KVM_AND_SERVERS),
    rule("brood-agent-proto", &["brood-units"], KVM_AND_SERVERS),
    rule(
        "brood-agent",
        &["brood-units", "brood-agent-proto"],
        KVM_AND_SERVERS,
    ),
    rule("brood-bare-guest", &["brood-units"], SERVERS),
    rule("brood-devices", &["brood-units"], SERVERS),
    rule("brood-vmm", &["brood-units"], SERVERS),
    rule("brood-image", &["brood-units"], KVM_AND_SERVERS),
    rule("brood-rootfs", &["brood-image"], KVM_AND_SERVERS),
    rule(
        "brood-cell",
        &[
            "brood-units",
            "brood-control",
            "brood-crash-point",
            "brood-agent-proto",
            "brood-devices",
            "brood-vmm",
            "brood-bare-guest",
        ],
        SERVERS,
    ),
    // The author's side: what is compiled into a component stands on the SDK and on nothing of the engine.
    rule("brood-plugin", &[], KVM_AND_SERVERS),
    rule("brood-quota", &["brood-plugin"], KVM_AND_SERVERS),
    rule("brood-spread", &["brood-plugin"], KVM_AND_SERVERS),
    rule("brood-identity", &["brood-plugin"], KVM_AND_SERVERS),
    rule("brood-price-table", &["brood-plugin"], KVM_AND_SERVERS),
    rule("brood-plugin-build", &["brood-plugin"], KVM_AND_SERVERS),
    rule("brood-hooks", &["brood-units"], KVM_AND_SERVERS),
    rule(
        "brood-policy",
        &["brood-units", "brood-hooks"],
        KVM_AND_SERVERS,
    ),
    rule(
        "brood-plugin-host",
        &["brood-units", "brood-hooks", "brood-policy"],
        KVM,
    ),
    rule(
        "brood-meter",
        &["brood-units", "brood-hooks"],
        KVM_AND_SERVERS,
    ),
    // The records that it keeps are the meter's.
    rule(
        "brood-store",
        &["brood-units", "brood-crash-point", "brood-meter"],
        KVM,
    ),
    rule(
        "brood-supervisor",
        &["brood-units", "brood-control", "brood-crash-point"],
        KVM_AND_SERVERS,
    ),
    rule(
        "brood-service",
        SERVICE_MAY_USE,
        &["wasmtime", "hyper", "axum"],
    ),
    rule("brood-api", &["brood-units"], KVM_AND_SERVERS),
    // Whoever asks over the wire has what goes over it, and nothing of who answers.
    rule(
        "brood-client",
        &["brood-units", "brood-api"],
        &[
            "kvm-ioctls",
            "tokio",
            "hyper",
            "axum",
            "wasmtime",
            "rusqlite",
        ],
    ),
    rule(
        "brood-front",
        &["brood-units", "brood-api", "brood-service"],
        &["wasmtime"],
    ),
    rule(
        "brood-testkit",
        &[
            "brood-units",
            "brood-agent-proto",
            "brood-image",
            "brood-vmm",
            "brood-bare-guest",
            "brood-cell",
        ],
        SERVERS,
    ),
    rule("brood-xtask", &["brood-plugin-build"], KVM_AND_SERVERS),
];

/// Crates at the top: they may use everything below, and a program that users run nothing that only tests use.
pub(super) const TOPS: &[&str] = &["brood", BENCHES];
/// The benches, which users do not run, measure the other programs at the top as well.
pub(super) const BENCHES: &str = "brood-benches";
/// What a program that users run must not depend on.
pub(super) const ONLY_FOR_TESTS: &[&str] = &["brood-testkit", "brood-xtask"];

const fn rule(
    name: &'static str,
    may_use: &'static [&'static str],
    must_not_reach: &'static [&'static str],
) -> Rule {
    Rule {
        name,
        may_use,
        must_not_reach,
    }
}
