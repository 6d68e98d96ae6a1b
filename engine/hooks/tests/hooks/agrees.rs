//! When a shadow agrees with what was decided: if it would change nothing that anybody notices.

use brood_hooks::billing::{Batch, Line, Rated, Sample, Sku};
use brood_hooks::mutation::{Brief, Outcome, Patch, Plan};
use brood_hooks::placement::{Answer, Bid, Candidate, Question, Ranking};
use brood_hooks::{Billing, Failure, Heard, Hook, Mutation, Placement, Said, Span};

use crate::said::{checked, denial, enforced, said};

fn failed<H: Hook>() -> Said<H> {
    let message = "nobody there".to_owned();
    said("shadow", Heard::Failed(Failure::Host { message }))
}

fn question() -> Question {
    Question {
        wanted: Span { first: 0, count: 4 },
        candidates: vec![Candidate::default(); 2],
        labelsets: vec![Vec::new()],
        ..Question::default()
    }
}

fn bids(each: &[(u16, u32)]) -> Answer {
    let bid = |(score, at_most): &(u16, u32)| {
        Ranking::Bid(Bid {
            score: *score,
            at_most: *at_most,
        })
    };
    Answer {
        rankings: each.iter().map(bid).collect(),
        reasons: vec!["drained".to_owned()],
    }
}

#[test]
fn a_placement_shadow_agrees_if_order_and_bounds_stay_whatever_the_scores() {
    let question = question();
    let real = [enforced::<Placement>(
        "real",
        &question,
        bids(&[(10, 4), (5, 4)]),
    )];
    let agrees = |answer| {
        let shadow = enforced::<Placement>("shadow", &question, answer);
        Placement::agrees(&question, &real, &shadow)
    };
    assert!(agrees(bids(&[(1, 4), (0, 9)])), "the same order and bounds");
    assert!(agrees(bids(&[(0, 4), (4, 4)])), "not enough to overtake");
    assert!(!agrees(bids(&[(0, 4), (6, 4)])), "overtaken");
    assert!(!agrees(bids(&[(1, 3), (0, 4)])), "a narrower bound");
    let mut rejects = bids(&[(1, 4), (0, 4)]);
    rejects.rankings[1] = Ranking::Reject(0);
    assert!(!agrees(rejects), "one place less");
    assert!(!Placement::agrees(&question, &real, &failed()));
    assert!(
        Placement::agrees(&question, &[failed()], &failed()),
        "both place nobody"
    );
}

fn plan(name: &str, value: &str) -> Outcome {
    Outcome::Plan(Plan {
        shared: vec![Patch::SetEnv(name.to_owned(), value.to_owned())],
        rules: Vec::new(),
    })
}

#[test]
fn a_mutation_shadow_agrees_if_every_daughter_stays_what_she_is() {
    let brief = Brief {
        daughters: Span { first: 0, count: 2 },
        ..Brief::default()
    };
    let real = [enforced::<Mutation>("real", &brief, plan("A", "1"))];
    let agrees = |answer| {
        let shadow = enforced::<Mutation>("shadow", &brief, answer);
        Mutation::agrees(&brief, &real, &shadow)
    };
    assert!(agrees(plan("A", "1")), "the same");
    assert!(agrees(Outcome::Plan(Plan::default())), "nothing");
    assert!(!agrees(plan("B", "1")), "one variable more");
    assert!(!agrees(plan("A", "2")), "two that disagree");
    let refusal = Outcome::Refuse(denial("not on Fridays"));
    assert!(!agrees(refusal.clone()), "no fork at all");
    let refused = [enforced::<Mutation>("real", &brief, refusal)];
    assert!(
        Mutation::agrees(&brief, &refused, &failed()),
        "no fork either way"
    );
}

fn rated(quantity: i64) -> Rated {
    Rated {
        skus: vec![Sku {
            name: "cpu".to_owned(),
            currency: "EUR".to_owned(),
            unit: "vcpu-ns".to_owned(),
            per: 1,
        }],
        lines: vec![Line {
            sample: Some(0),
            sku: 0,
            quantity,
            unit_price_nanos: 1,
            amount_nanos: quantity,
        }],
        ..Rated::default()
    }
}

#[test]
fn a_billing_shadow_agrees_if_it_would_bill_what_is_billed() {
    let batch = Batch {
        accounts: vec![Default::default()],
        dimensions: vec!["vcpu-ns".to_owned()],
        groups: vec![Vec::new()],
        samples: vec![Sample {
            quantity: 7,
            ..Sample::default()
        }],
        ..Batch::default()
    };
    let real = [
        said("warns", Heard::Warned(checked::<Billing>(&batch, rated(3)))),
        enforced::<Billing>("real", &batch, rated(7)),
    ];
    let shadow = |quantity| enforced::<Billing>("shadow", &batch, rated(quantity));
    assert!(Billing::agrees(&batch, &real, &shadow(7)));
    assert!(!Billing::agrees(&batch, &real, &shadow(8)));
    assert!(
        !Billing::agrees(&batch, &real, &shadow(3)),
        "one that only warns bills nothing"
    );
    assert!(!Billing::agrees(&batch, &real, &failed()));
    assert!(
        !Billing::agrees(&batch, &real[..1], &shadow(3)),
        "nothing is billed"
    );
    assert!(Billing::agrees(&batch, &real[..1], &failed()));
}
