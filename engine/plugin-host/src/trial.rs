//! The self test of a version before it takes another's place.
//!
//! At each hook that is bound, the version answers the latest calls that the one before it has answered, under the limits
//! and permits of the binding; where there are none, one that is made up. The state is that of now, and a copy.
//!
//! Invariant: a trial changes nothing: it commits no state, counts for no binding and no breaker, and is not recorded. What
//! a new version answers may differ from what the old one did; that there is a right answer within the limits may not.

use std::sync::Arc;

use brood_hooks::admission::Item;
use brood_hooks::{
    Admission, Billing, Failure, ForkRequest, HookName, Mutation, Now, Origin, Placement,
    Resources, Span, billing, check, mutation, placement,
};
use brood_policy::Limits;

use crate::call::{self, Beginning, ComponentHook, Context, Journal, Place};
use crate::host::Host;
use crate::plugin::Bound;
use crate::version::LoadError;
use crate::{Plugin, PluginVersion};

/// Recorded calls that are tried, of ordinary answers and of refusals each.
const MOST: usize = 4;
/// The instant of a call that is made up: 2023-11-14.
const NOW: Now = Now::from_unix_nanos(1_700_000_000_000_000_000);
/// A trial may share its processor with a full load, so by the clock it has at least this long; its fuel is the binding's.
const PATIENCE_MS: u64 = 1000;

impl Host {
    /// Tries a version at every hook that is bound.
    pub(crate) fn try_out(
        &self,
        plugin: &Plugin,
        version: &PluginVersion,
    ) -> Result<(), LoadError> {
        for (hook, bound) in plugin.bound() {
            match hook {
                HookName::Admission => self.try_hook::<Admission>(plugin, version, &bound),
                HookName::Placement => self.try_hook::<Placement>(plugin, version, &bound),
                HookName::Mutation => self.try_hook::<Mutation>(plugin, version, &bound),
                HookName::Billing => self.try_hook::<Billing>(plugin, version, &bound),
            }?;
        }
        Ok(())
    }

    fn try_hook<H: Specimen>(
        &self,
        plugin: &Plugin,
        version: &PluginVersion,
        bound: &Bound,
    ) -> Result<(), LoadError> {
        let failed = |asked: String, failure| LoadError::SelfTest {
            plugin: plugin.id().to_owned(),
            hook: H::NAME,
            asked,
            failure: Box::new(failure),
        };
        let mut tried = false;
        for record in self.records().latest(plugin.id(), H::NAME, MOST) {
            let Ok(ask) = postcard::from_bytes::<H::Ask>(&record.ask) else {
                continue;
            };
            tried = true;
            self.once::<H>(plugin, version, bound, (record.now, &ask))
                .map_err(|failure| failed(format!("recorded call {}", record.number), failure))?;
        }
        if tried {
            return Ok(());
        }
        match self.once::<H>(plugin, version, bound, (NOW, &H::specimen())) {
            // In good order: nobody has asked it to know a made-up tenant.
            Ok(()) | Err(Failure::Hook(_)) => Ok(()),
            Err(failure) => Err(failed("a made-up call".to_owned(), failure)),
        }
    }

    fn once<H: ComponentHook>(
        &self,
        plugin: &Plugin,
        version: &PluginVersion,
        bound: &Bound,
        (now, ask): (Now, &H::Ask),
    ) -> Result<(), Failure> {
        let limits = Limits {
            deadline_ms: bound.limits.deadline_ms.max(PATIENCE_MS),
            ..bound.limits
        };
        let context = Context::new(
            &limits,
            Beginning {
                now,
                settings: version.settings.clone(),
                state: plugin.state.view(now.as_unix_millis()),
                journal: Journal::recording(),
                log_level: plugin.log_level,
                declared: Arc::clone(&version.declared),
            },
        );
        let _ticks = self.shared.ticker.watch();
        let place = Place {
            pre: &version.pre,
            hooks: &version.hooks,
            limits: &limits,
            live: None,
        };
        let answer = call::call::<H>(place, context, ask).result?;
        check::<H>(ask, &bound.permits, answer)
            .map(|_| ())
            .map_err(Failure::Malformed)
    }
}

/// A hook with an ask that is made up: small, and right.
trait Specimen: ComponentHook {
    fn specimen() -> Self::Ask;
}

fn request() -> ForkRequest {
    ForkRequest {
        operation: "fork".to_owned(),
        mother: Origin {
            kind: "template".to_owned(),
            memory_mib: 128,
            ..Origin::default()
        },
        count: 1,
        min_count: 1,
        shape: Resources {
            vcpu_milli: 1000,
            memory_mib: 128,
            disk_mib: 128,
            more: Vec::new(),
        },
        ..ForkRequest::default()
    }
}

const ONE: Span = Span { first: 0, count: 1 };

impl Specimen for Admission {
    fn specimen() -> Self::Ask {
        let (request, facts) = (request(), brood_hooks::admission::Facts::default());
        vec![Item { request, facts }]
    }
}

impl Specimen for Placement {
    fn specimen() -> Self::Ask {
        placement::Question {
            request: request(),
            wanted: ONE,
            candidates: vec![placement::Candidate {
                free: placement::Amounts {
                    vcpu_milli: 1000,
                    memory_mib: 128,
                    disk_mib: 128,
                },
                ..placement::Candidate::default()
            }],
            columns: Vec::new(),
            labelsets: vec![Vec::new()],
        }
    }
}

impl Specimen for Mutation {
    fn specimen() -> Self::Ask {
        mutation::Brief {
            request: request(),
            daughters: ONE,
            placed: vec![mutation::PlacedRun {
                daughters: ONE,
                node: 0,
                numa: 0,
            }],
            ..mutation::Brief::default()
        }
    }
}

impl Specimen for Billing {
    fn specimen() -> Self::Ask {
        billing::Batch::default()
    }
}
