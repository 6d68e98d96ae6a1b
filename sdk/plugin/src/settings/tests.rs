//! Reading is strict, complete and says where.

use std::collections::BTreeMap;

use super::*;

crate::settings! {
    /// Settings of a test,
    /// in two lines.
    struct Whole {
        /// A number that must be there.
        must_be: u32,
        /// One with a default.
        may_be: u8 = 7,
        /// One that may be absent.
        absent: Option<i64> = None,
        /// A list.
        list: Vec<Part> = Vec::new(),
        /// A map.
        map: BTreeMap<String, Part> = BTreeMap::new(),
        /// A word.
        word: Word = Word::One,
        /// A truth value.
        flag: bool = false,
    }
}

crate::settings! {
    /// A part.
    struct Part {
        /// A positive number.
        size: core::num::NonZeroU32,
    }
}

crate::settings! {
    /// A word.
    enum Word {
        /// The first.
        One = "one",
        /// The second.
        Two = "two",
    }
}

fn wrong(document: &str) -> Vec<(String, String)> {
    let list = read::<Whole>(document).unwrap_err();
    list.into_iter().map(|one| (one.at, one.message)).collect()
}

fn places(document: &str) -> Vec<String> {
    wrong(document).into_iter().map(|(at, _)| at).collect()
}

#[test]
fn defaults_stand_in_for_what_is_absent() {
    let whole = read::<Whole>(r#"{"must-be": 1}"#).unwrap();
    let expected = Whole {
        must_be: 1,
        may_be: 7,
        absent: None,
        list: Vec::new(),
        map: BTreeMap::new(),
        word: Word::One,
        flag: false,
    };
    assert_eq!(whole, expected);
    let given =
        read::<Whole>(r#"{"must-be": 1, "absent": -3, "word": "two", "list": [{"size": 2}]}"#);
    let given = given.unwrap();
    assert_eq!(
        (given.absent, given.word, given.list.len()),
        (Some(-3), Word::Two, 1)
    );
}

#[test]
fn every_mistake_is_reported_at_its_pointer() {
    let document = r#"{"may-be": 256, "absent": 1.5, "word": "three", "flag": 0,
        "list": [{"size": 1}, {"size": 0}, 4], "map": {"a/b~c": {"size": "x"}}}"#;
    let found = places(document);
    let expected = [
        "",
        "/may-be",
        "/absent",
        "/list/1/size",
        "/list/2",
        "/map/a~1b~0c/size",
        "/word",
        "/flag",
    ];
    assert_eq!(found, expected);
}

#[test]
fn unknown_and_repeated_keys_are_refused_with_the_nearest() {
    let found = wrong(r#"{"must-be": 1, "may_be": 2, "may-be": 3, "may-be": 4, "zzz": 1}"#);
    let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    assert_eq!(messages[0], "no such setting; did you mean `may-be`?");
    assert_eq!(messages[1], "stands here twice");
    assert!(
        messages[2].starts_with("no such setting; known are must-be, "),
        "{messages:?}"
    );
    assert_eq!(
        places(r#"{"must-be": 1, "map": {"a": {"size": 1}, "a": {"size": 1}}}"#),
        ["/map/a"]
    );
}

#[test]
fn null_fraction_and_a_number_beyond_64_bits_are_no_values() {
    for value in [
        "null",
        "1.0",
        "1e3",
        "18446744073709551616",
        "-9223372036854775809",
    ] {
        let document = format!(r#"{{"must-be": 1, "absent": {value}}}"#);
        assert_eq!(places(&document), ["/absent"], "{value}");
    }
}

#[test]
fn what_is_not_json_is_one_mistake_of_the_document() {
    for document in [
        "",
        "{",
        r#"{"must-be": 1} x"#,
        "\u{feff}{}",
        &"[".repeat(100_000),
    ] {
        let found = wrong(document);
        assert!(
            matches!(&found[..], [(at, message)] if at.is_empty() && message.starts_with("not JSON"))
        );
    }
}

#[test]
fn list_of_mistakes_is_bounded_and_says_how_many_more() {
    let keys: Vec<String> = (0..150).map(|n| format!(r#""x{n}": 1"#)).collect();
    let found = wrong(&format!(r#"{{"must-be": 1, {}}}"#, keys.join(",")));
    assert_eq!(found.len(), 101);
    assert_eq!(found[100].1, "and 50 more");
}

#[test]
fn schema_is_json_and_says_what_reading_does() {
    let schema: serde_json::Value = serde_json::from_str(&schema::<Whole>()).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(schema["description"], "Settings of a test, in two lines.");
    assert_eq!(schema["required"], serde_json::json!(["must-be"]));
    assert_eq!(schema["additionalProperties"], false);
    let properties = &schema["properties"];
    assert_eq!(properties["may-be"]["default"], 7);
    assert_eq!(properties["may-be"]["maximum"], 255);
    assert_eq!(
        properties["list"]["items"]["properties"]["size"]["minimum"],
        1
    );
    assert_eq!(properties["map"]["additionalProperties"]["type"], "object");
    assert_eq!(properties["word"]["oneOf"][1]["const"], "two");
    assert_eq!(properties["word"]["description"], "A word.");
}

#[test]
fn same_key_stored_twice_refuses_the_settings() {
    let mut prepared = Prepared::default();
    prepared.put("a", &1_u32);
    prepared.put("a", &2_u32);
    let mut wrong = Diagnostics::default();
    prepared.into_entries(&mut wrong);
    assert!(!wrong.is_empty());
}
