//! What happened, in order.

use brood_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::mistake::Mistakes;
use crate::page::{check_limit, from_text};
use crate::{IdText, Request, Time};

/// From where events are listed or followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// The number behind which to begin; 0, the beginning, if not said. A `Last-Event-ID` header says the same.
    #[param(minimum = 0)]
    #[serde(default, deserialize_with = "from_text")]
    pub after: Option<u64>,
    /// The most events of one answer, 100 if not said. A stream has no end, and takes no limit.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "from_text")]
    pub limit: Option<u32>,
}

impl Request for EventQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        check_limit(self.limit, mistakes);
        if self
            .after
            .is_some_and(|after| i64::try_from(after).is_err())
        {
            mistakes.out_of_range("after", "there is no event with such a number");
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number; numbers grow and are never used twice.
    pub number: i64,
    /// What happened, such as `machine.forked`.
    pub kind: String,
    /// To which machine, checkpoint or template.
    #[schema(value_type = IdText)]
    pub subject: MachineId,
    /// When.
    pub at: Time,
    /// More about it.
    pub data: serde_json::Value,
}

/// Events that are gone: a follower that was away too long has missed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The last number that is gone.
    pub until: i64,
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// Set if events behind `after` are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The events.
    pub items: Vec<Event>,
}
