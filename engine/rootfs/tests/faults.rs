//! Registries that send too little, something else, or nothing.

use std::time::Duration;

use brood_rootfs::{Digest, Progress, Registry, RegistryOptions};

use crate::common::image::TestImage;
use crate::common::puller::Puller;
use crate::common::server::{Answered, Server, answer, cut, stall};

fn first_layer(image: &TestImage) -> (Vec<u8>, String) {
    let layer = image.layers[0].clone();
    let path = format!("/v2/app/blobs/{}", Digest::of(&layer));
    (layer, path)
}

#[test]
fn image_is_pulled_with_progress_and_what_is_there_is_not_fetched_again() {
    let image = TestImage::small();
    let server = Server::start(&image, |_, _, _| Answered::Usually);
    let place = Puller::new();
    let registry = Registry::new(RegistryOptions::default()).unwrap();
    let reference = server.name().parse().unwrap();
    let session = place.store.begin().unwrap();
    let mut whole = Vec::new();
    let pulled = session.pull(&registry, &reference, |progress| {
        if let Progress::Fetched { digest, have, size } = progress
            && have == size
        {
            whole.push(digest);
        }
    });
    let pulled = pulled.unwrap();
    assert_eq!(pulled.manifest, Digest::of(&image.manifest()));
    let mut wanted = vec![Digest::of(&image.config_json())];
    wanted.extend(image.layers.iter().map(|layer| Digest::of(layer)));
    assert_eq!(whole, wanted);
    let mut present = 0;
    let again = session.pull(&registry, &reference, |progress| {
        present += u32::from(matches!(progress, Progress::Present { .. }));
    });
    assert_eq!((again.unwrap(), present), (pulled, 3));
    assert_eq!(server.asked("/blobs/").len(), 3);
}

#[test]
fn what_is_not_there_and_what_one_may_not_have_are_told_apart() {
    let server = Server::start(&TestImage::small(), |asked, _, to| {
        if asked.path.ends_with("/secret") {
            let said = br#"{"errors": [{"code": "DENIED", "message": "not yours"}]}"#;
            return answer(to, "403 Forbidden", &[], said);
        }
        if asked.path.ends_with("/broken") {
            return answer(to, "500 Internal Server Error", &[], b"<html>");
        }
        Answered::Usually
    });
    let at = |tag: &str| format!("{}/app:{tag}", server.address);
    let place = Puller::new();
    let said = place.refusal(&at("v2"), RegistryOptions::default());
    assert!(said.contains("has no app/manifests/v2"), "{said}");
    let said = place.refusal(&at("secret"), RegistryOptions::default());
    assert!(
        said.contains("does not let") && said.contains("DENIED not yours"),
        "{said}"
    );
    let said = place.refusal(&at("broken"), RegistryOptions::default());
    assert!(said.contains("answered 500"), "{said}");
}

#[test]
fn too_many_requests_are_repeated_after_the_wait_unless_that_is_too_long() {
    let server = Server::start(&TestImage::small(), |_, before, to| match before {
        0 => answer(to, "429 Too Many Requests", &["Retry-After: 0"], b""),
        _ => Answered::Usually,
    });
    Puller::new()
        .pull(&server.name(), RegistryOptions::default())
        .unwrap();
    assert_eq!(server.asked("/manifests/").len(), 2);
    let server = Server::start(&TestImage::small(), |_, _, to| {
        answer(to, "429 Too Many Requests", &["Retry-After: 100000"], b"")
    });
    let said = Puller::new().refusal(&server.name(), RegistryOptions::default());
    assert!(said.contains("wait of 100000 seconds"), "{said}");
    assert_eq!(server.asked("").len(), 1);
}

#[test]
fn layer_that_is_cut_goes_on_where_it_was_cut() {
    let image = TestImage::small();
    let (layer, path) = first_layer(&image);
    let half = layer.len() / 2;
    let cut_path = path.clone();
    let server = Server::start(&image, move |asked, before, to| {
        if asked.path == cut_path && before == 0 {
            return cut(to, layer.len(), &layer[..half]);
        }
        Answered::Usually
    });
    Puller::new()
        .pull(&server.name(), RegistryOptions::default())
        .unwrap();
    let asked = server.asked(&path);
    assert_eq!(asked.len(), 2);
    assert_eq!(
        asked[1].header("range"),
        Some(format!("bytes={half}-").as_str())
    );
}

#[test]
fn registry_that_knows_no_ranges_sends_all_again() {
    let image = TestImage::small();
    let (layer, path) = first_layer(&image);
    let cut_path = path.clone();
    let server = Server::start(&image, move |asked, before, to| {
        if asked.path != cut_path {
            return Answered::Usually;
        }
        match before {
            0 => cut(to, layer.len(), &layer[..layer.len() / 2]),
            _ => answer(to, "200 OK", &[], &layer),
        }
    });
    Puller::new()
        .pull(&server.name(), RegistryOptions::default())
        .unwrap();
    assert_eq!(server.asked(&path).len(), 2);
}

