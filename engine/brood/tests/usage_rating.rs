//! Rating on the real database with the component that ships: once, in order, and never by a guess.

use brood_meter::{Dimension, Period, PricedLine, Settlement, Sku};
use brood_service::engine::usage::{Correction, GroupBy, PostCredit, RateAnswer, Whose};
use brood_service::engine::{EngineError, now};
use brood_store::Settled;
use brood_units::Timestamp;

use crate::metered::Metered;
use crate::metered::made_up::{HOUR, MadeUp};
use crate::metered::rated::{FORK_COSTS, HOUR_COSTS, NOVEMBER, november, period};
use crate::policy::{enforced, priced};

#[test]
fn what_was_counted_is_rated_once_and_adds_up_and_replays_to_the_same_lines() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machines: Vec<_> = (1..=3)
        .map(|number| MadeUp::born(&open.store, number, "acme", november()))
        .collect();
    for hour in 1..=2 {
        for machine in &machines {
            machine.counted(&open.store, hour * HOUR - 7);
            machine.counted(&open.store, hour * HOUR);
        }
        assert_eq!(open.rate().settled, 1, "one tenant, one month");
    }
    assert_eq!(open.amount(NOVEMBER), 3 * (2 * HOUR_COSTS + FORK_COSTS));
    for _ in 0..10 {
        assert_eq!(
            open.rate(),
            RateAnswer::default(),
            "there is nothing more to rate"
        );
    }
    for _ in 0..10 {
        assert_eq!(open.replays(NOVEMBER), (2, 0));
    }
    assert_eq!(open.amount(NOVEMBER), 3 * (2 * HOUR_COSTS + FORK_COSTS));
    let by_label = open.summary(NOVEMBER, &GroupBy::Label("team".to_owned()));
    let hours = |group: &str| by_label.groups[group].measured.amount(Dimension::VcpuNs);
    assert_eq!(
        [hours("t1"), hours("t2"), hours("t3")],
        [7_200_000_000_000; 3]
    );
    let by_project = open.summary(NOVEMBER, &GroupBy::Project);
    assert_eq!(by_project.groups["p1"].measured.amount(Dimension::Forks), 2);
    assert_eq!(
        (by_project.unsealed, by_project.held, by_project.dead),
        (0, 0, 0)
    );
}

#[test]
fn a_batch_that_is_settled_ten_times_is_billed_once() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    MadeUp::born(&open.store, 1, "acme", november()).counted(&open.store, HOUR);
    open.run(open.engine.seal()).expect("sealed");
    // What a policy has answered to the same batch, as often as it was asked.
    let line = PricedLine {
        origin: None,
        sku: Sku {
            name: "list/vcpu-hour".to_owned(),
            currency: "EUR".to_owned(),
            unit: "vcpu-ns".to_owned(),
            per: 1,
        },
        quantity: 7,
        unit_price_nanos: 3,
        amount_nanos: 21,
    };
    let settled = Settled {
        sequence: 1,
        settlement: Settlement {
            lines: vec![line],
            totals: [(Dimension::VcpuNs, 7)].into(),
            spent: [("EUR".to_owned(), 21)].into(),
            budget: None,
        },
        reversed: Vec::new(),
        replaced: Default::default(),
        revision: "x".to_owned(),
        balances: Default::default(),
    };
    let mut done = 0;
    for _ in 0..10 {
        let settled = settled.clone();
        let first = open
            .store
            .write(move |write| write.settle(&settled, now()))
            .wait();
        done += u32::from(first.expect("settled"));
    }
    assert_eq!(
        (done, open.lines(NOVEMBER).len(), open.amount(NOVEMBER)),
        (1, 1, 21)
    );
    assert_eq!(open.rate(), RateAnswer::default(), "it is done");
    let (totals, balances) = open
        .store
        .read(|read| {
            Ok::<_, brood_store::StoreError>((
                read.totals("acme", november())?,
                read.balances("acme", november())?,
            ))
        })
        .expect("read");
    assert_eq!((totals[&Dimension::VcpuNs], balances["EUR"]), (7, (21, 0)));
}

