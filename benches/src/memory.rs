//! What a daughter costs: private and proportional memory by the kernel's own count, and what the host has left.

use std::os::fd::AsFd;

use anyhow::Context;
use brood_bare_guest::mailbox::Command;
use brood_cell::Cell;
use brood_service::process;

use crate::fork::settle;
use crate::host::Host;
use crate::report::{Report, meminfo};

const DAUGHTERS: usize = 200;
const RAM_MIB: u64 = 128;
/// KVM's reverse maps and write tracking on PVM: 10 bytes a 4 KiB page of every memory slot.
const PVM_KIB_PER_MIB: f64 = 2.5;

/// 200 daughters of one sealed template that have each run and now idle.
pub(crate) fn density(host: &Host, report: &mut Report) -> anyhow::Result<()> {
    let name = "density/200";
    let mut template = host.bare(RAM_MIB, 1)?;
    settle(template.command(
        0,
        Command::Touch {
            start: 2 << 20,
            bytes: 62 << 20,
        },
    )?)?;
    template.pause()?;
    let parts = template.template()?;
    let before = meminfo("MemAvailable").context("no MemAvailable")?;
    let mut daughters = Vec::with_capacity(DAUGHTERS);
    for index in 0..DAUGHTERS {
        eprint!("\r{name:<40} {index:>5} of {DAUGHTERS}");
        let mut daughter = host.spawn()?;
        daughter.load(host.kvm.as_fd(), &parts)?;
        daughter.resume()?;
        settle(daughter.command(0, Command::Read64 { addr: 2 << 20 })?)?;
        daughters.push(daughter);
    }
    eprintln!();
    let after = meminfo("MemAvailable").context("no MemAvailable")?;
    for daughter in &daughters {
        let memory = process::memory(daughter.pid())?;
        report.kib(name, "private", memory.private_kib as f64);
        report.kib(name, "pss", memory.pss_kib as f64);
    }
    let each = (before as f64 - after as f64) / DAUGHTERS as f64;
    report.kib(name, "mem-available", each);
    report.kib(name, "pvm-tax", PVM_KIB_PER_MIB * RAM_MIB as f64);
    Cell::end_all(daughters)?;
    Ok(())
}
