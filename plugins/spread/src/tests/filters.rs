//! What keeps daughters away from a candidate, and in which words.

use brood_plugin::placement::{Candidate, Column};
use brood_plugin::testkit::{Host, candidate, labels, question};
use brood_plugin::types::HookError;

use super::*;

#[test]
fn required_labels_come_from_settings_and_from_the_request() {
    let mut question = question(1, vec![candidate(0), candidate(1), candidate(2)]);
    question.labelsets = vec![
        labels(&[("zone", "a"), ("disk", "nvme")]),
        labels(&[("zone", "a")]),
        labels(&[("zone", "b"), ("disk", "nvme")]),
    ];
    for (index, candidate) in (0..).zip(&mut question.candidates) {
        candidate.labelset = index;
    }
    let settings = r#"{"require": {"disk": "nvme"}}"#;
    let answer = rank(settings, question.clone());
    assert_eq!(reasons(&answer), ["", "label disk is not nvme", ""]);
    question.request.labels = labels(&[("node/zone", "a"), ("zone", "b")]);
    let answer = rank(settings, question);
    assert_eq!(
        reasons(&answer),
        ["", "label disk is not nvme", "label zone is not a"]
    );
}

#[test]
fn taint_keeps_away_whoever_does_not_tolerate_it() {
    let mut question = question(1, vec![candidate(0)]);
    question.labelsets = vec![labels(&[("taint/gpu", "a100")])];
    let with = |settings: &str, request: &[(&str, &str)]| {
        let mut question = question.clone();
        question.request.labels = labels(request);
        let answer = rank(settings, question);
        reasons(&answer)[0].to_owned()
    };
    assert_eq!(with("{}", &[]), "taint gpu is not tolerated");
    assert_eq!(
        with("{}", &[("tolerate/gpu", "h100")]),
        "taint gpu is not tolerated"
    );
    assert_eq!(with("{}", &[("tolerate/gpu", "a100")]), "");
    assert_eq!(with("{}", &[("tolerate/gpu", "*")]), "");
    assert_eq!(with(r#"{"tolerate": ["gpu"]}"#, &[]), "");
}

#[test]
fn load_and_pressure_have_limits_that_are_still_allowed() {
    let loaded = |cpu_load, memory_pressure| Candidate {
        cpu_load,
        memory_pressure,
        ..candidate(0)
    };
    let question = question(
        1,
        vec![loaded(900, 100), loaded(901, 100), loaded(900, 101)],
    );
    let answer = rank(
        r#"{"max-cpu-load": 900, "max-memory-pressure": 100}"#,
        question,
    );
    let expected = [
        "",
        "more than 900/1000 of the CPU are in use",
        "memory pressure is above 100/1000",
    ];
    assert_eq!(reasons(&answer), expected);
}

#[test]
fn reserve_stays_free() {
    let settings = r#"{"reserve": {"memory-mib": 7680}, "strategy": "pack"}"#;
    // 8192 free and 7680 reserved leave 512: one daughter.
    assert_eq!(
        bids(&rank(settings, question(5, vec![candidate(0)])))[0].at_most,
        1
    );
    let mut less = candidate(0);
    less.free.memory_mib -= 1;
    let answer = rank(settings, question(5, vec![less]));
    assert_eq!(reasons(&answer), ["less than the reserve would stay free"]);
}

#[test]
fn limits_for_a_domain_and_for_a_tenant_in_it() {
    let here = |tenant_live| Candidate {
        tenant_live,
        ..candidate(0)
    };
    let settings = r#"{"strategy": "pack", "max-per-domain": 3, "max-tenant-per-domain": 10}"#;
    let answer = rank(
        settings,
        question(9, vec![here(0), here(8), here(10), here(11)]),
    );
    assert_eq!(
        &reasons(&answer)[2..],
        ["the tenant has its 10 machines here already"; 2]
    );
    let most = answer.rankings.iter().filter_map(|ranking| match ranking {
        Ranking::Bid(bid) => Some(bid.at_most),
        Ranking::Reject(_) => None,
    });
    assert_eq!(most.collect::<Vec<u32>>(), [3, 2]);
}

#[test]
fn column_has_limits_and_a_missing_one_is_an_error() {
    let mut asked = question(1, vec![candidate(0), candidate(1), candidate(2)]);
    asked.columns = vec![Column {
        name: "gpu.free".to_owned(),
        values: vec![0, 2, 9],
    }];
    let settings = r#"{"columns": [{"name": "gpu.free", "least": 1, "most": 8}]}"#;
    let answer = rank(settings, asked.clone());
    assert_eq!(
        reasons(&answer),
        ["gpu.free is below 1", "", "gpu.free is above 8"]
    );
    let host = Host::with_settings::<Spread>(settings).unwrap();
    asked.columns[0].name = "other".to_owned();
    let missing = host.call(|| Spread::rank(asked.clone())).unwrap_err();
    assert_eq!(
        missing,
        HookError::Unavailable("there is no column gpu.free".to_owned())
    );
}

#[test]
fn question_that_does_not_fit_together_is_an_error() {
    let host = Host::with_settings::<Spread>("{}").unwrap();
    let mut short = question(1, vec![candidate(0), candidate(1)]);
    short.columns = vec![Column {
        name: "x".to_owned(),
        values: vec![1],
    }];
    assert!(matches!(
        host.call(|| Spread::rank(short)),
        Err(HookError::Other(_))
    ));
    let mut unlabelled = question(1, vec![candidate(0)]);
    unlabelled.candidates[0].labelset = 1;
    let error = host.call(|| Spread::rank(unlabelled)).unwrap_err();
    assert_eq!(
        error,
        HookError::Other("candidate 0: no such label set".to_owned())
    );
}

#[test]
fn reasons_are_listed_once_and_never_more_than_the_engine_takes() {
    let mut question = question(1, (0..200).map(candidate).collect());
    question.labelsets = (0..200)
        .map(|n| labels(&[(&format!("taint/t{n}"), "")]))
        .collect();
    for (index, candidate) in (0..).zip(&mut question.candidates) {
        candidate.labelset = index;
    }
    let many = rank("{}", question.clone());
    assert_eq!(many.reasons.len(), 64);
    assert_eq!(reasons(&many)[199], "refused for a reason like the others");
    for candidate in &mut question.candidates {
        candidate.labelset = 0;
    }
    question.labelsets.truncate(1);
    assert_eq!(rank("{}", question).reasons, ["taint t0 is not tolerated"]);
}
