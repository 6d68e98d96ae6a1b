//! The test kit keeps the promises of the host.

use super::*;
use crate::settings::{Diagnostics, Prepared};
use crate::{clock, log, metrics, state};

crate::settings! {
    /// None to speak of.
    struct Settings {
        /// A number.
        number: u32 = 7,
    }
}

struct Probe;

impl Plugin for Probe {
    const NAME: &'static str = "probe";
    const VERSION: &'static str = "0.0.0";
    const METRICS: &'static [&'static str] = &["seen"];
    type Settings = Settings;

    fn prepare(settings: &Settings, prepared: &mut Prepared, _: &mut Diagnostics) {
        prepared.put("number", &settings.number);
    }
}

fn host() -> Host {
    Host::with_settings::<Probe>("{}").unwrap()
}

fn counted(by: i64) -> Result<i64, HookError> {
    let values = state::add(&[("n".to_owned(), by)]);
    let values = values.map_err(|error| HookError::Other(format!("{error:?}")))?;
    values
        .first()
        .copied()
        .ok_or(HookError::Other(String::new()))
}

#[test]
fn prepared_settings_are_read_back_by_key() {
    let number: u32 = host().call(|| crate::settings::prepared("number")).unwrap();
    assert_eq!(number, 7);
    let missing = host().call(|| crate::settings::prepared::<u32>("other"));
    assert!(matches!(missing, Err(HookError::Misconfigured(_))));
}

#[test]
fn state_of_a_call_that_errs_or_panics_vanishes() {
    let host = host();
    assert_eq!(host.call(|| counted(2)), Ok(2));
    let failed: Result<(), _> = host.call(|| {
        counted(5)?;
        Err(HookError::Other("no".to_owned()))
    });
    assert!(failed.is_err());
    let call = std::panic::AssertUnwindSafe(|| {
        host.call(|| -> Result<(), HookError> {
            counted(5)?;
            panic!("no")
        })
    });
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(host.counter("n"), Some(2));
    assert_eq!(host.call(|| counted(1)), Ok(3));
}

#[test]
fn state_expires_by_the_clock_of_the_call() {
    let host = host();
    let key = || vec!["k".to_owned()];
    host.set_now(1_000_000_000);
    let write = || {
        let entries = [("k".to_owned(), Some(vec![1]))];
        state::set(&entries, Some(500)).map_err(|error| HookError::Other(format!("{error:?}")))
    };
    host.call(write).unwrap();
    host.set_now(1_499_999_999);
    assert_eq!(
        host.call(|| Ok(state::get(&key()))),
        Ok(vec![Some(vec![1])])
    );
    host.set_now(1_500_000_000);
    assert_eq!(host.call(|| Ok(state::get(&key()))), Ok(vec![None]));
}

#[test]
fn counter_is_not_overwritten_by_accident_and_does_not_wrap() {
    let host = host();
    let add = |by| {
        host.call(|| Ok(state::add(&[("n".to_owned(), by)])))
            .unwrap()
    };
    assert_eq!(add(i64::MAX), Ok(vec![i64::MAX]));
    assert!(matches!(add(1), Err(state::Error::Other(_))));
    let set = || Ok(state::set(&[("n".to_owned(), Some(vec![1]))], None));
    host.call(set).unwrap().unwrap();
    assert_eq!(add(1), Err(state::Error::TypeMismatch));
}

#[test]
fn lines_and_declared_metrics_are_kept_and_the_clock_stands_still() {
    let host = host();
    let now = host
        .call(|| {
            log::write(Level::Debug, "quiet", &[]);
            log::write(Level::Warn, "loud", &[("a", "b")]);
            metrics::emit("seen", 1, &[]);
            metrics::emit("undeclared", 1, &[]);
            Ok((clock::now(), clock::now()))
        })
        .unwrap();
    assert_eq!(now.0, now.1);
    let messages: Vec<String> = host.lines().into_iter().map(|line| line.message).collect();
    assert_eq!(messages, ["loud"]);
    assert_eq!(host.metrics(), [("seen".to_owned(), 1)]);
}

#[test]
fn refused_settings_name_the_place() {
    let refused = Host::with_settings::<Probe>(r#"{"numbr": 1}"#)
        .err()
        .unwrap();
    assert_eq!(
        refused.to_string(),
        "the plugin refused its settings; /numbr: no such setting; did you mean `number`?"
    );
}
