//! Each kind of gift.

use brood_plugin::mutation::{Content, File, Network, Secret, SecretTarget};
use brood_plugin::testkit::brief;
use brood_plugin::types::Resources;

use super::*;

#[test]
fn nothing_given_is_an_empty_plan() {
    let plan = planned("{}", &brief(3));
    assert!(plan.shared.is_empty() && plan.rules.is_empty());
}

#[test]
fn host_name_keeps_the_placeholders_of_the_engine_and_loses_its_own() {
    let patches = planned(
        r#"{"hostname": "${tenant}-${index}.${project}"}"#,
        &brief(3),
    )
    .shared;
    let network = Network {
        profile: None,
        hostname: Some("acme-${index}.web".to_owned()),
        egress_allow: None,
        rate_kbps: None,
    };
    assert_eq!(patches, [Patch::Network(network)]);
}

#[test]
fn environment_is_set_and_unset() {
    let patches = given(
        r#"{"env": {"WHO": "${subject}/${id}", "A": "$HOME ${ip}"}, "unset-env": ["OLD"]}"#,
        &brief(1),
    );
    assert_eq!(
        patches,
        [
            env("A", "$HOME ${ip}"),
            Patch::UnsetEnv("OLD".to_owned()),
            env("WHO", "ada/${id}")
        ]
    );
}

#[test]
fn files_are_written_with_their_mode_and_removed() {
    let patches = given(
        r#"{"files": [{"path": "/etc/motd", "content": "${project} ${node}\n"}, {"path": "/run/key", "content": "", "mode": "0600"}],
            "remove-files": ["/etc/old"]}"#,
        &brief(1),
    );
    let file = |path: &str, mode, content: &str| {
        Patch::WriteFile(File {
            path: path.to_owned(),
            mode,
            content: Content::Template(content.to_owned()),
        })
    };
    let expected = [
        file("/etc/motd", 0o644, "web ${node}\n"),
        Patch::RemoveFile("/etc/old".to_owned()),
        file("/run/key", 0o600, ""),
    ];
    assert_eq!(patches, expected);
}

#[test]
fn secrets_are_names_for_a_variable_or_a_file() {
    let patches = given(
        r#"{"secrets": [{"name": "token", "env": "TOKEN"}, {"name": "cert", "version": "7", "file": "/run/cert"}]}"#,
        &brief(1),
    );
    let secret = |name: &str, version: Option<&str>, target| {
        Patch::Secret(Secret {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            target,
        })
    };
    let expected = [
        secret("token", None, SecretTarget::Env("TOKEN".to_owned())),
        secret(
            "cert",
            Some("7"),
            SecretTarget::File("/run/cert".to_owned()),
        ),
    ];
    assert_eq!(patches, expected);
}

#[test]
fn labels_and_network_are_given() {
    let patches = given(
        r#"{"labels": {"team": "${project}"}, "network-profile": "inside", "egress-allow": ["10.0.0.0/8"], "rate-kbps": 100}"#,
        &brief(1),
    );
    let network = Network {
        profile: Some("inside".to_owned()),
        hostname: None,
        egress_allow: Some(vec!["10.0.0.0/8".to_owned()]),
        rate_kbps: Some(100),
    };
    let label = Patch::Label(("team".to_owned(), "web".to_owned()));
    assert_eq!(patches, [label, Patch::Network(network)]);
}

#[test]
fn limits_only_narrow_and_say_nothing_where_they_do_not() {
    let shape = |vcpu_milli, disk_mib| {
        Patch::Limits(Resources {
            vcpu_milli,
            memory_mib: 512,
            disk_mib,
            more: Vec::new(),
        })
    };
    let with = |give: &str| given(give, &brief(1));
    assert_eq!(
        with(r#"{"vcpu-milli": 250, "disk-mib": 9999}"#),
        [shape(250, 1024)]
    );
    assert_eq!(
        with(r#"{"vcpu-milli": 1000, "memory-mib": 512, "disk-mib": 1024}"#),
        []
    );
}

#[test]
fn memory_of_an_image_is_narrowed() {
    let mut brief = brief(1);
    brief.request.mother.kind = "image".to_owned();
    let patches = given(r#"{"memory-mib": 256}"#, &brief);
    assert!(
        matches!(&patches[..], [Patch::Limits(limits)] if limits.memory_mib == 256),
        "{patches:?}"
    );
}

#[test]
fn life_is_shortened_and_never_prolonged() {
    let with = |granted| {
        let mut brief = brief(1);
        brief.request.ttl_ms = granted;
        given(r#"{"ttl-ms": 1000}"#, &brief)
    };
    assert_eq!(with(None), [Patch::TtlMs(1000)]);
    assert_eq!(with(Some(1001)), [Patch::TtlMs(1000)]);
    assert_eq!(with(Some(1000)), []);
    assert_eq!(with(Some(5)), []);
}
