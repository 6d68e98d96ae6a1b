//! What tests of usage share: an engine with real cells (bare guests), the real database and the components that ship.

pub(crate) mod made_up;
pub(crate) mod rated;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brood_service::ask::ForkSpec;
use brood_service::engine::usage::{RecordsAnswer, UsageFilter, UsageRow};
use brood_service::engine::{
    Caller, CreateMachine, CreateTemplate, Engine, EngineError, ForkAnswer, ForkMachine, GuestKind,
    MachineAnswer, OnError, UsageOptions,
};
use brood_service::host::Host;
use brood_store::{Store, StoreOptions};
use brood_testkit::scratch;
use brood_units::{MachineId, Timestamp};
use tokio::runtime::Runtime;

use crate::policy::{Bound, SHIPPED, bound};

/// Windows that end by themselves do so when a test is long over: tests count when they want to.
pub(crate) const BY_HAND: UsageOptions = UsageOptions {
    window: Duration::from_secs(86_400),
    rating: Duration::from_secs(86_400),
    backoff: Duration::ZERO,
    attempts: 2,
    ..UsageOptions::DEFAULT
};

/// An engine over a directory, with whoever a policy file binds.
pub(crate) struct Metered {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) caller: Caller,
    pub(crate) runtime: Runtime,
    directory: tempfile::TempDir,
    // Last: bindings call into it.
    _bound: Bound,
}

/// An engine over the state in a directory, with whoever a policy file binds.
async fn start(
    directory: &Path,
    bound: &Bound,
    policy: &str,
    options: UsageOptions,
) -> (Engine, Store) {
    let store = Store::open(&directory.join("state"), &StoreOptions::default()).expect("opens");
    let panels = bound.open(policy).expect("binds");
    let engine = Engine::open_with(store.clone(), host(directory), panels, options).await;
    (engine.expect("an engine"), store)
}

impl Metered {
    pub(crate) fn open(policy: &str) -> Option<Self> {
        Self::open_with(policy, BY_HAND)
    }

    pub(crate) fn open_with(policy: &str, options: UsageOptions) -> Option<Self> {
        let bound = bound(policy)?;
        let runtime = Runtime::new().expect("a runtime");
        let directory = scratch();
        let (engine, store, caller) = runtime.block_on(async {
            let (engine, store) = start(directory.path(), &bound, policy, options).await;
            let token = engine.first_key("acme", |_| {}).await.expect("a key");
            let token = token.expect("it is the first");
            let caller = engine.authenticate(token.reveal()).expect("it is known");
            (engine, store, caller)
        });
        Some(Self {
            engine,
            store,
            caller,
            runtime,
            directory,
            _bound: bound,
        })
    }

    /// Why a policy file is not bound.
    pub(crate) fn refuses(policy: &str) -> String {
        let bound = bound(SHIPPED).expect("they were built before");
        match bound.open(policy) {
            Ok(_) => String::new(),
            Err(error) => error,
        }
    }

    /// Another engine over the same state, with whoever another policy file binds.
    pub(crate) fn reopen(self, policy: &str) -> Self {
        self.reopen_with(policy, |_| ())
    }

    /// The same, once something was done to its copies of the components.
    pub(crate) fn reopen_with(self, policy: &str, change: impl FnOnce(&Path)) -> Self {
        let Self {
            engine,
            store,
            caller,
            runtime,
            directory,
            _bound: _,
        } = self;
        drop(engine);
        drop(store);
        let bound = bound(policy).expect("they were built before");
        change(bound.components());
        let started = start(directory.path(), &bound, policy, BY_HAND);
        let (engine, store) = runtime.block_on(started);
        Self {
            engine,
            store,
            caller,
            runtime,
            directory,
            _bound: bound,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) async fn mother(&self) -> MachineAnswer {
        let template = CreateTemplate {
            name: "counter".to_owned(),
            guest: GuestKind::Bare,
            vcpus: 1,
            memory_mib: 64,
            public: false,
        };
        let made = self
            .engine
            .create_template(&self.caller, template, None)
            .await;
        made.expect("a template");
        let machine = CreateMachine {
            template: "counter".to_owned(),
            name: Some("mother".to_owned()),
            reuse: false,
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            ttl_ms: None,
            idle_ms: None,
        };
        let made = self.engine.create_machine(&self.caller, machine, None);
        made.await.expect("a machine")
    }

    pub(crate) async fn try_fork(&self, id: MachineId) -> Result<ForkAnswer, EngineError> {
        self.engine.fork(&self.caller, id, of(1), None).await
    }

    pub(crate) async fn fork(&self, id: MachineId, count: u32) -> Vec<MachineId> {
        let answer = self.engine.fork(&self.caller, id, of(count), None).await;
        let daughters = answer.expect("a fork").daughters.into_iter();
        daughters.map(|one| one.machine.id).collect()
    }

    pub(crate) async fn end(&self, id: MachineId) {
        let ended = self.engine.end(&self.caller, id, false).await;
        assert_eq!(ended.expect("it ends"), [id]);
    }

    /// Waits until a machine is written down as ended.
    pub(crate) async fn ended(&self, id: MachineId) {
        let mut last = self.engine.last_event();
        loop {
            let machine = self.engine.machine(&self.caller, id).expect("it is there");
            if machine.ending.is_some() {
                return;
            }
            last.changed().await.expect("the engine is there");
        }
    }

    /// All records, of a machine or of all.
    pub(crate) fn records(&self, machine: Option<MachineId>) -> Vec<UsageRow> {
        let filter = UsageFilter {
            machine,
            ..UsageFilter::default()
        };
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let span = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
            let RecordsAnswer { items, next } = self
                .engine
                .usage_records(&self.caller, &filter, span, after)
                .expect("records");
            all.extend(items);
            match next {
                Some(next) => after = next,
                None => return all,
            }
        }
    }
}

fn of(count: u32) -> ForkMachine {
    ForkMachine {
        spec: ForkSpec::of(count),
        on_error: OnError::Keep,
        name: None,
        idle_ms: None,
    }
}

fn host(directory: &Path) -> Host {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_brood"));
    Host::open(&program, None, directory).expect("a host")
}
