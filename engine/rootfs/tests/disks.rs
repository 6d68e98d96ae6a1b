//! What is in a layer is on the disk, whoever made it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use brood_rootfs::{Digest, DiskOptions, Limits, PackedLayer, build};
use tar::EntryType;

use crate::common::{
    Is, Layer, PLAIN, Place, chain, check, debugfs, disk, gzip, make_of, names, program, read,
    stat, zstd,
};

/// Something of everything that a layer can hold.
fn of_everything() -> Layer {
    let root = Is {
        mode: 0o751,
        owner: (0, 0),
        mtime: 5,
    };
    let sudo = Is {
        mode: 0o4755,
        owner: (0, 27),
        mtime: 1_234_567_890,
    };
    let home = Is {
        mode: 0o2770,
        owner: (1000, 100_000),
        mtime: 7,
    };
    let long = format!("srv/{}/{}", "d".repeat(200), "f".repeat(200));
    Layer::new()
        .directory_as("./", root)
        .file_as("./usr/bin/sudo", b"#!", sudo)
        .directory_as("home/ann/", home)
        .hard("usr/bin/su", "usr/bin/sudo")
        .symbolic("usr/bin/sh", "dash")
        .symbolic("usr/bin/far", &"x/".repeat(45))
        .device(EntryType::Char, "dev/null", (1, 3))
        .device(EntryType::Block, "dev/big", (259, 300))
        .device(EntryType::Fifo, "run/a pipe", (0, 0))
        .pax(
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\n=\0\xff\0\0\0\0\0\0\0\0\0\0\0\0",
        )
        .pax("SCHILY.xattr.user.note", b"two\nlines")
        .file("usr/bin/ping", "ping")
        .pax("path", long.as_bytes())
        .file("short", "long names")
        .file("etc/a \"quoted\" na\\me", "odd")
        .file("etc/ünï\tcode", "text")
        .file("etc/empty", "")
}

#[test]
fn owners_modes_times_links_devices_and_attributes_are_those_of_the_layer() {
    let place = disk(&[of_everything().bytes()]);
    let image = &place.image;
    let has = |path: &str, facts: &[&str]| {
        let stat = stat(image, path);
        let words = stat.split_whitespace().collect::<Vec<_>>().join(" ");
        for fact in facts {
            assert!(words.contains(fact), "{path}: no {fact} in {words}");
        }
    };
    has(
        "/",
        &[
            "Type: directory Mode: 0751",
            "mtime: 0x00000005",
            "ctime: 0x00000005",
        ],
    );
    has(
        "/usr/bin/sudo",
        &[
            "Mode: 04755",
            "User: 0 Group: 27",
            "Links: 2",
            "mtime: 0x499602d2",
            "ctime: 0x499602d2",
            "atime: 0x499602d2",
        ],
    );
    has("/usr/bin/su", &["Mode: 04755", "Links: 2"]);
    has("/home/ann", &["Mode: 02770", "User: 1000 Group: 100000"]);
    has(
        "/home",
        &[
            "Type: directory Mode: 0755",
            "User: 0 Group: 0",
            "mtime: 0x00000000",
        ],
    );
    has(
        "/usr/bin/sh",
        &["Type: symlink Mode: 0777", "Fast link dest: \"dash\""],
    );
    has("/usr/bin/far", &["Type: symlink", "Size: 90"]);
    has(
        "/dev/null",
        &["Type: character special Mode: 0620", "number: 01:03"],
    );
    has("/dev/big", &["Type: block special", "number: 259:300"]);
    has("/run/a pipe", &["Type: FIFO Mode: 0620"]);
    has(
        "/usr/bin/ping",
        &[
            "user.note (9)",
            "security.capability (20) = 01 00 00 02 0a 3d 00 ff",
        ],
    );
    assert_eq!(
        debugfs(image, "ea_get -V /usr/bin/ping user.note"),
        b"two\nlines"
    );
    assert_eq!(read(image, "/etc/a \"\"quoted\"\" na\\me"), "odd");
    assert_eq!(read(image, "/etc/ünï\tcode"), "text");
    assert_eq!(read(image, "/etc/empty"), "");
    let long = format!("/srv/{}/{}", "d".repeat(200), "f".repeat(200));
    assert_eq!(read(image, &long), "long names");
}

