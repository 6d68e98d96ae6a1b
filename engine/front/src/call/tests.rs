use axum::http::HeaderValue;
use brood_api::OperationId;

use super::*;

fn headers(values: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn a_key_is_taken_from_exactly_one_bearer_header() {
    let right = headers(&["bearer brood_abc"]);
    assert_eq!(bearer(&right).expect("a key"), "brood_abc");
    let wrong: [&[&'static str]; 6] = [
        &[],
        &["Bearer brood_a", "Bearer brood_b"],
        &["Basic brood_a"],
        &["Bearer"],
        &["Bearer e2b_abc"],
        &["brood_abc"],
    ];
    for values in wrong {
        let refusal = bearer(&headers(values)).expect_err("no key");
        assert_eq!(refusal.code, Code::MissingKey, "{values:?}");
    }
}

fn operation(id: OperationId) -> &'static Operation {
    let found = Operation::ALL.iter().find(|operation| operation.id == id);
    found.expect("it is in the table")
}

#[test]
fn a_callers_own_key_is_bound_to_its_path_and_body() {
    let fork = operation(OperationId::ForkMachine);
    let of = |path: &str, body: &[u8]| {
        let made = idempotency(fork, "k1", path, body).expect("a key");
        made.expect("it takes one")
    };
    let (one, same) = (of("/a", b"{}"), of("/a", b"{}"));
    assert_eq!((&one.route, one.body_hash), (&same.route, same.body_hash));
    assert_ne!(one.route, of("/b", b"{}").route);
    assert_ne!(one.body_hash, of("/a", b"{ }").body_hash);
    for key in ["", "a b", "ä", &"k".repeat(256)] {
        assert!(idempotency(fork, key, "/a", b"").is_err(), "{key}");
    }
}

#[test]
fn an_operation_that_forgets_its_answers_refuses_a_callers_own_key() {
    let write = operation(OperationId::WriteStdin);
    assert!(idempotency(write, "k1", "/a", b"").is_err());
    let list = operation(OperationId::ListMachines);
    assert!(
        idempotency(list, "k1", "/a", b"")
            .expect("a look")
            .is_none()
    );
}
