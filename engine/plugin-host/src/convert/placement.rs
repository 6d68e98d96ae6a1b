//! Records of the placement hook.

use brood_hooks::placement::{self as ours, Ranking};

use super::{record, variant};
use crate::bindings::brood::policy::placement_types as asked;
use crate::bindings::exports::brood::policy::placement::{self as theirs, Ranking as TheirRanking};

record!(
    ours::Amounts,
    asked::Amounts {
        vcpu_milli,
        memory_mib,
        disk_mib
    }
);
record!(
    ours::Candidate,
    asked::Candidate {
        node,
        numa,
        warm_shells,
        free,
        parent_resident_mib,
        cpu_load,
        memory_pressure,
        tenant_live,
        labelset,
    }
);
record!(ours::Column, asked::Column { name, values });
record!(
    ours::Question,
    asked::Question {
        request,
        wanted,
        candidates,
        columns,
        labelsets
    }
);
record!(ours::Bid, theirs::Bid { score, at_most });
variant!(Ranking, TheirRanking { Bid(bid), Reject(reason) });
record!(ours::Answer, theirs::Answer { rankings, reasons });
