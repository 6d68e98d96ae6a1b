//! The engine behind every front, with real cells (bare guests), the real database and the components that ship.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use brood_service::ask::ForkSpec;
use brood_service::engine::{
    Caller, Change, CreateMachine, CreateTemplate, Engine, EngineError, ForkAnswer, ForkMachine,
    GuestKind, Idempotency, MachineAnswer, NewKey, OnError, Scope,
};
use brood_service::host::Host;
use brood_store::{MachineKind, MachineQuery, Page, Store, StoreOptions};
use brood_testkit::{children_of, scratch};
use brood_units::MachineId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::policy::{Bound, SHIPPED, bound};

/// An engine over a directory, with whoever a policy file binds.
struct Open {
    engine: Engine,
    caller: Caller,
    directory: tempfile::TempDir,
    runtime: Runtime,
    // Last: bindings call into it.
    bound: Bound,
}

fn host(directory: &Path) -> Host {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_brood"));
    Host::open(&program, None, directory).expect("a host")
}

fn open(policy: &str) -> Option<Open> {
    let bound = bound(policy)?;
    let runtime = Runtime::new().expect("a runtime");
    let directory = scratch();
    let (engine, caller) = runtime.block_on(async {
        let engine = start(directory.path(), &bound, policy).await;
        let token = engine.first_key("acme", |_| {}).await.expect("a key");
        let token = token.expect("it is the first");
        let caller = engine.authenticate(token.reveal()).expect("it is known");
        (engine, caller)
    });
    Some(Open {
        engine,
        caller,
        directory,
        runtime,
        bound,
    })
}

async fn start(directory: &Path, bound: &Bound, policy: &str) -> Engine {
    let store = Store::open(&directory.join("state"), &StoreOptions::default()).expect("opens");
    let panels = bound.open(policy).expect("binds");
    Engine::open(store, host(directory), panels)
        .await
        .expect("an engine")
}

impl Open {
    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    async fn template(&self) -> MachineId {
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
        made.expect("a template").id
    }

    async fn mother(&self) -> MachineAnswer {
        self.template().await;
        let made = self
            .engine
            .create_machine(&self.caller, machine(Some("mother")), None);
        made.await.expect("a machine")
    }

    async fn fork(&self, id: MachineId, fork: ForkMachine) -> Result<ForkAnswer, EngineError> {
        self.engine.fork(&self.caller, id, fork, None).await
    }

    fn state(&self, id: MachineId) -> String {
        self.engine
            .machine(&self.caller, id)
            .expect("it is there")
            .state
    }

    /// Events of the tenant so far, in words.
    fn events(&self) -> Vec<(String, MachineId)> {
        let page = self.engine.events(&self.caller, 0, 1000).expect("events");
        assert_eq!(page.gap, None);
        let words = page.events.into_iter();
        words
            .map(|row| (row.event.kind, row.event.subject))
            .collect()
    }

    /// Waits until a machine is written down as ended, and says how.
    async fn ending(&self, id: MachineId) -> String {
        let mut last = self.engine.last_event();
        loop {
            let machine = self.engine.machine(&self.caller, id).expect("it is there");
            if let Some(how) = machine.ending {
                return how;
            }
            last.changed().await.expect("the engine is there");
        }
    }
}

