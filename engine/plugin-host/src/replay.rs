//! Replaying a decision record.
//!
//! Invariant: a replay sees what the call saw (instant, settings, state as recorded) and nothing else, commits nothing,
//! and agrees only if answer, failure and fuel are the same, bit for bit.

use std::sync::Arc;

use brood_hooks::{Admission, Billing, Failure, FailureKind, HookName, Mutation, Placement, check};

use crate::call::{self, Beginning, ComponentHook, Context, Journal, Place};
use crate::host::Host;
use crate::record::Record;
use crate::state::StateView;
use crate::{Digest, PluginVersion};

/// A record could not be replayed, or came out differently.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Another component.
    #[error("the record is of component {recorded}, this is {given}")]
    OtherComponent {
        /// Of the record.
        recorded: Digest,
        /// What was given.
        given: Digest,
    },
    /// Other settings.
    #[error("the record is of settings {recorded}, these are {given}")]
    OtherSettings {
        /// Of the record.
        recorded: Digest,
        /// What was given.
        given: Digest,
    },
    /// What ended the call depends on the clock or on the load of the host.
    #[error("a call that ended with '{failure}' depends on more than its record")]
    NotRepeatable {
        /// How it ended.
        failure: Failure,
    },
    /// The record cannot be read.
    #[error("the record is damaged: its {part} cannot be read")]
    Damaged {
        /// Which part.
        part: &'static str,
    },
    /// It came out differently.
    #[error("{part} differs: recorded {recorded}, replayed {replayed}")]
    Differs {
        /// What.
        part: &'static str,
        /// As recorded.
        recorded: String,
        /// As replayed.
        replayed: String,
    },
}

impl Host {
    /// Replays a record in the version that it is of.
    pub fn replay(&self, record: &Record, version: &PluginVersion) -> Result<(), ReplayError> {
        let (recorded, given) = (record.component, version.digest);
        if recorded != given {
            return Err(ReplayError::OtherComponent { recorded, given });
        }
        let (recorded, given) = (record.settings, version.settings.digest);
        if recorded != given {
            return Err(ReplayError::OtherSettings { recorded, given });
        }
        if let Some(failure) = &record.failure
            && matches!(
                failure.kind(),
                FailureKind::Deadline | FailureKind::State | FailureKind::Host
            )
        {
            return Err(ReplayError::NotRepeatable {
                failure: failure.clone(),
            });
        }
        match record.hook {
            HookName::Admission => self.again::<Admission>(record, version),
            HookName::Placement => self.again::<Placement>(record, version),
            HookName::Mutation => self.again::<Mutation>(record, version),
            HookName::Billing => self.again::<Billing>(record, version),
        }
    }

    fn again<H: ComponentHook>(
        &self,
        record: &Record,
        version: &PluginVersion,
    ) -> Result<(), ReplayError> {
        let ask: H::Ask =
            postcard::from_bytes(&record.ask).map_err(|_| ReplayError::Damaged { part: "ask" })?;
        let context = Context::new(
            &record.limits,
            Beginning {
                now: record.now,
                settings: version.settings.clone(),
                state: StateView::empty(),
                journal: Journal::replaying(record.host_answers.clone()),
                log_level: record.log_level,
                declared: Arc::clone(&version.declared),
            },
        );
        let ran = {
            let _ticks = self.shared.ticker.watch();
            let (pre, hooks) = (&version.pre, &version.hooks);
            let place = Place {
                pre,
                hooks,
                limits: &record.limits,
                live: None,
            };
            call::call::<H>(place, context, &ask)
        };
        let answer = ran
            .result
            .as_ref()
            .ok()
            .and_then(|answer| postcard::to_allocvec(answer).ok());
        let checked = ran.result.and_then(|answer| {
            check::<H>(&ask, &record.permits, answer).map_err(Failure::Malformed)
        });
        let left = ran.context.journal.into_answers().len();
        same("failure", &record.failure, &checked.err())?;
        same("answer", &record.answer, &answer)?;
        same("fuel", &record.fuel_used, &ran.fuel_used)?;
        same("number of host answers not asked for", &0, &left)
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    part: &'static str,
    recorded: &T,
    replayed: &T,
) -> Result<(), ReplayError> {
    if recorded == replayed {
        return Ok(());
    }
    let cut = |value: &T| format!("{value:?}").chars().take(500).collect();
    Err(ReplayError::Differs {
        part,
        recorded: cut(recorded),
        replayed: cut(replayed),
    })
}
