//! What the store keeps, once, through failures and kills at each of its steps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use brood_rootfs::{Digest, Disk, Limits, RefKind, Source, Steps, Store, StoreError};

use crate::common::image::{TestImage, packed};
use crate::common::{SMALL, chain, check, read};

fn archive(directory: &Path) -> PathBuf {
    let path = directory.join("image.tar");
    fs::write(&path, packed(&TestImage::small().layout("v1"))).unwrap();
    path
}

/// Everything that a store does: an image in, a disk, names, a name less, garbage.
fn life(store: &Store, archive: &Path) -> Result<Disk, Box<dyn std::error::Error>> {
    let session = store.begin()?;
    let image = session.import(&Source::OciArchive(archive.to_owned(), None))?;
    session.name(RefKind::Image, "app:v1", image.manifest)?;
    let disk = session.disk(&image, SMALL)?;
    session.name(RefKind::Disk, "template one", disk.key)?;
    session.name(RefKind::Disk, "template two", disk.key)?;
    drop(session);
    store.forget(RefKind::Disk, "template two")?;
    store.collect()?;
    Ok(disk)
}

fn listed(root: &Path, part: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(part)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// What has a final name is whole, and every name leads to something.
fn is_sound(root: &Path) {
    let store = Store::open(root, Limits::default()).unwrap();
    for blob in listed(root, "blobs") {
        let found = Digest::of(&fs::read(&blob).unwrap()).hex();
        assert_eq!(blob.file_name().unwrap().to_str(), Some(found.as_str()));
    }
    for disk in listed(root, "disks") {
        check(&disk);
        assert_eq!(read(&disk, "/usr/bin/tool"), "newer tool");
    }
    store.collect().unwrap();
}

/// After a failure the same is done again, and then it is as if there had been none.
fn is_made_good(root: &Path, archive: &Path) {
    is_sound(root);
    let store = Store::open(root, Limits::default()).unwrap();
    if let Err(error) = life(&store, archive) {
        panic!("{}", chain(error.as_ref()));
    }
    is_sound(root);
    let parts = [
        "blobs",
        "disks",
        "partial",
        "tmp",
        "locks",
        "refs/images",
        "refs/disks",
    ];
    let counts = parts.map(|part| listed(root, part).len());
    assert_eq!(counts, [4, 1, 0, 0, 0, 1, 1], "{parts:?}");
}

#[test]
fn file_system_that_is_full_at_any_step_leaves_the_store_sound() {
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let mut failed = 0;
    for fails in 1_u64.. {
        let root = place.path().join(fails.to_string());
        let count = Arc::new(AtomicU64::new(0));
        let steps = Steps::told({
            let count = Arc::clone(&count);
            move |_, _| {
                if count.fetch_add(1, Ordering::SeqCst) + 1 == fails {
                    return Err(io::Error::from_raw_os_error(28));
                }
                Ok(())
            }
        });
        let done = Store::with_steps(&root, Limits::default(), steps)
            .map_err(Into::into)
            .and_then(|store| life(&store, &archive));
        if count.load(Ordering::SeqCst) < fails {
            done.unwrap();
            break;
        }
        let said = chain(done.expect_err("a step failed").as_ref());
        assert!(said.contains("No space left"), "{said}");
        is_made_good(&root, &archive);
        fs::remove_dir_all(&root).unwrap();
        failed += 1;
    }
    assert!(failed > 30, "{failed} steps failed");
}

const KILL: &str = "BROOD_ROOTFS_KILL";
/// How a child ends that lived to the end.
const LIVED: i32 = 42;

/// Lives the life of a store, and is killed at the step that it is told; by itself it does nothing.
#[test]
fn as_a_child_it_is_killed_where_it_is_told() {
    let Some(told) = std::env::var(KILL).ok() else {
        return;
    };
    let (fails, place) = told.split_once(' ').unwrap();
    let (fails, place): (u64, _) = (fails.parse().unwrap(), Path::new(place));
    let count = AtomicU64::new(0);
    let steps = Steps::told(move |_, _| {
        if count.fetch_add(1, Ordering::SeqCst) + 1 == fails {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
        }
        Ok(())
    });
    let store = Store::with_steps(&place.join("store"), Limits::default(), steps).unwrap();
    life(&store, &place.join("image.tar")).unwrap();
    std::process::exit(LIVED);
}

#[test]
fn process_that_is_killed_at_any_step_leaves_the_store_sound() {
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let root = place.path().join("store");
    let mut killed = 0;
    for fails in 1_u64.. {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let status = child
            .args(["--exact", "store::as_a_child_it_is_killed_where_it_is_told"])
            .env(KILL, format!("{fails} {}", place.path().display()))
            .output()
            .unwrap()
            .status;
        if status.code() == Some(LIVED) {
            break;
        }
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "step {fails}: {status}");
        if root.join("tmp").exists() {
            is_made_good(&root, &archive);
        }
        fs::remove_dir_all(&root).unwrap_or(());
        killed += 1;
    }
    assert!(killed > 30, "killed at {killed} steps");
}

