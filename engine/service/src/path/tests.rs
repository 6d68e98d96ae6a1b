use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use brood_hooks::admission::{Facts, Item, Verdict};
use brood_hooks::mutation;
use brood_hooks::mutation::{Network, Outcome, Patch, Plan};
use brood_hooks::placement::{Answer, Bid, Candidate, Question, Ranking};
use brood_hooks::{Alone, Ceiling, Decide, Failure, Hearing, Hook, Principal, Resources, Said};
use brood_units::MachineId;

use super::*;
use crate::ask::{Mother, MotherKind};
use crate::hold::Holds;

mod secret;

/// A decider that is a function of its ask.
struct By<F>(F);

impl<H: Hook, F: Fn(&H::Ask) -> H::Answer + Send + Sync> Decide<H> for By<F> {
    fn decide(&self, _: Now, ask: &H::Ask) -> Result<H::Answer, Failure> {
        Ok((self.0)(ask))
    }
}

/// Deciders of the engine answer at once.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn bids(question: &Question) -> Answer {
    let bid = Ranking::Bid(Bid {
        score: 1,
        at_most: 3,
    });
    Answer {
        rankings: vec![bid; question.candidates.len()],
        reasons: Vec::new(),
    }
}

fn names(_: &mutation::Brief) -> Outcome {
    Outcome::Plan(Plan {
        shared: vec![
            Patch::Network(Network {
                hostname: Some("w${index}".to_owned()),
                ..Network::default()
            }),
            Patch::SetEnv("WHO".to_owned(), "${index} on ${node}".to_owned()),
            Patch::TtlMs(500),
            Patch::Limits(Resources {
                vcpu_milli: 250,
                memory_mib: 256,
                ..Resources::default()
            }),
            Patch::Label("team".to_owned(), "of policy".to_owned()),
        ],
        rules: Vec::new(),
    })
}

const CEILING: Ceiling = Ceiling {
    per_request: 6,
    live_per_tenant: 8,
};

type Planner = fn(&mutation::Brief) -> Outcome;

fn panels(plan: Planner) -> Panels {
    Panels {
        admission: Box::new(Alone(CEILING)),
        placement: Box::new(Alone(By(bids))),
        mutation: Box::new(Alone(By(plan))),
        billing: Box::new(Nobody),
    }
}

struct Nobody;

impl<H: Hook> Panel<H> for Nobody {
    fn hear(&self, _: Now, _: H::Ask) -> Hearing<'_, H> {
        Box::pin(std::future::ready(Vec::<Said<H>>::new()))
    }

    fn bound(&self) -> Vec<brood_hooks::Bound> {
        Vec::new()
    }
}

fn asked(spec: &ForkSpec) -> Asked {
    let mother = Mother {
        kind: MotherKind::Running,
        id: MachineId::from_bytes([1; 16]),
        template: MachineId::from_bytes([2; 16]),
        generation: 0,
        shape: Resources {
            vcpu_milli: 1000,
            memory_mib: 256,
            ..Resources::default()
        },
        private_mib: 0,
        labels: Vec::new(),
    };
    let who = Principal {
        tenant: "acme".to_owned(),
        ..Principal::default()
    };
    let request = spec
        .request(Default::default(), who, &mother)
        .expect("right");
    Asked::new(Now::from_unix_nanos(1), request, spec)
}

fn nodes(room: &[u32]) -> Vec<Node> {
    let each = room.iter().zip(7..).map(|(room, node)| Node {
        candidate: Candidate {
            node,
            ..Candidate::default()
        },
        room: *room,
        labels: Vec::new(),
    });
    each.collect()
}

fn way(
    spec: &ForkSpec,
    panels: &Panels,
    room: &[u32],
    holds: &mut Holds,
) -> Result<Stamps, Box<Stopped>> {
    way_with(spec, panels, room, holds, Safe::EMPTY)
}

fn way_with(
    spec: &ForkSpec,
    panels: &Panels,
    room: &[u32],
    holds: &mut Holds,
    safe: Safe<'_>,
) -> Result<Stamps, Box<Stopped>> {
    let reviewed = ready(asked(spec).review(panels, Facts::default()))?;
    let placed = ready(reviewed.commit(holds)?.place(panels, nodes(room)))?;
    let mut first = [0; 16];
    first[15] = 9;
    ready(placed.plan(panels, MachineId::from_bytes(first), safe))
}

