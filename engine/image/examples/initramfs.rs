//! Builds an initramfs by hand, to try a kernel or an agent.
//!
//! ```text
//! initramfs MODULES AGENT BUSYBOX OUTPUT [RCS]
//! ```
//!
//! `MODULES` is a kernel's `lib/modules/RELEASE`. With busybox as the agent, `RCS` is the script it runs.

use std::fs;
use std::path::Path;

use brood_image::initramfs::{self, APPLETS, Entry, InitramfsSpec};
use brood_image::modules::{GUEST_MODULES, ModuleDirectory};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        [modules, agent, busybox, output] => build([modules, agent, busybox, output], None),
        [modules, agent, busybox, output, rcs] => {
            build([modules, agent, busybox, output], Some(rcs))
        }
        _ => Err("usage: initramfs MODULES AGENT BUSYBOX OUTPUT [RCS]".into()),
    }
}

fn build(paths: [&str; 4], rcs: Option<&str>) -> Result<(), Box<dyn std::error::Error>> {
    let [modules, agent, busybox, output] = paths.map(Path::new);
    let directory = ModuleDirectory::open(modules)?;
    let modules = directory.load(GUEST_MODULES)?;
    for module in &modules {
        println!("{:>8} {}", module.content.len(), module.path);
    }
    let mut tree = initramfs::tree(&InitramfsSpec {
        agent,
        busybox: Some((busybox, APPLETS)),
        release: directory.release(),
        modules: &modules,
        hostname: "brood",
    })?;
    if let Some(rcs) = rcs {
        tree.add("etc/init.d/rcS", Entry::File(0o755, fs::read(rcs)?))?;
    }
    let archive = tree.to_cpio();
    println!("{:>8} {}", archive.len(), output.display());
    fs::write(output, archive)?;
    Ok(())
}
