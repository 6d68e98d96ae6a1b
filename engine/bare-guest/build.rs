//! Compiles the guest program and links it into a flat image that the library includes.
//!
//! It calls `$RUSTC` itself rather than cargo, so that none of the host's flags (static glibc, sanitizers, coverage:
//! `CARGO_ENCODED_RUSTFLAGS`) reaches the guest, and needs only the host's own target.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

#[path = "src/layout.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the library's module, of which only the image's place is needed here"
)]
mod layout;

fn main() -> Result<(), Box<dyn Error>> {
    for input in [
        "build.rs",
        "guest",
        "src/layout.rs",
        "src/pattern.rs",
        "src/mailbox",
    ] {
        println!("cargo::rerun-if-changed={input}");
    }
    let variable =
        |name: &str| std::env::var_os(name).ok_or_else(|| format!("cargo sets no {name}"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let image = PathBuf::from(variable("OUT_DIR")?).join("guest.bin");

    let mut rustc = Command::new(variable("RUSTC")?);
    rustc
        .current_dir(&root)
        .arg("guest/main.rs")
        .arg("-o")
        .arg(&image);
    rustc.args([
        "--crate-name",
        "bare_guest",
        "--crate-type",
        "bin",
        "--edition",
        "2024",
    ]);
    rustc.args(["--target", "x86_64-unknown-linux-gnu", "-D", "warnings"]);
    for option in [
        "panic=abort",
        "opt-level=2",
        "codegen-units=1",
        "relocation-model=static",
        "debug-assertions=off",
    ] {
        rustc.arg("-C").arg(option);
    }
    let base = format!("-Wl,--defsym=image_base={:#x}", layout::IMAGE);
    let limit = format!("-Wl,--defsym=image_limit={:#x}", layout::IMAGE_BYTES);
    let script = format!("-T{}", root.join("guest/link.ld").display());
    let flat = "-Wl,--oformat=binary";
    let fixed = [
        "-nostartfiles",
        "-nodefaultlibs",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
    ];
    for argument in fixed.into_iter().chain([flat, &base, &limit, &script]) {
        rustc.arg("-C").arg(format!("link-arg={argument}"));
    }
    let status = rustc.status()?;
    if !status.success() {
        return Err(format!("compiling the guest program: {status}: {rustc:?}").into());
    }
    Ok(())
}
