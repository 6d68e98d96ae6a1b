//! Claims that fit or change nothing, and units that come back exactly once.

use super::*;
use brood_hooks::Denial;
use brood_hooks::admission::Hold;

fn hold(key: &str, per_daughter: i64, limit: i64, lasts_ms: Option<u64>) -> HeldBy {
    HeldBy {
        plugin: "quota".to_owned(),
        binding: "admission/quota".to_owned(),
        hold: Hold {
            key: key.to_owned(),
            per_request: 0,
            per_daughter,
            limit,
            lasts_ms,
        },
        when_full: WhenFull::Deny(Denial::default()),
    }
}

fn at(ms: u64) -> Now {
    Now::from_unix_nanos(ms * 1_000_000)
}

#[test]
fn a_thousand_requests_at_a_cap_of_fifty_get_exactly_fifty() {
    let mut holds = Holds::default();
    let claims = (0..1000).map(|_| holds.claim(at(0), &[hold("live", 1, 50, None)], 1, 1));
    let admitted = claims.filter(Result::is_ok).count();
    assert_eq!((admitted, holds.used("quota", "live")), (50, 50));
}

#[test]
fn the_narrowest_hold_lowers_the_count_and_a_claim_that_does_not_fit_changes_nothing() {
    let mut holds = Holds::default();
    let both = [hold("live", 1, 10, None), hold("memory", 256, 1024, None)];
    let held = holds.claim(at(0), &both, 2, 8).expect("four fit");
    assert_eq!(held.daughters(), 4);
    let before = holds.clone();
    let full = holds
        .claim(at(0), &both, 1, 8)
        .expect_err("no memory is left");
    assert_eq!((full.counter.as_str(), full.used), ("memory", 1024));
    assert_eq!(holds, before);
}

#[test]
fn units_come_back_with_each_daughter_and_never_twice() {
    let mut holds = Holds::default();
    let mut live = hold("live", 1, 10, None);
    live.hold.per_request = 2;
    let held = holds.claim(at(0), &[live], 3, 3).expect("fits");
    assert_eq!(holds.used("quota", "live"), 5);
    let held = holds.end(held, 1).expect("two live on");
    assert_eq!(held.daughters(), 2);
    assert_eq!(holds.used("quota", "live"), 4);
    assert_eq!(holds.end(held, 100), None);
    assert_eq!(
        holds,
        Holds {
            next: holds.next,
            ..Holds::default()
        }
    );
}

#[test]
fn a_rate_ends_with_its_time_and_not_with_its_daughters() {
    let mut holds = Holds::default();
    let rate = [hold("rate", 1, 2, Some(1000))];
    let held = holds.claim(at(0), &rate, 1, 2).expect("fits");
    assert_eq!(holds.end(held, 2), None);
    assert!(holds.claim(at(999), &rate, 1, 1).is_err());
    assert!(holds.claim(at(1000), &rate, 1, 1).is_ok());
}

#[test]
fn counters_of_two_plugins_are_two_under_one_key() {
    let mut holds = Holds::default();
    let mut other = hold("live", 1, 1, None);
    other.plugin = "other".to_owned();
    let one = holds.claim(at(0), &[hold("live", 1, 1, None)], 1, 1);
    let two = holds.claim(at(0), &[other], 1, 1);
    assert!(one.is_ok() && two.is_ok());
}

#[test]
fn two_holds_on_one_counter_keep_to_its_limit_together() {
    let mut holds = Holds::default();
    let mut twice = [hold("live", 1, 100, None), hold("live", 2, 9, None)];
    let held = holds.claim(at(0), &twice, 1, 8).expect("three fit");
    assert_eq!((held.daughters(), holds.used("quota", "live")), (3, 9));
    let before = holds.clone();
    let full = holds.claim(at(0), &twice, 1, 8).expect_err("full");
    // The stricter limit of the two is what is full.
    assert_eq!((full.limit, full.needed), (9, 3));
    assert_eq!(holds, before);
    assert_eq!(holds.end(held, 3), None);
    // What is claimed once for the request counts too.
    twice[1].hold.per_request = 7;
    let full = holds.claim(at(0), &twice, 1, 8).expect_err("ten of nine");
    assert_eq!((full.used, full.needed), (0, 10));
    twice[1].hold.per_request = 6;
    let held = holds.claim(at(0), &twice, 1, 8).expect("one fits");
    assert_eq!((held.daughters(), holds.used("quota", "live")), (1, 9));
}

#[test]
fn two_claims_end_each_for_itself() {
    let mut holds = Holds::default();
    let live = [hold("live", 1, 10, None)];
    let one = holds.claim(at(0), &live, 2, 2).expect("fits");
    let two = holds.claim(at(0), &live, 3, 3).expect("fits");
    let three = holds.claim(at(0), &live, 4, 4).expect("fits");
    assert_eq!(holds.end(two, 3), None);
    assert_eq!(holds.used("quota", "live"), 6);
    assert_eq!(holds.end(one, 2), None);
    assert_eq!(holds.end(three, 4), None);
    assert_eq!(holds.used("quota", "live"), 0);
}

