//! What several policies say of one request, joined: whose hold counts, whose words are heard, who waits how long.

use brood_hooks::admission::{
    Admitted, Decision, Deferral, Grant, HeldBy, Hold, Item, Verdict, WhenFull, decide,
};
use brood_hooks::{Admission, Ceiling, Decide, ForkRequest, Heard, Hook, Now, Said};

use crate::said::{self, checked, denial, said};

fn item(count: u32) -> Item {
    Item {
        request: ForkRequest {
            count,
            min_count: 1,
            ..ForkRequest::default()
        },
        ..Item::default()
    }
}

fn grant() -> Grant {
    Grant {
        count: 4,
        shape: None,
        ttl_ms: None,
        holds: Vec::new(),
        when_full: WhenFull::Deny(denial("full")),
        add_labels: Vec::new(),
        warnings: Vec::new(),
    }
}

fn hold(limit: i64) -> Hold {
    Hold {
        key: "live".to_owned(),
        per_request: 0,
        per_daughter: 1,
        limit,
        lasts_ms: None,
    }
}

fn holding(hold: Hold, words: &str) -> Verdict {
    Verdict::Admit(Grant {
        holds: vec![hold],
        when_full: WhenFull::Deny(denial(words)),
        ..grant()
    })
}

fn enforced(binding: &str, plugin: &str, verdict: Verdict) -> Said<Admission> {
    Said {
        plugin: plugin.to_owned(),
        ..said::enforced(binding, &vec![item(4)], vec![verdict])
    }
}

fn one(said: &[Said<Admission>]) -> Decision {
    decide(&[item(4)], said).remove(0)
}

fn admitted(said: &[Said<Admission>]) -> Admitted {
    match one(said) {
        Decision::Admitted(admitted) => admitted,
        other => panic!("{other:?}"),
    }
}

/// What two bindings hold, by one plugin or by two.
fn held(first: Hold, second: Hold, plugin: &str) -> Vec<HeldBy> {
    let both = [
        enforced("a", "quota", holding(first, "a is full")),
        enforced("b", plugin, holding(second, "b is full")),
    ];
    admitted(&both).holds
}

#[test]
fn one_counter_of_one_plugin_is_claimed_once_by_the_stricter() {
    for (first, second, by) in [(5, 9, "a"), (9, 5, "b"), (5, 5, "a")] {
        let holds = held(hold(first), hold(second), "quota");
        let [held] = holds.as_slice() else {
            panic!("{holds:?}")
        };
        assert_eq!((held.hold.limit, held.binding.as_str()), (5, by));
        let words = format!("{by} is full");
        assert_eq!(held.when_full, WhenFull::Deny(denial(&words)));
    }
}

#[test]
fn a_claim_is_as_much_and_as_long_as_either_says() {
    let amounts = |per_request, per_daughter, lasts_ms| Hold {
        per_request,
        per_daughter,
        lasts_ms,
        ..hold(100)
    };
    for (first, second, expected) in [
        ((1, 5, Some(10)), (2, 3, Some(20)), (2, 5, Some(20))),
        ((2, 3, Some(20)), (1, 5, Some(10)), (2, 5, Some(20))),
        ((0, 1, None), (0, 1, Some(10)), (0, 1, None)),
        ((0, 1, Some(10)), (0, 1, None), (0, 1, None)),
    ] {
        let of = |(request, daughter, lasts)| amounts(request, daughter, lasts);
        let joined = held(of(first), of(second), "quota").remove(0).hold;
        assert_eq!(
            (joined.per_request, joined.per_daughter, joined.lasts_ms),
            expected
        );
    }
}

#[test]
fn counters_of_two_plugins_and_of_two_names_are_two() {
    assert_eq!(held(hold(5), hold(9), "other").len(), 2);
    let named = Hold {
        key: "memory".to_owned(),
        ..hold(9)
    };
    assert_eq!(held(hold(5), named, "quota").len(), 2);
}

#[test]
fn labels_that_two_policies_give_differently_deny_and_both_are_named() {
    let labelled = |binding, value: &str| {
        let add_labels = vec![("tier".to_owned(), value.to_owned())];
        enforced(
            binding,
            binding,
            Verdict::Admit(Grant {
                add_labels,
                ..grant()
            }),
        )
    };
    let agree = admitted(&[labelled("a", "gold"), labelled("b", "gold")]);
    assert_eq!(agree.add_labels, [("tier".to_owned(), "gold".to_owned())]);
    let Decision::Denied { by, denial, .. } = one(&[labelled("a", "gold"), labelled("b", "tin")])
    else {
        panic!("it was admitted")
    };
    assert_eq!(
        (by.as_str(), denial.code.as_str()),
        ("b", "policy-conflict")
    );
    assert_eq!(
        denial.message,
        "a and b disagree about label tier: 'gold' and 'tin'"
    );
}

