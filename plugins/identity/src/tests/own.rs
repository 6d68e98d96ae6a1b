//! Values that each daughter has for herself.

use brood_plugin::testkit::brief;
use brood_plugin::types::Span;

use super::*;

/// First daughter, count and value of each rule.
fn rules(give: &str, brief: &Brief) -> Vec<(u32, u32, String)> {
    let plan = planned(&format!(r#"{{"give": {give}}}"#), brief);
    assert!(plan.shared.is_empty());
    let rules = plan.rules.into_iter().map(|rule| match &rule.patches[..] {
        [Patch::SetEnv((_, value))] => (rule.daughters.first, rule.daughters.count, value.clone()),
        other => panic!("{other:?}"),
    });
    rules.collect()
}

fn rule(first: u32, count: u32, value: &str) -> (u32, u32, String) {
    (first, count, value.to_owned())
}

#[test]
fn list_gives_each_daughter_the_value_of_her_index() {
    let give = r#"{"values": {"SHARD": {"list": ["a", "b-${tenant}", "c-${index}"]}}}"#;
    assert_eq!(
        rules(give, &brief(3)),
        [
            rule(0, 1, "a"),
            rule(1, 1, "b-acme"),
            rule(2, 1, "c-${index}")
        ]
    );
}

#[test]
fn daughters_beyond_the_list_are_refused_or_repeat_or_have_the_last() {
    let give = |beyond: &str| {
        format!(r#"{{"values": {{"X": {{"list": ["a", "b"], "beyond": "{beyond}"}}}}}}"#)
    };
    let refusal = refused(&format!(r#"{{"give": {}}}"#, give("refuse")), &brief(3));
    assert_eq!(refusal, "X has 2 values, and none for daughter 2");
    let repeated = [rule(0, 1, "a"), rule(1, 1, "b"), rule(2, 1, "a")];
    assert_eq!(rules(&give("repeat"), &brief(3)), repeated);
    assert_eq!(
        rules(&give("last"), &brief(1000)),
        [rule(0, 1, "a"), rule(1, 999, "b")]
    );
}

#[test]
fn index_counts_from_the_request_and_not_from_the_brief() {
    let mut later = brief(2);
    later.daughters = Span { first: 5, count: 2 };
    let give = r#"{"numbers": {"PORT": {"first": 8000, "step": 10}}}"#;
    assert_eq!(
        rules(give, &later),
        [rule(5, 1, "8050"), rule(6, 1, "8060")]
    );
}

#[test]
fn numbers_may_fall() {
    let give = r#"{"numbers": {"N": {"first": 1, "step": -1}}}"#;
    assert_eq!(
        rules(give, &brief(3)),
        [rule(0, 1, "1"), rule(1, 1, "0"), rule(2, 1, "-1")]
    );
}

#[test]
fn several_values_of_a_daughter_are_one_rule() {
    let settings =
        r#"{"give": {"numbers": {"N": {"first": 0}}, "values": {"V": {"list": ["x", "y"]}}}}"#;
    let plan = planned(settings, &brief(2));
    let patches: Vec<&[Patch]> = plan.rules.iter().map(|rule| &rule.patches[..]).collect();
    assert_eq!(
        patches,
        [
            &[env("N", "0"), env("V", "x")][..],
            &[env("N", "1"), env("V", "y")]
        ]
    );
}

#[test]
fn number_beyond_64_bits_refuses_and_does_not_wrap() {
    let settings = r#"{"give": {"numbers": {"N": {"first": 9223372036854775807}}}}"#;
    assert_eq!(planned(settings, &brief(1)).rules.len(), 1);
    assert_eq!(
        refused(settings, &brief(2)),
        "N of daughter 1 exceeds 64 bits"
    );
    let steep = r#"{"give": {"numbers": {"N": {"first": 0, "step": 9223372036854775807}}}}"#;
    assert_eq!(refused(steep, &brief(3)), "N of daughter 2 exceeds 64 bits");
}

#[test]
fn more_values_than_the_engine_takes_refuse_in_words() {
    let settings = r#"{"give": {"numbers": {"N": {"first": 0}}}}"#;
    assert_eq!(planned(settings, &brief(4096)).rules.len(), 4096);
    let refusal = refused(settings, &brief(4097));
    assert_eq!(
        refusal,
        "4097 daughters with values of their own need more than 4096 changes"
    );
}

#[test]
fn indices_beyond_32_bits_are_refused() {
    let mut last = brief(2);
    last.daughters.first = u32::MAX;
    let settings = r#"{"give": {"values": {"V": {"list": ["x"], "beyond": "last"}}}}"#;
    assert_eq!(
        refused(settings, &last),
        "the daughters' indices exceed 32 bits"
    );
}

#[test]
fn neighbours_with_the_same_text_share_a_rule_unless_another_variable_differs() {
    let list = r#"{"list": ["a", "a", "b", "b", "a"]}"#;
    let give = format!(r#"{{"values": {{"X": {list}}}}}"#);
    let runs = [rule(0, 2, "a"), rule(2, 2, "b"), rule(4, 1, "a")];
    assert_eq!(rules(&give, &brief(5)), runs);
    let give = format!(
        r#"{{"give": {{"values": {{"X": {list}}}, "numbers": {{"Y": {{"first": -1}}}}}}}}"#
    );
    let plan = planned(&give, &brief(5));
    let second = plan.rules.get(1).unwrap();
    assert_eq!(plan.rules.len(), 5);
    assert_eq!(second.patches, [env("X", "a"), env("Y", "0")]);
}
