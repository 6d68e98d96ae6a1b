//! Records of the admission hook.

use brood_hooks::admission::{self as ours, Verdict, WhenFull};

use super::{record, variant};
use crate::bindings::exports::brood::policy::admission::{
    self as theirs, Verdict as TheirVerdict, WhenFull as TheirWhenFull,
};

record!(
    ours::Facts,
    theirs::Facts {
        live,
        queued,
        in_use,
        budget_left_nanos,
        more
    }
);
record!(ours::Item, theirs::Item { request, facts });
record!(
    ours::Hold,
    theirs::Hold {
        key,
        per_request,
        per_daughter,
        limit,
        lasts_ms
    }
);
record!(
    ours::Grant,
    theirs::Grant {
        count,
        shape,
        ttl_ms,
        holds,
        when_full,
        add_labels,
        warnings,
    }
);
record!(
    ours::Deferral,
    theirs::Deferral {
        queue,
        priority,
        max_wait_ms
    }
);
variant!(WhenFull, TheirWhenFull { Deny(denial), Queue(deferral) });
variant!(Verdict, TheirVerdict { Abstain, Admit(grant), Deny(denial), Queue(deferral) });
