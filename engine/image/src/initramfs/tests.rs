//! An initramfs, seen as the tree it unpacks to.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A static program: an ELF header with no program headers but one.
fn program(segment: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for (offset, value) in [
        (16, 2_u8),
        (18, 62),
        (20, 1),
        (32, 64),
        (52, 64),
        (54, 56),
        (56, 1),
    ] {
        bytes[offset] = value;
    }
    bytes[64..68].copy_from_slice(&segment.to_le_bytes());
    bytes
}

struct Inputs {
    directory: tempfile::TempDir,
    agent: PathBuf,
    busybox: PathBuf,
    modules: Vec<Module>,
}

impl Inputs {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["agent", "busybox"] {
            let mut bytes = program(1);
            bytes.extend(name.as_bytes());
            fs::write(directory.path().join(name), bytes).expect("written");
        }
        fs::write(directory.path().join("dynamic"), program(3)).expect("written");
        let module = |name: &str| Module {
            path: format!("kernel/{name}.ko"),
            content: name.as_bytes().to_vec(),
        };
        Self {
            agent: directory.path().join("agent"),
            busybox: directory.path().join("busybox"),
            directory,
            modules: vec![module("virtio_mmio"), module("a_block")],
        }
    }

    fn build<'a>(
        &'a self,
        change: impl FnOnce(&mut InitramfsSpec<'a>),
    ) -> Result<Vec<u8>, InitramfsError> {
        let mut spec = InitramfsSpec {
            agent: &self.agent,
            busybox: Some((&self.busybox, APPLETS)),
            release: "6.12",
            modules: &self.modules,
            hostname: "brood",
        };
        change(&mut spec);
        build(&spec)
    }
}

fn contains(archive: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    archive.windows(needle.len()).any(|it| it == needle)
}

#[test]
fn archive_has_agent_shell_modules_and_console() {
    let archive = Inputs::new().build(|_| {}).expect("built");
    for path in [
        "init\0",
        "bin/sh\0",
        "dev/console\0",
        "lib/modules/6.12/kernel/virtio_mmio.ko\0",
        "etc/hostname\0",
    ] {
        assert!(contains(&archive, path), "{path:?}");
    }
}

#[test]
fn module_list_keeps_load_order_with_absolute_paths() {
    let archive = Inputs::new().build(|_| {}).expect("built");
    let list = "/lib/modules/6.12/kernel/virtio_mmio.ko\n/lib/modules/6.12/kernel/a_block.ko\n";
    assert!(contains(&archive, list));
}

#[test]
fn same_inputs_give_same_bytes_whatever_the_files_times_and_modes() {
    let one = Inputs::new();
    let other = Inputs::new();
    fs::set_permissions(&other.agent, fs::Permissions::from_mode(0o600)).expect("changed");
    assert_eq!(
        one.build(|_| {}).expect("built"),
        other.build(|_| {}).expect("built")
    );
}

#[test]
fn applets_are_links_to_busybox_and_none_without_it() {
    let inputs = Inputs::new();
    assert!(APPLETS.is_sorted() && APPLETS.contains(&"sh"));
    let archive = inputs.build(|spec| spec.busybox = None).expect("built");
    assert!(!contains(&archive, "bin/sh\0"));
}

#[test]
fn dynamic_program_and_script_are_refused_as_init() {
    let inputs = Inputs::new();
    let paths = ["dynamic", "script"].map(|name| inputs.directory.path().join(name));
    fs::write(&paths[1], b"#!/bin/sh\n").expect("written");
    for path in &paths {
        let refused = inputs.build(|spec| spec.agent = path);
        assert!(matches!(refused, Err(InitramfsError::NotStatic { .. })));
    }
}

#[test]
fn missing_agent_is_named() {
    let inputs = Inputs::new();
    let refused = inputs.build(|spec| spec.agent = Path::new("/nonexistent/agent"));
    let text = refused.expect_err("missing").to_string();
    assert!(text.contains("the agent /nonexistent/agent"), "{text}");
}

#[test]
fn host_names_with_newline_or_nothing_are_refused() {
    let long = "x".repeat(65);
    let inputs = Inputs::new();
    for hostname in ["", "a\nb", "-a", "a b", &long] {
        let refused = inputs.build(|spec| spec.hostname = hostname);
        assert!(matches!(refused, Err(InitramfsError::Hostname { .. })));
    }
}

#[test]
fn applet_that_is_a_path_is_refused() {
    let inputs = Inputs::new();
    let applets = &["../../etc/passwd"][..];
    let refused = inputs.build(|spec| spec.busybox = Some((&inputs.busybox, applets)));
    assert!(matches!(refused, Err(InitramfsError::Tree { .. })));
}
