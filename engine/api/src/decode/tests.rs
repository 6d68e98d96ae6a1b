use super::*;
use crate::exec::ExecSpec;
use crate::fork::{ForkSpec, OnError, Secrets};
use crate::machine::{EndQuery, MachineListQuery};
use crate::template::TemplateSpec;

fn mistakes<T: Request + std::fmt::Debug>(body: &str) -> Vec<Mistake> {
    match decode::<T>(body.as_bytes()) {
        Err(DecodeError::Mistakes { mistakes }) => mistakes,
        other => unreachable!("{body}: {other:?}"),
    }
}

#[test]
fn a_fork_needs_its_count_and_has_a_default_for_the_rest() {
    let spec: ForkSpec = decode(br#"{"count": 3}"#).expect("a fork");
    assert_eq!((spec.count, spec.min_count), (3, None));
    assert_eq!(
        (spec.secrets, spec.on_error),
        (Secrets::Drop, OnError::Keep)
    );
    let missing = mistakes::<ForkSpec>("{}");
    assert_eq!(missing[0].kind, MistakeKind::MissingField);
    assert!(missing[0].detail.contains("`count`"), "{missing:?}");
}

#[test]
fn what_is_no_json_is_refused_with_line_and_column() {
    for (body, at) in [
        ("{\n  \"count\": 3,\n}", (3, 1)),
        ("", (1, 0)),
        ("{\"count\": 3} x", (1, 14)),
        ("{\"count\": 3", (1, 11)),
    ] {
        let refusal = decode::<ForkSpec>(body.as_bytes()).expect_err(body);
        let DecodeError::Syntax { line, column, .. } = refusal else {
            unreachable!("{body}: {refusal:?}");
        };
        assert_eq!((line, column), at, "{body}");
    }
    assert!(decode::<ForkSpec>(b"\xff").is_err());
    let deep = "[".repeat(100_000);
    assert!(decode::<ForkSpec>(deep.as_bytes()).is_err());
}

#[test]
fn an_unknown_field_is_refused_with_its_place_and_the_nearest_valid_one() {
    let found = mistakes::<ForkSpec>(r#"{"cuont": 3}"#);
    assert_eq!(found[0].kind, MistakeKind::UnknownField);
    assert_eq!(found[0].nearest.as_deref(), Some("count"));
    let found = mistakes::<ForkSpec>(r#"{"count": 3, "files": [{"pth": "/a", "text": ""}]}"#);
    assert_eq!(found[0].pointer, "/files/0/pth");
    assert_eq!(found[0].nearest.as_deref(), Some("path"));
    let found = mistakes::<ForkSpec>(r#"{"count": 3, "secrets": "inherti"}"#);
    assert_eq!(found[0].kind, MistakeKind::UnknownWord);
    assert_eq!(found[0].pointer, "/secrets");
    assert_eq!(found[0].nearest.as_deref(), Some("inherit"));
}

#[test]
fn a_wrong_type_is_refused_with_its_place() {
    for (body, pointer, word) in [
        (r#"{"count": "3"}"#, "/count", "u32"),
        (r#"{"count": -1}"#, "/count", "u32"),
        (r#"{"count": 3, "ttl": 90}"#, "/ttl", "90s"),
        (r#"{"count": 3, "labels": {"a": 1}}"#, "/labels/a", "string"),
        (r#"[1]"#, "/0", "u32"),
    ] {
        let found = mistakes::<ForkSpec>(body);
        if body.starts_with('{') {
            assert_eq!(found[0].pointer, pointer, "{body}");
            assert!(found[0].detail.contains(word), "{found:?}");
        }
        assert!(matches!(
            found[0].kind,
            MistakeKind::WrongType | MistakeKind::OutOfRange
        ));
    }
}

#[test]
fn a_secret_has_one_place_that_nothing_else_goes_to() {
    let found = mistakes::<ForkSpec>(
        r#"{"count": 1, "env": {"A": ""}, "files": [{"path": "/a", "text": ""}], "give_secrets": [
            {"name": "s"},
            {"name": "s", "env": "B", "file": "/b"},
            {"name": "s", "env": "A"},
            {"name": "s", "file": "/a"},
            {"name": "S", "env": "C"},
            {"name": "s", "env": "C"},
            {"name": "s", "env": "D=", "version": 1},
            {"name": "s", "file": "d"},
            {"name": "s", "version": 2, "env": "E"}]}"#,
    );
    let places: Vec<_> = found.iter().map(|one| one.pointer.as_str()).collect();
    let all = [
        "/give_secrets/0/env",
        "/give_secrets/1/env",
        "/give_secrets/2/env",
        "/give_secrets/3/file",
        "/give_secrets/4/name",
        "/give_secrets/5/env",
        "/give_secrets/6/env",
        "/give_secrets/7/file",
    ];
    assert_eq!(places, all);
}

#[test]
fn all_values_that_are_not_allowed_are_named_at_once() {
    let found = mistakes::<ForkSpec>(
        r#"{"count": 1000000000, "min_count": 0, "ttl": "0s", "labels": {"brood.x": ""},
            "env": {"A=B": ""}, "files": [{"path": "etc", "text": "", "mode": 9999}]}"#,
    );
    let places: Vec<_> = found.iter().map(|one| one.pointer.as_str()).collect();
    let all = [
        "/count",
        "/min_count",
        "/labels/brood.x",
        "/ttl",
        "/env/A=B",
        "/files/0/path",
        "/files/0/mode",
    ];
    assert_eq!(places, all);
    assert_eq!(mistakes::<ForkSpec>(r#"{"count": 0}"#)[0].pointer, "/count");
    let found = mistakes::<TemplateSpec>(r#"{"name": "Ab", "vcpus": 0, "memory_mib": 1}"#);
    assert_eq!(found.len(), 3);
    assert_eq!(mistakes::<ExecSpec>(r#"{"argv": []}"#)[0].pointer, "/argv");
}

#[test]
fn parameters_are_read_from_text_and_refused_by_name() {
    let pairs = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        owned.collect::<Vec<_>>()
    };
    let query: MachineListQuery = decode_parameters(pairs(&[
        ("limit", "7"),
        ("label", "team=a=b"),
        ("cursor", "c2a"),
    ]))
    .expect("a query");
    assert_eq!(query.label(), Some(("team", "a=b")));
    assert_eq!((query.page().limit(), query.page().after()), (7, 42));
    let refused = [
        (pairs(&[("limit", "x")]), "limit"),
        (pairs(&[("limit", "0")]), "limit"),
        (pairs(&[("cursor", "zz")]), "cursor"),
        (pairs(&[("label", "team")]), "label"),
        (pairs(&[("lable", "a=b")]), "lable"),
        (pairs(&[("limit", "1"), ("limit", "2")]), "limit"),
    ];
    for (pairs, name) in refused {
        let refusal = decode_parameters::<MachineListQuery>(pairs).expect_err(name);
        let DecodeError::Mistakes { mistakes } = refusal else {
            unreachable!("{refusal:?}");
        };
        assert_eq!(mistakes[0].pointer, name, "{mistakes:?}");
    }
    let query: EndQuery = decode_parameters(pairs(&[("cascade", "true")])).expect("a query");
    assert_eq!(query.cascade, Some(true));
}
