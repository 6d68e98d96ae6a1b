//! Requests that wait for room, in line.
//!
//! ```text
//!  no room ─► join ─► first of her group, and what she needs fits ─► called ─► reviewed afresh ─┬─ admitted ─► leaves
//!               └──────────────────── waits again, in her old place ◄───────────────────────────┘
//! ```
//!
//! Invariant: of those who wait for the same room the one of the highest priority is called first, and of these who came
//! first; nobody behind her is called, or let past as a newcomer, while she waits. So a large request is not starved by
//! small ones. A place is left exactly once, however its request ends.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brood_hooks::Now;
use brood_hooks::admission::{Deferral, HeldBy};
use tokio::sync::Notify;

use crate::hold::Holds;

/// Those who wait for the same room.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The binding that has them wait.
    pub binding: String,
    /// Its queue.
    pub queue: String,
    /// The counter that is full; none where the policy did not say what is missing.
    pub counter: Option<String>,
}

/// A request that a policy has wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deferred {
    /// With whom.
    pub group: Group,
    /// Higher goes first.
    pub priority: i32,
    /// Longest wait, milliseconds.
    pub max_wait_ms: u32,
    /// What it is to hold; nothing where the policy did not say.
    pub holds: Vec<HeldBy>,
    /// For how many daughters at least.
    pub least: u32,
}

impl Deferred {
    /// As a policy says it, of a binding and what is full.
    pub fn new(binding: String, deferral: Deferral, counter: Option<String>) -> Self {
        Self {
            group: Group {
                binding,
                queue: deferral.queue,
                counter,
            },
            priority: deferral.priority,
            max_wait_ms: deferral.max_wait_ms,
            ..Self::default()
        }
    }
}

/// Where somebody is in the line: the group, then her priority, then when she came.
type Rank = (Group, Reverse<i32>, u64);

struct Waiter {
    tenant: String,
    holds: Vec<HeldBy>,
    least: u32,
    called: Arc<Notify>,
}

#[derive(Default)]
struct State {
    waiters: BTreeMap<Rank, Waiter>,
    next: u64,
    closed: bool,
}

/// The line. Its lock is taken after that of the holds, never before.
#[derive(Default)]
pub struct Line(Mutex<State>);

/// A place in the line; dropped, it is left.
pub struct Place {
    line: Arc<Line>,
    rank: Rank,
    called: Arc<Notify>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits from now on. Who has a place already keeps the time of her coming. None once the line is closed.
    pub fn join(
        self: &Arc<Self>,
        tenant: &str,
        deferred: Deferred,
        before: Option<Place>,
    ) -> Option<Place> {
        let came = before.as_ref().map(|place| place.rank.2);
        drop(before);
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let came = came.unwrap_or(state.next);
        state.next = state.next.max(came.saturating_add(1));
        let rank = (deferred.group, Reverse(deferred.priority), came);
        let called = Arc::new(Notify::new());
        let waiter = Waiter {
            tenant: tenant.to_owned(),
            holds: deferred.holds,
            least: deferred.least,
            called: Arc::clone(&called),
        };
        state.waiters.insert(rank.clone(), waiter);
        drop(state);
        Some(Place {
            line: Arc::clone(self),
            rank,
            called,
        })
    }

    /// Whether somebody waits for the same room who goes first. `own` is the place of who asks, if she has one.
    pub fn is_behind(&self, group: &Group, priority: i32, own: Option<&Place>) -> bool {
        let came = own.map_or(u64::MAX, |place| place.rank.2);
        let first = (group.clone(), Reverse(i32::MAX), 0);
        let here = (group.clone(), Reverse(priority), came);
        let state = self.lock();
        let mut before = state.waiters.range((Included(first), Excluded(here)));
        before.any(|(rank, _)| own.is_none_or(|own| own.rank != *rank))
    }

    /// How many requests of a tenant wait.
    pub fn waiting(&self, tenant: &str) -> u32 {
        let state = self.lock();
        let own = state.waiters.values().filter(|one| one.tenant == tenant);
        u32::try_from(own.count()).unwrap_or(u32::MAX)
    }

    /// How many requests wait.
    pub fn all_waiting(&self) -> usize {
        self.lock().waiters.len()
    }

    /// Calls whoever is first of her group, if what she needs fits now.
    pub fn call(&self, now: Now, holds: &mut Holds) {
        holds.expire(now);
        let state = self.lock();
        let mut last: Option<&Group> = None;
        for ((group, ..), waiter) in &state.waiters {
            if last.replace(group) != Some(group) && holds.fit(now, &waiter.holds, waiter.least) {
                waiter.called.notify_one();
            }
        }
    }

    /// Nobody waits any more: all are called, and who would join is told that there is no line.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for waiter in state.waiters.values() {
            waiter.called.notify_one();
        }
    }
}

