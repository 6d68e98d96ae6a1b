//! Which rules match, and the later over the earlier.

use brood_plugin::testkit::{brief, labels};

use super::*;

fn matches(when: &str) -> bool {
    let mut brief = brief(1);
    brief.request.labels = labels(&[("env", "prod"), ("x", "y")]);
    let rule = format!(r#"{{"rules": [{{{when}, "give": {{"env": {{"HIT": "1"}}}}}}]}}"#);
    !planned(&rule, &brief).shared.is_empty()
}

#[test]
fn each_condition_matches_what_it_names() {
    for when in [
        r#""tenants": ["acme"]"#,
        r#""tenants": ["other", "acme", "acme"]"#,
        r#""projects": ["web"]"#,
        r#""operations": ["fork", "claim"]"#,
        r#""mothers": ["running"]"#,
        r#""labels": {"env": "prod"}"#,
        r#""tenants": []"#,
    ] {
        assert!(matches(when), "{when}");
    }
    for when in [
        r#""tenants": ["acm"]"#,
        r#""projects": ["acme"]"#,
        r#""operations": ["claim"]"#,
        r#""mothers": ["image"]"#,
        r#""labels": {"env": "test"}"#,
        r#""labels": {"env": "prod", "no": "such"}"#,
        r#""tenants": ["acme"], "projects": ["other"]"#,
    ] {
        assert!(!matches(when), "{when}");
    }
}

#[test]
fn later_rule_replaces_by_name_across_kinds() {
    let settings = r#"{"hostname": "a", "give": {"env": {"X": "1", "Y": "1"}, "files": [{"path": "/run/f", "content": "1"}]},
        "rules": [{"tenants": ["acme"], "hostname": "b", "give": {"unset-env": ["X"], "labels": {"l": "1"}}},
            {"give": {"env": {"Y": "2"}, "labels": {"l": "2"}, "remove-files": ["/run/f"]}},
            {"tenants": ["other"], "hostname": "c", "give": {}}]}"#;
    let patches = planned(settings, &brief(1)).shared;
    let expected = [
        Patch::UnsetEnv("X".to_owned()),
        env("Y", "2"),
        Patch::RemoveFile("/run/f".to_owned()),
        Patch::Label(("l".to_owned(), "2".to_owned())),
    ];
    assert_eq!(&patches[..4], expected);
    assert!(
        matches!(&patches[4], Patch::Network(network) if network.hostname.as_deref() == Some("b"))
    );
}

#[test]
fn order_of_the_document_counts_also_between_tenants_and_everybody() {
    let settings = r#"{"rules": [{"give": {"env": {"X": "1"}}}, {"tenants": ["acme"], "give": {"env": {"X": "2"}}},
        {"give": {"env": {"X": "3"}}}]}"#;
    assert_eq!(planned(settings, &brief(1)).shared, [env("X", "3")]);
}

#[test]
fn limits_of_all_matching_rules_hold_whatever_their_order() {
    let settings = r#"{"give": {"vcpu-milli": 300, "ttl-ms": 50, "rate-kbps": 9},
        "rules": [{"give": {"vcpu-milli": 700, "ttl-ms": 40, "rate-kbps": 90}}]}"#;
    let patches = planned(settings, &brief(1)).shared;
    assert!(matches!(&patches[0], Patch::Network(network) if network.rate_kbps == Some(9)));
    assert!(matches!(&patches[1], Patch::Limits(limits) if limits.vcpu_milli == 300));
    assert_eq!(patches[2], Patch::TtlMs(40));
}