fn deferral(queue: &str, priority: i32, max_wait_ms: u32) -> Verdict {
    Verdict::Queue(Deferral {
        queue: queue.to_owned(),
        priority,
        max_wait_ms,
    })
}

#[test]
fn who_is_told_to_wait_twice_waits_the_shorter_time_then_at_the_lower_priority() {
    for (first, second, expected) in [
        (("x", 1, 10), ("y", 1, 20), "a"),
        (("x", 1, 20), ("y", 1, 10), "b"),
        (("x", 1, 10), ("y", 0, 10), "b"),
        (("y", 1, 10), ("x", 1, 10), "b"),
        (("x", 1, 10), ("x", 1, 10), "a"),
    ] {
        let of = |binding, (queue, priority, wait)| {
            enforced(binding, binding, deferral(queue, priority, wait))
        };
        let Decision::Queued { by, .. } = one(&[of("a", first), of("b", second)]) else {
            panic!("it does not wait")
        };
        assert_eq!(by, expected, "{first:?} {second:?}");
    }
}

#[test]
fn who_only_warns_is_told_in_words_and_changes_nothing() {
    let warned = |verdict| {
        let admitted = admitted(&[said(
            "w",
            Heard::Warned(checked::<Admission>(&vec![item(4)], vec![verdict])),
        )]);
        assert_eq!((admitted.count, admitted.holds.len()), (4, 0));
        admitted.warnings
    };
    let with = |count, warnings: &[&str]| {
        Verdict::Admit(Grant {
            count,
            warnings: warnings.iter().map(|&text| text.to_owned()).collect(),
            ..grant()
        })
    };
    assert_eq!(warned(Verdict::Abstain), [""; 0]);
    assert_eq!(warned(with(4, &[])), [""; 0]);
    assert_eq!(
        warned(with(4, &["old image", "slow"])),
        ["w: old image; slow"]
    );
    assert_eq!(warned(with(3, &["slow"])), ["w would admit 3 of 4"]);
    assert_eq!(warned(Verdict::Deny(denial("no"))), ["w would deny: no"]);
    assert_eq!(warned(deferral("q", 0, 1)), ["w would queue in q"]);
}

#[test]
fn a_shadow_agrees_if_the_same_happens_in_other_words() {
    let agrees = |real: Verdict, shadow: Verdict| {
        let real = [enforced("real", "real", real)];
        Admission::agrees(&vec![item(4)], &real, &enforced("shadow", "real", shadow))
    };
    let with = |grant: Grant| Verdict::Admit(grant);
    let deny = |text| Verdict::Deny(denial(text));
    assert!(agrees(deny("no"), deny("never")));
    assert!(
        agrees(deny("no"), with(grant())),
        "it would be denied anyway"
    );
    assert!(!agrees(with(grant()), deny("no")));
    assert!(agrees(deferral("q", 1, 10), deferral("q", 1, 10)));
    assert!(agrees(deferral("q", 1, 10), deferral("r", 1, 20)));
    assert!(!agrees(deferral("q", 1, 10), deferral("q", 1, 5)));
    assert!(!agrees(with(grant()), deferral("q", 1, 10)));
    let warns = Grant {
        warnings: vec!["slow".to_owned()],
        ..grant()
    };
    assert!(agrees(with(grant()), with(warns)));
    let fewer = Grant {
        count: 3,
        ..grant()
    };
    assert!(!agrees(with(grant()), with(fewer)));
    assert!(
        !agrees(with(grant()), holding(hold(5), "full")),
        "a hold more"
    );
    assert!(agrees(
        holding(hold(5), "full"),
        holding(hold(5), "no room")
    ));
    assert!(agrees(holding(hold(5), "full"), holding(hold(9), "full")));
    assert!(
        !agrees(holding(hold(9), "full"), holding(hold(5), "full")),
        "a hold that fits less"
    );
}

#[test]
fn the_engines_own_ceiling_admits_up_to_it_and_counts_names_up_to_a_length() {
    let ceiling = Ceiling {
        per_request: 10,
        live_per_tenant: 20,
    };
    let review = |least: u32, tenant: &str| {
        let mut item = item(least + 5);
        item.request.min_count = least;
        item.request.who.tenant = tenant.to_owned();
        ceiling
            .decide(Now::default(), &vec![item])
            .map(|mut all| all.remove(0))
    };
    let Ok(Verdict::Admit(grant)) = review(10, "acme") else {
        panic!("it is within the ceiling")
    };
    assert_eq!((grant.count, grant.holds[0].limit), (10, 20));
    assert_eq!(grant.holds[0].key, "live/acme");
    assert!(matches!(review(11, "acme"), Ok(Verdict::Deny(_))));
    // `live/` before it: 128 bytes, and 129.
    assert!(review(1, &"t".repeat(123)).is_ok());
    assert!(review(1, &"t".repeat(124)).is_err());
}
