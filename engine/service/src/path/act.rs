//! The fork itself and the stamps.
//!
//! Invariant: what is forked is what was planned: as many daughters, each stamped with her own stamp and no other. Units
//! of daughters that were not born or not confirmed are given back with [`Fledged::settle`].

use brood_cell::CellError;
use brood_cell::protocol::{Checkpoint, ForkTimes};

use super::{Course, Stamp, Stamps, Stopped};
use crate::decision::Decision;
use crate::fork::{self, Daughter, Frozen, Unstamped, Warm};
use crate::hold::{Held, Holds};
use crate::machine::Machine;

/// Daughters that exist and are nobody yet.
#[must_use = "units are held for it"]
pub struct Born {
    course: Course,
    daughters: Vec<Result<Unstamped, CellError>>,
    stamps: Vec<Stamp>,
    /// The checkpoint, if one was kept.
    pub checkpoint: Option<Frozen>,
    /// What the mother's part took, if she ran.
    pub pause: Option<Pause>,
}

/// What a live fork took of its mother.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// From freeze sent to thaw done, microseconds.
    pub workload_frozen: f64,
    /// From the cell's reading of the request until her vCPU entered the guest again, microseconds.
    pub mother_pause: f64,
    /// When her stages ended.
    pub times: ForkTimes,
}

/// The end of the way.
pub struct Fledged {
    /// Each daughter with what she was planned to be, or why she is missing.
    pub daughters: Vec<anyhow::Result<(Daughter, Stamp)>>,
    /// What was said at every hook.
    pub decisions: Vec<Decision>,
    /// Of policies.
    pub warnings: Vec<String>,
    /// Units for all that were planned; those of the missing are to be given back.
    pub held: Option<Held>,
}

impl Fledged {
    /// Ties units to those who live, and gives back those of the missing.
    pub fn settle(&mut self, holds: &mut Holds) {
        if let Some(held) = self.held.take() {
            let alive = self.daughters.iter().flatten();
            holds.settle(held, alive.map(|(daughter, _)| daughter.machine.id));
        }
    }
}

impl Stamps {
    /// Forks a running machine; she runs on.
    ///
    /// # Errors
    /// Her workload does not freeze, or the point cannot be taken. She runs on.
    pub fn fork_live(self, mother: &mut Machine, keep: Checkpoint) -> Result<Born, Box<Stopped>> {
        match fork::live(mother, self.course.request.count, keep) {
            Ok(forked) => {
                let pause = Pause {
                    workload_frozen: forked.workload_frozen,
                    mother_pause: forked.mother_pause,
                    times: forked.times,
                };
                Ok(Born {
                    checkpoint: forked.checkpoint,
                    pause: Some(pause),
                    ..self.born(forked.daughters)
                })
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Forks a frozen point: daughters of the past.
    ///
    /// # Errors
    /// The point is gone.
    pub fn fork_checkpoint(self, point: &mut Frozen) -> Result<Born, Box<Stopped>> {
        match point.fork(self.course.request.count) {
            Ok(daughters) => Ok(self.born(daughters)),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Claims warm daughters of a template, as many as were planned; what the pool has more stays in it.
    ///
    /// # Errors
    /// The pool has fewer, or one of them is gone.
    pub fn claim(self, pool: &mut Vec<Warm>) -> Result<Born, Box<Stopped>> {
        let count = self.stamps.len();
        let Some(rest) = pool.len().checked_sub(count) else {
            let error = anyhow::anyhow!(
                "{count} warm daughters are wanted, the pool has {}",
                pool.len()
            );
            return Err(self.fail(error));
        };
        let claimed = pool.split_off(rest).into_iter().zip(0..);
        let claimed: anyhow::Result<Vec<_>> = claimed
            .map(|(warm, index)| Ok(Ok(warm.claim_as(index)?)))
            .collect();
        match claimed {
            Ok(daughters) => Ok(self.born(daughters)),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Has daughters that were restored of a snapshot run towards their stamps.
    ///
    /// # Errors
    /// There are not as many as were planned.
    pub fn wake_all(self, restored: Vec<Unstamped>) -> Result<Born, Box<Stopped>> {
        let (count, wanted) = (restored.len(), self.stamps.len());
        if count != wanted {
            let error = anyhow::anyhow!("{wanted} daughters were planned, {count} restored");
            return Err(self.fail(error));
        }
        let woken = restored.into_iter().zip(0..).map(|(mut one, index)| {
            one.index = index;
            one.go()
        });
        let woken = woken.collect();
        Ok(self.born(woken))
    }

    fn born(self, daughters: Vec<Result<Unstamped, CellError>>) -> Born {
        Born {
            course: self.course,
            daughters,
            stamps: self.stamps,
            checkpoint: None,
            pause: None,
        }
    }
}

impl Born {
    /// The cells of those who were born.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.daughters.iter().flatten().map(Unstamped::pid)
    }

    /// Stamps all of them, a few at once.
    pub fn stamp(self) -> Fledged {
        self.stamp_and_read(None)
    }

    /// The same, with a file that is read in each before her workload runs.
    pub fn stamp_and_read(self, read_frozen: Option<&str>) -> Fledged {
        let Self {
            course,
            daughters,
            stamps,
            ..
        } = self;
        let mut fledged: Vec<anyhow::Result<(Daughter, Stamp)>> = Vec::with_capacity(stamps.len());
        let (born, unborn): (Vec<_>, Vec<_>) = daughters.into_iter().partition(Result::is_ok);
        let born: Vec<Unstamped> = born.into_iter().flatten().collect();
        let own: Vec<Option<Stamp>> = born
            .iter()
            .map(|one| of(&stamps, one.index).cloned())
            .collect();
        let stamped = fork::stamp_all(born, |index| {
            let stamp = of(&stamps, index);
            let mut identity = stamp
                .map(|stamp| stamp.identity.clone())
                .unwrap_or_default();
            if let Some(stamp) = stamp {
                stamp.secrets.apply(&mut identity);
            }
            identity.read_frozen = read_frozen.map(str::to_owned);
            identity
        });
        for (daughter, stamp) in stamped.into_iter().zip(own) {
            let stamp = stamp.ok_or_else(|| anyhow::anyhow!("a daughter without a plan"));
            fledged.push(daughter.and_then(|daughter| Ok((daughter, stamp?))));
        }
        let unborn = unborn.into_iter().filter_map(Result::err);
        fledged.extend(unborn.map(|error| Err(error.into())));
        Fledged {
            daughters: fledged,
            decisions: course.decisions,
            warnings: course.warnings,
            held: course.held,
        }
    }
}

fn of(stamps: &[Stamp], index: u32) -> Option<&Stamp> {
    stamps.get(usize::try_from(index).ok()?)
}
