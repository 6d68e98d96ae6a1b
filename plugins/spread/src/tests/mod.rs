//! Each filter, each part of the score, and how daughters are spread.

mod filters;
mod scores;
mod settings;
mod spreading;

use brood_plugin::Placement;
use brood_plugin::placement::{Answer, Bid, Question, Ranking};
use brood_plugin::testkit::Host;

use crate::Spread;

fn rank(settings: &str, question: Question) -> Answer {
    let host = Host::with_settings::<Spread>(settings).unwrap();
    host.call(|| Spread::rank(question)).unwrap()
}

fn bids(answer: &Answer) -> Vec<Bid> {
    let bids = answer.rankings.iter().map(|ranking| match ranking {
        Ranking::Bid(bid) => *bid,
        Ranking::Reject(reason) => panic!("refused: {}", answer.reasons[usize::from(*reason)]),
    });
    bids.collect()
}

/// The reason for each candidate; empty where it is usable.
fn reasons(answer: &Answer) -> Vec<&str> {
    let reasons = answer.rankings.iter().map(|ranking| match ranking {
        Ranking::Bid(_) => "",
        Ranking::Reject(reason) => answer.reasons[usize::from(*reason)].as_str(),
    });
    reasons.collect()
}
