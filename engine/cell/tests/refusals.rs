//! Bad input is refused with operation, cause and remedy; where there is a mother, she runs on with her data.

mod common;

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command as Program, Stdio};

use brood_cell::protocol::{
    Checkpoint, DiskSpec, ForkSpec, GuestSpec, MAX_DAUGHTERS, MachineSpec, Refusal, Request, Start,
    VERSION,
};
use brood_cell::{Cell, CellError};
use brood_testkit::{Host, children_of, scratch, settle};
use common::{checkpoint_of, daughter_of, host, read, write};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

const MIB: u64 = 1 << 20;

fn machine(ram_bytes: u64, vcpus: u32, disk: Option<DiskSpec>) -> MachineSpec {
    MachineSpec {
        ram_bytes,
        vcpus,
        disk,
    }
}

fn linux() -> GuestSpec {
    GuestSpec::Linux {
        command_line: "console=ttyS0".to_owned(),
    }
}

/// A refusal, whose three parts all say something and whose cause says `words`.
#[expect(clippy::panic, reason = "a failed claim")]
fn refused<T: std::fmt::Debug>(result: Result<T, CellError>, operation: &str, words: &str) {
    let refusal = match result {
        Err(CellError::Refused(refusal)) => refusal,
        other => panic!("{operation}, {words}: not refused but {other:?}"),
    };
    println!("{refusal}");
    let Refusal {
        operation: named,
        cause,
        remedy,
    } = &refusal;
    assert!(
        named.contains(operation) && cause.contains(words),
        "wanted {operation:?} and {words:?}: {refusal:?}"
    );
    assert!(!remedy.is_empty(), "{refusal:?}");
}

