//! How many daughters each candidate gets at most.

use brood_plugin::placement::{Candidate, Column};
use brood_plugin::testkit::{candidate, question};

use super::*;
use crate::level::level;

/// A candidate with memory for so many daughters.
fn room(daughters: u32) -> Candidate {
    let mut candidate = candidate(0);
    candidate.free.memory_mib = 512 * daughters;
    candidate
}

fn at_most(settings: &str, wanted: u32, candidates: Vec<Candidate>) -> Vec<u32> {
    let answer = rank(settings, question(wanted, candidates));
    bids(&answer).iter().map(|bid| bid.at_most).collect()
}

#[test]
fn daughters_are_levelled_as_low_as_all_find_a_place() {
    assert_eq!(at_most("{}", 9, vec![room(8), room(8), room(8)]), [3, 3, 3]);
    assert_eq!(
        at_most("{}", 10, vec![room(8), room(8), room(8)]),
        [4, 4, 4]
    );
    assert_eq!(at_most("{}", 9, vec![room(1), room(2), room(8)]), [1, 2, 6]);
}

#[test]
fn packing_leaves_the_rooms_as_they_are() {
    assert_eq!(
        at_most(r#"{"strategy": "pack"}"#, 5, vec![room(8), room(2)]),
        [5, 2]
    );
}

#[test]
fn level_is_the_lowest_that_holds_all() {
    let rooms = [5, 1, 9, 0, 3];
    for wanted in 0..=18 {
        let level = level(&rooms, wanted);
        let held = |level: u32| rooms.iter().map(|room| *room.min(&level)).sum::<u32>();
        assert!(held(level) >= wanted, "{wanted}");
        assert!(level == 0 || held(level - 1) < wanted, "{wanted}");
    }
    assert_eq!(
        level(&rooms, 19),
        19,
        "not all fit: the engine finds how many"
    );
    assert_eq!(level(&[], 7), 7);
    assert_eq!(level(&[u32::MAX; 3], u32::MAX), u32::MAX / 3);
    assert_eq!(level(&[u32::MAX; 2], u32::MAX), 1 << 31);
    assert_eq!(level(&[1, u32::MAX], u32::MAX), u32::MAX - 1);
}

#[test]
fn room_counts_only_the_share_of_memory_that_daughters_write() {
    let settings = r#"{"memory-permille": 250, "strategy": "pack"}"#;
    assert_eq!(at_most(settings, 99, vec![room(2)]), [8]);
}

#[test]
fn room_that_the_engine_states_replaces_the_estimate() {
    let mut question = question(100, vec![room(2), room(2), room(2)]);
    question.columns = vec![Column {
        name: "brood.room".to_owned(),
        values: vec![40, 0, 90],
    }];
    let answer = rank("{}", question);
    assert_eq!(reasons(&answer), ["", "no room", ""]);
    let most = answer.rankings.iter().filter_map(|ranking| match ranking {
        Ranking::Bid(bid) => Some(bid.at_most),
        Ranking::Reject(_) => None,
    });
    assert_eq!(most.collect::<Vec<u32>>(), [40, 60]);
}

#[test]
fn candidate_that_the_engine_offers_has_room_for_one_whatever_the_estimate() {
    assert_eq!(at_most("{}", 1, vec![room(0)]), [1]);
}

#[test]
fn live_fork_with_one_candidate_goes_there_whole() {
    assert_eq!(at_most("{}", 8, vec![room(8)]), [8]);
    let none = rank("{}", question(8, Vec::new()));
    assert!(none.rankings.is_empty() && none.reasons.is_empty());
}
