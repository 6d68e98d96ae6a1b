//! Admission: what policies say, then what the holds have room for.
//!
//! Invariant: hearing and committing are two steps, so that whoever keeps the holds is not kept waiting by a policy.

use std::time::Duration;

use brood_hooks::admission::{
    Admitted as Joined, Decision as Verdict, Facts, HeldBy, Item, WhenFull, decide,
};
use brood_hooks::{Admission, Hook, HookName};

use super::{Asked, Course, Panels, Stopped, Why};
use crate::decision::{Decision, Standing, decisions};
use crate::hold::{Full, Held, Holds};
use crate::line::{Deferred, Line, Place};

/// A request that policies admit, within what they grant.
#[derive(Debug)]
#[must_use = "nothing is held yet"]
pub struct Reviewed {
    course: Course,
    granted: Joined,
}

/// A request whose units are held.
#[derive(Debug)]
#[must_use = "units are held for it"]
pub struct Admitted {
    pub(super) course: Course,
}

impl Asked {
    /// Asks every admission policy, in one call each.
    ///
    /// # Errors
    /// Denied, or queued.
    pub async fn review(self, panels: &Panels, facts: Facts) -> Result<Reviewed, Box<Stopped>> {
        let Self {
            now,
            request,
            env,
            files,
            secrets,
            give,
        } = self;
        let live = facts.live;
        let items = vec![Item {
            request: request.clone(),
            facts,
        }];
        let panel = panels.admission.as_ref();
        let said = panel.hear(now, items.clone()).await;
        let decisions = decisions::<Admission>(panel, &request.who.tenant, &said);
        let mut course = Course {
            now,
            request,
            env,
            files,
            secrets,
            give,
            decisions,
            warnings: Vec::new(),
            held: None,
            live,
        };
        match decide(&items, &said).pop() {
            Some(Verdict::Admitted(granted)) => {
                course.warnings.extend(granted.warnings.iter().cloned());
                Ok(Reviewed { course, granted })
            }
            Some(Verdict::Denied {
                by,
                denial,
                warnings,
            }) => {
                course.warnings.extend(warnings);
                Err(course.stopped(Why::Denied { by, denial }))
            }
            Some(Verdict::Queued {
                by,
                deferral,
                warnings,
            }) => {
                course.warnings.extend(warnings);
                let deferred = Deferred::new(by, deferral, None);
                Err(course.stopped(Why::Queued(Box::new(deferred))))
            }
            None => {
                let denial = brood_hooks::Denial {
                    code: "policy-unavailable".to_owned(),
                    message: "nothing was decided about the request".to_owned(),
                    retry_after_ms: None,
                };
                let by = HookName::as_str(Admission::NAME).to_owned();
                Err(course.stopped(Why::Denied { by, denial }))
            }
        }
    }
}

impl Reviewed {
    /// Goes on if nobody who waits for the same room is before it. `place` is its own, if it stands in line.
    ///
    /// # Errors
    /// Somebody is: it has to wait, though there may be room.
    pub fn in_turn(self, line: &Line, place: Option<&Place>) -> Result<Self, Box<Stopped>> {
        let Self { course, granted } = self;
        match behind(&granted, line, place) {
            None => Ok(Self { course, granted }),
            Some(deferred) => {
                let least = course.request.min_count;
                Err(course.stopped(waiting(deferred, granted.holds, least)))
            }
        }
    }

    /// Holds what was granted, for as many daughters as fit, in one step.
    ///
    /// # Errors
    /// Not even the fewest fit: denied or queued, as the policy says.
    pub fn commit(self, holds: &mut Holds) -> Result<Admitted, Box<Stopped>> {
        let Self {
            mut course,
            granted,
        } = self;
        let request = &mut course.request;
        match holds.claim(course.now, &granted.holds, request.min_count, granted.count) {
            Ok(held) => {
                if held.daughters() < granted.count {
                    let (count, asked) = (held.daughters(), request.count);
                    course.warnings.push(format!(
                        "{count} of {asked} daughters: the limits have no room for more"
                    ));
                }
                request.count = held.daughters();
                request.shape = granted.shape;
                request.ttl_ms = granted.ttl_ms;
                for (key, value) in granted.add_labels {
                    request.labels.retain(|(own, _)| *own != key);
                    request.labels.push((key, value));
                }
                course.held = Some(held);
                Ok(Admitted { course })
            }
            Err(full) => {
                let least = course.request.min_count;
                let (binding, plugin) = (full.binding.clone(), full.plugin.clone());
                let lacking = full.to_string();
                let why = no_room(*full, granted.holds, least);
                // Who waits is decided on again; what was said is as true as it was.
                if matches!(why, Why::Denied { .. }) {
                    course.decisions.push(Decision {
                        hook: Admission::NAME,
                        binding,
                        plugin,
                        verdict: format!("{why}: {lacking}"),
                        standing: Standing::Enforced,
                        denies: true,
                        instead_of: None,
                        took_us: None,
                        fuel: None,
                    });
                }
                Err(course.stopped(why))
            }
        }
    }
}

impl Admitted {
    /// It stood in line for so long, and these were the first words about it.
    pub fn after(mut self, mut first: Vec<Decision>, waited: Duration) -> Self {
        let words = format!("it waited {} ms for room", waited.as_millis());
        self.course.warnings.push(words);
        first.append(&mut self.course.decisions);
        self.course.decisions = first;
        self
    }

    /// How many of the tenant's machines were alive when policies were asked.
    pub const fn live(&self) -> u32 {
        self.course.live
    }

    /// Goes no further: units to give back.
    pub fn give_up(self) -> Option<Held> {
        self.course.held
    }
}

/// What a request waits for because somebody else does already.
fn behind(granted: &Joined, line: &Line, place: Option<&Place>) -> Option<Deferred> {
    granted.holds.iter().find_map(|held| {
        let WhenFull::Queue(deferral) = &held.when_full else {
            return None;
        };
        let key = held.hold.key.clone();
        let deferred = Deferred::new(held.binding.clone(), deferral.clone(), Some(key));
        line.is_behind(&deferred.group, deferred.priority, place)
            .then_some(deferred)
    })
}

fn waiting(deferred: Deferred, holds: Vec<HeldBy>, least: u32) -> Why {
    Why::Queued(Box::new(Deferred {
        holds,
        least,
        ..deferred
    }))
}

/// In the policy's own words.
fn no_room(full: Full, holds: Vec<HeldBy>, least: u32) -> Why {
    let by = full.binding;
    match full.when_full {
        WhenFull::Deny(denial) => Why::Denied { by, denial },
        WhenFull::Queue(deferral) => {
            let deferred = Deferred::new(by, deferral, Some(full.counter));
            waiting(deferred, holds, least)
        }
    }
}