#[test]
fn layers_of_any_packing_and_the_wanted_digest_make_the_same_disk() {
    let plain = of_everything().bytes();
    let id = Some(Digest::of(&plain));
    let disks = [plain.clone(), gzip(&plain), zstd(&plain)].map(|packed| {
        let place = Place::new();
        make_of(&place, &[(&packed, id)], Limits::default()).unwrap();
        fs::read(&place.image).unwrap()
    });
    assert_eq!(Digest::of(&disks[0]), Digest::of(&disks[1]));
    assert_eq!(Digest::of(&disks[0]), Digest::of(&disks[2]));
}

const AS_ANOTHER: &str = "BROOD_ROOTFS_AS_ANOTHER";

/// Makes a disk where it is told to; by itself it makes none.
#[test]
fn as_another_user_it_makes_a_disk_where_it_is_told() {
    let Some(directory) = std::env::var_os(AS_ANOTHER).map(PathBuf::from) else {
        return;
    };
    let bytes = of_everything().bytes();
    let layer = PackedLayer {
        packed: Box::new(bytes.as_slice()),
        diff_id: None,
    };
    let (limits, options) = (Limits::default(), crate::common::SMALL);
    let image = directory.join("disk");
    let layers = [Ok::<_, brood_rootfs::BuildError>(layer)];
    build(layers, limits, options, &directory, &image).unwrap();
}

#[test]
fn root_and_another_user_make_the_same_bytes() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run something as another user");
        return;
    }
    let own = disk(&[of_everything().bytes()]);
    let theirs = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(theirs.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let program = tempfile::tempdir().unwrap();
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = program.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = Command::new(&copy)
        .args([
            "--exact",
            "disks::as_another_user_it_makes_a_disk_where_it_is_told",
        ])
        .env(AS_ANOTHER, theirs.path())
        .env("TMPDIR", theirs.path())
        .current_dir(theirs.path())
        .gid(NOBODY)
        .uid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    let image = theirs.path().join("disk");
    assert_eq!(fs::metadata(&image).unwrap().uid(), NOBODY);
    let (own, theirs) = (fs::read(&own.image).unwrap(), fs::read(&image).unwrap());
    assert_eq!(Digest::of(&own), Digest::of(&theirs));
}

#[test]
fn free_space_is_what_was_asked_for_whatever_is_in_it() {
    let mut many = Layer::new();
    for number in 0..3000 {
        many = many.file(&format!("usr/share/{number:04}"), "x");
    }
    let many = many.bytes();
    let big = Layer::new()
        .file_as("big", &vec![7; 20 << 20], PLAIN)
        .bytes();
    for layer in [many, big, Layer::new().bytes()] {
        for free in [0, 3 << 20, 1 << 30, 20 << 30] {
            let place = Place::new();
            let packed = PackedLayer {
                packed: Box::new(layer.as_slice()),
                diff_id: None,
            };
            let layers = [Ok::<_, brood_rootfs::BuildError>(packed)];
            let made = build(
                layers,
                Limits::default(),
                DiskOptions { free },
                place.directory.path(),
                &place.image,
            );
            if let Err(error) = made {
                panic!("{free}: {}", chain(&error));
            }
            let output = program("dumpe2fs")
                .arg("-h")
                .arg(&place.image)
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let field = |name: &str| -> u64 {
                let line = text.lines().find(|line| line.starts_with(name)).unwrap();
                line.rsplit(' ').next().unwrap().parse().unwrap()
            };
            assert!(field("Free blocks:") * 4096 >= free, "{free}: {text}");
            assert!(field("Free inodes:") * 16384 >= free, "{free}: {text}");
            let used = fs::metadata(&place.image).unwrap().blocks() * 512;
            assert!(
                used < (60 << 20),
                "{used} bytes of the host for {free} free ones"
            );
        }
    }
}

#[test]
fn nothing_but_the_disk_is_left_and_it_is_clean() {
    let place = disk(&[of_everything().bytes()]);
    let left: Vec<_> = fs::read_dir(place.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["disk"]);
    check(&place.image);
    assert_eq!(names(&place.image, "/dev"), ["big", "null"]);
}
