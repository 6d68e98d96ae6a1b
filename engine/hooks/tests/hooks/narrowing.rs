//! Properties that hold for every ask and answer, tried on thousands that a fixed sequence makes.

use brood_hooks::admission::{Decision, Deferral, Grant, Hold, Item, Verdict, WhenFull, decide};
use brood_hooks::mutation::{Brief, Network, Outcome, Patch, Plan, Rule, combine};
use brood_hooks::placement::{Answer, Bid, Candidate, Question, Ranking, fill, rank};
use brood_hooks::{
    Admission, Ceiling, Daughter, Decide, Failure, ForkRequest, Heard, Id128, Mutation, Now,
    Permits, Placement, Resources, Said, Span, check,
};

use crate::said::{denial, enforced, said};

/// A fixed sequence of numbers (xorshift64, Marsaglia 2003), so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn small(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).expect("below a u32")
    }
}

fn request(dice: &mut Dice) -> ForkRequest {
    let count = 1 + dice.small(64);
    ForkRequest {
        count,
        min_count: 1 + dice.small(count),
        shape: Resources {
            vcpu_milli: 1 + dice.small(4000),
            memory_mib: 1 + dice.small(4096),
            disk_mib: dice.small(100),
            more: vec![("gpu".into(), i64::from(dice.small(4)))],
        },
        ttl_ms: (dice.below(2) == 0).then(|| 1 + dice.below(1000)),
        ..ForkRequest::default()
    }
}

/// Any verdict at all, right or wrong.
fn verdict(dice: &mut Dice) -> Verdict {
    match dice.below(8) {
        0 => Verdict::Abstain,
        1 => Verdict::Deny(denial("no")),
        2 => Verdict::Queue(Deferral {
            queue: format!("q{}", dice.below(3)),
            priority: 0,
            max_wait_ms: 1 + dice.small(5),
        }),
        _ => Verdict::Admit(Grant {
            count: dice.small(80),
            shape: (dice.below(2) == 0).then(|| Resources {
                vcpu_milli: dice.small(5000),
                memory_mib: dice.small(5000),
                disk_mib: dice.small(120),
                more: vec![("gpu".into(), i64::from(dice.small(5)))],
            }),
            ttl_ms: (dice.below(2) == 0).then(|| dice.below(1200)),
            holds: vec![Hold {
                key: format!("k{}", dice.below(2)),
                per_request: 0,
                per_daughter: 1,
                limit: i64::from(dice.small(100)),
                lasts_ms: None,
            }],
            when_full: WhenFull::Deny(denial("full")),
            add_labels: vec![("team".into(), format!("t{}", dice.below(4) / 3))],
            warnings: vec![],
        }),
    }
}

#[test]
fn what_passes_the_check_is_never_wider_than_the_ask_alone_or_joined_in_any_order() {
    let mut dice = Dice(42);
    let (mut admitted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let item = Item {
            request: request(&mut dice),
            ..Item::default()
        };
        let items = vec![item.clone()];
        let mut all = Vec::new();
        for binding in ["a", "b", "c"] {
            let given = vec![verdict(&mut dice)];
            match check::<Admission>(&items, &Permits::default(), given) {
                Ok(checked) => all.push(said(binding, Heard::Enforced(checked))),
                Err(_) => refused += 1,
            }
        }
        let forward = decide(&items, &all).remove(0);
        all.reverse();
        let backward = decide(&items, &all).remove(0);
        match (forward, backward) {
            (Decision::Admitted(one), Decision::Admitted(other)) => {
                assert_eq!(
                    (one.count, &one.shape, one.ttl_ms),
                    (other.count, &other.shape, other.ttl_ms)
                );
                assert_eq!(one.holds, other.holds);
                let asked = &item.request;
                assert!(
                    (asked.min_count..=asked.count).contains(&one.count),
                    "{one:?}"
                );
                assert_eq!(one.shape.narrowest(&asked.shape), one.shape, "{one:?}");
                assert!(one.ttl_ms.unwrap_or(u64::MAX) <= asked.ttl_ms.unwrap_or(u64::MAX));
                for grant in all.iter().filter_map(grant) {
                    assert!(one.count <= grant.count);
                    assert!(
                        grant
                            .holds
                            .iter()
                            .all(|hold| one.holds.iter().any(|held| held.hold == *hold))
                    );
                }
                admitted += 1;
            }
            (Decision::Denied { .. }, Decision::Denied { .. }) => {}
            (
                Decision::Queued { deferral: one, .. },
                Decision::Queued {
                    deferral: other, ..
                },
            ) => {
                assert_eq!(one, other);
            }
            (one, other) => panic!("order decides: {one:?} {other:?}"),
        }
    }
    assert!(
        admitted > 1000 && refused > 1000,
        "{admitted} {refused}: the sequence tries both"
    );
}

