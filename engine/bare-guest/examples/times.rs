//! What the bare guest costs on this machine: start-up, one exit, the first touch of memory. Prints medians; asserts nothing.
//!
//! `cargo run --release -p brood-bare-guest --example times`

use std::time::{Duration, Instant};

use anyhow::Result;
use brood_bare_guest::layout::{FREE_RAM, PAGE};
use brood_bare_guest::mailbox::Command;
use brood_bare_guest::pattern::Spread;

#[path = "../tests/harness/mod.rs"]
mod harness;
use harness::{End, MIB, Machine, kvm_present};

const RUNS: usize = 15;
const TICKS: u64 = 20_000;

fn main() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let mut first_exit = Vec::new();
    let (mut made, mut registers) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let start = Instant::now();
        let machine = Machine::new(256 * MIB, 1)?;
        made.push(start.elapsed());
        let start = Instant::now();
        let mut vcpu = machine.vcpus()?.remove(0);
        registers.push(start.elapsed());
        let start = Instant::now();
        anyhow::ensure!(
            vcpu.run(1)? == End::Waiting,
            "the guest did not ask for a command"
        );
        first_exit.push(start.elapsed());
    }
    report("memory, load, VM, slots, irqchip", &mut made, 1);
    report("vCPU, CPUID, registers", &mut registers, 1);
    report("first KVM_RUN to first exit", &mut first_exit, 1);
    exits()?;
    touches()
}

fn exits() -> Result<()> {
    let machine = Machine::new(256 * MIB, 1)?;
    let mut vcpu = machine.vcpus()?.remove(0);
    let mut ticks = Vec::new();
    vcpu.start(
        Command::DirtyLoop {
            start: FREE_RAM,
            bytes: MIB,
            pages: 256,
            spread: Spread::Clustered,
        },
        1,
    )?;
    for _ in 0..RUNS {
        let start = Instant::now();
        vcpu.run(TICKS)?;
        ticks.push(start.elapsed());
    }
    vcpu.stop()?;
    report("dirty loop, per tick", &mut ticks, TICKS);
    let mut commands = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..100 {
            vcpu.command(Command::Idle {})?;
        }
        commands.push(start.elapsed());
    }
    report("command and reply (11 exits)", &mut commands, 100);
    let mut accesses = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..100 {
            vcpu.command(Command::Read64 { addr: 0xd000_0000 })?;
        }
        accesses.push(start.elapsed());
    }
    report("the same with one MMIO read", &mut accesses, 100);
    Ok(())
}

fn touches() -> Result<()> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let machine = Machine::new(256 * MIB, 1)?;
        let mut vcpu = machine.vcpus()?.remove(0);
        vcpu.command(Command::Idle {})?;
        for times in [&mut first, &mut second] {
            let start = Instant::now();
            let pages = vcpu.command(Command::Touch {
                start: FREE_RAM,
                bytes: 128 * MIB,
            })?;
            times.push(start.elapsed());
            anyhow::ensure!(pages == 128 * MIB / PAGE, "not every page was touched");
        }
    }
    report("touch 128 MiB, fresh memory", &mut first, 1);
    report("touch 128 MiB, again", &mut second, 1);
    Ok(())
}

fn report(what: &str, times: &mut [Duration], per: u64) {
    times.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / per as f64;
    let (low, middle, high) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{what:34} p50 {:10.2} µs  (min {:.2}, max {:.2})",
        micros(middle),
        micros(low),
        micros(high)
    );
}