/// A store whose steps are told to `hook`, in a directory with an archive.
fn told(
    place: &Path,
    hook: impl Fn(&'static str, &Path) -> io::Result<()> + Send + Sync + 'static,
) -> Store {
    Store::with_steps(&place.join("store"), Limits::default(), Steps::told(hook)).unwrap()
}

#[test]
fn two_who_want_the_same_disk_make_it_once() {
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let made = Arc::new(AtomicU64::new(0));
    // Both have seen that there is none before either has the lock.
    let both = Arc::new(Barrier::new(2));
    let store = told(place.path(), {
        let made = Arc::clone(&made);
        move |what, path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if what == "making" && name.starts_with("disk-") {
                both.wait();
            }
            if what == "making" && name == "disk" {
                made.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    let session = store.begin().unwrap();
    let image = session.import(&Source::OciArchive(archive, None)).unwrap();
    let keys: Vec<Digest> = std::thread::scope(|scope| {
        let builders = [(); 2]
            .map(|()| scope.spawn(|| store.begin().unwrap().disk(&image, SMALL).unwrap().key));
        builders.map(|builder| builder.join().unwrap()).to_vec()
    });
    assert_eq!(keys[0], keys[1]);
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

/// Bytes on the host of all that is in a directory.
fn host_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let own =
                std::os::unix::fs::MetadataExt::blocks(&fs::symlink_metadata(&path).unwrap()) * 512;
            own + if path.is_dir() { host_bytes(&path) } else { 0 }
        })
        .sum()
}

#[test]
fn twenty_templates_of_one_image_cost_one_image() {
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let root = place.path().join("store");
    let store = Store::open(&root, Limits::default()).unwrap();
    let mut one = 0;
    for number in 1..=20 {
        let session = store.begin().unwrap();
        let image = session
            .import(&Source::OciArchive(archive.clone(), None))
            .unwrap();
        let disk = session.disk(&image, SMALL).unwrap();
        session
            .name(RefKind::Image, "app:v1", image.manifest)
            .unwrap();
        session
            .name(RefKind::Disk, &format!("template {number}"), disk.key)
            .unwrap();
        drop(session);
        if number == 1 {
            one = host_bytes(&root);
        }
    }
    assert_eq!(listed(&root, "disks").len(), 1);
    // A name is a file of one block.
    let most = one + 19 * 4096 + 4096;
    assert!(
        host_bytes(&root) <= most,
        "{} bytes, one is {one}",
        host_bytes(&root)
    );
}

#[test]
fn garbage_is_what_no_name_leads_to() {
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let root = place.path().join("store");
    let store = Store::open(&root, Limits::default()).unwrap();
    let disk = life(&store, &archive).unwrap();
    assert_eq!(store.collect().unwrap(), brood_rootfs::Collected::default());
    // The disk does not need the image any more, nor the image the disk.
    assert!(store.forget(RefKind::Image, "app:v1").unwrap());
    let collected = store.collect().unwrap();
    assert_eq!((collected.blobs, collected.disks), (4, 0));
    assert!(disk.path.exists());
    assert!(store.forget(RefKind::Disk, "template one").unwrap());
    assert!(!store.forget(RefKind::Disk, "template one").unwrap());
    assert_eq!(store.collect().unwrap().disks, 1);
    assert!(!disk.path.exists());
}

#[test]
fn nothing_is_collected_beside_a_session_or_with_a_name_that_leads_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let root = place.path().join("store");
    let store = Store::open(&root, Limits::default()).unwrap();
    let session = store.begin().unwrap();
    assert!(matches!(store.collect(), Err(StoreError::Busy)));
    let image = session.import(&Source::OciArchive(archive, None)).unwrap();
    session
        .name(RefKind::Disk, "gone", Digest::of(b"no such disk"))
        .unwrap();
    drop(session);
    let said = chain(&store.collect().expect_err("a name leads nowhere"));
    assert!(said.contains("not in the store"), "{said}");
    assert_eq!(listed(&root, "blobs").len(), 4);
    assert_eq!(store.image(&image.manifest).unwrap(), image);
}

#[test]
fn names_are_moved_and_told_and_any_text_is_one() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store"), Limits::default()).unwrap();
    let odd = format!("docker.io/../{}/ü", "long".repeat(200));
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let session = store.begin().unwrap();
    session.name(RefKind::Disk, &odd, one).unwrap();
    session.name(RefKind::Disk, &odd, two).unwrap();
    assert_eq!(store.named(RefKind::Disk, &odd).unwrap(), two);
    let names = store.names(RefKind::Disk).unwrap();
    assert_eq!((names.len(), names[0].name.as_str()), (1, odd.as_str()));
    let none = store
        .named(RefKind::Image, "app")
        .expect_err("no such name");
    assert!(none.to_string().contains("'app'"));
}
