//! What policies say of a fork, before anything is done.
//!
//! ```text
//!  review ─ holds ─► place ─► plan ─► stamps
//!    ▲        └─ no room, and a policy has it wait ─► in line ─┐
//!    └──────────────── called: reviewed afresh ◄───────────────┘
//! ```
//!
//! Invariant: a request that waits holds nothing and is decided on nothing that was true when it came: each turn is a review
//! of its own, with the facts of that moment. It waits no longer than its policy says, nor than [`MOST_WAIT`], and not at
//! all once the engine stops.

use std::time::Duration;

use brood_hooks::admission::Facts;
use brood_hooks::{Id128, Now, Resources};
use tokio::time::Instant;

use super::caller::Caller;
use super::metric::{Laps, Step};
use super::source::Source;
use super::usage::Begin;
use super::{Engine, EngineError};
use crate::ask::ForkSpec;
use crate::decision::Decision;
use crate::fork::wall_clock_ns;
use crate::identity;
use crate::line::Place;
use crate::path::{Admitted, Asked, Placed, Reviewed, Safe, Stamps, Stopped, Why};

/// The longest that any request waits, whatever its policy says.
const MOST_WAIT: Duration = Duration::from_mins(10);
/// How often who waits looks by itself: a policy that had it wait without a hold has nothing that is given back.
const LOOK: Duration = Duration::from_secs(1);

