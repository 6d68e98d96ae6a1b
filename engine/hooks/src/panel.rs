//! All who are asked at one hook.
//!
//! Invariant: those who ask see what each binding said, and not how: a panel of components and one of plain functions
//! are the same to them, so that nobody above this crate needs to know of WebAssembly.

use std::future::Future;
use std::pin::Pin;

use crate::check::check;
use crate::{Bound, Decide, Failure, Heard, Hook, Now, Permits, Said};

/// What the bindings of a hook will have said.
pub type Hearing<'a, H> = Pin<Box<dyn Future<Output = Vec<Said<H>>> + Send + 'a>>;

/// Asks everybody who is bound to a hook, at once, and hears them in their order.
pub trait Panel<H: Hook>: Send + Sync {
    /// Begins at once; the future only waits.
    fn hear(&self, now: Now, ask: H::Ask) -> Hearing<'_, H>;

    /// Who is bound, in order.
    fn bound(&self) -> Vec<Bound>;

    /// Bindings that are asked about a tenant's requests and heard by nobody: name, plugin.
    fn shadows(&self, _tenant: &str) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// A panel of one decider of the engine, enforced and failing closed.
pub struct Alone<D>(pub D);

impl<H: Hook, D: Decide<H>> Panel<H> for Alone<D> {
    fn hear(&self, now: Now, ask: H::Ask) -> Hearing<'_, H> {
        let answered = self.0.decide(now, &ask).and_then(|answer| {
            check::<H>(&ask, &Permits::default(), answer).map_err(Failure::Malformed)
        });
        let said = Said {
            binding: format!("{}/builtin", H::NAME),
            plugin: "builtin".to_owned(),
            weight: 1,
            heard: answered.map_or_else(Heard::Failed, Heard::Enforced),
            stands_in: None,
            spent: None,
        };
        Box::pin(std::future::ready(vec![said]))
    }

    fn bound(&self) -> Vec<Bound> {
        vec![Bound {
            binding: format!("{}/builtin", H::NAME),
            plugin: "builtin".to_owned(),
            mode: "enforce".to_owned(),
            on_failure: "closed".to_owned(),
            ..Bound::default()
        }]
    }
}