#[test]
fn each_daughter_gets_her_own_stamp_out_of_one_plan_and_policy_wins_over_the_caller() {
    let mut spec = ForkSpec::of(4);
    spec.ttl_ms = Some(1000);
    spec.labels
        .insert("team".to_owned(), "of caller".to_owned());
    spec.env.insert("WHO".to_owned(), "caller".to_owned());
    spec.env.insert("MODE".to_owned(), "fast".to_owned());
    let mut holds = Holds::default();
    let stamps = way(&spec, &panels(names), &[2, 9], &mut holds).expect("it may happen");
    let seen: Vec<_> = stamps
        .stamps()
        .iter()
        .map(|stamp| {
            let id = stamp.id.to_string();
            (
                stamp.identity.hostname.as_str(),
                id,
                stamp.identity.env.clone(),
            )
        })
        .collect();
    for (index, (hostname, id, env)) in seen.iter().enumerate() {
        // At most two on the first node, by its room, and three by the bid.
        let node = if index < 2 { 7 } else { 8 };
        assert_eq!(*hostname, format!("w{index}"));
        assert!(id.ends_with(&format!("{:02x}", 9 + index)), "{id}");
        let own = [
            ("MODE", "fast".to_owned()),
            ("WHO", format!("{index} on {node}")),
        ];
        assert_eq!(*env, own.map(|(name, value)| (name.to_owned(), value)));
    }
    let first = &stamps.stamps()[0];
    assert_eq!((first.ttl_ms, first.shape.vcpu_milli), (Some(500), 250));
    assert_eq!(first.labels["team"], "of policy");
    let hooks: Vec<_> = stamps
        .course
        .decisions
        .iter()
        .map(|one| one.hook.as_str())
        .collect();
    assert_eq!(
        hooks,
        ["admission", "placement", "mutation"],
        "one call a hook"
    );
    assert_eq!(holds.used("builtin", "live/acme"), 4);
}

#[test]
fn a_request_for_more_than_fits_gets_what_fits_down_to_what_it_takes() {
    let mut holds = Holds::default();
    let mut spec = ForkSpec::of(7);
    assert!(matches!(
        way(&spec, &panels(names), &[9, 9, 9], &mut holds)
            .expect_err("seven are too many")
            .why,
        Why::Denied { .. }
    ));
    spec.min_count = 2;
    let six = way(&spec, &panels(names), &[9, 9, 9], &mut holds).expect("six of seven");
    assert_eq!(six.stamps().len(), 6);
    let two = way(&spec, &panels(names), &[9], &mut holds).expect("two are left");
    assert_eq!(two.stamps().len(), 2);
    let full = way(&spec, &panels(names), &[9], &mut holds).expect_err("none is left");
    assert!(
        full.to_string()
            .contains("the tenant has 8 living daughters"),
        "{full}"
    );
    assert!(full.held.is_none(), "what is denied holds nothing");
    assert_eq!(holds.used("builtin", "live/acme"), 8);
}

#[test]
fn whatever_stops_a_request_after_its_admission_hands_back_what_was_held() {
    let refuses = |_: &mutation::Brief| {
        Outcome::Refuse(Denial {
            code: "policy".to_owned(),
            message: "not on Fridays".to_owned(),
            retry_after_ms: None,
        })
    };
    let impossible = |_: &mutation::Brief| {
        Outcome::Plan(Plan {
            shared: vec![Patch::UnsetEnv("HOME".to_owned())],
            rules: Vec::new(),
        })
    };
    let too_long = |_: &mutation::Brief| {
        Outcome::Plan(Plan {
            shared: vec![Patch::Network(Network {
                hostname: Some(format!("{}.${{id}}", "a".repeat(40))),
                ..Network::default()
            })],
            rules: Vec::new(),
        })
    };
    let cases: [(Planner, &[u32], &str); 4] = [
        (names, &[1, 2], "1 of 4 daughters found no place"),
        (refuses, &[9, 9], "not on Fridays"),
        (impossible, &[9, 9], "a variable to be removed"),
        (too_long, &[9, 9], "longer than the 64 bytes"),
    ];
    for (plan, room, words) in cases {
        let mut holds = Holds::default();
        let stopped = way(&ForkSpec::of(4), &panels(plan), room, &mut holds).expect_err(words);
        assert!(stopped.to_string().contains(words), "{stopped}");
        let held = stopped.held.expect("units were held");
        assert_eq!(
            (held.daughters(), holds.used("builtin", "live/acme")),
            (4, 4)
        );
        assert_eq!(holds.end(held, 4), None);
        assert_eq!(holds.used("builtin", "live/acme"), 0);
    }
}

#[test]
fn a_verdict_wider_than_the_ask_denies_and_says_which_binding_failed() {
    let wide = |items: &Vec<Item>| {
        let grant = brood_hooks::admission::Grant {
            count: items[0].request.count + 1,
            shape: None,
            ttl_ms: None,
            holds: Vec::new(),
            when_full: brood_hooks::admission::WhenFull::Deny(Denial::default()),
            add_labels: Vec::new(),
            warnings: Vec::new(),
        };
        vec![Verdict::Admit(grant)]
    };
    let panels = Panels {
        admission: Box::new(Alone(By(wide))),
        ..panels(names)
    };
    let stopped = way(&ForkSpec::of(2), &panels, &[9], &mut Holds::default()).expect_err("wide");
    assert!(stopped.to_string().contains("wider"), "{stopped}");
    assert_eq!(
        stopped.decisions[0].standing,
        crate::decision::Standing::FailedClosed
    );
}
