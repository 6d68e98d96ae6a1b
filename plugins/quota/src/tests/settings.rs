//! The settings are strict, and say where they are wrong.

use brood_plugin::testkit::Host;

use crate::Quota;

fn wrong(settings: &str) -> Vec<String> {
    let refused = Host::with_settings::<Quota>(settings).err().unwrap();
    let lines = refused
        .0
        .into_iter()
        .map(|one| format!("{}: {}", one.at, one.message));
    lines.collect()
}

#[test]
fn every_mistake_is_reported_at_its_place() {
    let found = wrong(
        r#"{"default": {"max-live": -1, "max-liv": 2, "max-per-request": 0},
            "tenants": {"acme": {"rates": [{"machines": 1}]}}, "others": "maybe"}"#,
    );
    assert_eq!(
        found,
        [
            "/default/max-liv: no such setting; did you mean `max-live`?",
            "/default/max-live: -1 is not within 0 to 4294967295",
            "/default/max-per-request: 0 is not within 1 to 4294967295",
            "/tenants/acme/rates/0: `within-ms` is missing",
            "/others: `maybe` is none of default, deny, abstain",
        ]
    );
}

#[test]
fn what_one_field_cannot_say_is_reported_too() {
    let found = wrong(
        r#"{"default": {"operations": [], "queue": "", "labels": {"brood.x": "", "Tier": ""}, "class": "gold",
                "max-wait-ms": 86400001, "max-other": {"G": 1}},
            "classes": {"gold": {"rates": [{"machines": 1, "within-ms": 99999999999999}, {"machines": 1, "within-ms": 5},
                {"machines": 2, "within-ms": 5}]}},
            "tenants": {"acme": {"class": "gould"}}}"#,
    );
    assert_eq!(
        found,
        [
            "/default/operations: an empty list would allow nothing at all",
            "/default/queue: a name is 1 to 128 printable characters without spaces",
            "/default/max-wait-ms: longer than a day",
            "/default/max-other/G: 1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`",
            "/default/labels/Tier: 1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`",
            "/default/labels/brood.x: labels that begin with `brood.` are the engine's",
            "/classes/gold/rates/0/within-ms: longer than a year",
            "/classes/gold/rates/2/within-ms: another rate has the same time",
            "/default/class: only a tenant has a class",
            "/tenants/acme/class: there is no class `gould`",
        ]
    );
}

#[test]
fn no_limits_of_a_tenant_make_more_holds_than_the_engine_takes() {
    let kinds: Vec<String> = (0..33).map(|n| format!(r#""k{n}": 1"#)).collect();
    let rates: Vec<String> = (1..10)
        .map(|n| format!(r#"{{"machines": 1, "within-ms": {n}}}"#))
        .collect();
    let (kinds, rates) = (kinds.join(","), rates.join(","));
    let found = wrong(&format!(
        r#"{{"default": {{"max-other": {{{kinds}}}, "rates": [{rates}]}}}}"#
    ));
    assert_eq!(
        found,
        [
            "/default/rates: more than 8",
            "/default/max-other: more than 32 kinds"
        ]
    );
}

/// The most of everything, or one more.
fn most(over: u64) -> String {
    let list =
        |count: u64, one: &dyn Fn(u64) -> String| (0..count).map(one).collect::<Vec<_>>().join(",");
    // 366 days, a day.
    let (year, day) = (31_622_400_000 + over, 86_400_000 + over);
    let rates = list(8, &|n| {
        format!(r#"{{"machines": 1, "within-ms": {}}}"#, year - 7 + n)
    });
    let kinds = list(32 + over, &|n| format!(r#""k{n}": 1"#));
    let labels = list(63 + over, &|n| format!(r#""l{n}": """#));
    let value = "v".repeat(256 + usize::try_from(over).unwrap());
    format!(
        r#"{{"default": {{"rates": [{rates}], "max-wait-ms": {day}, "max-other": {{{kinds}}},
            "labels": {{{labels}, "long": "{value}"}}}}}}"#
    )
}

#[test]
fn the_most_of_everything_is_taken_and_one_more_is_not() {
    assert!(Host::with_settings::<Quota>(&most(0)).is_ok());
    assert_eq!(
        wrong(&most(1)),
        [
            "/default/rates/7/within-ms: longer than a year",
            "/default/max-wait-ms: longer than a day",
            "/default/max-other: more than 32 kinds",
            "/default/labels: more than 64",
            "/default/labels/long: a value is at most 256 bytes",
        ]
    );
}

#[test]
fn schema_documents_every_setting() {
    assert_eq!(
        brood_plugin::testkit::undocumented::<Quota>(),
        Vec::<String>::new()
    );
}
