//! Each kind of gift, rules, values of their own, and what refuses a fork.

mod gifts;
mod own;
mod refusals;
mod rules;
mod settings;

use brood_plugin::Mutation;
use brood_plugin::mutation::{Brief, Outcome, Patch, Plan};
use brood_plugin::testkit::Host;

use crate::Identity;

fn outcome(settings: &str, brief: &Brief) -> Outcome {
    let host = Host::with_settings::<Identity>(settings).unwrap();
    host.call(|| Identity::plan_daughters(brief.clone()))
        .unwrap()
}

fn planned(settings: &str, brief: &Brief) -> Plan {
    match outcome(settings, brief) {
        Outcome::Plan(plan) => plan,
        Outcome::Refuse(denial) => panic!("refused: {}", denial.message),
    }
}

fn refused(settings: &str, brief: &Brief) -> String {
    match outcome(settings, brief) {
        Outcome::Refuse(denial) => denial.message,
        Outcome::Plan(plan) => panic!("planned: {plan:?}"),
    }
}

fn env(name: &str, value: &str) -> Patch {
    Patch::SetEnv((name.to_owned(), value.to_owned()))
}

/// What everybody is given when it is this.
fn given(give: &str, brief: &Brief) -> Vec<Patch> {
    planned(&format!(r#"{{"give": {give}}}"#), brief).shared
}
