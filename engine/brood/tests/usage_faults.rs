//! What may go wrong around a rating: policies that fail, that are replaced, and that are only compared.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use brood_hooks::HookName;
use brood_meter::{Dimension, Period};
use brood_service::engine::usage::{BatchRow, Correction, GroupBy, PostCredit, RateAnswer, Whose};
use brood_service::engine::{EngineError, UsageOptions, now};
use brood_store::{BatchState, StoreError};
use brood_testkit::settle;
use brood_units::Timestamp;

use crate::metered::made_up::{HOUR, MadeUp};
use crate::metered::rated::{FORK_COSTS, HOUR_COSTS, NOVEMBER, november};
use crate::metered::{BY_HAND, Metered};
use crate::policy::enforced;

const HELD: RateAnswer = RateAnswer {
    settled: 0,
    held: 1,
    dead: 0,
};

impl Metered {
    fn batches(&self) -> Vec<BatchRow> {
        let read = self
            .store
            .read(|read| read.batches_of(None, november(), 0, 100));
        read.expect("read")
    }

    /// Puts the one batch that waits off until some time from now, as another try in vain does.
    fn put_off(&self, millis: u64) {
        let due = now().after(millis);
        let hold = self
            .store
            .write(move |write| write.hold_batch(1, "a test", due, BatchState::Held));
        hold.wait().expect("written");
    }
}

/// The shipped policy whose prices run out of fuel.
fn starved() -> String {
    format!("{}limits = {{ fuel = 1000 }}\n", enforced())
}

#[test]
fn a_plugin_that_fails_is_asked_again_after_pauses_that_double_up_to_five_minutes() {
    let options = UsageOptions {
        backoff: Duration::from_secs(10),
        attempts: 100,
        ..BY_HAND
    };
    let Some(open) = Metered::open_with(&starved(), options) else {
        return;
    };
    MadeUp::born(&open.store, 1, "acme", november()).counted(&open.store, HOUR);
    // The first try, then those after so many others.
    for (tried, seconds) in [(0, 10), (1, 20), (4, 160), (5, 300), (30, 300)] {
        while open
            .batches()
            .first()
            .is_some_and(|row| row.attempts < tried)
        {
            open.put_off(0);
        }
        let before = now();
        assert_eq!(open.rate(), HELD, "{tried}");
        let row = open.batches().remove(0);
        let pause = seconds * 1000;
        assert!(
            (before.after(pause)..=now().after(pause)).contains(&row.due),
            "{tried}: {row:?}"
        );
        assert_eq!((row.state, row.attempts), (BatchState::Held, tried + 1));
        assert!(row.trouble.contains("fuel"), "{}", row.trouble);
        assert_eq!(open.rate(), RateAnswer::default(), "its time has not come");
        let again = open.batches().remove(0);
        assert_eq!(again, row, "and nobody was asked");
        // For the next round it was never tried.
        let undo = open.store.write(move |write| {
            write.hold_batch(1, "a test", Timestamp::from_millis(0), BatchState::Dead)?;
            write.put_back(None, Timestamp::from_millis(0))
        });
        assert_eq!(undo.wait().expect("written"), 1);
    }
    assert_eq!(open.amount(NOVEMBER), 0, "nothing is guessed");
    let open = open.reopen(&enforced());
    assert_eq!(open.rate().settled, 1);
    assert_eq!(open.amount(NOVEMBER), HOUR_COSTS + FORK_COSTS);
}

#[test]
fn a_tenant_whose_batch_waits_is_rated_in_order_and_others_meanwhile() {
    let Some(open) = Metered::open_with(
        &starved(),
        UsageOptions {
            backoff: Duration::from_secs(3600),
            attempts: 100,
            ..BY_HAND
        },
    ) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, HOUR);
    assert_eq!(open.rate(), HELD);
    machine.counted(&open.store, 2 * HOUR);
    MadeUp::born(&open.store, 2, "other", november()).counted(&open.store, HOUR);
    // It would be answered now, and its time has not come: what comes after it waits as well.
    let open = open.reopen(&enforced());
    assert_eq!(open.rate().settled, 1);
    let done = |row: &BatchRow| (row.batch.tenant.clone(), row.state);
    let states: Vec<_> = open.batches().iter().map(done).collect();
    let of = |tenant: &str, state| (tenant.to_owned(), state);
    assert_eq!(
        states,
        [
            of("acme", BatchState::Held),
            of("acme", BatchState::Held),
            of("other", BatchState::Done)
        ]
    );
    open.put_off(0);
    assert_eq!(open.rate().settled, 2);
    let places: Vec<_> = open.batches().iter().map(|row| row.place).collect();
    assert_eq!(places, [Some(2), Some(3), Some(1)]);
    assert_eq!(open.amount(NOVEMBER), 3 * HOUR_COSTS + 2 * FORK_COSTS);
}

/// Makes another component of one: a custom section more, which changes nothing that it does.
fn upgrade(components: &Path) {
    let path = components.join("price-table.wasm");
    let mut file = OpenOptions::new().append(true).open(path).expect("opens");
    // WebAssembly component binary format: id 0, three bytes, a name of one byte, one of content.
    file.write_all(&[0, 3, 1, b'v', 1]).expect("written");
}