fn refuses_boot(host: &Host, machine: &MachineSpec, files: &[BorrowedFd<'_>], words: &str) {
    let guest = GuestSpec::Bare;
    refused(host.spawn().boot(machine, &guest, files), "", words);
}

fn refuses_kernel(host: &Host, kernel: &File, initramfs: &File, words: &str) {
    let files = [host.kvm().as_fd(), kernel.as_fd(), initramfs.as_fd()];
    refused(
        host.spawn()
            .boot(&machine(64 * MIB, 1, None), &linux(), &files),
        "boot",
        words,
    );
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile(bytes.len() as u64);
    file.write_all(bytes).expect("write");
    file.rewind().expect("seek");
    file
}

/// A file without a name, all zero.
fn tempfile(bytes: u64) -> File {
    let file = File::from(
        memfd_create(
            c"brood-test",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )
        .expect("memfd"),
    );
    file.set_len(bytes).expect("truncate");
    file
}

#[test]
fn machines_that_cannot_be_are_refused() {
    let Some(host) = host() else { return };
    let kvm = [host.kvm().as_fd()];
    for (ram, vcpus, words) in [
        (64 * MIB, 0, "0 vCPUs"),
        (64 * MIB, 9, "9 vCPUs"),
        (64 * MIB, u32::MAX, "4294967295 vCPUs"),
        (0, 1, "too few"),
        (32 * MIB, 1, "too few"),
        (100 << 40, 1, "too many"),
        (u64::MAX, 1, "too many"),
        (64 * MIB + 4096, 1, "2 MiB"),
        (65 * MIB, 1, "2 MiB"),
    ] {
        refuses_boot(&host, &machine(ram, vcpus, None), &kvm, words);
    }
    for bytes in [0, 511, 1000] {
        refuses_boot(
            &host,
            &machine(64 * MIB, 1, Some(DiskSpec::Blank { bytes })),
            &kvm,
            "",
        );
    }
}

#[test]
fn descriptors_that_are_missing_or_something_else_are_refused() {
    let Some(host) = host() else { return };
    let kvm = host.kvm().as_fd();
    let plain = machine(64 * MIB, 1, None);
    let with_base = machine(64 * MIB, 1, Some(DiskSpec::Base));
    refuses_boot(&host, &plain, &[], "/dev/kvm");
    refuses_boot(&host, &with_base, &[kvm], "base image");
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("/dev/null");
    refuses_boot(&host, &plain, &[null.as_fd()], "");
    for base in [
        tempfile(1000),
        tempfile(0),
        File::open("/").expect("a directory"),
    ] {
        refuses_boot(&host, &with_base, &[kvm, base.as_fd()], "");
    }
    refused(
        host.spawn().boot(&plain, &linux(), &[kvm]),
        "boot",
        "the kernel",
    );
    refused(
        host.spawn().boot(&plain, &linux(), &[kvm, null.as_fd()]),
        "boot",
        "the initramfs",
    );
}

#[test]
fn kernels_that_are_none_are_refused() {
    let Some(host) = host() else { return };
    let initramfs = file_of(&[0; 512]);
    let noise: Vec<u8> = (0..100_000_u64)
        .map(|at| brood_bare_guest::pattern::mix(at) as u8)
        .collect();
    // The start of a bzImage (Linux boot protocol: the signature at 0x1fe, "HdrS" at 0x202), and then nothing.
    let mut truncated = vec![0_u8; 0x400];
    truncated[0x1f1] = 4;
    truncated[0x1fe..0x206].copy_from_slice(&[0x55, 0xaa, 0xeb, 0x66, b'H', b'd', b'r', b'S']);
    truncated[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    let elf = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    for bytes in [&noise[..], &[], &truncated, &elf, &[0; 4096]] {
        refuses_kernel(&host, &file_of(bytes), &initramfs, "");
    }
    refuses_kernel(
        &host,
        &File::open("/").expect("a directory"),
        &initramfs,
        "read the kernel",
    );
    refuses_kernel(
        &host,
        &File::open("/dev/zero").expect("/dev/zero"),
        &initramfs,
        "",
    );
}

#[test]
fn a_first_message_that_is_none_ends_the_cell_with_words() {
    let Some(host) = host() else { return };
    for garbage in [
        vec![0xff; 64],
        vec![0xff; 20_000],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let (ours, theirs) = seqpacket_pair();
        let mut cell = Program::new(env!("CARGO_BIN_EXE_brood-cell"))
            .stdin(Stdio::from(theirs))
            .spawn()
            .expect("the cell starts");
        send(&ours, &garbage, SendFlags::empty()).expect("sent");
        assert!(!cell.wait().expect("reaped").success());
        let mut said = vec![0; 4096];
        let (bytes, _) = rustix::net::recv(&ours, &mut said[..], rustix::net::RecvFlags::empty())
            .expect("words");
        let said = String::from_utf8_lossy(&said[..bytes]).into_owned();
        assert!(
            ["first message", "Boot, Load or Restore"]
                .iter()
                .all(|words| said.contains(words)),
            "{said:?}"
        );
    }
    let mut cell = host.spawn();
    refused(
        cell.done(Request::Stats, &[]),
        "first message",
        "neither Boot, Load nor Restore",
    );
    let boot = Request::Boot {
        version: VERSION + 1,
        machine: machine(64 * MIB, 1, None),
        guest: GuestSpec::Bare,
    };
    refused(
        host.spawn().done(boot, &[host.kvm().as_fd()]),
        "protocol",
        "version 3",
    );
    refused(
        host.spawn().done(Request::Load { version: 0 }, &[]),
        "protocol",
        "version 0",
    );
}

fn seqpacket_pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("socketpair")
}

#[test]
fn what_a_running_mother_cannot_do_is_refused_and_she_runs_on() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    write(&mut mother, 42);
    let kvm = host.kvm().as_fd();
    refused(
        mother.boot(&machine(64 * MIB, 1, None), &GuestSpec::Bare, &[kvm]),
        "boot",
        "already",
    );
    refused(
        mother.done(Request::Load { version: VERSION }, &[kvm]),
        "boot",
        "already",
    );
    refused(mother.template(), "template", "runs");
    refused(
        mother.fork(0, Checkpoint::Drop, Start::Run),
        "fork",
        "neither a daughter nor a checkpoint",
    );
    for daughters in [MAX_DAUGHTERS + 1, u32::MAX] {
        refused(
            mother.fork(daughters, Checkpoint::Keep, Start::Run),
            "fork",
            "at most 240",
        );
    }
    let (one, two) = seqpacket_pair();
    for (daughters, sockets) in [
        (1, vec![]),
        (1, vec![one.as_fd(), two.as_fd()]),
        (u32::MAX, vec![one.as_fd()]),
    ] {
        let spec = ForkSpec {
            daughters,
            checkpoint: Checkpoint::Drop,
            start: Start::Run,
        };
        refused(
            mother.done(Request::Fork(spec), &sockets),
            "fork",
            "sockets came for",
        );
    }
    let mailbox = |vcpu, operation| Request::Mailbox {
        vcpu,
        operation,
        arguments: [0; 4],
    };
    refused(mother.done(mailbox(1, 1), &[]), "mailbox", "no such");
    refused(mother.done(mailbox(0, 999), &[]), "mailbox", "no such");
    refused(
        mother.done(Request::VsockOpen { port: 1 }, &[]),
        "message",
        "one descriptor",
    );
    refused(mother.connect(1), "vsock", "not active");
    refused(
        mother.done(Request::GiveLayer, &[]),
        "message",
        "one descriptor",
    );
    refused(
        mother.done(Request::VsockListen, &[]),
        "message",
        "one descriptor",
    );
    assert_eq!(read(&mut mother), 42);
    assert_eq!(read(&mut daughter_of(&mut mother)), 42);
}