#[test]
fn nothing_is_held_for_no_daughters() {
    let mut holds = Holds::default();
    let mut live = hold("live", 1, 10, None);
    live.hold.per_request = 2;
    let held = holds.claim(at(0), &[live], 0, 0).expect("fits");
    assert_eq!(holds, Holds::default());
    assert_eq!(holds.end(held, 0), None);
}

fn machine(last: u8) -> MachineId {
    MachineId::from_bytes([last; 16])
}

#[test]
fn a_share_belongs_to_its_machine_and_comes_back_once_with_her_end() {
    let mut holds = Holds::default();
    let mut live = hold("live", 1, 10, None);
    live.hold.per_request = 2;
    let held = holds
        .claim(at(0), std::slice::from_ref(&live), 3, 3)
        .expect("fits");
    // One of three was not born; an id that is settled already does not take a second share.
    holds.settle(held, [machine(1), machine(2), machine(1)]);
    assert_eq!(holds.used("quota", "live"), 4);
    assert!(!holds.machine_ended(machine(3)), "she never held anything");
    assert!(holds.machine_ended(machine(1)));
    assert!(!holds.machine_ended(machine(1)), "she gave it back already");
    assert_eq!(holds.used("quota", "live"), 3);
    assert!(holds.machine_ended(machine(2)));
    assert_eq!(holds.used("quota", "live"), 0);
    let held = holds.claim(at(0), &[live], 1, 1).expect("fits");
    holds.settle(held, [machine(4), machine(5)]);
    assert!(!holds.machine_ended(machine(5)), "units were held for one");
    assert!(holds.machine_ended(machine(4)));
    assert_eq!(holds.used("quota", "live"), 0);
}

#[test]
fn a_request_of_which_nobody_lives_gives_everything_back() {
    let mut holds = Holds::default();
    let held = holds.claim(at(0), &[hold("live", 1, 10, None)], 3, 3);
    holds.settle(held.expect("fits"), []);
    assert_eq!(holds.used("quota", "live"), 0);
}

#[test]
fn what_was_written_down_is_held_again_as_it_was() {
    let mut before = Holds::default();
    let mut live = hold("live", 1, 10, None);
    live.hold.per_request = 2;
    let rate = hold("rate", 1, 10, Some(1000));
    let held = before.claim(at(0), &[live, rate], 3, 3).expect("fits");
    let written = before.units_of(&held).to_vec();
    before.settle(held, [machine(1), machine(2)]);
    for (now, rate) in [(999, 3), (1000, 0)] {
        let mut after = Holds::default();
        after.recall(at(now), written.clone(), 3, [machine(1), machine(2)]);
        before.expire(at(now));
        assert_eq!(after, before);
        let used = ["live", "rate"].map(|key| after.used("quota", key));
        assert_eq!(used, [4, rate]);
    }
}

#[test]
fn whether_a_claim_would_fit_is_told_and_nothing_is_claimed() {
    let mut holds = Holds::default();
    let live = [hold("live", 2, 9, None)];
    let held = holds.claim(at(0), &live, 2, 2).expect("fits");
    let before = holds.clone();
    let fits = [1, 2, 3].map(|least| holds.fit(at(0), &live, least));
    assert_eq!((fits, &holds), ([true, true, false], &before));
    assert_eq!(holds.end(held, 2), None);
    assert!(holds.fit(at(0), &live, 4) && !holds.fit(at(0), &live, 5));
}

#[test]
fn the_next_time_that_is_over_is_the_earliest_of_all() {
    let mut holds = Holds::default();
    assert_eq!(holds.next_over(), None);
    for (now, lasts) in [(0, 3000), (0, 1000), (500, 2000)] {
        let rate = [hold("rate", 1, 10, Some(lasts))];
        let held = holds.claim(at(now), &rate, 1, 1).expect("fits");
        // Its time counts, whoever has ended.
        assert_eq!(holds.end(held, 1), None);
    }
    assert_eq!(holds.next_over(), Some(1000));
    holds.expire(at(999));
    assert_eq!(holds.next_over(), Some(1000));
    holds.expire(at(1000));
    assert_eq!(
        (holds.next_over(), holds.used("quota", "rate")),
        (Some(2500), 2)
    );
    holds.expire(at(5000));
    assert_eq!((holds.next_over(), holds.used("quota", "rate")), (None, 0));
}

#[test]
fn what_is_written_down_is_what_was_claimed() {
    let mut holds = Holds::default();
    let mut rate = hold("rate", 3, 100, Some(1000));
    rate.hold.per_request = 2;
    let held = holds.claim(at(5), &[rate], 4, 4).expect("fits");
    let row = HoldRow {
        plugin: "quota".to_owned(),
        key: "rate".to_owned(),
        per_request: 2,
        per_daughter: 3,
        until: Some(brood_units::Timestamp::from_millis(1005)),
    };
    assert_eq!(holds.units_of(&held), [Units::from(&row)]);
    let forever = HoldRow { until: None, ..row };
    assert_eq!(Units::from(&forever).until_ms, None);
    assert_eq!(holds.used("quota", "rate"), 14);
}
