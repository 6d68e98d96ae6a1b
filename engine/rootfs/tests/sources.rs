//! One image in every shape that images come in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use brood_rootfs::{Image, Limits, Source, SourceError, Store};

use crate::common::image::{TestImage, packed, write_all};
use crate::common::{Layer, SMALL, chain, gzip, read, stat};

struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Limits::default()).unwrap();
        Self { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn import(&self, source: &Source) -> Result<Image, SourceError> {
        self.store.begin().unwrap().import(source)
    }

    fn refusal(&self, source: &Source) -> String {
        chain(&self.import(source).expect_err("it is refused"))
    }
}

#[test]
fn layouts_and_archives_of_one_image_are_one_image() {
    let place = Place::new();
    let image = TestImage::small();
    let files = image.layout("v1");
    write_all(&place.path("layout"), &files);
    let archive = place.file("image.tar", &packed(&files));
    let saved = place.file("saved.tar", &image.docker("app:v1").bytes());
    let tag = Some("v1".to_owned());
    let sources = [
        Source::OciLayout(place.path("layout"), None),
        Source::OciLayout(place.path("layout"), tag.clone()),
        Source::OciArchive(archive, tag),
        Source::DockerArchive(saved, Some("app:v1".to_owned())),
    ];
    let session = place.store.begin().unwrap();
    let mut keys = Vec::new();
    for source in &sources {
        let image = place
            .import(source)
            .unwrap_or_else(|error| panic!("{source:?}: {}", chain(&error)));
        assert_eq!(image.config.user.as_deref(), Some("ann"));
        assert_eq!(image.config.working_dir.as_deref(), Some("/srv"));
        assert_eq!(image.layers.len(), 2);
        let disk = session.disk(&image, SMALL).unwrap();
        assert_eq!(read(&disk.path, "/usr/bin/tool"), "newer tool");
        assert!(stat(&disk.path, "/etc/group").is_empty());
        keys.push(disk.key);
    }
    keys.dedup();
    assert_eq!(keys.len(), 1);
}

#[test]
fn tar_file_of_any_packing_and_a_directory_are_images_of_one_layer() {
    let place = Place::new();
    let plain = Layer::new().file("etc/hostname", "made").bytes();
    let session = place.store.begin().unwrap();
    let keys = [plain.clone(), gzip(&plain)].map(|bytes| {
        let image = place
            .import(&Source::Tar(place.file("root.tar", &bytes)))
            .unwrap();
        session.disk(&image, SMALL).unwrap().key
    });
    assert_eq!(keys[0], keys[1]);

    let long = "n".repeat(120);
    for root in ["one", "two"] {
        let root = place.path(root);
        write_all(
            &root,
            &[
                ("etc/hostname".to_owned(), b"made".to_vec()),
                (format!("srv/{long}"), vec![7; 9000]),
            ],
        );
        symlink("../etc/hostname", root.join("srv/link")).unwrap();
        fs::hard_link(root.join("etc/hostname"), root.join("etc/same")).unwrap();
        fs::set_permissions(root.join("etc/hostname"), fs::Permissions::from_mode(0o600)).unwrap();
        let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        for name in ["", "etc", "srv", "etc/hostname", &format!("srv/{long}")] {
            fs::File::open(root.join(name))
                .unwrap()
                .set_times(old)
                .unwrap();
        }
        // A link's own time cannot be set by std; as a directory entry it is gone again.
        fs::remove_file(root.join("srv/link")).unwrap();
        fs::File::open(root.join("srv"))
            .unwrap()
            .set_times(old)
            .unwrap();
    }
    let disks = ["one", "two"].map(|root| {
        let image = place.import(&Source::Directory(place.path(root))).unwrap();
        session.disk(&image, SMALL).unwrap()
    });
    assert_eq!(disks[0].key, disks[1].key);
    let facts = stat(&disks[0].path, "/etc/same");
    assert!(
        facts.contains("Mode:  0600") && facts.contains("Links: 2"),
        "{facts}"
    );
    assert_eq!(read(&disks[0].path, &format!("/srv/{long}")).len(), 9000);
}

#[test]
fn directory_is_packed_without_following_its_links() {
    let place = Place::new();
    let secret = place.file("secret", b"of the host");
    let root = place.path("root");
    fs::create_dir(&root).unwrap();
    symlink(&secret, root.join("link")).unwrap();
    symlink(place.directory.path(), root.join("directory")).unwrap();
    let image = place.import(&Source::Directory(root)).unwrap();
    let disk = place.store.begin().unwrap().disk(&image, SMALL).unwrap();
    assert!(stat(&disk.path, "/link").contains("Type: symlink"));
    assert!(stat(&disk.path, "/directory").contains("Type: symlink"));
}

#[test]
fn source_that_is_something_else_is_refused_with_what_to_do() {
    let place = Place::new();
    let image = TestImage::small();
    let files = image.layout("v1");
    write_all(&place.path("layout"), &files);
    let wrong_tag = Source::OciLayout(place.path("layout"), Some("v2".to_owned()));
    assert!(
        place
            .refusal(&wrong_tag)
            .contains("no image 'v2', but these: v1")
    );
    let packed_archive = place.file("packed.tar.gz", &gzip(&packed(&files)));
    assert!(
        place
            .refusal(&Source::OciArchive(packed_archive, None))
            .contains("unpack it first")
    );
    let empty = place.file("empty.tar", &Layer::new().bytes());
    assert!(
        place
            .refusal(&Source::DockerArchive(empty, None))
            .contains("no 'manifest.json'")
    );
    assert!(
        place
            .refusal(&Source::Directory(place.path("none")))
            .contains("no directory")
    );
    let cut = packed(&files);
    let cut = place.file("cut.tar", &cut[..cut.len() / 2]);
    assert!(!place.refusal(&Source::OciArchive(cut, None)).is_empty());
}

#[test]
fn layer_that_was_changed_where_it_lies_is_refused_and_not_kept() {
    let place = Place::new();
    let image = TestImage::small();
    let mut files = image.layout("v1");
    let name = format!(
        "blobs/sha256/{}",
        brood_rootfs::Digest::of(&image.layers[0]).hex()
    );
    let (_, bytes) = files.iter_mut().find(|(of, _)| *of == name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let source = Source::OciArchive(place.file("image.tar", &packed(&files)), None);
    let said = place.refusal(&source);
    assert!(
        said.contains("where sha256:") && said.contains("thrown away"),
        "{said}"
    );
    let partial = place.path("store/partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0);
}