#[test]
fn what_a_checkpoint_cannot_do_is_refused_and_it_stays_forkable() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    write(&mut mother, 42);
    let mut checkpoint = checkpoint_of(&mut mother);
    refused(checkpoint.resume(), "resume", "frozen checkpoint");
    refused(checkpoint.seal().map(|_| ()), "seal", "frozen checkpoint");
    refused(checkpoint.template(), "template", "frozen checkpoint");
    refused(
        checkpoint.fork(0, Checkpoint::Drop, Start::Run),
        "fork",
        "neither",
    );
    checkpoint.pause().expect("it stands still already");
    assert_eq!(read(&mut daughter_of(&mut checkpoint)), 42);
    assert_eq!(read(&mut mother), 42);
}

#[test]
fn templates_that_are_none_are_refused() {
    let Some(host) = host() else { return };
    let kvm = host.kvm().as_fd();
    let load = |files: &[BorrowedFd<'_>]| {
        let mut cell: Cell = host.spawn();
        cell.done(Request::Load { version: VERSION }, files)
    };
    let noise: Vec<u8> = (0..10_000_u64)
        .map(|at| brood_bare_guest::pattern::mix(at) as u8)
        .collect();
    let (unsealed, garbage) = (tempfile(64 * MIB), file_of(&noise));
    refused(load(&[]), "load", "/dev/kvm");
    refused(load(&[kvm]), "load", "sealed RAM");
    refused(load(&[kvm, unsealed.as_fd()]), "load", "the state");
    for state in [
        &garbage,
        &file_of(&[]),
        &file_of(&[0xff; 64]),
        &File::open("/").expect("a directory"),
    ] {
        refused(load(&[kvm, unsealed.as_fd(), state.as_fd()]), "load", "");
    }
    let place = scratch();
    let plain = File::create_new(place.path().join("plain")).expect("a plain file");
    plain.set_len(64 * MIB).expect("truncate");
    for image in [&unsealed, &plain, &sealed(tempfile(MIB))] {
        let parts = parts_of_a_template(&host);
        refused(load(&[kvm, image.as_fd(), parts.as_fd()]), "load", "");
    }
    settle("no cell is left", || {
        children_of(std::process::id()).is_empty()
    });
}

/// A memfd nobody can write to any more.
fn sealed(file: File) -> File {
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW,
    )
    .expect("seals");
    file
}

/// The state of a real template, whose own image stays behind.
fn parts_of_a_template(host: &Host) -> File {
    let mut cell = host.bare(64, 1);
    cell.pause().expect("pause");
    let mut parts = cell.template().expect("template").into_files();
    File::from(parts.swap_remove(1))
}
