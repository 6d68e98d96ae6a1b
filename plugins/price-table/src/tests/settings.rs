//! The settings are strict, and say where they are wrong.

use super::*;

fn wrong(settings: &str) -> Vec<String> {
    let refused = Host::with_settings::<PriceTable>(settings).err().unwrap();
    let lines = refused
        .0
        .into_iter()
        .map(|one| format!("{}: {}", one.at, one.message));
    lines.collect()
}

#[test]
fn amounts_are_decimals_in_strings() {
    let with = |amount: &str| {
        let fee = format!(r#"{{"fees": [{{"name": "x", "amount": {amount}}}]}}"#);
        let host = Host::with_settings::<PriceTable>(&plan(&fee)).ok()?;
        let rated = host
            .call(|| PriceTable::rate(batch(vec![sample(1, 1)])))
            .unwrap();
        Some(rated.lines[0].amount_nanos)
    };
    assert_eq!(with(r#""0.000000001""#), Some(1));
    assert_eq!(with(r#""-12.5""#), Some(-12_500_000_000));
    assert_eq!(with(r#""9223372036.854775807""#), Some(i64::MAX));
    for amount in [
        "1",
        "0.5",
        r#""""#,
        r#"".5""#,
        r#""1.""#,
        r#""0.0000000001""#,
        r#""1e3""#,
        r#""+1""#,
        r#""9223372036.854775808""#,
    ] {
        assert_eq!(with(amount), None, "{amount}");
    }
}

#[test]
fn every_mistake_is_reported_at_its_place() {
    let found = wrong(
        r#"{"currency": "Euro", "plans": {"p": {"prices": [{"name": "a", "dimension": "forks", "per": 0,
            "tiers": [{"price": 1}]}], "unpriced": "free"}}, "acounts": {}}"#,
    );
    assert_eq!(
        found,
        [
            "/acounts: no such setting; did you mean `accounts`?",
            "/currency: `Euro` is no ISO 4217 code such as EUR, nor `credit`",
            "/plans/p/prices/0/per: 0 is not within 1 to 18446744073709551615",
            "/plans/p/prices/0/tiers/0/price: expected an amount in a string, such as \"0.05\", found a whole number",
            "/plans/p/unpriced: `free` is none of waive, refuse",
        ]
    );
}

#[test]
fn tiers_rise_and_only_the_last_is_open() {
    let tiers = |tiers: &str| {
        wrong(&price(&format!(
            r#""per": 1, "free": 10, "tiers": [{tiers}]"#
        )))
    };
    assert_eq!(
        tiers(""),
        ["/plans/p/prices/0/tiers: a price has at least one tier"]
    );
    assert_eq!(
        tiers(r#"{"up-to": 10, "price": "1"}, {"price": "1"}, {"price": "-1"}"#),
        [
            "/plans/p/prices/0/tiers/0/up-to: not above 10, where the tier before ends",
            "/plans/p/prices/0/tiers/1: only the last tier has no `up-to`",
            "/plans/p/prices/0/tiers/2/price: a price is not negative; a fee may be",
        ]
    );
    let last = tiers(r#"{"up-to": 20, "price": "1"}"#);
    assert_eq!(
        last,
        ["/plans/p/prices/0/tiers/0/up-to: the last tier has no end"]
    );
}

#[test]
fn quantities_beyond_63_bits_unknown_plans_and_doubled_levels_are_refused() {
    let wide = price(r#""per": 9223372036854775808, "tiers": [{"price": "1"}]"#);
    assert_eq!(
        wrong(&wide),
        ["/plans/p/prices/0/per: more than a quantity can be (2^63)"]
    );
    let unknown = r#"{"currency": "EUR", "plans": {"p": {}}, "accounts": {"a/b": {"plan": "q"}}, "others": "r"}"#;
    let expected = [
        "/accounts/a~1b/plan: there is no plan `q`",
        "/others: there is no plan `r`",
    ];
    assert_eq!(wrong(unknown), expected);
    let twice = plan(
        r#"{"budget": {"levels": [{"below": "1", "action": "warn"}, {"below": "1.0", "action": "stop"}]}}"#,
    );
    assert_eq!(
        wrong(&twice),
        ["/plans/p/budget/levels: two levels below 1"]
    );
}

#[test]
fn names_on_the_bill_are_printable_and_differ() {
    let fees = |fees: &str| wrong(&plan(&format!(r#"{{"fees": [{fees}]}}"#)));
    let twice = fees(r#"{"name": "a", "amount": "1"}, {"name": "a", "amount": "2"}"#);
    assert_eq!(twice, ["/plans/p/fees: two are named `a`"]);
    let blank = fees(r#"{"name": "a b", "amount": "1"}"#);
    assert_eq!(
        blank,
        ["/plans/p/fees: `p/a b` is no name of 1 to 128 printable characters"]
    );
    let many: Vec<String> = (0..9)
        .map(|n| format!(r#"{{"name": "f{n}", "amount": "1"}}"#))
        .collect();
    assert_eq!(fees(&many.join(",")), ["/plans/p/fees: more than 8"]);
    let taken = |fees: &str| {
        let settings = plan(&format!(r#"{{"fees": [{fees}]}}"#));
        Host::with_settings::<PriceTable>(&settings).is_ok()
    };
    assert!(taken(&many[1..].join(",")));
    // `p/` before it: 128 bytes, and 129.
    let named = |length| format!(r#"{{"name": "{}", "amount": "1"}}"#, "n".repeat(length));
    assert!(taken(&named(126)));
    assert_eq!(fees(&named(127)).len(), 1);
    assert_eq!(fees(&named(0)).len(), 1);
}

#[test]
fn currencies_and_dimensions_are_spelled_as_such() {
    for currency in ["eur", "EU", "EURO", "credits", ""] {
        let settings = format!(r#"{{"currency": "{currency}", "plans": {{}}}}"#);
        assert!(!wrong(&settings).is_empty(), "{currency}");
    }
    let longest = "a".repeat(63);
    for (dimension, right) in [
        ("gpu/a100-80.x_y", true),
        (longest.as_str(), true),
        ("", false),
        ("Forks", false),
        ("a b", false),
        (&"a".repeat(64), false),
    ] {
        let settings = price(r#""per": 1, "tiers": [{"price": "1"}]"#);
        let settings = settings.replace("vcpu-ns", dimension);
        let taken = Host::with_settings::<PriceTable>(&settings).is_ok();
        assert_eq!(taken, right, "{dimension}");
    }
}

#[test]
fn eight_tiers_are_taken_and_no_ninth_nor_an_end_beyond_63_bits() {
    let tiers = |count: u64, first: u64| {
        let closed =
            (0..count - 1).map(|n| format!(r#"{{"up-to": {}, "price": "1"}},"#, first + n));
        let closed: String = closed.collect();
        price(&format!(r#""per": 1, "tiers": [{closed}{{"price": "1"}}]"#))
    };
    assert!(Host::with_settings::<PriceTable>(&tiers(8, 1)).is_ok());
    assert_eq!(
        wrong(&tiers(9, 1)),
        ["/plans/p/prices/0/tiers: more than 8"]
    );
    assert!(Host::with_settings::<PriceTable>(&tiers(2, i64::MAX as u64)).is_ok());
    assert_eq!(
        wrong(&tiers(2, 1 << 63)),
        ["/plans/p/prices/0/tiers/0/up-to: more than a quantity can be (2^63)"]
    );
}

#[test]
fn schema_documents_every_setting() {
    assert_eq!(
        brood_plugin::testkit::undocumented::<PriceTable>(),
        Vec::<String>::new()
    );
}

#[test]
fn schema_says_how_an_amount_is_written() {
    let schema = brood_plugin::settings::schema::<crate::Settings>();
    assert!(schema.contains(r"^-?[0-9]+(\\.[0-9]{1,9})?$"), "{schema}");
    assert!(schema.contains("^([A-Z]{3}|credit)$"), "{schema}");
    let (_, step) = schema.split_once(r#""round-up-to":"#).unwrap();
    let step = &step[..step.find('}').unwrap()];
    assert!(
        step.contains(r#""minimum":1"#) && step.contains(r#""default":1"#),
        "{step}"
    );
}