impl Place {
    /// Until it is her turn. Whether it is, or the line was closed, the next review finds out.
    pub async fn called(&self) {
        self.called.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.lock().waiters.remove(&self.rank);
    }
}

#[cfg(test)]
mod tests {
    use brood_hooks::admission::{Hold, WhenFull};

    use super::*;

    const NOW: Now = Now::from_unix_nanos(1_700_000_000_000_000_000);

    fn deferral(priority: i32) -> Deferral {
        Deferral {
            queue: "q".to_owned(),
            priority,
            max_wait_ms: 1000,
        }
    }

    /// So many units of a counter that may have ten.
    fn held(counter: &str, units: i64) -> HeldBy {
        HeldBy {
            plugin: "quota".to_owned(),
            binding: "quota".to_owned(),
            hold: Hold {
                key: counter.to_owned(),
                per_daughter: units,
                limit: 10,
                ..Hold::default()
            },
            when_full: WhenFull::Queue(deferral(0)),
        }
    }

    fn deferred(counter: &str, units: i64, priority: i32) -> Deferred {
        Deferred {
            holds: vec![held(counter, units)],
            least: 1,
            ..Deferred::new(
                "quota".to_owned(),
                deferral(priority),
                Some(counter.to_owned()),
            )
        }
    }

    fn is_called(place: &Place) -> bool {
        let mut called = std::pin::pin!(place.called());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        called.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_highest_priority_goes_first_then_who_came_first_and_nobody_past_her() {
        let (line, mut holds) = (Arc::new(Line::default()), Holds::default());
        let join = |units, priority| line.join("acme", deferred("live", units, priority), None);
        let places = [join(1, 0), join(9, 5), join(1, 5)].map(|place| place.expect("it is open"));
        let [low, large, late] = &places;
        let full = holds
            .claim(NOW, &[held("live", 10)], 1, 1)
            .expect("it fits");
        line.call(NOW, &mut holds);
        assert!(places.iter().all(|place| !is_called(place)), "it is full");
        drop(holds.end(full, 1));
        let some = holds.claim(NOW, &[held("live", 5)], 1, 1).expect("it fits");
        line.call(NOW, &mut holds);
        // There is room for the small ones, who are behind.
        assert!(places.iter().all(|place| !is_called(place)));
        drop(holds.end(some, 1));
        line.call(NOW, &mut holds);
        assert_eq!([low, large, late].map(is_called), [false, true, false]);
        let group = low.rank.0.clone();
        assert!(line.is_behind(&group, 0, Some(low)) && line.is_behind(&group, 5, Some(late)));
        assert!(!line.is_behind(&group, 5, Some(large)) && !line.is_behind(&group, 6, None));
        assert!(line.is_behind(&group, 5, None) && line.is_behind(&group, -1, None));
        assert_eq!((line.waiting("acme"), line.waiting("other")), (3, 0));
        let [low, large, late] = places;
        drop(large);
        line.call(NOW, &mut holds);
        assert_eq!([&low, &late].map(is_called), [false, true]);
    }

    #[test]
    fn those_who_wait_for_other_room_do_not_wait_for_each_other() {
        let (line, mut holds) = (Arc::new(Line::default()), Holds::default());
        let full = holds.claim(NOW, &[held("a", 10)], 1, 1).expect("it fits");
        let join = |counter| {
            line.join("acme", deferred(counter, 1, 0), None)
                .expect("open")
        };
        let (a, b) = (join("a"), join("b"));
        line.call(NOW, &mut holds);
        assert_eq!([&a, &b].map(is_called), [false, true]);
        drop(holds.end(full, 1));
    }

    #[test]
    fn who_waits_again_keeps_the_time_of_her_coming() {
        let line = Arc::new(Line::default());
        let join = |before| {
            line.join("acme", deferred("a", 1, 0), before)
                .expect("open")
        };
        let first = join(None);
        let second = join(None);
        let first = join(Some(first));
        assert!(line.is_behind(&second.rank.0, 0, Some(&second)));
        assert!(!line.is_behind(&first.rank.0, 0, Some(&first)));
        // Waiting for something else now, she has left the place she had.
        let elsewhere = line.join("acme", deferred("b", 1, 0), Some(first));
        assert_eq!((elsewhere.is_some(), line.waiting("acme")), (true, 2));
    }

    #[test]
    fn a_closed_line_calls_everybody_and_takes_nobody() {
        let line = Arc::new(Line::default());
        let join = || line.join("acme", deferred("a", 100, 0), None);
        let places = [join(), join()].map(|place| place.expect("open"));
        line.close();
        assert!(places.iter().all(is_called));
        assert!(join().is_none());
        drop(places);
        assert_eq!(line.waiting("acme"), 0);
    }
}
