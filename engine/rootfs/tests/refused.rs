//! What a layer must not be, and that it leaves nothing behind.

use std::io::Write;

use brood_rootfs::{Digest, Limits};
use tar::EntryType;

use crate::common::{Layer, PLAIN, Place, chain, gzip, header, make, make_of};

/// The words of the refusal, after which there is neither a disk nor anything else.
fn refusal_of(layers: &[Vec<u8>], limits: Limits) -> String {
    let place = Place::new();
    let error = make(&place, layers, limits).expect_err("it is refused");
    assert!(place.is_empty());
    chain(&error)
}

fn refusal(layer: Layer) -> String {
    refusal_of(&[layer.bytes()], Limits::default())
}

#[test]
fn names_that_climb_are_refused_with_their_layer_and_entry() {
    for name in ["../x", "a/../../x", "..", "a/..", "/../etc/passwd"] {
        let said = refusal(Layer::new().file("good", "").file(name, "x"));
        assert!(said.contains("layer 1") && said.contains(name), "{said}");
        assert!(said.contains("'..'"), "{said}");
    }
}

#[test]
fn hard_link_reaches_nothing_outside_of_the_image() {
    for target in [
        "../../etc/passwd",
        "/etc/passwd",
        "etc/passwd",
        "esc/etc/passwd",
    ] {
        let layer = Layer::new().symbolic("esc", "../..").hard("stolen", target);
        let said = refusal(layer);
        assert!(said.contains("'stolen'") && said.contains(target), "{said}");
    }
    let said = refusal(Layer::new().directory("d").hard("also", "d"));
    assert!(said.contains("one name"), "{said}");
}

#[test]
fn entry_behind_a_link_that_leads_out_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let up = Layer::new().symbolic("a/up", "../..").file("a/up/x", "out");
    let said = refusal(up);
    assert!(said.contains("leads out"), "{said}");
    // An absolute link means the image's own root, so this is a file of the image and none of the host.
    let place = Place::new();
    let path = outside.path().to_str().unwrap();
    let absolute = Layer::new().symbolic("out", path).file("out/x", "inside");
    make(&place, &[absolute.bytes()], Limits::default()).unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let loops = Layer::new()
        .symbolic("a", "b")
        .symbolic("b", "a")
        .file("a/x", "");
    assert!(refusal(loops).contains("each other"));
}

#[test]
fn what_no_disk_can_hold_is_refused_by_name() {
    let long = "n".repeat(256);
    let deep = "deep/".repeat(700);
    for (layer, words) in [
        (
            Layer::new().pax("path", long.as_bytes()).file("x", ""),
            "255 bytes",
        ),
        (
            Layer::new().pax("path", deep.as_bytes()).file("x", ""),
            "3000",
        ),
        (
            Layer::new().pax("path", b"two\nlines").file("x", ""),
            "line feed",
        ),
        (Layer::new().file("f", "").file("f/x", ""), "no directory"),
        (Layer::new().file("a/.wh.b/c", ""), "whiteout"),
        (Layer::new().symbolic("l", ""), "link to nothing"),
        (
            Layer::new()
                .pax("SCHILY.xattr.user.big", &[1; 4000])
                .file("x", ""),
            "3072 bytes",
        ),
        (
            Layer::new().pax("SCHILY.xattr.os2.x", b"1").file("x", ""),
            "'os2.x'",
        ),
        (
            Layer::new().pax("GNU.sparse.major", b"1").file("x", ""),
            "sparse",
        ),
        (
            Layer::new().raw(header(EntryType::GNUSparse, "s", PLAIN), b""),
            "sparse",
        ),
        (
            Layer::new().raw(header(EntryType::new(b'Z'), "z", PLAIN), b""),
            "type 'Z'",
        ),
        (Layer::new().file(".", ""), "is a directory"),
        (
            Layer::new().raw(header(EntryType::XHeader, "x", PLAIN), b"9 broken\n"),
            "PAX",
        ),
        (
            Layer::new().raw(header(EntryType::XHeader, "x", PLAIN), &vec![0; 2 << 20]),
            "1 MiB",
        ),
    ] {
        let said = refusal(layer);
        assert!(said.contains(words), "{words} is not in: {said}");
    }
}

#[test]
fn limits_hold_for_all_layers_together() {
    let layer = |name: &str| Layer::new().file(name, "0123456789").bytes();
    let two = [layer("one"), layer("two")];
    let limits = Limits {
        bytes: 19,
        ..Limits::default()
    };
    let said = refusal_of(&two, limits);
    assert!(
        said.contains("more than 19 bytes") && said.contains("layer 2, 'two'"),
        "{said}"
    );
    let limits = Limits {
        entries: 1,
        ..Limits::default()
    };
    assert!(refusal_of(&two, limits).contains("more than 1 entries"));
    let limits = Limits {
        layers: 1,
        ..Limits::default()
    };
    assert!(refusal_of(&two, limits).contains("more than 1 layers"));
    let enough = Limits {
        bytes: 20,
        entries: 2,
        layers: 2,
        ..Limits::default()
    };
    make(&Place::new(), &two, enough).unwrap();
}

#[test]
fn bytes_without_end_behind_the_archive_are_refused() {
    let mut archive = Layer::new().file("a", "a").bytes();
    archive.write_all(&vec![0; 1 << 20]).unwrap();
    let limits = Limits {
        bytes: 1 << 19,
        ..Limits::default()
    };
    assert!(refusal_of(&[gzip(&archive)], limits).contains("more than 524288 bytes"));
}

#[test]
fn content_that_the_image_does_not_name_is_refused_with_both_digests() {
    let place = Place::new();
    let bytes = Layer::new().file("a", "a").bytes();
    let wanted = Digest::of(b"another");
    let refused = make_of(&place, &[(&bytes, Some(wanted))], Limits::default());
    let said = chain(&refused.expect_err("another digest"));
    let found = Digest::of(&bytes).to_string();
    assert!(
        said.contains(&wanted.to_string()) && said.contains(&found),
        "{said}"
    );
    assert!(place.is_empty());
}

#[test]
fn archive_that_is_cut_is_refused_wherever_it_is_cut() {
    let whole = Layer::new()
        .file("a", &"a".repeat(700))
        .file("b", "b")
        .bytes();
    let entries = whole.len() - 1024;
    for cut in [1, 511, 512, 600, 1536, 2048, entries] {
        let said = refusal_of(&[whole[..cut].to_vec()], Limits::default());
        assert!(said.contains("layer 1"), "{cut}: {said}");
    }
    let mut garbled = whole.clone();
    garbled[3] = b'!';
    assert!(refusal_of(&[garbled], Limits::default()).contains("checksum"));
    assert!(refusal_of(&[b"PK\x03\x04".to_vec()], Limits::default()).contains("zip"));
}
