//! What several policies plan for one daughter, joined: what only narrows is, of anything else there is one word or none.

use brood_hooks::mutation::{
    Brief, DaughterPlan, MutationError, Network, Outcome, Patch, Plan, Planned, Rule, combine,
};
use brood_hooks::{
    Daughter, ForkRequest, Heard, Hook, Id128, Mutation, Permits, Resources, Said, Span, check,
};

use crate::said::{enforced, said};

fn brief() -> Brief {
    Brief {
        request: ForkRequest {
            shape: limits(4000, 1024, 100),
            ..ForkRequest::default()
        },
        daughters: Span { first: 0, count: 4 },
        ..Brief::default()
    }
}

fn limits(vcpu_milli: u32, memory_mib: u32, disk_mib: u32) -> Resources {
    Resources {
        vcpu_milli,
        memory_mib,
        disk_mib,
        more: Vec::new(),
    }
}

fn shared(patches: &[Patch]) -> Plan {
    Plan {
        shared: patches.to_vec(),
        rules: Vec::new(),
    }
}

fn plans(binding: &str, plan: Plan) -> Said<Mutation> {
    enforced(binding, &brief(), Outcome::Plan(plan))
}

fn both(first: &[Patch], second: &[Patch]) -> Result<Planned, Box<MutationError>> {
    let said = [plans("a", shared(first)), plans("b", shared(second))];
    combine(&brief(), &said).map_err(Box::new)
}

fn hers(planned: &Planned) -> DaughterPlan {
    let daughter = Daughter {
        index: 1,
        id: Id128::default(),
        node: 0,
        ip: None,
        mac: None,
    };
    let plan = planned.of(&daughter).expect("she is of the request");
    plan.expect("it expands")
}

#[test]
fn limits_of_two_policies_are_kind_by_kind_the_smaller() {
    let first = [Patch::Limits(limits(1000, 1024, 50))];
    let second = [Patch::Limits(limits(4000, 512, 60))];
    for joined in [both(&first, &second), both(&second, &first)] {
        let plan = hers(&joined.expect("they only narrow"));
        assert_eq!(plan.limits, Some(limits(1000, 512, 50)));
    }
}

fn egress(to: &str) -> Option<Vec<String>> {
    Some(vec![to.to_owned()])
}

#[test]
fn two_networks_agree_part_by_part_and_the_lower_rate_holds() {
    let whole = Network {
        profile: None,
        hostname: Some("web".to_owned()),
        egress_allow: egress("10.0.0.0/8"),
        rate_kbps: Some(300),
    };
    let slower = Network {
        rate_kbps: Some(100),
        ..whole.clone()
    };
    let name_alone = Network {
        hostname: Some("web".to_owned()),
        ..Network::default()
    };
    let (first, second) = ([Patch::Network(whole)], [Patch::Network(slower.clone())]);
    for joined in [both(&first, &second), both(&second, &first)] {
        assert_eq!(hers(&joined.expect("they agree")).network, slower);
    }
    let joined = both(&second, &[Patch::Network(name_alone)]);
    let plan = hers(&joined.expect("they agree on the name, and one says no more"));
    assert_eq!(plan.network, slower);
}

#[test]
fn two_networks_of_which_one_part_differs_fail_the_fork_and_say_which() {
    let network = |part: &str, value: &str, rate_kbps| {
        let mut network = Network {
            rate_kbps,
            ..Network::default()
        };
        match part {
            "Profile" => network.profile = Some(value.to_owned()),
            "Hostname" => network.hostname = Some(value.to_owned()),
            _ => network.egress_allow = egress(&format!("10.0.0.{}/32", value.len())),
        }
        Patch::Network(network)
    };
    let permits = Permits {
        network_profiles: vec!["x".to_owned(), "yy".to_owned()],
        ..Default::default()
    };
    for part in ["Profile", "Hostname", "Egress"] {
        let plans = |binding, value, rate| {
            let outcome = Outcome::Plan(shared(&[network(part, value, rate)]));
            let checked = check::<Mutation>(&brief(), &permits, outcome);
            said::<Mutation>(binding, Heard::Enforced(checked.expect("it is permitted")))
        };
        let first = plans("a", "x", None);
        let error = combine(&brief(), &[first.clone(), plans("b", "yy", None)]);
        let words = format!("a and b disagree about {part} of daughters 0 to 4");
        assert_eq!(error.expect_err("they differ").to_string(), words);
        let agreed = combine(&brief(), &[first, plans("b", "x", Some(5))]);
        let network = hers(&agreed.expect("one of them says more")).network;
        assert_eq!(network.rate_kbps, Some(5), "{part}");
    }
}

#[test]
fn a_shadow_that_changes_one_daughter_alone_disagrees_and_one_that_mixes_entropy_in_does_not() {
    let env = |value: &str| Patch::SetEnv("MODE".to_owned(), value.to_owned());
    let real = [plans("real", shared(&[env("all")]))];
    let agrees = |daughter, patch| {
        let rule = Rule {
            daughters: Span {
                first: daughter,
                count: 1,
            },
            patches: vec![patch],
        };
        let plan = Plan {
            shared: Vec::new(),
            rules: vec![rule],
        };
        Mutation::agrees(&brief(), &real, &plans("shadow", plan))
    };
    let label = || Patch::Label("team".to_owned(), "a".to_owned());
    for daughter in 0..4 {
        assert!(agrees(daughter, env("all")), "{daughter}: it is so already");
        assert!(!agrees(daughter, label()), "{daughter}: a label more");
        assert!(agrees(daughter, Patch::EntropyContext(vec![7])));
    }
}
