//! What each import tells a component: what the call was begun with, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use brood_hooks::{HookName, Now};
use brood_policy::{Limits, StateOptions};

use super::super::context::{Beginning, Settings};
use super::super::journal::{HostAnswer, Journal};
use super::*;
use crate::Digest;
use crate::state::{PluginState, VolatileState};

/// A call at 7 ns with a document, one prepared value and an empty state of two keys.
fn call(journal: Journal, log_level: LogLevel) -> Context {
    let options = StateOptions {
        keys: 2,
        kib: 1,
        value_kib: 1,
    };
    let store = Arc::new(VolatileState::default());
    let state = PluginState::load("quota", options, store).expect("loads");
    let prepared = BTreeMap::from([("limits".to_owned(), vec![3, 4])]);
    Context::new(
        &Limits::of(HookName::Admission),
        Beginning {
            now: Now::from_unix_nanos(7),
            settings: Settings {
                document: Arc::from(r#"{"most": 2}"#),
                prepared: Arc::new(prepared),
                digest: Digest::of(r#"{"most": 2}"#.as_bytes()),
            },
            state: state.view(0),
            journal,
            log_level,
            declared: Arc::new(["seen".to_owned()].into()),
        },
    )
}

fn recording() -> Context {
    call(Journal::recording(), LogLevel::Warn)
}

#[test]
fn clock_and_config_tell_what_the_call_was_begun_with() {
    let mut call = recording();
    assert_eq!(clock::Host::now(&mut call).expect("told"), 7);
    let document = config::Host::document(&mut call).expect("told");
    assert_eq!(document, r#"{"most": 2}"#);
    let keys = ["limits", "none"].map(str::to_owned).to_vec();
    let prepared = config::Host::prepared(&mut call, keys).expect("told");
    assert_eq!(prepared, [Some(vec![3, 4]), None]);
    let revision = config::Host::revision(&mut call).expect("told");
    assert_eq!(revision, Digest::of(document.as_bytes()).prefix());
}

#[test]
fn log_keeps_lines_of_the_level_that_it_says_is_enabled() {
    use log::Level::{Debug, Error, Info, Trace, Warn};
    let mut call = recording();
    let each = [Trace, Debug, Info, Warn, Error];
    let enabled = each.map(|level| log::Host::enabled(&mut call, level).expect("told"));
    assert_eq!(enabled, [false, false, false, true, true]);
    for level in each {
        log::Host::write(&mut call, level, format!("{level:?}"), Vec::new()).expect("taken");
    }
    let kept: Vec<_> = call
        .log
        .iter()
        .map(|line| (line.level, line.message.as_str()))
        .collect();
    assert_eq!(
        kept,
        [
            (LogLevel::Warn, "Level::Warn"),
            (LogLevel::Error, "Level::Error")
        ]
    );
    let mut all = self::call(Journal::recording(), LogLevel::Trace);
    for level in each {
        log::Host::write(&mut all, level, String::new(), Vec::new()).expect("taken");
    }
    let levels: Vec<_> = all.log.iter().map(|line| line.level).collect();
    assert_eq!(
        levels,
        [
            LogLevel::Trace,
            LogLevel::Debug,
            LogLevel::Info,
            LogLevel::Warn,
            LogLevel::Error
        ]
    );
}

#[test]
fn metrics_count_what_is_declared_and_drop_the_rest() {
    let mut call = recording();
    let point = |name: &str, value| metrics::Point {
        name: name.to_owned(),
        value,
        labels: Vec::new(),
    };
    metrics::Host::emit(&mut call, vec![point("seen", 5), point("other", 6)]).expect("taken");
    let kept: Vec<_> = call
        .metrics
        .iter()
        .map(|one| (one.name.as_str(), one.value))
        .collect();
    assert_eq!((kept, call.metrics_dropped), (vec![("seen", 5)], 1));
}

#[test]
fn state_is_told_refused_and_written_down_in_order() {
    let mut call = recording();
    let deltas = vec![("n".to_owned(), 2), ("n".to_owned(), 3)];
    let added = state::Host::add(&mut call, deltas).expect("told");
    assert_eq!(added, Ok(vec![2, 5]));
    let mut set = |entries: Vec<(String, Option<Vec<u8>>)>| {
        state::Host::set(&mut call, entries, None).expect("told")
    };
    assert_eq!(set(vec![("a".to_owned(), Some(vec![9]))]), Ok(()));
    let large = vec![("a".to_owned(), Some(vec![0; 1025]))];
    assert_eq!(set(large), Err(state::Error::TooLarge));
    let third = vec![("b".to_owned(), Some(Vec::new()))];
    assert_eq!(set(third), Err(state::Error::Quota));
    let wrong = state::Host::add(&mut call, vec![("a".to_owned(), 1)]).expect("told");
    assert_eq!(wrong, Err(state::Error::TypeMismatch));
    let keys = ["a", "b", "n"].map(str::to_owned).to_vec();
    let got = state::Host::get(&mut call, keys).expect("told");
    let number = 5_i64.to_le_bytes().to_vec();
    assert_eq!(got, [Some(vec![9]), None, Some(number)]);
    assert_eq!(call.journal.into_answers().len(), 6);
}

#[test]
fn recorded_answer_of_another_kind_ends_the_replay() {
    let answer = |asked, told| {
        let answers = vec![HostAnswer { asked, told }];
        call(Journal::replaying(answers), LogLevel::Info)
    };
    let damaged = |error: wasmtime::Error| {
        let text = error.to_string();
        assert!(text.contains("recorded answer is damaged"), "{text}");
    };
    let mut get = answer(HostAsk::Get(Vec::new()), HostTold::Set(Ok(())));
    damaged(state::Host::get(&mut get, Vec::new()).expect_err("no bytes"));
    let mut set = answer(HostAsk::Set(Vec::new(), None), HostTold::Got(Vec::new()));
    damaged(state::Host::set(&mut set, Vec::new(), None).expect_err("no result"));
    let mut add = answer(HostAsk::Add(Vec::new()), HostTold::Got(Vec::new()));
    damaged(state::Host::add(&mut add, Vec::new()).expect_err("no sums"));
    let mut right = answer(HostAsk::Get(Vec::new()), HostTold::Got(vec![Some(vec![1])]));
    let told = state::Host::get(&mut right, Vec::new()).expect("as recorded");
    assert_eq!(told, [Some(vec![1])]);
}