fn grant(said: &Said<Admission>) -> Option<&Grant> {
    match &said.heard {
        Heard::Enforced(answer) => match answer.answer().first() {
            Some(Verdict::Admit(grant)) => Some(grant),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn deny_wins_over_queue_and_queue_over_admit() {
    let items = vec![Item {
        request: request(&mut Dice(7)),
        ..Item::default()
    }];
    let enforced = |binding, verdict| enforced::<Admission>(binding, &items, vec![verdict]);
    let queue = Verdict::Queue(Deferral {
        queue: "q".into(),
        priority: 0,
        max_wait_ms: 1,
    });
    let two = [enforced("a", Verdict::Abstain), enforced("b", queue)];
    assert!(matches!(decide(&items, &two).as_slice(), [Decision::Queued { by, .. }] if by == "b"));
    let [a, b] = two;
    let three = [a, b, enforced("c", Verdict::Deny(denial("no")))];
    assert!(
        matches!(decide(&items, &three).as_slice(), [Decision::Denied { by, .. }] if by == "c")
    );
}

#[test]
fn failure_that_is_closed_denies_and_one_that_is_open_is_told() {
    let items = vec![Item {
        request: request(&mut Dice(7)),
        ..Item::default()
    }];
    let failure = || Failure::OutOfFuel { fuel: 5 };
    let closed = decide(&items, &[said("a", Heard::Failed(failure()))]);
    assert!(
        matches!(closed.as_slice(), [Decision::Denied { denial, .. }] if denial.code == "policy-unavailable")
    );
    let open = decide(&items, &[said("a", Heard::Ignored(failure()))]);
    let [Decision::Admitted(admitted)] = open.as_slice() else {
        panic!("{open:?}")
    };
    assert!(admitted.warnings[0].contains("fails open"));
}

#[test]
fn ceiling_answers_like_a_component_and_keeps_tenants_apart() {
    let ceiling = Ceiling {
        per_request: 10,
        live_per_tenant: 20,
    };
    let mut keys = Vec::new();
    for tenant in ["a b", "a%20b", "a\u{1}b", "ab"] {
        let mut item = Item {
            request: request(&mut Dice(3)),
            ..Item::default()
        };
        item.request.who.tenant = tenant.into();
        item.request.min_count = 1;
        let items = vec![item];
        let answer = ceiling.decide(Now::default(), &items).expect("answers");
        let checked = check::<Admission>(&items, &Permits::default(), answer).expect("keeps to it");
        let Some(Verdict::Admit(grant)) = checked.answer().first() else {
            panic!("{tenant}")
        };
        keys.push(grant.holds[0].key.clone());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 4, "{keys:?}");
}

#[test]
fn placement_never_exceeds_bids_room_or_what_is_wanted_and_places_all_or_says_so() {
    let mut dice = Dice(99);
    let (mut placed, mut unplaced) = (0, 0);
    for _ in 0..5_000 {
        let candidates = vec![Candidate::default(); dice.below(6) as usize + 1];
        let wanted = Span {
            first: dice.small(4),
            count: 1 + dice.small(20),
        };
        let question = Question {
            wanted,
            candidates,
            ..Question::default()
        };
        let mut answers = Vec::new();
        for binding in ["a", "b"] {
            let rankings = question.candidates.iter().map(|_| match dice.below(5) {
                0 => Ranking::Reject(0),
                _ => Ranking::Bid(Bid {
                    score: u16::try_from(dice.small(10_001)).expect("fits"),
                    at_most: dice.small(10),
                }),
            });
            let answer = Answer {
                rankings: rankings.collect(),
                reasons: vec!["no".into()],
            };
            answers.push(Said {
                weight: 3,
                ..enforced::<Placement>(binding, &question, answer)
            });
        }
        let ranks = rank(&question, &answers).expect("none is required and failed");
        assert_eq!(
            ranks.usable.len() + ranks.rejected.len(),
            question.candidates.len()
        );
        assert!(
            ranks
                .usable
                .is_sorted_by_key(|ranked| std::cmp::Reverse(ranked.score))
        );
        let room: Vec<u32> = question.candidates.iter().map(|_| dice.small(12)).collect();
        let Ok(runs) = fill(&question, &ranks, &room) else {
            unplaced += 1;
            continue;
        };
        placed += 1;
        let mut next = wanted.first;
        for run in runs {
            assert_eq!(run.daughters.first, next, "runs follow each other");
            next += run.daughters.count;
            let ranked = ranks
                .usable
                .iter()
                .find(|ranked| ranked.candidate == run.candidate);
            assert!(run.daughters.count <= ranked.expect("it was accepted").at_most);
            assert!(run.daughters.count <= room[run.candidate]);
        }
        assert_eq!(u64::from(next), wanted.end());
    }
    assert!(
        placed > 100 && unplaced > 100,
        "{placed} {unplaced}: the sequence tries both"
    );
}

fn brief() -> Brief {
    Brief {
        daughters: Span { first: 0, count: 6 },
        ..Brief::default()
    }
}

fn planned(binding: &str, plan: Plan) -> Said<Mutation> {
    enforced(binding, &brief(), Outcome::Plan(plan))
}

fn env(value: &str) -> Patch {
    Patch::SetEnv("MODE".into(), value.into())
}

#[test]
fn policies_that_disagree_fail_the_fork_and_only_where_they_overlap() {
    let rule = |first, count, value| Plan {
        shared: vec![],
        rules: vec![Rule {
            daughters: Span { first, count },
            patches: vec![env(value)],
        }],
    };
    let apart = [planned("a", rule(0, 3, "x")), planned("b", rule(3, 3, "y"))];
    assert!(combine(&brief(), &apart).is_ok());
    let overlap = [planned("a", rule(0, 4, "x")), planned("b", rule(3, 3, "y"))];
    let wrong = combine(&brief(), &overlap).expect_err("they disagree about daughter 3");
    assert!(
        wrong
            .to_string()
            .starts_with("a and b disagree about Env(\"MODE\") of daughters 3 to 4"),
        "{wrong}"
    );
    let agree = [planned("a", rule(0, 4, "x")), planned("b", rule(3, 3, "x"))];
    assert!(combine(&brief(), &agree).is_ok());
}

#[test]
fn later_patch_of_one_policy_wins_and_narrowing_patches_join() {
    let plan = Plan {
        shared: vec![env("all"), Patch::TtlMs(50)],
        rules: vec![Rule {
            daughters: Span { first: 2, count: 1 },
            patches: vec![env("two")],
        }],
    };
    let rate = |kbps| {
        Patch::Network(Network {
            rate_kbps: Some(kbps),
            ..Network::default()
        })
    };
    let one = Plan {
        shared: vec![rate(100)],
        ..plan
    };
    let one = Plan {
        shared: [vec![env("all"), Patch::TtlMs(50)], one.shared].concat(),
        ..one
    };
    let other = Plan {
        shared: vec![Patch::TtlMs(20), rate(300)],
        rules: vec![],
    };
    let planned = combine(&brief(), &[planned("a", one), planned("b", other)]).expect("they agree");
    let of = |index| {
        let daughter = Daughter {
            index,
            id: Id128::default(),
            node: 0,
            ip: None,
            mac: None,
        };
        planned.of(&daughter).map(|plan| plan.expect("expands"))
    };
    let (first, second) = (of(1).expect("hers"), of(2).expect("hers"));
    assert_eq!(
        (first.env["MODE"].as_str(), second.env["MODE"].as_str()),
        ("all", "two")
    );
    assert_eq!(
        (first.ttl_ms, first.network.rate_kbps),
        (Some(20), Some(100))
    );
    assert!(of(6).is_none(), "no daughter of this request");
}

#[test]
fn hostname_that_passes_the_check_is_right_for_every_daughter() {
    let mut dice = Dice(5);
    let pieces = [
        "w",
        "-",
        ".",
        "${index}",
        "${id}",
        "${node}",
        "${ip}",
        "_",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    let mut passed = 0;
    for _ in 0..20_000 {
        let hostname: String = (0..1 + dice.below(5))
            .map(|_| pieces[dice.below(9) as usize])
            .collect();
        let network = Network {
            hostname: Some(hostname.clone()),
            ..Network::default()
        };
        let plan = Plan {
            shared: vec![Patch::Network(network)],
            rules: vec![],
        };
        let Ok(checked) = check::<Mutation>(&brief(), &Permits::default(), Outcome::Plan(plan))
        else {
            continue;
        };
        passed += 1;
        let heard = Heard::Enforced(checked);
        let said = Said::<Mutation> {
            stands_in: None,
            spent: None,
            binding: "a".into(),
            plugin: "a".into(),
            weight: 1,
            heard,
        };
        let planned = combine(&brief(), &[said]).expect("one plan");
        for index in 0..6 {
            let daughter = Daughter {
                index,
                id: Id128::default().plus(index),
                node: u32::MAX,
                ip: None,
                mac: None,
            };
            let plan = planned.of(&daughter).expect("hers").expect("expands");
            let name = plan.network.hostname.expect("it was set");
            let right = |label: &str| {
                (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
            };
            assert!(
                name.len() <= 253 && name.split('.').all(right),
                "{hostname}: {name}"
            );
        }
    }
    assert!(passed > 500, "{passed}");
}