#[test]
fn a_policy_that_cannot_rate_holds_a_batch_then_it_is_dead_and_said_so_and_nothing_of_it_is_lost() {
    let no_price = priced(
        &enforced(),
        "[plugin.price-table.settings.plans.list]\nunpriced = \"refuse\"\n",
    );
    let Some(open) = Metered::open(&no_price) else {
        return;
    };
    MadeUp::born(&open.store, 1, "acme", november()).counted(&open.store, HOUR);
    assert_eq!(
        open.rate(),
        RateAnswer {
            held: 1,
            ..RateAnswer::default()
        }
    );
    assert_eq!(
        open.rate(),
        RateAnswer {
            dead: 1,
            ..RateAnswer::default()
        }
    );
    assert_eq!(
        open.rate(),
        RateAnswer::default(),
        "it waits for an operator"
    );
    let dead = open
        .engine
        .dead_batches(&open.caller)
        .expect("an operator looks");
    assert!(dead[0].trouble.contains("no price for"), "{dead:?}");
    let events = open
        .engine
        .events(&open.caller, 0, 100)
        .expect("events")
        .events;
    assert!(
        events
            .iter()
            .any(|row| row.event.kind == "usage.batch-dead"
                && row.event.data.contains("no price for"))
    );
    assert_eq!(
        (
            open.amount(NOVEMBER),
            open.summary(NOVEMBER, &GroupBy::All).dead
        ),
        (0, 1),
        "nothing is guessed"
    );
    // Others are rated meanwhile, and so is what the tenant uses afterwards once there is a price.
    let open = open.reopen(&enforced());
    MadeUp::born(&open.store, 2, "acme", november()).counted(&open.store, HOUR);
    assert_eq!(open.rate().settled, 1);
    assert_eq!(
        open.run(open.engine.put_back(&open.caller, None))
            .expect("an operator"),
        1
    );
    assert_eq!(open.rate().settled, 1);
    assert_eq!(open.amount(NOVEMBER), 2 * (HOUR_COSTS + FORK_COSTS));
    assert_eq!(
        open.replays(NOVEMBER),
        (2, 0),
        "in the order in which they were rated"
    );
}

#[test]
fn prices_that_change_in_the_middle_of_a_month_are_those_of_what_is_counted_from_then_on() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, HOUR);
    open.rate();
    // Counted and not rated when the engine goes: of the settings of before, and in no batch with what comes after.
    machine.counted(&open.store, 2 * HOUR);
    let dearer = enforced().replace("price = \"0.02\"", "price = \"0.04\"");
    let open = open.reopen(&dearer);
    machine.counted(&open.store, 3 * HOUR);
    assert_eq!(open.rate().settled, 2, "no batch is of both");
    let revisions: std::collections::BTreeSet<_> = open
        .store
        .read(|read| read.batches_of(None, november(), 0, 10))
        .expect("read")
        .into_iter()
        .map(|row| row.revision)
        .collect();
    assert_eq!(revisions.len(), 2);
    assert_eq!(
        open.amount(NOVEMBER),
        FORK_COSTS + HOUR_COSTS + 2 * (HOUR_COSTS + 20_000_000)
    );
    assert_eq!(
        open.replays(NOVEMBER),
        (2, 1),
        "what others have rated is said to be theirs"
    );
}

#[test]
fn what_comes_late_is_billed_in_its_own_month_and_a_window_over_the_end_of_one_in_both() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let end = period(NOVEMBER).end_ms();
    let late = MadeUp::born(&open.store, 1, "acme", end - 2 * HOUR.cast_signed());
    let other = MadeUp::born(&open.store, 2, "acme", end + HOUR.cast_signed());
    other.counted(&open.store, HOUR);
    open.rate();
    let december = open.amount("2026-12");
    assert_eq!(december, HOUR_COSTS + FORK_COSTS);
    late.counted(&open.store, HOUR);
    late.counted(&open.store, 3 * HOUR);
    assert_eq!(open.rate().settled, 2);
    assert_eq!(open.amount(NOVEMBER), 2 * HOUR_COSTS + FORK_COSTS);
    assert_eq!(open.amount("2026-12"), december + HOUR_COSTS);
    let measured = |words: &str| {
        let all = open.summary(words, &GroupBy::All);
        all.groups[""].measured.amount(Dimension::VcpuNs)
    };
    let two_hours = 2 * 3_600_000_000_000;
    assert_eq!(
        (measured(NOVEMBER), measured("2026-12")),
        (two_hours, two_hours),
        "of a window over the end each month has its part"
    );
    assert_eq!(open.summary("2026-10", &GroupBy::All).groups.len(), 0);
    assert_eq!(
        (open.replays(NOVEMBER), open.replays("2026-12")),
        ((1, 0), (2, 0))
    );
}