#[test]
fn a_component_that_is_replaced_in_the_middle_of_a_month_rates_what_comes_and_what_is_put_right() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, HOUR);
    open.rate();
    let first = open.lines(NOVEMBER);
    machine.counted(&open.store, 2 * HOUR);
    let dearer = enforced().replace("price = \"0.02\"", "price = \"0.04\"");
    let open = open.reopen_with(&dearer, upgrade);
    machine.counted(&open.store, 3 * HOUR);
    assert_eq!(open.rate().settled, 2, "no batch is of both");
    let batches = open.batches();
    let ranges: Vec<_> = batches
        .iter()
        .map(|row| (row.batch.from_seq, row.batch.to_seq))
        .collect();
    assert_eq!(ranges, [(0, 1), (1, 2), (2, 3)], "each of one alone");
    let component = |row: &BatchRow| row.revision.split(' ').nth(1).map(str::to_owned);
    let components: Vec<_> = batches.iter().map(component).collect();
    assert_ne!(components[0], components[1], "it is another");
    assert_eq!(components[1], components[2]);

    // The first hour was two.
    let correction = Correction {
        span_us: Some(2 * HOUR * 1000),
        ..Correction::default()
    };
    let corrected = open.run(open.engine.correct_usage(&open.caller, 1, correction));
    assert_eq!(corrected.expect("an operator"), 4);
    assert_eq!(open.summary(NOVEMBER, &GroupBy::All).unsealed, 1);
    assert_eq!(open.rate().settled, 1);
    let lines = open.lines(NOVEMBER);
    let back: Vec<_> = lines
        .iter()
        .filter(|one| one.line.reverses.is_some())
        .map(|one| {
            assert_eq!((one.line.reverses, one.line.rated), (Some(1), 1));
            let priced = &one.line.priced;
            (
                priced.sku.clone(),
                -priced.quantity,
                priced.unit_price_nanos,
                -priced.amount_nanos,
            )
        })
        .collect();
    let committed: Vec<_> = first
        .iter()
        .map(|one| &one.line.priced)
        .filter(|priced| priced.origin.map(|origin| origin.dimension) != Some(Dimension::Forks))
        .map(|priced| {
            let amount = priced.amount_nanos;
            (
                priced.sku.clone(),
                priced.quantity,
                priced.unit_price_nanos,
                amount,
            )
        })
        .collect();
    assert_eq!(
        back, committed,
        "as they were committed, by the prices of then"
    );
    assert_eq!(back.len(), 2);
    let anew: i128 = lines
        .iter()
        .filter(|one| one.line.batch == 4 && one.line.reverses.is_none())
        .map(|one| i128::from(one.line.priced.amount_nanos))
        .sum();
    assert_eq!(anew, 2 * (HOUR_COSTS + 20_000_000), "by the prices of now");
    assert_eq!(open.amount(NOVEMBER), FORK_COSTS + 2 * anew);
    let last = open.batches().pop().expect("the correction");
    assert_eq!(component(&last), components[2], "who put it right is said");
}

/// The shipped prices, enforced, with further bindings of plugins that can be named: `same` has the same prices, and `dear` dearer
/// ones and a budget that stops everybody.
fn beside(before: &str, behind: &str) -> String {
    let base = enforced();
    let (_, rest) = base.split_once("[plugin.price-table]").expect("prices");
    let (own, _) = rest.split_once("[[admission]]").expect("bindings");
    let named = |id: &str| {
        let own = own.replace("plugin.price-table.", &format!("plugin.{id}."));
        format!("[plugin.{id}]{own}")
    };
    let stops = "[plugin.dear.settings.plans.list.budget]\nlevels = [{ below = \"1000000\", action = \"stop\" }]\n\n";
    let dear = named("dear").replace("price = \"0.02\"", "price = \"0.04\"");
    let plugins = format!("{}{dear}{stops}[[admission]]", named("same"));
    let with = base.replacen("[[admission]]", &plugins, 1);
    let (bindings, own) = with.split_once("[[billing]]").expect("a binding");
    format!("{bindings}{before}\n[[billing]]{own}\n{behind}")
}

