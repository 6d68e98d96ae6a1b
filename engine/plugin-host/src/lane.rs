//! Lanes: how many calls of one binding, or of one plugin with state, run at once.
//!
//! Invariant: a call that may not run yet waits here and not on a policy thread, so that a slow plugin never holds the
//! threads of another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brood_policy::Concurrency;

use crate::thread::{Job, Queue};

#[derive(Default)]
struct Traffic {
    running: u32,
    waiting: VecDeque<(Arc<Queue>, Job)>,
}

/// One lane.
pub(crate) struct Lane {
    bounds: Concurrency,
    traffic: Mutex<Traffic>,
}

/// The lane is full, with so many waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) waiting: u64,
}

impl Lane {
    pub(crate) fn new(bounds: Concurrency) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            traffic: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls run, and how many wait.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let traffic = self.lock();
        (traffic.running.into(), traffic.waiting.len() as u64)
    }

    /// Runs the job on a thread of `queue`, now or when one before it ends. It is given its place in the lane, which is
    /// free again once that is dropped.
    pub(crate) fn submit(
        self: &Arc<Self>,
        queue: &Arc<Queue>,
        job: impl FnOnce(Leaves) + Send + 'static,
    ) -> Result<(), Full> {
        let lane = Arc::clone(self);
        let guarded: Job = Box::new(move || job(Leaves(lane)));
        let mut traffic = self.lock();
        if traffic.running < self.bounds.running {
            traffic.running += 1;
            drop(traffic);
            queue.push(guarded);
            return Ok(());
        }
        if traffic.waiting.len() >= self.bounds.waiting as usize {
            return Err(Full {
                waiting: traffic.waiting.len() as u64,
            });
        }
        traffic.waiting.push_back((Arc::clone(queue), guarded));
        Ok(())
    }

    /// Takes a place for a call on this very thread, if one is free.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Leaves, Full> {
        let mut traffic = self.lock();
        if traffic.running < self.bounds.running {
            traffic.running += 1;
            return Ok(Leaves(Arc::clone(self)));
        }
        Err(Full {
            waiting: traffic.waiting.len() as u64,
        })
    }
}

/// A place in a lane. When it is left, by return or by panic, the next call takes it.
pub(crate) struct Leaves(Arc<Lane>);

impl Drop for Leaves {
    fn drop(&mut self) {
        let next = {
            let mut traffic = self.0.lock();
            let next = traffic.waiting.pop_front();
            if next.is_none() {
                traffic.running = traffic.running.saturating_sub(1);
            }
            next
        };
        if let Some((queue, job)) = next {
            queue.push(job);
        }
    }
}
