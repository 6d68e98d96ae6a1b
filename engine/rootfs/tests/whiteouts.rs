//! What upper layers take away.

use crate::common::{Layer, disk, names, read, stat};

fn lower() -> Vec<u8> {
    Layer::new()
        .file("etc/a", "lower a")
        .file("etc/b", "lower b")
        .file("opt/tool/one", "1")
        .file("opt/tool/sub/two", "2")
        .symbolic("lib", "usr/lib")
        .file("usr/lib/libc", "libc")
        .file("was-file", "file")
        .directory("was-directory")
        .file("was-directory/in", "in")
        .bytes()
}

#[test]
fn whiteout_hides_what_is_below_and_nothing_of_its_own_layer() {
    // The new one may come before the whiteout of the old one, or after it.
    for first in [true, false] {
        let mut upper = Layer::new().file("etc/.wh.a", "");
        if first {
            upper = Layer::new()
                .file("opt/tool/new", "new")
                .file("opt/.wh.tool", "");
        }
        let upper = upper
            .file("etc/.wh.b", "")
            .file("etc/b", "upper b")
            .file("etc/.wh.never-was", "")
            .file("no/such/.wh.thing", "");
        let place = disk(&[lower(), upper.bytes()]);
        assert_eq!(read(&place.image, "/etc/b"), "upper b");
        assert_eq!(names(&place.image, "/no"), Vec::<String>::new());
        if first {
            assert_eq!(names(&place.image, "/opt/tool"), ["new"]);
        } else {
            assert_eq!(names(&place.image, "/etc"), ["b"]);
        }
    }
}

#[test]
fn opaque_directory_has_only_what_its_own_layer_says_in_any_order() {
    let before = Layer::new()
        .directory("opt/tool")
        .file("opt/tool/.wh..wh..opq", "")
        .file("opt/tool/new", "new");
    let after = Layer::new()
        .directory("opt/tool")
        .file("opt/tool/new", "new")
        .file("opt/tool/sub/three", "3")
        .file("opt/tool/.wh..wh..opq", "");
    let place = disk(&[lower(), before.bytes()]);
    assert_eq!(names(&place.image, "/opt/tool"), ["new"]);
    let place = disk(&[lower(), after.bytes()]);
    assert_eq!(names(&place.image, "/opt/tool"), ["new", "sub"]);
    assert_eq!(names(&place.image, "/opt/tool/sub"), ["three"]);
}

#[test]
fn what_aufs_kept_for_itself_is_no_whiteout() {
    let upper = Layer::new().file("etc/.wh..wh.plnk", "").file("etc/c", "c");
    let place = disk(&[lower(), upper.bytes()]);
    assert_eq!(names(&place.image, "/etc"), ["a", "b", "c"]);
}

#[test]
fn kinds_replace_each_other_and_a_directory_keeps_what_is_below() {
    let upper = Layer::new()
        .directory("was-file")
        .file("was-file/in", "new")
        .file("was-directory", "file now")
        .directory("etc")
        .file("etc/c", "c");
    let place = disk(&[lower(), upper.bytes()]);
    assert_eq!(read(&place.image, "/was-file/in"), "new");
    assert_eq!(read(&place.image, "/was-directory"), "file now");
    assert_eq!(names(&place.image, "/etc"), ["a", "b", "c"]);
}

#[test]
fn links_to_directories_are_followed_within_the_image() {
    let upper = Layer::new()
        .file("lib/new", "through a link")
        .symbolic("absolute", "/usr/lib")
        .file("absolute/other", "through another")
        .hard("lib/hard", "lib/libc");
    let place = disk(&[lower(), upper.bytes()]);
    assert_eq!(read(&place.image, "/usr/lib/new"), "through a link");
    assert_eq!(read(&place.image, "/usr/lib/other"), "through another");
    assert_eq!(read(&place.image, "/usr/lib/hard"), "libc");
    assert!(stat(&place.image, "/lib").contains("Type: symlink"));
}

#[test]
fn hard_link_keeps_a_content_that_its_first_name_lost() {
    let middle = Layer::new().hard("kept", "etc/a").file("etc/.wh.a", "");
    let upper = Layer::new().file("etc/a", "another");
    let place = disk(&[lower(), middle.bytes(), upper.bytes()]);
    assert_eq!(read(&place.image, "/kept"), "lower a");
    assert_eq!(read(&place.image, "/etc/a"), "another");
}