#[test]
fn clocks_that_jump_either_way_change_no_amount() {
    for jump in [-HOUR.cast_signed() * 48, HOUR.cast_signed() * 48] {
        let Some(open) = Metered::open(&enforced()) else {
            return;
        };
        let machine = MadeUp::born(
            &open.store,
            1,
            "acme",
            november() + 10 * 24 * HOUR.cast_signed(),
        );
        machine.counted(&open.store, HOUR);
        machine.counted_at(&open.store, 2 * HOUR, jump);
        machine.counted(&open.store, 3 * HOUR);
        open.rate();
        assert_eq!(open.amount(NOVEMBER), 3 * HOUR_COSTS + FORK_COSTS, "{jump}");
    }
}

#[test]
fn a_correction_takes_back_what_was_billed_and_bills_anew_each_time() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, HOUR);
    machine.counted(&open.store, 2 * HOUR);
    open.rate();
    let correct = |seq: i64, hours: u64| {
        let correction = Correction {
            span_us: Some(hours * HOUR * 1000),
            ..Correction::default()
        };
        open.run(open.engine.correct_usage(&open.caller, seq, correction))
    };
    // The first hour, with which the fork is billed, was ten; then it was four after all.
    assert_eq!(correct(1, 10).expect("an operator"), 3);
    assert_eq!(open.rate().settled, 1);
    assert_eq!(open.amount(NOVEMBER), 11 * HOUR_COSTS + FORK_COSTS);
    correct(1, 4).expect("an operator");
    machine.counted(&open.store, 3 * HOUR);
    assert_eq!(open.rate().settled, 2, "what is new and what is put right");
    assert_eq!(open.amount(NOVEMBER), 6 * HOUR_COSTS + FORK_COSTS);
    let measured = &open.summary(NOVEMBER, &GroupBy::All).groups[""].measured;
    assert_eq!(measured.amount(Dimension::VcpuNs), 6 * 3_600_000_000_000);
    let totals = open
        .store
        .read(|read| read.totals("acme", november()))
        .expect("read");
    assert_eq!(totals[&Dimension::VcpuNs], 6 * 3_600_000_000_000);
    assert_eq!(
        (totals[&Dimension::Forks], totals[&Dimension::MemoryMibMs]),
        (1, 6 * 1024 * 3_600_000)
    );
    assert_eq!(open.replays(NOVEMBER), (4, 0));
    let back = open
        .lines(NOVEMBER)
        .into_iter()
        .filter(|one| one.line.reverses.is_some());
    assert_eq!(back.count(), 4, "two prices, twice");
    let refused = correct(3, 1).expect_err("it is a correction");
    assert!(
        matches!(&refused, EngineError::Conflict(words) if words.contains("record 1")),
        "{refused}"
    );
    assert!(matches!(correct(99, 1), Err(EngineError::NotFound { .. })));
    assert_eq!(
        open.engine
            .verify_usage(&open.caller)
            .expect("looked")
            .breaks,
        []
    );
}

