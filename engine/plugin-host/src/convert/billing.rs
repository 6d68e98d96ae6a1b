//! Records of the billing hook.

use brood_hooks::billing::{self as ours, Action};

use super::{record, variant};
use crate::bindings::exports::brood::policy::billing::{self as theirs, Action as TheirAction};

record!(
    ours::Account,
    theirs::Account {
        tenant,
        project,
        labels
    }
);
record!(
    ours::Sample,
    theirs::Sample {
        id,
        corrects,
        daughter,
        account,
        dimension,
        quantity,
        start_ms,
        end_ms,
        born_ms,
        group,
    }
);
record!(
    ours::Total,
    theirs::Total {
        account,
        dimension,
        period_start_ms,
        quantity
    }
);
record!(
    ours::Balance,
    theirs::Balance {
        account,
        currency,
        spent_nanos,
        credit_nanos
    }
);
record!(
    ours::Batch,
    theirs::Batch {
        sequence,
        accounts,
        dimensions,
        samples,
        groups,
        totals,
        balances,
    }
);
record!(
    ours::Sku,
    theirs::Sku {
        name,
        currency,
        unit,
        per
    }
);
record!(
    ours::Line,
    theirs::Line {
        sample,
        sku,
        quantity,
        unit_price_nanos,
        amount_nanos
    }
);
variant!(Action, TheirAction { None, Warn, RefuseForks, Pause, Stop, Other(kind) });
record!(
    ours::Budget,
    theirs::Budget {
        account,
        left_nanos,
        action,
        message
    }
);
record!(
    ours::Rated,
    theirs::Rated {
        skus,
        lines,
        waived,
        budgets
    }
);
