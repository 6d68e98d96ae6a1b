//! Decision records as lines: what was written is what is read, and what is read replays.

use std::sync::{Arc, Mutex};

use brood_hooks::{Admission, Billing, Failure, HookName, Mutation, Placement};
use brood_plugin_host::{
    Asked, BindableHook, Host, ReadRecordError, Record, RecordNotKept, RecordSink, ReplayError,
    Silent, VolatileState, block_on,
};
use brood_policy::BindingSpec;
use serde_json::json;

use crate::component::Component;
use crate::hook::{batch, brief, component, plan, question, rated};
use crate::place::{NOW, admit, ask, bind, denial, host, options, spec};

/// Calls a component once and takes the record of it through a line; the line.
fn survives<H: BindableHook>(bytes: &[u8], ask: H::Ask) -> String {
    let host = host();
    let plugin = host.add(&spec(), bytes).expect("loads");
    let binding = BindingSpec::new(H::NAME, "test");
    let binding = host.bind::<H>(binding, &plugin, None).expect("binds");
    drop(block_on(binding.start(NOW, &Asked::new(ask))));
    let records = host.records().all(NOW);
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    let line = record.to_line().expect("writes");
    assert!(!line.contains('\n'));
    let read = Record::from_line(&line).expect("reads");
    assert_eq!(read, **record);
    assert_eq!(read.to_line().expect("writes again"), line);
    // Another process has another host: what it needs is the component, its settings, and the line.
    let other = crate::place::host();
    let version = other.load(&spec(), bytes).expect("loads");
    assert_eq!(other.replay(&read, &version), Ok(()));
    line
}

#[test]
fn record_of_each_hook_survives_as_a_line_and_replays() {
    let admits = component("admission-policy", "review", admit(5));
    survives::<Admission>(&admits, ask().ask().clone());
    let answer = json!({ "rankings": vec![json!({ "bid": { "score": 1, "at-most": 8 } }); 3], "reasons": [] });
    let ranks = component("placement-policy", "rank", json!({ "ok": answer }));
    survives::<Placement>(&ranks, question());
    let file = json!({ "path": "/x/y", "mode": 0o600, "content": { "bytes": [0, 10, 255] } });
    let plans = plan(
        json!([{ "write-file": file }, { "entropy-context": [7] }]),
        json!([]),
    );
    let line = survives::<Mutation>(&plans, brief());
    assert!(
        line.contains("NotPermitted"),
        "malformed, and recorded with its answer: {line}"
    );
    survives::<Billing>(&rated(10, 3, 8), batch());
}

#[test]
fn record_of_a_failure_survives_with_its_reason() {
    let traps = Component::new("admission-policy")
        .body("review", "unreachable")
        .build();
    let line = survives::<Admission>(&traps, ask().ask().clone());
    assert!(line.contains("Trap"), "{line}");
    let said = json!({ "err": { "unavailable": "no \"budget\"\nknown" } });
    survives::<Admission>(
        &component("admission-policy", "review", said),
        ask().ask().clone(),
    );
}

#[test]
fn record_of_a_call_that_read_its_state_replays_what_it_was_told() {
    let counts = Component::new("admission-policy")
        .extra(
            r#"(import "brood:policy/state@0.1.0" "get" (func $get (param i32 i32 i32)))
               (data (i32.const 16) "seen")
               (data (i32.const 32) "\10\00\00\00\04\00\00\00")"#,
        )
        .answer("review", admit(1))
        .body(
            "review",
            "(call $get (i32.const 32) (i32.const 1) (i32.const 64)) $ANSWER",
        )
        .build();
    let line = survives::<Admission>(&counts, ask().ask().clone());
    assert!(line.contains("seen"), "{line}");
}

fn line() -> (Host, Vec<u8>, String) {
    let (host, bytes) = (host(), component("admission-policy", "review", admit(5)));
    let bound = bind(&host, &bytes, |_| ());
    bound.binding.call_here(NOW, &ask()).expect("answers");
    let line = host.records().all(NOW)[0].to_line().expect("writes");
    (host, bytes, line)
}

#[test]
fn every_single_changed_byte_of_a_line_is_found() {
    let (_, _, line) = line();
    for at in 0..line.len() {
        let mut changed = line.clone().into_bytes();
        changed[at] ^= 1;
        let changed = String::from_utf8(changed).expect("still text");
        assert!(Record::from_line(&changed).is_err(), "byte {at}: {changed}");
    }
    let tenant = line.replace("acme", "acne");
    let error = Record::from_line(&tenant).expect_err("changed");
    assert!(matches!(error, ReadRecordError::Changed { .. }), "{error}");
    let later = line.replace("{\"brood-record\":1,", "{\"brood-record\":2,\"new\":0,");
    let error = Record::from_line(&later).expect_err("a later version");
    assert!(
        matches!(error, ReadRecordError::OtherVersion { found: 2 }),
        "{error}"
    );
    let spaced = line.replace(",\"hook\"", ", \"hook\"");
    assert!(Record::from_line(&spaced).is_err(), "not the same text");
}

#[test]
fn input_that_was_changed_together_with_its_digest_is_found_by_the_replay() {
    let (host, bytes, line) = line();
    let mut forged = Record::from_line(&line).expect("reads");
    let mut asked = ask().ask().clone();
    asked[0].request.count = 4;
    forged.ask = Asked::<Admission>::new(asked).encoded().into();
    let forged = Record::from_line(&forged.to_line().expect("writes")).expect("reads");
    let version = host.load(&spec(), &bytes).expect("loads");
    let differs = host.replay(&forged, &version);
    assert!(
        matches!(
            &differs,
            Err(ReplayError::Differs {
                part: "failure",
                ..
            })
        ),
        "{differs:?}"
    );
}

#[derive(Default)]
struct Kept(Mutex<Vec<Arc<Record>>>);

impl RecordSink for Kept {
    fn keep(&self, record: &Arc<Record>) -> Result<(), RecordNotKept> {
        self.0.lock().expect("whole").push(Arc::clone(record));
        Ok(())
    }
}

#[test]
fn sink_is_told_every_call_with_what_must_be_kept_marked() {
    let kept = Arc::new(Kept::default());
    let (store, sink) = (Arc::new(VolatileState::default()), kept.clone());
    let host = Host::start_recording(&options(), store, Arc::new(Silent), sink).expect("starts");
    let denies = json!({ "ok": [{ "deny": denial("no") }] });
    let answers = [
        component("admission-policy", "review", admit(1)),
        component("admission-policy", "review", denies),
        Component::new("admission-policy")
            .body("review", "unreachable")
            .build(),
    ];
    for bytes in &answers {
        drop(bind(&host, bytes, |_| ()).binding.call_here(NOW, &ask()));
    }
    let kept = kept.0.lock().expect("whole");
    let told: Vec<_> = kept
        .iter()
        .map(|one| (one.number, one.hook, one.matters()))
        .collect();
    let hook = HookName::Admission;
    assert_eq!(told, [(0, hook, false), (1, hook, true), (2, hook, true)]);
    assert!(matches!(kept[2].failure, Some(Failure::Trap { .. })));
    assert_eq!(host.records().missed(), (0, None));
}
