//! Registries that want to know who asks.

use brood_rootfs::{Login, RegistryOptions};

use crate::common::image::TestImage;
use crate::common::puller::{Puller, with};
use crate::common::server::{Answered, Server, answer};

#[test]
fn registry_with_basic_logins_is_told_who_asks_and_others_are_named() {
    let right = Login::new("ann", "s3cret");
    let server = Server::start(&TestImage::small(), |asked, _, to| {
        // ann:s3cret
        if asked.header("authorization") == Some("Basic YW5uOnMzY3JldA==") {
            return Answered::Usually;
        }
        answer(
            to,
            "401 Unauthorized",
            &["WWW-Authenticate: Basic realm=\"x\""],
            b"",
        )
    });
    let place = Puller::new();
    place.pull(&server.name(), with(right, &server)).unwrap();
    let said = place.refusal(&server.name(), RegistryOptions::default());
    assert!(said.contains("there is no login for '127.0.0.1:"), "{said}");
    let said = place.refusal(&server.name(), with(Login::new("ann", "wr0ng"), &server));
    assert!(
        said.contains("does not take the login") && !said.contains("wr0ng"),
        "{said}"
    );
}

#[test]
fn token_is_fetched_with_the_login_and_shown_from_then_on() {
    let image = TestImage::small();
    let server = Server::start(&image, |asked, _, to| {
        if asked.path.starts_with("/token?") {
            assert_eq!(
                asked.header("authorization"),
                Some("Basic YW5uOnMzY3JldA==")
            );
            assert!(asked.path.contains("service=here") && asked.path.contains("repository"));
            return answer(to, "200 OK", &[], br#"{"access_token": "t0ken"}"#);
        }
        if asked.header("authorization") == Some("Bearer t0ken") {
            return Answered::Usually;
        }
        let host = asked.header("host").unwrap_or_default();
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"here\",scope=\"repository:app:pull\""
        );
        answer(to, "401 Unauthorized", &[&challenge], b"")
    });
    let place = Puller::new();
    place
        .pull(&server.name(), with(Login::new("ann", "s3cret"), &server))
        .unwrap();
    assert_eq!(server.asked("/token").len(), 1);
    assert_eq!(server.asked("/manifests/").len(), 2);
}

#[test]
fn token_service_that_gives_none_is_named() {
    let server = Server::start(&TestImage::small(), |asked, _, to| {
        if asked.path.starts_with("/token") {
            return answer(to, "200 OK", &[], b"{}");
        }
        let host = asked.header("host").unwrap_or_default();
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"");
        answer(to, "401 Unauthorized", &[&challenge], b"")
    });
    let said = Puller::new().refusal(&server.name(), RegistryOptions::default());
    assert!(said.contains("/token gave no token"), "{said}");
}

#[test]
fn login_does_not_go_along_with_a_redirect() {
    let image = TestImage::small();
    let elsewhere = Server::start(&image, |_, _, _| Answered::Usually);
    let address = elsewhere.address;
    let server = Server::start(&image, move |asked, _, to| {
        if asked.header("authorization").is_none() {
            return answer(to, "401 Unauthorized", &["WWW-Authenticate: Basic"], b"");
        }
        if asked.path.contains("/blobs/") {
            let location = format!("Location: http://{address}{}", asked.path);
            return answer(to, "307 Temporary Redirect", &[&location], b"");
        }
        Answered::Usually
    });
    Puller::new()
        .pull(&server.name(), with(Login::new("ann", "s3cret"), &server))
        .unwrap();
    let followed = elsewhere.asked("/blobs/");
    assert_eq!(followed.len(), 3);
    assert!(
        followed
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}
