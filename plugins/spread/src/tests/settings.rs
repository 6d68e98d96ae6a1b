//! The settings are strict, and say where they are wrong.

use super::*;

fn wrong(settings: &str) -> Vec<String> {
    let refused = Host::with_settings::<Spread>(settings).err().unwrap();
    let lines = refused
        .0
        .into_iter()
        .map(|one| format!("{}: {}", one.at, one.message));
    lines.collect()
}

#[test]
fn every_mistake_is_reported_at_its_place() {
    let found = wrong(
        r#"{"strategy": "even", "memory-permille": 0, "weights": {"wram": 1},
            "prefer": [{"label": "a", "value": "b", "weight": 0}]}"#,
    );
    assert_eq!(
        found,
        [
            "/strategy: `even` is none of spread, pack",
            "/weights/wram: no such setting; did you mean `warm`?",
            "/memory-permille: 0 is not within 1 to 1000",
            "/prefer/0/weight: 0 is not within 1 to 65535",
        ]
    );
}

#[test]
fn what_one_field_cannot_say_is_reported_too() {
    let found = wrong(
        r#"{"weights": {"room": 0, "warm": 0, "resident": 0, "tenant": 0, "load": 0, "pressure": 0},
            "columns": [{"name": "x", "least": 2, "most": 1}, {"name": "y"}], "tolerate": ["taint/gpu"]}"#,
    );
    assert_eq!(
        found,
        [
            "/weights: nothing counts, so every score would be the same",
            "/columns/0/least: 2 is above `most`, so every candidate would be refused",
            "/columns/1: neither limits nor counts",
            "/tolerate/0: the name alone, without `taint/`",
        ]
    );
}

#[test]
fn schema_documents_every_setting() {
    assert_eq!(
        brood_plugin::testkit::undocumented::<Spread>(),
        Vec::<String>::new()
    );
}
