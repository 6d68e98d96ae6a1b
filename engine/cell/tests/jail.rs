//! What a cell can still reach: the descriptors it was handed and nothing else. Daughters inherit the jail.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use brood_cell::Cell;
use brood_testkit::{Host, descriptors};
use common::{ask, checkpoint_of, daughters_of, host};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// A mother, a daughter, a daughter of hers, a checkpoint and a warm daughter, all with disk layers and sealed memory.
fn line(host: &Host) -> Vec<(&'static str, Cell)> {
    let load = brood_bare_guest::mailbox::Command::BlkLoad {
        lba: 1,
        records: 8,
        seed: 1,
        count: 10,
    };
    let mut mother = host.bare(64, 2);
    ask(&mut mother, load);
    mother.seal().expect("seal");
    let checkpoint = checkpoint_of(&mut mother);
    let mut daughter = daughters_of(&mut mother, 1).remove(0);
    ask(&mut daughter, load);
    let granddaughter = daughters_of(&mut daughter, 1).remove(0);
    mother.pause().expect("pause");
    let parts = mother.template().expect("template");
    let mut warm = host.spawn();
    warm.load(host.kvm().as_fd(), &parts).expect("load");
    vec![
        ("mother", mother),
        ("daughter", daughter),
        ("granddaughter", granddaughter),
        ("checkpoint", checkpoint),
        ("warm daughter", warm),
    ]
}

#[test]
fn no_cell_has_a_capability_or_a_way_to_get_one() {
    let Some(host) = host() else { return };
    for (name, cell) in line(&host) {
        for thread in fs::read_dir(format!("/proc/{}/task", cell.pid())).expect("threads") {
            let path = thread.expect("a thread").path().join("status");
            let status = fs::read_to_string(path).expect("status");
            let field = |wanted: &str| {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'));
                line.map(str::trim)
                    .unwrap_or_else(|| panic!("no {wanted} in {status}"))
            };
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(field(set), "0000000000000000", "{name}: {set}");
            }
            assert_eq!(field("NoNewPrivs"), "1", "{name}");
        }
    }
}

#[test]
fn every_cell_sees_an_empty_read_only_root_and_namespaces_of_its_line() {
    let Some(host) = host() else { return };
    let cells = line(&host);
    for (name, cell) in &cells {
        let pid = cell.pid();
        let entries = fs::read_dir(format!("/proc/{pid}/root")).expect("its root");
        assert_eq!(entries.count(), 0, "{name}");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
        let mounts: Vec<Vec<&str>> = mounts
            .lines()
            .map(|line| line.split(' ').collect())
            .collect();
        assert_eq!(mounts.len(), 1, "{name}: {mounts:?}");
        // man 5 proc_pid_mountinfo: the mount point is the fifth field, its options the sixth.
        assert_eq!(mounts[0][4], "/", "{name}");
        let options: Vec<_> = mounts[0][5].split(',').collect();
        assert!(
            ["ro", "nosuid", "nodev", "noexec"]
                .iter()
                .all(|option| options.contains(option)),
            "{name}: {options:?}"
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/cwd")).expect("its directory"),
            Path::new("/")
        );
        for kind in ["mnt", "net", "ipc", "uts"] {
            assert_ne!(
                namespace(pid, kind),
                namespace(std::process::id(), kind),
                "{name}: {kind}"
            );
        }
    }
    let (mother, warm) = (cells[0].1.pid(), cells[4].1.pid());
    assert_ne!(
        namespace(mother, "net"),
        namespace(warm, "net"),
        "a warm daughter may be another tenant's"
    );
}

#[test]
fn a_cell_holds_kvm_events_sockets_memory_and_nameless_layers_and_no_directory() {
    let Some(host) = host() else { return };
    for (name, cell) in line(&host) {
        for (fd, target) in descriptors(cell.pid()) {
            let text = target.to_string_lossy();
            println!("{name}: {fd} {text}");
            let of_file = fs::metadata(format!("/proc/{}/fd/{fd}", cell.pid())).expect("open");
            assert!(
                !of_file.is_dir(),
                "{name}: descriptor {fd} is the directory {text}"
            );
            let handed = text == "/dev/kvm" || text == "/dev/null" || fd == 2;
            let made = [
                "anon_inode:kvm-",
                "anon_inode:[eventfd]",
                "anon_inode:[userfaultfd]",
                "anon_inode:[signalfd]",
                "socket:[",
            ]
            .iter()
            .any(|kind| text.starts_with(kind));
            let memory = text.starts_with("/memfd:brood-");
            let layer = target.starts_with(host.layers()) && text.ends_with(" (deleted)");
            assert!(
                handed || made || memory || layer,
                "{name}: descriptor {fd} is {text}"
            );
        }
    }
}

#[test]
fn what_an_engine_forgot_to_close_is_closed_when_a_cell_starts() {
    let Some(host) = host() else { return };
    let file = fs::File::open("/proc/self/stat").expect("a file");
    fcntl_setfd(&file, FdFlags::empty()).expect("left open across exec");
    let cell = host.bare(64, 1);
    let held = descriptors(cell.pid());
    assert!(
        held.iter().all(|(_, target)| !target.ends_with("stat")),
        "{held:?}"
    );
}

#[test]
fn a_sister_with_the_same_user_cannot_read_a_cells_memory() {
    let Some(host) = host() else { return };
    let cells = line(&host);
    // Capabilities belong to a thread (man 7 capabilities), so this one looks as a jailed sister would.
    let looker = std::thread::spawn(move || {
        let none = CapabilitySet::empty();
        let none = CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        set_capabilities(None, none).expect("capabilities are given up");
        assert!(
            can_read_memory(std::process::id()),
            "one's own memory is the counter-check"
        );
        for (name, cell) in cells {
            assert!(!can_read_memory(cell.pid()), "{name}");
        }
    });
    looker.join().expect("the looker's claims hold");
}

fn can_read_memory(pid: u32) -> bool {
    fs::File::open(format!("/proc/{pid}/mem")).is_ok()
}

fn namespace(pid: u32, kind: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace")
}