#[test]
fn a_price_that_overflows_holds_up_its_tenant_and_nobody_else() {
    let prices = "[[plugin.price-table.settings.plans.list.prices]]\nname = \"v\"\ndimension = \"vcpu-ns\"\nper = 1\ntiers = [{ price = \"9000000000\" }]\n\
        [plugin.price-table.settings.plans.free]\n[plugin.price-table.settings.accounts.other]\nplan = \"free\"";
    let Some(open) = Metered::open(&priced(&enforced(), prices)) else {
        return;
    };
    MadeUp::born(&open.store, 1, "acme", november()).counted(&open.store, HOUR);
    MadeUp::born(&open.store, 2, "other", november()).counted(&open.store, HOUR);
    assert_eq!(
        open.rate(),
        RateAnswer {
            settled: 1,
            held: 1,
            dead: 0
        }
    );
    open.rate();
    let dead = open
        .engine
        .dead_batches(&open.caller)
        .expect("an operator looks");
    assert_eq!(dead[0].batch.tenant, "acme");
    assert!(
        dead[0].trouble.contains("exceeds 64 bits"),
        "{}",
        dead[0].trouble
    );
    assert_eq!(open.amount(NOVEMBER), 0);
}

#[test]
fn a_quantity_that_no_sample_can_carry_is_held_by_name_until_it_is_put_right() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, 1000);
    open.rate();
    let endless = Correction {
        cpu_ns: Some(u64::MAX),
        ..Correction::default()
    };
    open.run(open.engine.correct_usage(&open.caller, 1, endless))
        .expect("an operator");
    machine.counted(&open.store, 2000);
    // The correction alone fits; with what the month had before it the total does not.
    let answer = open.rate();
    assert_eq!((answer.settled, answer.held), (1, 1), "{answer:?}");
    let fixed = Correction {
        cpu_ns: Some(5),
        ..Correction::default()
    };
    open.rate();
    open.run(open.engine.correct_usage(&open.caller, 1, fixed))
        .expect("an operator");
    assert_eq!(
        open.engine
            .verify_usage(&open.caller)
            .expect("looked")
            .breaks,
        []
    );
}

#[test]
fn a_tenant_that_is_not_there_any_more_is_billed_for_what_it_used() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "gone", november());
    assert!(
        !open
            .store
            .read(|read| read.has_tenant(machine.tenant()))
            .expect("read")
    );
    machine.counted(&open.store, HOUR);
    assert_eq!(open.rate().settled, 1);
    let by_tenant = open.summary(NOVEMBER, &GroupBy::Tenant);
    assert_eq!(by_tenant.groups.keys().collect::<Vec<_>>(), ["gone"]);
    assert_eq!(open.amount(NOVEMBER), HOUR_COSTS + FORK_COSTS);
}

#[test]
fn free_allowances_are_used_up_once_over_all_batches_of_a_month() {
    let free = priced(
        &enforced(),
        "[[plugin.price-table.settings.plans.list.prices]]\nname = \"v\"\ndimension = \"vcpu-ns\"\nper = 3_600_000_000_000\nfree = 9_000_000_000_000\ntiers = [{ price = \"0.02\" }]",
    );
    let Some(open) = Metered::open(&free) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    for hour in 1..=4 {
        machine.counted(&open.store, hour * HOUR);
        open.rate();
    }
    assert_eq!(open.amount(NOVEMBER), 30_000_000, "2.5 of 4 hours are free");
}

#[test]
fn an_unknown_currency_is_refused_where_it_is_written_down() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let wrong = enforced().replace("currency = \"EUR\"", "currency = \"doubloons\"");
    let credit = PostCredit {
        tenant: "acme".to_owned(),
        key: "k".to_owned(),
        currency: "doubloons".to_owned(),
        nanos: 1,
        note: String::new(),
    };
    let refused = open
        .run(open.engine.post_credit(&open.caller, credit))
        .expect_err("no currency");
    assert!(
        matches!(&refused, EngineError::Invalid(words) if words.contains("ISO 4217")),
        "{refused}"
    );
    drop(open);
    assert!(Metered::refuses(&wrong).contains("currency"));
}

