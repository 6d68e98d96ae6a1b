//! When machines end by themselves: their time is over, or nobody has asked anything of them for long enough.
//!
//! ```text
//!  born ─► watched ─┬─ expires, by the wall clock ─────────────────┐
//!                   └─ idle: nobody busy with her for so long ─────┴─► ended by the one task that watches all
//! ```
//!
//! Invariant: one task watches all machines, however often their times change. Nobody is idle while something that was
//! asked of them is still being done. A time that was admitted is only ever made shorter: to have more, whoever decides
//! has to be asked again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use brood_store::Write;
use brood_units::{MachineId, Timestamp};
use tokio::sync::Notify;

use super::life::Living;
use super::{Caller, Engine, EngineError, Inner, MachineAnswer, Scope, now, report};

/// The wall clock may jump: it is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Everybody who may end by themselves.
pub(super) struct Deadlines {
    watched: Mutex<HashMap<MachineId, Watched>>,
    changed: Arc<Notify>,
    begun: Once,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            watched: Mutex::default(),
            changed: Arc::default(),
            begun: Once::new(),
        }
    }
}

struct Watched {
    living: Living,
    expires: Option<Timestamp>,
    idle: Option<Idle>,
}

/// How long nobody has asked anything of a machine.
#[derive(Clone, Copy, Debug)]
struct Idle {
    limit: Duration,
    since: Instant,
    busy: u32,
}

/// When a machine ends by herself, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now(&'static str),
    In(Duration),
    Never,
}

fn due(expires: Option<Timestamp>, idle: Option<Idle>, now: Timestamp, at: Instant) -> Due {
    let left = expires.map(|expires| Duration::from_millis(now.millis_until(expires)));
    if left.is_some_and(|left| left.is_zero()) {
        return Due::Now("its time to live was over");
    }
    let idle = idle.filter(|idle| idle.busy == 0);
    let quiet = idle.map(|idle| {
        let quiet = at.saturating_duration_since(idle.since);
        idle.limit.saturating_sub(quiet)
    });
    if quiet.is_some_and(|quiet| quiet.is_zero()) {
        return Due::Now("idle");
    }
    match (left, quiet) {
        (Some(left), Some(quiet)) => Due::In(left.min(quiet)),
        (Some(one), None) | (None, Some(one)) => Due::In(one),
        (None, None) => Due::Never,
    }
}

impl Deadlines {
    fn watched(&self) -> MutexGuard<'_, HashMap<MachineId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is to end now, and how long nobody else does.
    fn next(&self) -> (Vec<(Living, &'static str)>, Duration) {
        let (now, at) = (now(), Instant::now());
        let (mut ending, mut wait) = (Vec::new(), LOOK_AGAIN);
        self.watched().retain(
            |_, watched| match due(watched.expires, watched.idle, now, at) {
                Due::Now(how) => {
                    ending.push((watched.living.clone(), how));
                    false
                }
                Due::In(left) => {
                    wait = wait.min(left);
                    true
                }
                Due::Never => true,
            },
        );
        (ending, wait)
    }

    pub(super) fn forget(&self, id: MachineId) {
        self.watched().remove(&id);
    }

    fn change(&self, id: MachineId, change: impl FnOnce(&mut Watched)) {
        if let Some(watched) = self.watched().get_mut(&id) {
            change(watched);
        }
        self.changed.notify_one();
    }
}

/// Somebody has something done with a machine: she is not idle.
pub(super) struct Busy {
    engine: Engine,
    id: MachineId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.engine.inner.deadlines.change(self.id, |watched| {
            if let Some(idle) = &mut watched.idle {
                idle.busy = idle.busy.saturating_sub(1);
                idle.since = Instant::now();
            }
        });
    }
}

