//! Each limit by itself, what they do together, and the settings.

mod holds;
mod limits;
mod settings;

use brood_plugin::Admission;
use brood_plugin::admission::{Grant, Item, Verdict};
use brood_plugin::testkit::Host;
use brood_plugin::types::Denial;

use crate::Quota;

/// Reviews one request under settings.
fn verdict(settings: &str, item: &Item) -> Verdict {
    let host = Host::with_settings::<Quota>(settings).unwrap();
    let verdicts = host.call(|| Quota::review(vec![item.clone()])).unwrap();
    let [verdict] = <[Verdict; 1]>::try_from(verdicts).unwrap();
    verdict
}

/// Reviews one request under limits of everybody.
fn limited(limits: &str, item: &Item) -> Verdict {
    verdict(&format!(r#"{{"default": {limits}}}"#), item)
}

fn granted(verdict: Verdict) -> Grant {
    match verdict {
        Verdict::Admit(grant) => grant,
        other => panic!("not admitted: {other:?}"),
    }
}

fn denied(verdict: Verdict) -> Denial {
    match verdict {
        Verdict::Deny(denial) => denial,
        other => panic!("not denied: {other:?}"),
    }
}