impl Engine {
    /// Asks every hook.
    pub(super) async fn decide(
        &self,
        caller: &Caller,
        source: &Source,
        spec: &ForkSpec,
        laps: &mut Laps,
    ) -> Result<Result<Stamps, Box<Stopped>>, EngineError> {
        let first_id = identity::machine_id().map_err(|error| EngineError::failed(&error))?;
        let placed = match self.find_place(caller, source, spec, laps).await? {
            Ok(placed) => placed,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let given = match self.given(source) {
            Ok(given) => given,
            Err(error) => {
                self.give_back(placed.give_up());
                return Err(error);
            }
        };
        let safe = Safe {
            vault: &self.vault(caller.tenant()),
            mother: &given,
        };
        let planned = placed.plan(&self.inner.panels, first_id, safe).await;
        laps.done(Step::Mutation);
        Ok(planned)
    }

    /// Asks whether it may happen, and where.
    pub(super) async fn find_place(
        &self,
        caller: &Caller,
        source: &Source,
        spec: &ForkSpec,
        laps: &mut Laps,
    ) -> Result<Result<Placed, Box<Stopped>>, EngineError> {
        let admitted = self.admit(caller, source, spec, laps).await?;
        laps.done(Step::Admission);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let panels = &self.inner.panels;
        let (gauge, layers) = (&self.inner.gauge, self.inner.host.directory());
        let place = match gauge.here(layers, source.resident_mib(), admitted.live()) {
            Ok(place) => place,
            Err(error) => {
                self.give_back(admitted.give_up());
                return Err(EngineError::failed(&error));
            }
        };
        let placed = admitted.place(panels, vec![place]).await;
        if let Ok(placed) = &placed {
            gauge.place(placed.daughters());
        }
        laps.done(Step::Placement);
        Ok(placed)
    }

    /// Asks for admission until there is an answer other than to wait, or the time is over.
    async fn admit(
        &self,
        caller: &Caller,
        source: &Source,
        spec: &ForkSpec,
        laps: &mut Laps,
    ) -> Result<Result<Admitted, Box<Stopped>>, EngineError> {
        let came = Instant::now();
        let mut place: Option<Place> = None;
        // What was said when it was first told to wait.
        let mut first: Option<Vec<Decision>> = None;
        loop {
            let reviewed = self.review(caller, source, spec, place.as_ref()).await?;
            let turn = reviewed.and_then(|one| one.in_turn(&self.inner.line, place.as_ref()));
            let admitted = turn.and_then(|one| one.commit(&mut self.holds()));
            let mut stopped = match (admitted, place.is_some()) {
                (Ok(admitted), false) => return Ok(Ok(admitted)),
                (Ok(admitted), true) => {
                    self.leave_line(place);
                    return Ok(Ok(admitted.after(first.unwrap_or_default(), came.elapsed())));
                }
                (Err(stopped), _) => stopped,
            };
            if let Why::Queued(deferred) = &stopped.why {
                let longest = Duration::from_millis(deferred.max_wait_ms.into()).min(MOST_WAIT);
                let tenant = caller.tenant();
                place = self
                    .inner
                    .line
                    .join(tenant, deferred.as_ref().clone(), place.take());
                if let Some(place) = &place {
                    laps.done(Step::Admission);
                    let called = self.waits(place, came + longest).await;
                    laps.done(Step::Line);
                    if called {
                        first.get_or_insert(std::mem::take(&mut stopped.decisions));
                        continue;
                    }
                }
                // Whoever had it wait has stopped it.
                if let Some(last) = stopped.decisions.last_mut() {
                    last.denies = true;
                }
            }
            self.leave_line(place);
            stopped.waited = first.is_some().then(|| came.elapsed());
            stopped.decisions.splice(0..0, first.unwrap_or_default());
            return Ok(Err(stopped));
        }
    }

    /// Waits for a turn; false when the time is over.
    async fn waits(&self, place: &Place, until: Instant) -> bool {
        // Something may have been given back since the review.
        self.call_next();
        loop {
            let over = self.holds().next_over();
            let now = wall_clock_ns() / 1_000_000;
            let soon = over.map_or(LOOK, |over| Duration::from_millis(over.saturating_sub(now)));
            let look = Instant::now() + soon.clamp(Duration::from_millis(1), LOOK);
            tokio::select! {
                () = place.called() => return true,
                () = tokio::time::sleep_until(look.min(until)) => {
                    if Instant::now() >= until {
                        return false;
                    }
                    self.call_next();
                }
            }
        }
    }

    /// Whoever was behind is first now.
    fn leave_line(&self, place: Option<Place>) {
        if let Some(place) = place {
            drop(place);
            self.call_next();
        }
    }

    /// Calls those in line for whom there is room.
    pub(super) fn call_next(&self) {
        let now = Now::from_unix_nanos(wall_clock_ns());
        self.inner.line.call(now, &mut self.holds());
    }

    /// How many requests of a tenant wait for room.
    pub fn waiting(&self, tenant: &str) -> u32 {
        self.inner.line.waiting(tenant)
    }

    /// Nobody waits for room any more: requests in line are answered, and new ones do not join it. For who is about to
    /// stop the engine.
    pub fn stop_waiting(&self) {
        self.inner.line.close();
    }

    async fn review(
        &self,
        caller: &Caller,
        source: &Source,
        spec: &ForkSpec,
        own: Option<&Place>,
    ) -> Result<Result<Reviewed, Box<Stopped>>, EngineError> {
        let id = identity::machine_id().map_err(|error| EngineError::failed(&error))?;
        let request = spec.request(Id128::from(id), caller.principal.clone(), &source.mother())?;
        let (live, memory_mib) = self.store().read(|read| read.living(caller.tenant()))?;
        let facts = Facts {
            budget_left_nanos: self.budget_left(caller.tenant(), Begin::New)?,
            live,
            // The others: it does not wait for itself.
            queued: self
                .waiting(caller.tenant())
                .saturating_sub(own.map_or(0, |_| 1)),
            in_use: Resources {
                memory_mib: u32::try_from(memory_mib).unwrap_or(u32::MAX),
                ..Resources::default()
            },
            ..Facts::default()
        };
        let asked = Asked::new(Now::from_unix_nanos(wall_clock_ns()), request, spec);
        Ok(asked.review(&self.inner.panels, facts).await)
    }
}
