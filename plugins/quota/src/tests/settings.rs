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
        r#"{"default": {"live": -1, "liv": 2, "request-count": 0},
            "tenants": {"acme": {"limits": {"rates": [{"machines": 1}]}}}, "others": "maybe"}"#,
    );
    assert_eq!(
        found,
        [
            "/default/liv: no such setting; did you mean `live`?",
            "/default/live: -1 is not within 0 to 4294967295",
            "/default/request-count: 0 is not within 1 to 4294967295",
            "/tenants/acme/limits/rates/0: `within-ms` is missing",
            "/others: `maybe` is none of default, deny, abstain",
        ]
    );
}

#[test]
fn what_one_field_cannot_say_is_reported_too() {
    let found = wrong(
        r#"{"default": {"operations": [], "queue": "", "labels": {"brood.x": "", "Tier": ""}},
            "classes": {"gold": {"rates": [{"machines": 1, "within-ms": 99999999999999}]}},
            "tenants": {"acme": {"class": "gould"}}}"#,
    );
    assert_eq!(
        found,
        [
            "/default/operations: an empty list would allow nothing at all",
            "/default/queue: a queue has a name",
            "/default/labels/Tier: a label is 1 to 63 of a-z, 0-9, `.`, `_`, `/`, `-`",
            "/default/labels/brood.x: labels that begin with `brood.` are the engine's",
            "/classes/gold/rates/0/within-ms: longer than a year",
            "/tenants/acme/class: there is no class `gould`",
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