#[test]
fn what_came_of_a_layer_is_kept_for_the_next_pull() {
    let image = TestImage::small();
    let (layer, path) = first_layer(&image);
    let half = layer.len() / 2;
    let cut_path = path.clone();
    let (bytes, all) = (layer.clone(), layer.len());
    let broken = Server::start(&image, move |asked, before, to| {
        if asked.path != cut_path {
            return Answered::Usually;
        }
        match before {
            0 => cut(to, all, &bytes[..half]),
            _ => answer(to, "503 Service Unavailable", &[], b""),
        }
    });
    let place = Puller::new();
    let said = place.refusal(&broken.name(), RegistryOptions::default());
    assert!(said.contains("answered 503"), "{said}");
    assert_eq!(place.partial(), [half as u64]);
    let whole = Server::start(&image, |_, _, _| Answered::Usually);
    place
        .pull(&whole.name(), RegistryOptions::default())
        .unwrap();
    let range = format!("bytes={half}-");
    assert_eq!(whole.asked(&path)[0].header("range"), Some(range.as_str()));
    assert!(place.partial().is_empty());
}

#[test]
fn layer_that_never_comes_whole_is_given_up_with_how_much_there_is() {
    let image = TestImage::small();
    let (layer, path) = first_layer(&image);
    let all = layer.len();
    let cut_path = path.clone();
    let server = Server::start(&image, move |asked, _, to| {
        if asked.path == cut_path {
            return cut(to, layer.len(), &layer[..1]);
        }
        Answered::Usually
    });
    let place = Puller::new();
    let said = place.refusal(&server.name(), RegistryOptions::default());
    assert!(
        said.contains(&format!("of {all} bytes")) && said.contains("4 attempts"),
        "{said}"
    );
    assert_eq!(server.asked(&path).len(), 4);
}

#[test]
fn layer_of_another_content_is_thrown_away() {
    let image = TestImage::small();
    let (layer, path) = first_layer(&image);
    let found = {
        let mut wrong = layer.clone();
        wrong[20] ^= 1;
        wrong
    };
    let wanted = Digest::of(&layer).to_string();
    let is = Digest::of(&found).to_string();
    let server = Server::start(&image, move |asked, _, to| {
        if asked.path == path {
            return answer(to, "200 OK", &[], &found);
        }
        Answered::Usually
    });
    let place = Puller::new();
    let said = place.refusal(&server.name(), RegistryOptions::default());
    assert!(said.contains(&wanted) && said.contains(&is), "{said}");
    assert!(place.partial().is_empty());
}

#[test]
fn manifest_is_what_its_digest_says_and_a_list_leads_to_the_one_for_guests() {
    let image = TestImage::small();
    let manifest = image.manifest();
    let entry = |architecture: &str, digest: Digest| {
        serde_json::json!({"digest": digest.to_string(), "size": 1,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let list = serde_json::json!({"schemaVersion": 2, "manifests": [
        entry("arm64", Digest::of(b"other")), entry("amd64", Digest::of(&manifest))]});
    let list = list.to_string().into_bytes();
    let pinned = Digest::of(&list);
    let server = Server::start(&image, move |asked, _, to| {
        if asked.path.ends_with("/list") || asked.path.ends_with(&pinned.to_string()) {
            return answer(to, "200 OK", &[], &list);
        }
        Answered::Usually
    });
    let place = Puller::new();
    let pull = |rest: &str| {
        let name = format!("{}/app{rest}", server.address);
        place.pull(&name, RegistryOptions::default())
    };
    assert_eq!(pull(":list").unwrap().manifest, Digest::of(&manifest));
    assert_eq!(
        pull(&format!("@{pinned}")).unwrap().manifest,
        Digest::of(&manifest)
    );

    let wanted = Digest::of(b"another manifest");
    let lying = Server::start(&image, move |asked, _, to| {
        if asked.path.ends_with(&wanted.to_string()) {
            return answer(to, "200 OK", &[], &manifest);
        }
        Answered::Usually
    });
    let name = format!("{}/app@{wanted}", lying.address);
    let said = place.refusal(&name, RegistryOptions::default());
    assert!(said.contains(&wanted.to_string()), "{said}");
}

#[test]
fn manifest_without_end_is_refused() {
    let server = Server::start(&TestImage::small(), |asked, _, to| {
        if asked.path.contains("/manifests/") {
            return answer(to, "200 OK", &[], &vec![b' '; 5 << 20]);
        }
        Answered::Usually
    });
    let said = Puller::new().refusal(&server.name(), RegistryOptions::default());
    assert!(said.contains("more than 4 MiB"), "{said}");
}

#[test]
fn registry_that_stops_sending_is_given_up() {
    let image = TestImage::small();
    let (layer, path) = first_layer(&image);
    let server = Server::start(&image, move |asked, before, to| {
        if asked.path == path && before == 0 {
            cut(to, layer.len(), &layer[..10]);
            return stall(to);
        }
        if asked.path.ends_with("/silent") {
            return stall(to);
        }
        Answered::Usually
    });
    let options = || RegistryOptions {
        patience: Duration::from_millis(500),
        ..RegistryOptions::default()
    };
    let place = Puller::new();
    place.pull(&server.name(), options()).unwrap();
    let silent = format!("{}/app:silent", server.address);
    assert!(
        place
            .refusal(&silent, options())
            .contains("did not answer in time")
    );
}

#[test]
fn other_hosts_are_asked_over_tls_and_who_does_not_answer_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let said = Puller::new().refusal(&format!("{closed}/app"), RegistryOptions::default());
    assert!(
        said.contains("cannot be reached") && said.contains("http://127.0.0.1"),
        "{said}"
    );
    // RFC 5737: an address that nobody has.
    let options = RegistryOptions {
        patience: Duration::from_millis(50),
        ..RegistryOptions::default()
    };
    let said = Puller::new().refusal("192.0.2.1:5000/app", options);
    assert!(said.contains("https://192.0.2.1:5000"), "{said}");
}