#[test]
fn a_credit_is_one_entry_however_often_it_is_posted_and_prepaid_forks_begin_with_it() {
    let prepaid = priced(
        &enforced(),
        "[[plugin.price-table.settings.plans.list.prices]]\nname = \"v\"\ndimension = \"vcpu-ns\"\nper = 3_600_000_000_000\ntiers = [{ price = \"0.02\" }]\n\
        [plugin.price-table.settings.plans.list.budget]\nlevels = [{ below = \"1\", action = \"warn\" }, { below = \"0.5\", action = \"refuse-forks\" }, { below = \"0\", action = \"pause\" }]",
    );
    let Some(open) = Metered::open(&prepaid) else {
        return;
    };
    let post = |key: &str, nanos: i64| {
        let credit = PostCredit {
            tenant: "acme".to_owned(),
            key: key.to_owned(),
            currency: "EUR".to_owned(),
            nanos,
            note: "a top-up".to_owned(),
        };
        open.run(open.engine.post_credit(&open.caller, credit))
    };
    let euros = 1_000_000_000_i64;
    let first = post("a", 2 * euros).expect("posted");
    for _ in 0..9 {
        assert_eq!(post("a", 2 * euros).expect("posted before"), first);
    }
    assert!(matches!(post("a", 3 * euros), Err(EngineError::KeyReused)));
    let balance = || {
        open.engine
            .balance(&open.caller, &Whose::Own)
            .expect("looked")
    };
    assert_eq!(
        (balance().balances["EUR"], balance().credits.len()),
        ((0, 2 * euros), 1)
    );
    assert_eq!(balance().budget.expect("kept").action, "none");

    let mother = open.run(open.mother());
    assert_eq!(open.run(open.fork(mother.id, 1)).len(), 1);
    // Eighty hours of somebody else's machine this month leave 0.4, and ninety more nothing.
    let at = Period::of(now().as_millis()).start_ms();
    let machine = MadeUp::born(&open.store, 1, "acme", at);
    machine.counted(&open.store, 80 * HOUR);
    open.rate();
    let budget = balance().budget.expect("kept");
    assert_eq!(budget.action, "refuse-forks");
    // The two machines that are real have used a little as well.
    assert!(
        (390_000_000..400_000_000).contains(&budget.left_nanos),
        "{budget:?}"
    );
    let denied = open.run(open.try_fork(mother.id)).expect_err("prepaid");
    assert!(
        matches!(&denied, EngineError::Denied { denial, .. } if denial.code == "budget"),
        "{denied}"
    );
    machine.counted(&open.store, 170 * HOUR);
    open.rate();
    let state = |id| open.engine.machine(&open.caller, id).expect("there").state;
    assert_eq!(state(mother.id), "paused");
    let resume = || {
        open.run(open.engine.change(
            &open.caller,
            mother.id,
            brood_service::engine::Change::Resume,
        ))
    };
    assert!(matches!(resume(), Err(EngineError::Denied { .. })));
    post("b", 10 * euros).expect("posted");
    assert_eq!(balance().budget.expect("kept").action, "none");
    assert_eq!(resume().expect("there is credit again").state, "running");
    assert!(open.run(open.try_fork(mother.id)).is_ok());
    let told = open
        .engine
        .events(&open.caller, 0, 1000)
        .expect("events")
        .events;
    let told = told.iter().filter(|row| row.event.kind == "budget.changed");
    assert_eq!(told.count(), 3, "refused, paused, well again");
    open.run(open.engine.close()).expect("closes");
}

#[test]
fn records_that_are_rated_may_go_and_what_is_not_stays() {
    let Some(open) = Metered::open(&enforced()) else {
        return;
    };
    let machine = MadeUp::born(&open.store, 1, "acme", november());
    machine.counted(&open.store, HOUR);
    open.rate();
    machine.counted(&open.store, 2 * HOUR);
    let trim = || {
        open.run(open.engine.trim_usage(Timestamp::from_millis(i64::MAX)))
            .expect("trimmed")
    };
    assert_eq!((trim(), trim()), (1, 0));
    assert_eq!(open.rate().settled, 1);
    assert_eq!(open.amount(NOVEMBER), 2 * HOUR_COSTS + FORK_COSTS);
    let seen = open.engine.verify_usage(&open.caller).expect("looked");
    assert_eq!((seen.anchor, seen.records, seen.breaks.len()), (1, 1, 0));
    assert_eq!(open.replays(NOVEMBER), (1, 1), "what is gone is said to be");
    assert_eq!(machine.id(), open.records(None)[0].subject.machine);
}
