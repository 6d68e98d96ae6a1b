//! What tests of forks by way of policies share: the shipped components bound, a fork decided on.

#![expect(clippy::panic, reason = "tests fail so")]

use std::path::Path;
use std::sync::Arc;

use brood::plugin::child::compile_options;
use brood::plugin::open::panels;
use brood_hooks::admission::Facts;
use brood_hooks::{Now, Principal, Resources};
use brood_plugin_host::{Builtins, Host, HostOptions, Policies, Silent, VolatileState, block_on};
use brood_service::ask::{ForkSpec, Mother, MotherKind};
use brood_service::hold::Holds;
use brood_service::machine::Machine;
use brood_service::path::{Asked, Panels, Safe, Stamps, Stopped};
use brood_service::{identity, node};

use crate::program::built;

/// The policy file that ships.
pub(crate) const SHIPPED: &str = include_str!("../../../../policies/default.toml");
/// The policy file that ships, with the prices that it only shows enforced.
pub(crate) fn enforced() -> String {
    let policy = SHIPPED.replace(
        "plugin = \"price-table\"\nmode = \"warn\"",
        "plugin = \"price-table\"",
    );
    assert_ne!(policy, SHIPPED);
    policy
}

/// A policy file with other prices: all of the plan `list` that stands behind its name.
pub(crate) fn priced(policy: &str, prices: &str) -> String {
    let (before, rest) = policy
        .split_once("[[plugin.price-table.settings.plans.list.prices]]")
        .expect("prices");
    let (_, after) = rest.split_once("[[admission]]").expect("bindings");
    format!("{before}{prices}\n\n[[admission]]{after}")
}

/// The components it names.
const COMPONENTS: [&str; 4] = ["quota", "spread", "identity", "price-table"];

/// A policy file, bound.
pub(crate) struct Bound {
    panels: Panels,
    components: tempfile::TempDir,
    // Last: bindings call into it.
    host: Host,
}

/// Binds a policy file to copies of the shipped components; none, with a printed reason, if they were not built.
pub(crate) fn bound(file: &str) -> Option<Bound> {
    let built = built();
    let components = tempfile::tempdir().expect("a directory");
    for name in COMPONENTS {
        let name = format!("{name}.wasm");
        if std::fs::copy(built.join(&name), components.path().join(&name)).is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "{name} is not in {}: run `cargo xtask plugins`",
                built.display()
            );
            println!("skipped: {name} is not built; `cargo xtask plugins` builds it");
            return None;
        }
    }
    let mut compile = compile_options(Path::new(env!("CARGO_BIN_EXE_brood")), None);
    // The lab emulates every instruction.
    (compile.seconds, compile.patience_ms) = (900, 900_000);
    let state = Arc::new(VolatileState::default());
    let host = Host::start(&HostOptions::new(compile), state, Arc::new(Silent)).expect("starts");
    let panels = open(&host, components.path(), file).unwrap_or_else(|error| panic!("{error}"));
    Some(Bound {
        panels,
        components,
        host,
    })
}

fn open(host: &Host, components: &Path, file: &str) -> Result<Panels, String> {
    let set = brood_policy::parse("test.toml", file).map_err(|mistakes| mistakes.to_string())?;
    let policies = Policies::open(host, &set, components, &Builtins::default());
    let policies = policies.map_err(|errors| errors.to_string())?;
    Ok(panels(policies))
}

impl Bound {
    /// Who is asked.
    pub(crate) fn panels(&self) -> &Panels {
        &self.panels
    }

    /// Where its components are.
    pub(crate) fn components(&self) -> &Path {
        self.components.path()
    }

    /// Opens a policy file once more.
    pub(crate) fn open(&self, file: &str) -> Result<Panels, String> {
        open(&self.host, self.components.path(), file)
    }
}

/// Everything before the fork.
pub(crate) fn decide(
    panels: &Panels,
    spec: &ForkSpec,
    machine: &Machine,
    holds: &mut Holds,
) -> Result<Stamps, Box<Stopped>> {
    let mother = Mother {
        kind: MotherKind::Running,
        id: machine.id,
        template: machine.id,
        generation: machine.generation,
        shape: Resources {
            vcpu_milli: 1000,
            memory_mib: 64,
            ..Resources::default()
        },
        private_mib: 0,
        labels: Vec::new(),
    };
    let who = Principal {
        tenant: "acme".to_owned(),
        ..Principal::default()
    };
    let id = identity::machine_id().expect("an id");
    let request = spec
        .request(id.into(), who, &mother)
        .expect("it means something");
    let asked = Asked::new(Now::from_unix_nanos(1), request, spec);
    let place = node::here(&std::env::temp_dir(), 64, 1).expect("a host");
    block_on(async {
        let reviewed = asked.review(panels, Facts::default()).await?;
        let placed = reviewed.commit(holds)?.place(panels, vec![place]).await?;
        placed.plan(panels, id, Safe::EMPTY).await
    })
}
