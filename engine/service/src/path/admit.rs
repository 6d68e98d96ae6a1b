//! Admission: what policies say, then what the holds have room for.
//!
//! Invariant: hearing and committing are two steps, so that whoever keeps the holds is not kept waiting by a policy.

use brood_hooks::admission::{
    Admitted as Joined, Decision as Verdict, Facts, Item, WhenFull, decide,
};
use brood_hooks::{Admission, Hook, HookName};

use super::{Asked, Course, Panels, Stopped, Why};
use crate::decision::decisions;
use crate::hold::{Full, Holds};

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
        let items = vec![Item {
            request: request.clone(),
            facts,
        }];
        let panel = panels.admission.as_ref();
        let said = panel.hear(now, items.clone()).await;
        let mut course = Course {
            now,
            request,
            env,
            files,
            secrets,
            give,
            decisions: decisions::<Admission>(panel, &said),
            warnings: Vec::new(),
            held: None,
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
                Err(course.stopped(queued(by, deferral)))
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
            Err(full) => Err(course.stopped(no_room(*full))),
        }
    }
}

/// In the policy's own words.
fn no_room(full: Full) -> Why {
    let by = full.binding;
    match full.when_full {
        WhenFull::Deny(denial) => Why::Denied { by, denial },
        WhenFull::Queue(deferral) => queued(by, deferral),
    }
}

fn queued(by: String, deferral: brood_hooks::admission::Deferral) -> Why {
    Why::Queued {
        by,
        queue: deferral.queue,
        priority: deferral.priority,
        max_wait_ms: deferral.max_wait_ms,
    }
}
