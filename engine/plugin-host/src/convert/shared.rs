//! Values of `wit/types.wit`.

use brood_hooks::{self as ours, HookError};

use super::{Cross, record, variant};
use crate::bindings::brood::policy::types::{self as theirs, HookError as TheirHookError};

impl Cross<theirs::Id128> for ours::Id128 {
    fn cross(self) -> theirs::Id128 {
        let (hi, lo) = self.halves();
        theirs::Id128 { hi, lo }
    }
}

impl Cross<ours::Id128> for theirs::Id128 {
    fn cross(self) -> ours::Id128 {
        ours::Id128::from_halves(self.hi, self.lo)
    }
}

record!(ours::Span, theirs::Span { first, count });
record!(
    ours::Resources,
    theirs::Resources {
        vcpu_milli,
        memory_mib,
        disk_mib,
        more
    }
);
record!(
    ours::Denial,
    theirs::Denial {
        code,
        message,
        retry_after_ms
    }
);
record!(
    ours::Principal,
    theirs::Principal {
        tenant,
        project,
        subject,
        labels
    }
);
record!(
    ours::Origin,
    theirs::Origin {
        kind,
        id,
        template,
        digest,
        generation,
        memory_mib,
        private_mib,
        labels,
    }
);
record!(
    ours::ForkRequest,
    theirs::ForkRequest {
        id,
        operation,
        who,
        mother,
        count,
        min_count,
        shape,
        ttl_ms,
        priority,
        labels,
        asks,
    }
);
variant!(HookError, TheirHookError { Misconfigured(text), Unavailable(text), Other(text) });
