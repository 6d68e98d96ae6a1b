//! A batch, its lines and its state in one transaction of a store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use brood_hooks::billing::{Batch, Line};
use brood_hooks::{Billing, HookName};
use brood_plugin_host::{
    Asked, Binding, Draft, Host, Silent, StateChange, StateEntry, StateStore, StateStoreError,
    StateValue, block_on,
};
use serde_json::json;

use crate::component::Component;
use crate::hook::batch;
use crate::place::{NOW, options, patient, spec};

#[derive(Default)]
struct Books {
    done: Vec<u64>,
    lines: Vec<Line>,
    state: BTreeMap<String, StateEntry>,
}

/// A store of one lock: what is written under it is one transaction.
#[derive(Default)]
struct Ledger(Mutex<Books>);

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().expect("whole")
    }

    /// All of a batch, or, where it was done before, nothing.
    fn bill(&self, batch: &Batch, draft: &Draft<Billing>) -> Result<(), StateStoreError> {
        let mut books = self.books();
        if books.done.contains(&batch.sequence) {
            let message = format!("batch {} is done", batch.sequence);
            return Err(StateStoreError { message });
        }
        books.done.push(batch.sequence);
        books.lines.extend_from_slice(&draft.answer().lines);
        write(&mut books, draft.changes());
        Ok(())
    }

    /// What the counter says, how many lines there are, and which batches are done.
    fn told(&self) -> (Option<i64>, usize, Vec<u64>) {
        let books = self.books();
        let counted = match books.state.get("seen").map(|entry| &entry.value) {
            Some(StateValue::Counter(count)) => Some(*count),
            Some(StateValue::Bytes(_)) | None => None,
        };
        (counted, books.lines.len(), books.done.clone())
    }
}

fn write(books: &mut Books, changes: &[StateChange]) {
    for (key, entry) in changes {
        match entry {
            Some(entry) => books.state.insert(key.clone(), entry.clone()),
            None => books.state.remove(key),
        };
    }
}

impl StateStore for Ledger {
    fn load(&self, _: &str) -> Result<Vec<(String, StateEntry)>, StateStoreError> {
        Ok(self.books().state.clone().into_iter().collect())
    }

    fn commit(&self, _: &str, changes: &[StateChange]) -> Result<(), StateStoreError> {
        write(&mut self.books(), changes);
        Ok(())
    }
}

/// Counts its calls in its state, and bills one line.
fn bills() -> Vec<u8> {
    let line =
        json!({ "sample": 0, "sku": 0, "quantity": 10, "unit-price-nanos": 3, "amount-nanos": 8 });
    Component::new("billing-policy")
        .extra(
            r#"(import "brood:policy/state@0.1.0" "add" (func $add (param i32 i32 i32)))
               (data (i32.const 16) "seen")
               (data (i32.const 32) "\10\00\00\00\04\00\00\00\01\00\00\00\00\00\00\00")"#,
        )
        .answer(
            "rate",
            json!({ "ok": {
                "skus": [{ "name": "cpu", "currency": "EUR", "unit": "vcpu-ns", "per": 4 }],
                "lines": [line], "waived": [], "budgets": [],
            }}),
        )
        .body(
            "rate",
            "(call $add (i32.const 32) (i32.const 1) (i32.const 64)) $ANSWER",
        )
        .build()
}

fn billing(ledger: &Arc<Ledger>) -> (Host, Arc<Binding<Billing>>) {
    let store: Arc<dyn StateStore> = ledger.clone();
    let host = Host::start(&options(), store, Arc::new(Silent)).expect("starts");
    let plugin = host.add(&spec(), &bills()).expect("loads");
    let binding = patient(HookName::Billing, "test");
    let binding = host.bind::<Billing>(binding, &plugin, None).expect("binds");
    (host, binding)
}

fn draft(binding: &Arc<Binding<Billing>>) -> Draft<Billing> {
    let pending = binding.start_draft(NOW, &Asked::new(batch()));
    block_on(pending).expect("the host runs").expect("answers")
}

fn counter(draft: &Draft<Billing>) -> i64 {
    match draft.changes() {
        [(key, Some(entry))] if key == "seen" => match entry.value {
            StateValue::Counter(count) => count,
            StateValue::Bytes(_) => panic!("bytes"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn draft_that_is_dropped_has_changed_nothing_and_one_that_is_committed_everything() {
    let ledger = Arc::new(Ledger::default());
    let (_host, binding) = billing(&ledger);
    // The engine ends, or the store refuses, between the answer and the commit.
    let lost = draft(&binding);
    assert_eq!((counter(&lost), lost.plugin()), (1, "test"));
    drop(lost);
    assert_eq!(ledger.told(), (None, 0, vec![]));

    let again = draft(&binding);
    assert_eq!(counter(&again), 1, "the lost one is not there");
    ledger.bill(&batch(), &again).expect("bills");
    assert_eq!(again.committed().answer().lines.len(), 1);
    assert_eq!(ledger.told(), (Some(1), 1, vec![7]));

    let next = draft(&binding);
    assert_eq!(counter(&next), 2, "it sees what was committed");
}

#[test]
fn batch_that_is_rated_twice_is_billed_once_and_its_state_changes_once() {
    let ledger = Arc::new(Ledger::default());
    {
        let (_host, binding) = billing(&ledger);
        let first = draft(&binding);
        ledger.bill(&batch(), &first).expect("bills");
        // The engine ends here: the store has it, the engine does not know.
        drop(first);
    }
    let (_host, binding) = billing(&ledger);
    let second = draft(&binding);
    let error = ledger.bill(&batch(), &second).expect_err("done");
    assert_eq!(error.message, "batch 7 is done");
    drop(second);
    assert_eq!(ledger.told(), (Some(1), 1, vec![7]));
}

#[test]
fn call_that_may_touch_the_state_waits_for_a_draft() {
    let ledger = Arc::new(Ledger::default());
    let (host, binding) = billing(&ledger);
    let held = draft(&binding);
    let waiting = binding.start_draft(NOW, &Asked::new(batch()));
    assert_eq!(host.records().all(NOW).len(), 1, "the second has not run");
    ledger.bill(&batch(), &held).expect("bills");
    drop(held.committed());
    let second = waiting.wait().expect("the host runs").expect("answers");
    assert_eq!(counter(&second), 2);
}
