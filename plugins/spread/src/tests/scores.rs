//! Each part of the score, by itself: the other weights are 0.

use brood_plugin::placement::{Candidate, Column};
use brood_plugin::testkit::{candidate, labels, question};

use super::*;

/// Scores when only one weight counts.
fn scores(strategy: &str, weight: &str, candidates: Vec<Candidate>) -> Vec<u16> {
    let all = [
        "room", "warm", "resident", "tenant", "load", "pressure", "numa",
    ];
    let weights = all.map(|name| format!(r#""{name}": {}"#, u8::from(name == weight)));
    let (weights, numa) = (
        weights.join(","),
        if weight == "numa" { "together" } else { "any" },
    );
    let settings =
        format!(r#"{{"strategy": "{strategy}", "weights": {{{weights}}}, "numa": "{numa}"}}"#);
    let answer = rank(&settings, question(8, candidates));
    bids(&answer).iter().map(|bid| bid.score).collect()
}

fn with(change: impl Fn(&mut Candidate)) -> Candidate {
    let mut candidate = candidate(0);
    change(&mut candidate);
    candidate
}

#[test]
fn emptiest_domain_leads_when_spreading_and_fullest_when_packing() {
    let free = |mib| with(|one| one.free.memory_mib = mib);
    let candidates = || vec![free(8192), free(2048), free(0)];
    assert_eq!(scores("spread", "room", candidates()), [10_000, 2500, 0]);
    assert_eq!(scores("pack", "room", candidates()), [0, 7500, 10_000]);
}

#[test]
fn warm_shells_count_up_to_what_is_wanted() {
    let warm = |shells| with(|one| one.warm_shells = shells);
    assert_eq!(
        scores("spread", "warm", vec![warm(0), warm(2), warm(8), warm(99)]),
        [0, 2500, 10_000, 10_000]
    );
}

#[test]
fn resident_pages_count_as_their_share_of_the_mother() {
    let resident = |mib| with(|one| one.parent_resident_mib = mib);
    assert_eq!(
        scores(
            "spread",
            "resident",
            vec![resident(0), resident(128), resident(512)]
        ),
        [0, 2500, 10_000]
    );
}

#[test]
fn tenant_is_kept_apart_when_spreading_and_together_when_packing() {
    let live = |count| with(|one| one.tenant_live = count);
    let candidates = || vec![live(0), live(1), live(4)];
    assert_eq!(scores("spread", "tenant", candidates()), [10_000, 7500, 0]);
    assert_eq!(scores("pack", "tenant", candidates()), [0, 2500, 10_000]);
}

#[test]
fn idle_cpu_and_absent_pressure_speak_for_a_candidate() {
    let load = |load| with(|one| one.cpu_load = load);
    assert_eq!(
        scores(
            "spread",
            "load",
            vec![load(0), load(250), load(1000), load(u16::MAX)]
        ),
        [10_000, 7500, 0, 0]
    );
    let pressure = |pressure| with(|one| one.memory_pressure = pressure);
    assert_eq!(
        scores("pack", "pressure", vec![pressure(0), pressure(1000)]),
        [10_000, 0]
    );
}

#[test]
fn domain_that_holds_the_whole_request_is_preferred_where_asked() {
    let free = |mib| with(|one| one.free.memory_mib = mib);
    assert_eq!(
        scores("pack", "numa", vec![free(4096), free(2048)]),
        [10_000, 5000]
    );
}

#[test]
fn preferred_labels_count_by_their_weight() {
    let mut question = question(1, vec![candidate(0), candidate(1)]);
    question.labelsets.push(labels(&[("disk", "nvme")]));
    question.candidates[1].labelset = 1;
    let settings = r#"{"weights": {"room": 3, "warm": 0, "resident": 0, "tenant": 0, "load": 0, "pressure": 0},
        "prefer": [{"label": "disk", "value": "nvme", "weight": 1}, {"label": "no", "value": "such", "weight": 1}]}"#;
    let scores: Vec<u16> = bids(&rank(settings, question))
        .iter()
        .map(|bid| bid.score)
        .collect();
    assert_eq!(scores, [6000, 8000]);
}

#[test]
fn column_counts_between_its_extremes_even_the_widest() {
    let mut question = question(1, vec![candidate(0), candidate(1), candidate(2)]);
    question.columns = vec![Column {
        name: "x".to_owned(),
        values: vec![i64::MIN, 0, i64::MAX],
    }];
    let scores = |prefer: &str| {
        let settings = format!(
            r#"{{"weights": {{"room": 0, "warm": 0, "resident": 0, "tenant": 0, "load": 0, "pressure": 0}},
                "columns": [{{"name": "x", "weight": 5, "prefer": "{prefer}"}}]}}"#
        );
        let bids = bids(&rank(&settings, question.clone()));
        bids.iter().map(|bid| bid.score).collect::<Vec<u16>>()
    };
    assert_eq!(scores("more"), [0, 5000, 10_000]);
    assert_eq!(scores("less"), [10_000, 5000, 0]);
}

#[test]
fn score_stays_in_range_at_the_widest_weights() {
    let weights = [
        "room", "warm", "resident", "tenant", "load", "pressure", "numa",
    ]
    .map(|name| format!(r#""{name}": 65535"#));
    let settings = format!(
        r#"{{"weights": {{{}}}, "numa": "together"}}"#,
        weights.join(",")
    );
    let best = with(|one| {
        one.warm_shells = u16::MAX;
        one.parent_resident_mib = u32::MAX;
    });
    let bids = bids(&rank(&settings, question(1, vec![best, candidate(1)])));
    assert_eq!(bids[0].score, 10_000);
    // No warm shell and nothing resident: two parts of seven.
    assert_eq!(bids[1].score, 7142);
}