impl Engine {
    /// Sees to it that a machine ends when she is to.
    pub(super) fn watch(&self, living: Living) {
        let limit = living.idle_ms.map(Duration::from_millis);
        let watched = Watched {
            expires: living.expires,
            idle: limit.map(|limit| Idle {
                limit,
                since: Instant::now(),
                busy: 0,
            }),
            living,
        };
        let deadlines = &self.inner.deadlines;
        deadlines.watched().insert(watched.living.id, watched);
        deadlines.changed.notify_one();
        let engine = Arc::downgrade(&self.inner);
        deadlines.begun.call_once(|| {
            drop(tokio::spawn(end_in_time(engine)));
        });
    }

    /// While this is held, the machine is not idle.
    pub(super) fn busy(&self, id: MachineId) -> Busy {
        let deadlines = &self.inner.deadlines;
        deadlines.change(id, |watched| {
            if let Some(idle) = &mut watched.idle {
                idle.busy = idle.busy.saturating_add(1);
            }
        });
        Busy {
            engine: self.clone(),
            id,
        }
    }

    /// Has a machine end so long from now, or when it was admitted to if no time is given.
    ///
    /// # Errors
    /// There is none, it has ended, that is later than it was admitted to live, the caller may not, or the store cannot
    /// be written.
    pub async fn set_ttl(
        &self,
        caller: &Caller,
        id: MachineId,
        ttl_ms: Option<u64>,
    ) -> Result<MachineAnswer, EngineError> {
        caller.may(Scope::Write)?;
        let row = self.living(caller, id)?;
        let granted = row.born.granted;
        let expires = ttl_ms.map(|ttl| now().after(ttl)).or(granted);
        if let Some(granted) = granted.filter(|granted| expires.is_none_or(|at| at > *granted)) {
            let left = now().millis_until(granted);
            return Err(EngineError::Conflict(format!(
                "{id} was admitted to live for {left} ms more: give it at most that, or fork it with the time it needs"
            )));
        }
        let tenant = caller.tenant().to_owned();
        let write = move |write: &mut Write<'_>| -> Result<bool, EngineError> {
            let lives = write.change_expiry(id, expires)?;
            if lives {
                let data = serde_json::json!({ "expires_ms": expires.map(Timestamp::as_millis) });
                report(write, &tenant, "machine.ttl", id, &data)?;
            }
            Ok(lives)
        };
        if self.store().write(write).await? {
            let deadlines = &self.inner.deadlines;
            deadlines.change(id, |watched| watched.expires = expires);
        }
        Ok(MachineAnswer::from(self.living(caller, id)?))
    }
}

async fn end_in_time(engine: Weak<Inner>) {
    while let Some(inner) = engine.upgrade() {
        let engine = Engine { inner };
        let (ending, wait) = engine.inner.deadlines.next();
        for (living, how) in ending {
            let engine = engine.clone();
            // It may be gone already.
            drop(tokio::spawn(async move {
                engine.end_one(living, how).await.ok()
            }));
        }
        let changed = Arc::clone(&engine.inner.deadlines.changed);
        // Whoever waits keeps no engine.
        drop(engine);
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_busy_is_not_idle_and_the_earlier_of_two_ends_counts() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let now = Timestamp::from_millis(1_000_000);
        let idle = |busy| {
            Some(Idle {
                limit: second * 10,
                since: begin,
                busy,
            })
        };
        let at = begin + second * 4;
        assert_eq!(due(None, None, now, at), Due::Never);
        assert_eq!(due(None, idle(0), now, at), Due::In(second * 6));
        assert_eq!(
            due(None, idle(0), now, begin + second * 10),
            Due::Now("idle")
        );
        assert_eq!(due(None, idle(1), now, begin + second * 10), Due::Never);
        let soon = Some(now.after(2000));
        assert_eq!(due(soon, idle(0), now, at), Due::In(second * 2));
        let late = Some(now.after(9000));
        assert_eq!(due(late, idle(0), now, at), Due::In(second * 6));
        // A clock that went back or forth counts as it stands.
        let over = Due::Now("its time to live was over");
        assert_eq!(due(soon, idle(1), now.after(2000), at), over);
    }
}