fn machine(name: Option<&str>) -> CreateMachine {
    CreateMachine {
        template: "counter".to_owned(),
        name: name.map(str::to_owned),
        reuse: false,
        labels: BTreeMap::new(),
        ttl_ms: None,
        idle_ms: None,
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

fn labelled(key: &str, value: &str) -> MachineQuery {
    MachineQuery {
        tenant: String::new(),
        kind: MachineKind::Machine,
        label: Some((key.to_owned(), value.to_owned())),
        ended: false,
    }
}

const ALL: Page = Page {
    after: 0,
    limit: 1000,
};

#[test]
fn a_machine_is_made_forked_frozen_forked_from_the_past_and_ended_with_all_below_it() {
    let Some(open) = open(SHIPPED) else { return };
    let cells = || children_of(std::process::id()).len();
    let before = cells();
    open.run(async {
        let mother = open.mother().await;
        assert_eq!((mother.state.as_str(), mother.generation), ("running", 0));
        let mut fork = of(3);
        fork.spec
            .labels
            .insert("team".to_owned(), "blue".to_owned());
        let answer = open.fork(mother.id, fork).await.expect("a fork");
        println!("{answer:#?}");
        assert_eq!((answer.daughters.len(), answer.missing.len()), (3, 0));
        assert!(answer.mother_pause_us.is_some_and(|pause| pause > 0.0));
        for (index, one) in answer.daughters.iter().enumerate() {
            assert_eq!(one.machine.mother, Some(mother.id));
            assert_eq!(one.machine.lineage, mother.lineage);
            assert_eq!(one.machine.generation, 1);
            assert_eq!(one.hostname, format!("d{index}-{}", one.machine.id));
        }
        let blue = open
            .engine
            .machines(&open.caller, labelled("team", "blue"), ALL);
        assert_eq!(blue.expect("a list").items.len(), 3);

        let kept = open.engine.checkpoint(&open.caller, mother.id, None).await;
        let point = kept.expect("a checkpoint").checkpoint;
        let past = open
            .fork(point.id, of(2))
            .await
            .expect("a fork of the past");
        assert!(
            past.daughters
                .iter()
                .all(|one| one.machine.mother == Some(point.id))
        );
        let first = answer.daughters.first().expect("three").machine.id;
        let grand = open
            .fork(first, of(1))
            .await
            .expect("a daughter of a daughter");
        assert!(
            grand
                .daughters
                .iter()
                .all(|one| one.machine.generation == 2)
        );

        let decisions = open
            .engine
            .decisions(&open.caller, answer.intent)
            .expect("decisions");
        assert_eq!(decisions.len(), 3);

        let family = open.engine.tree(&open.caller, first).expect("a tree");
        assert_eq!(family.len(), 1 + 3 + 1 + 2 + 1);
        let ended = open
            .engine
            .end(&open.caller, mother.id, true)
            .await
            .expect("all end");
        assert_eq!(ended.len(), family.len());
        assert!(family.iter().all(|one| open.state(one.id) == "ended"));
        let born = open
            .events()
            .iter()
            .filter(|(kind, _)| kind == "machine.born")
            .count();
        let gone = open
            .events()
            .iter()
            .filter(|(kind, _)| kind.ends_with(".ended"))
            .count();
        assert_eq!((born, gone), (7, 8));
        open.engine.close().await.expect("closes");
    });
    assert_eq!(cells(), before);
}

#[test]
fn what_a_policy_denies_is_denied_in_its_words_and_kept_and_the_mother_runs_on() {
    let Some(open) = open(SHIPPED) else { return };
    open.run(async {
        let mother = open.mother().await;
        let denied = open.fork(mother.id, of(65)).await;
        let Err(EngineError::Denied { by, denial }) = denied else {
            unreachable!("{denied:?}")
        };
        assert_eq!(by, "admission/quota");
        assert!(denial.message.contains("64"), "{denial:?}");
        assert_eq!(open.state(mother.id), "running");
        assert!(open.fork(mother.id, of(1)).await.is_ok());
        open.engine.close().await.expect("closes");
    });
}

#[test]
fn a_thousand_creates_at_once_at_a_cap_of_fifty_admit_exactly_fifty_and_ends_make_room() {
    let cap = SHIPPED.replace("max-live = 256", "max-live = 50");
    assert_ne!(cap, SHIPPED);
    let Some(open) = open(&cap) else { return };
    let open = Arc::new(open);
    open.run(async {
        open.template().await;
        let tasks: Vec<_> = (0..1000)
            .map(|_| {
                let (engine, caller) = (open.engine.clone(), open.caller.clone());
                tokio::spawn(
                    async move { engine.create_machine(&caller, machine(None), None).await },
                )
            })
            .collect();
        let (mut made, mut denied) = (Vec::new(), 0);
        for task in tasks {
            match task.await.expect("it ran") {
                Ok(machine) => made.push(machine.id),
                Err(EngineError::Denied { .. }) => denied += 1,
                Err(error) => unreachable!("{error}"),
            }
        }
        assert_eq!((made.len(), denied), (50, 950));
        let first = made.first().copied().expect("fifty");
        let full = open
            .engine
            .create_machine(&open.caller, machine(None), None)
            .await;
        assert!(matches!(full, Err(EngineError::Denied { .. })), "{full:?}");
        open.engine
            .end(&open.caller, first, false)
            .await
            .expect("ends");
        let again = open
            .engine
            .create_machine(&open.caller, machine(None), None)
            .await;
        assert!(again.is_ok(), "{again:?}");
        open.engine.close().await.expect("closes");
    });
}

#[test]
fn a_request_with_a_key_is_done_once_and_answered_the_same_again() {
    let Some(open) = open(SHIPPED) else { return };
    open.run(async {
        let mother = open.mother().await;
        let keyed = |byte| Idempotency {
            route: "forks".to_owned(),
            key: "k1".to_owned(),
            body_hash: [byte; 32],
        };
        let ask = |byte| {
            open.engine
                .fork(&open.caller, mother.id, of(2), Some(keyed(byte)))
        };
        let first = ask(1).await.expect("a fork");
        assert_eq!(ask(1).await.expect("the same answer"), first);
        let reused = ask(2).await;
        assert!(matches!(reused, Err(EngineError::KeyReused)), "{reused:?}");
        assert_eq!(
            open.engine
                .tree(&open.caller, mother.id)
                .expect("a tree")
                .len(),
            3
        );
        // Its answer outlives the mother.
        open.engine
            .end(&open.caller, mother.id, true)
            .await
            .expect("all end");
        assert_eq!(ask(1).await.expect("still the same answer"), first);
        open.engine.close().await.expect("closes");
    });
}

#[test]
fn a_machine_that_ends_by_itself_or_whose_time_is_over_is_written_down_with_the_cause() {
    let Some(open) = open(SHIPPED) else { return };
    open.run(async {
        let mother = open.mother().await;
        let mut fork = of(1);
        fork.spec.ttl_ms = Some(300);
        let answer = open.fork(mother.id, fork).await.expect("a fork");
        let short = answer.daughters.first().expect("one").machine.clone();
        assert!(short.expires.is_some());
        assert_eq!(open.ending(short.id).await, "its time to live was over");
        assert_eq!(open.state(mother.id), "running");

        let stats = open
            .engine
            .stats(&open.caller, mother.id)
            .await
            .expect("stats");
        assert!(stats.private_kib > 0 && stats.pss_kib > 0, "{stats:?}");
        let pid = i32::try_from(stats.pid)
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, Signal::KILL).expect("her cell is killed");
        assert_eq!(open.ending(mother.id).await, "killed by signal 9");
        let gone = open.fork(mother.id, of(1)).await;
        assert!(matches!(gone, Err(EngineError::Ended { .. })), "{gone:?}");
        open.engine.close().await.expect("closes");
    });
}

#[test]
fn a_paused_machine_stands_still_and_another_tenants_is_not_there() {
    let Some(open) = open(SHIPPED) else { return };
    open.run(async {
        let mother = open.mother().await;
        let paused = open
            .engine
            .change(&open.caller, mother.id, Change::Pause)
            .await;
        assert_eq!(paused.expect("it pauses").state, "paused");
        let resumed = open
            .engine
            .change(&open.caller, mother.id, Change::Resume)
            .await;
        assert_eq!(resumed.expect("it runs on").state, "running");

        let other = stranger(&open).await;
        let gone = |result: Result<(), EngineError>| {
            assert!(
                matches!(result, Err(EngineError::NotFound { .. })),
                "{result:?}"
            );
        };
        gone(open.engine.machine(&other, mother.id).map(|_| ()));
        gone(open.engine.tree(&other, mother.id).map(|_| ()));
        gone(
            open.engine
                .fork(&other, mother.id, of(1), None)
                .await
                .map(|_| ()),
        );
        gone(
            open.engine
                .checkpoint(&other, mother.id, None)
                .await
                .map(|_| ()),
        );
        gone(open.engine.end(&other, mother.id, true).await.map(|_| ()));
        gone(open.engine.template(&other, "counter").map(|_| ()));
        let theirs = open.engine.events(&other, 0, 100).expect("events").events;
        assert!(theirs.is_empty());
        open.engine.close().await.expect("closes");
    });
}

/// Somebody of another tenant, with a key that an operator's program wrote.
async fn stranger(open: &Open) -> Caller {
    let key = NewKey {
        name: "reader".to_owned(),
        project: "default".to_owned(),
        scopes: vec![Scope::Read, Scope::Write],
        expires: None,
    };
    let made = open
        .engine
        .create_tenant(&open.caller, "other", key, None)
        .await;
    let (_, token) = made.expect("another tenant");
    open.engine
        .authenticate(token.reveal())
        .expect("it is known")
}

#[test]
fn a_key_allows_what_it_says_and_nothing_once_it_is_revoked_or_over() {
    let Some(open) = open(SHIPPED) else { return };
    open.run(async {
        let key = |scopes: &[Scope], expires| NewKey {
            name: "k".to_owned(),
            project: "default".to_owned(),
            scopes: scopes.to_vec(),
            expires,
        };
        let make = |key| open.engine.create_key(&open.caller, key, None);
        let (reader, token) = make(key(&[Scope::Read], None)).await.expect("a key");
        let caller = open
            .engine
            .authenticate(token.reveal())
            .expect("it is known");
        let wanted = open
            .engine
            .create_machine(&caller, machine(None), None)
            .await;
        let forbidden = Err(EngineError::Forbidden { scope: "write" });
        assert_eq!(
            format!("{wanted:?}"),
            format!("{:?}", forbidden as Result<(), _>)
        );
        open.engine
            .revoke_key(&open.caller, reader.id)
            .await
            .expect("revoked");
        let words = |token: &str| {
            open.engine
                .authenticate(token)
                .map(|_| ())
                .expect_err("refused")
                .to_string()
        };
        assert!(words(token.reveal()).contains("revoked"));
        let past = brood_units::Timestamp::from_millis(1);
        let (_, token) = make(key(&[Scope::Read], Some(past))).await.expect("a key");
        assert!(words(token.reveal()).contains("expired"));
        assert!(words("brood_nobody").contains("not known"));
        assert!(
            open.engine
                .first_key("acme", |_| {})
                .await
                .expect("looks")
                .is_none()
        );
    });
}

#[test]
fn after_a_restart_the_lost_are_written_down_and_names_keys_and_answers_are_as_before() {
    let Some(open) = open(SHIPPED) else { return };
    let mother = open.run(open.mother());
    let Open {
        engine,
        caller,
        directory,
        runtime,
        bound,
    } = open;
    drop(engine);
    // Its tasks hold the rest of it.
    runtime.shutdown_timeout(Duration::from_secs(30));
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let engine = start(directory.path(), &bound, SHIPPED).await;
        let lost = engine.machine(&caller, mother.id).expect("its row");
        assert_eq!(lost.state, "ended");
        let again = engine
            .create_machine(&caller, machine(Some("mother")), None)
            .await;
        assert_eq!(
            again.expect("the name is free").name.as_deref(),
            Some("mother")
        );
        engine.close().await.expect("closes");
    });
}
