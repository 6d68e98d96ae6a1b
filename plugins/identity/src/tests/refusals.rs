//! Forks that are refused, in words.

use brood_plugin::testkit::brief;

use super::*;

#[test]
fn inherited_memory_above_the_limit_is_refused() {
    let message = refused(r#"{"give": {"memory-mib": 511}}"#, &brief(1));
    assert_eq!(
        message,
        "a daughter inherits 512 MiB of memory, 511 are allowed"
    );
}

#[test]
fn name_that_makes_no_host_name_is_refused() {
    let with = |tenant: &str| {
        let mut brief = brief(1);
        brief.request.who.tenant = tenant.to_owned();
        refused(r#"{"hostname": "${tenant}-${index}"}"#, &brief)
    };
    assert!(
        with("Acme Inc").starts_with("Acme Inc-${index} is not a host name for every daughter")
    );
    // 53 and the longest index are 64 letters.
    assert!(with(&"a".repeat(53)).contains("is not a host name"));
    assert!(with("").contains("is not a host name"));
}

#[test]
fn name_that_is_a_placeholder_itself_is_refused() {
    let mut brief = brief(1);
    brief.request.who.subject = "${id}".to_owned();
    let message = refused(r#"{"give": {"env": {"A": "${subject}"}}}"#, &brief);
    assert_eq!(
        message,
        "the subject ${id} cannot stand in a text: it would be a placeholder itself"
    );
    assert_eq!(
        given(r#"{"env": {"A": "${project}"}}"#, &brief),
        [env("A", "web")],
        "it is not used"
    );
}