#[test]
fn shadows_decide_nothing_and_each_of_their_answers_is_counted_as_the_same_or_not() {
    let shadows = "[[billing]]\nplugin = \"same\"\nmode = \"shadow\"\norder = 200\n\n[[billing]]\nplugin = \"dear\"\nmode = \"shadow\"\norder = 300\n";
    let Some(open) = Metered::open(&beside("", shadows)) else {
        return;
    };
    let mother = open.run(open.mother());
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, HOUR);
    assert_eq!(open.rate().settled, 1);
    machine.counted(&open.store, 2 * HOUR);
    assert_eq!(open.rate().settled, 1);
    assert_eq!(open.amount(NOVEMBER), 2 * HOUR_COSTS + FORK_COSTS);
    let names: BTreeSet<_> = open
        .lines(NOVEMBER)
        .into_iter()
        .map(|one| one.line.priced.sku.name)
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(names, ["list/fork", "list/gib-hour", "list/vcpu-hour"]);
    let balance = open.engine.balance(&open.caller, &Whose::Own);
    assert_eq!(balance.expect("looked").budget, None, "nobody is stopped");
    let seen = open.engine.machine(&open.caller, mother.id).expect("there");
    assert_eq!(seen.state, "running");

    let counts = |plugin: &str| {
        let bound = open.engine.policies(&open.caller).expect("an operator");
        let one = bound
            .into_iter()
            .find(|(hook, bound)| *hook == HookName::Billing && bound.plugin == plugin);
        let calls = one.expect("it is bound").1.calls;
        (calls.agreed, calls.disagreed)
    };
    settle("both were compared with both", || {
        counts("same").0 + counts("same").1 == 2 && counts("dear").0 + counts("dear").1 == 2
    });
    assert_eq!((counts("same"), counts("dear")), ((2, 0), (0, 2)));
    assert_eq!(counts("price-table"), (0, 0), "who is heard is no shadow");
    open.run(open.engine.close()).expect("closes");
}

#[test]
fn who_only_shows_prices_bills_where_nobody_else_does_and_stops_nobody() {
    let warns = "[[billing]]\nplugin = \"dear\"\nmode = \"warn\"\norder = 50\n";
    let Some(open) = Metered::open(&beside(warns, "")) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, HOUR);
    assert_eq!(open.rate().settled, 1);
    assert_eq!(
        open.amount(NOVEMBER),
        HOUR_COSTS + FORK_COSTS,
        "another bills"
    );
    let budget = |open: &Metered| {
        let balance = open.engine.balance(&open.caller, &Whose::Own);
        balance.expect("looked").budget
    };
    assert_eq!(budget(&open), None);

    let both = beside(warns, "");
    let alone = both.replace("[[billing]]\nplugin = \"price-table\"\n", "");
    assert_ne!(both, alone);
    let open = open.reopen(&alone);
    machine.counted(&open.store, 2 * HOUR);
    open.rate();
    assert_eq!(
        open.amount(NOVEMBER),
        2 * HOUR_COSTS + FORK_COSTS + 20_000_000,
        "what it would come to by the prices that are shown"
    );
    let told = budget(&open).expect("it keeps one");
    assert_eq!(told.action, "warn", "and would stop everybody");
}

#[test]
fn a_credit_is_asked_about_again_though_all_records_are_gone() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let period = Period::of(now().as_millis());
    let words = period.to_string();
    let machine = MadeUp::born(&open.store, 1, "acme", period.start_ms());
    machine.counted(&open.store, HOUR);
    let credit = |currency: &str| PostCredit {
        tenant: "acme".to_owned(),
        key: currency.to_owned(),
        currency: currency.to_owned(),
        nanos: 7,
        note: String::new(),
    };
    let post = |currency: &str| open.run(open.engine.post_credit(&open.caller, credit(currency)));
    for right in ["EUR", "credit"] {
        assert_eq!(post(right).expect("posted").credit.nanos, 7, "{right}");
    }
    for wrong in ["eur", "EURO", "EU", "E1R", "Credit", ""] {
        assert!(
            matches!(post(wrong), Err(EngineError::Invalid(_))),
            "{wrong}"
        );
    }
    machine.counted(&open.store, 2 * HOUR);
    open.rate();
    // Two of records, two of credits.
    assert_eq!(open.replays(&words), (4, 0));
    let trim = open.run(open.engine.trim_usage(Timestamp::from_millis(i64::MAX)));
    assert_eq!(trim.expect("trimmed"), 2);
    assert_eq!(open.replays(&words), (2, 2), "what is gone is said to be");
}

#[test]
fn a_month_whose_records_are_gone_says_what_they_came_to() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machines: Vec<_> = (1..=3)
        .map(|number| MadeUp::born(&open.store, number, "acme", november()))
        .collect();
    for step in 1..=20 {
        for machine in &machines {
            machine.counted(&open.store, step * HOUR / 10);
        }
    }
    let before = open.summary(NOVEMBER, &GroupBy::Machine);
    assert_eq!((before.unsealed, before.groups.len()), (60, 3));
    open.rate();
    let rated = open.summary(NOVEMBER, &GroupBy::Machine);
    for (machine, group) in &rated.groups {
        assert_eq!(group.measured, before.groups[machine].measured);
        assert_eq!(group.charges.len(), 3);
    }
    assert_eq!((rated.unsealed, rated.held), (0, 0));
    let trim = open.run(open.engine.trim_usage(Timestamp::from_millis(i64::MAX)));
    assert_eq!(trim.expect("trimmed"), 60);
    let none = open.store.read(|read| read.usage(0, 1));
    assert_eq!(
        none.map(|rows| rows.len())
            .map_err(|error: StoreError| error.to_string()),
        Ok(0)
    );
    assert_eq!(open.summary(NOVEMBER, &GroupBy::Machine), rated);
    assert_eq!(open.amount(NOVEMBER), 3 * (2 * HOUR_COSTS + FORK_COSTS));
}
