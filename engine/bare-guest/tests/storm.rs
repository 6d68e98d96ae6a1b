//! The write storm: whole when nothing is wrong, and not to be fooled when a write is lost.

use anyhow::Result;
use brood_bare_guest::layout::{FREE_RAM, PAGE};
use brood_bare_guest::mailbox::{Command, Fault, outcome};
use vm_memory::{Bytes, GuestAddress};

mod harness;
use harness::{End, MIB, Machine, Vcpu, kvm_present};

const BYTES: u64 = 4 * MIB;
const STORM: Command = Command::Storm {
    start: FREE_RAM,
    bytes: BYTES,
    seed: 7,
};
const VERIFY: Command = Command::StormVerify {
    start: FREE_RAM,
    bytes: BYTES,
    seed: 7,
};

fn one() -> Result<(Machine, Vcpu)> {
    let machine = Machine::new(64 * MIB, 1)?;
    let vcpu = machine.vcpus()?.remove(0);
    Ok((machine, vcpu))
}

fn page(machine: &Machine, index: u64) -> [u8; PAGE as usize] {
    let mut bytes = [0; PAGE as usize];
    machine
        .memory
        .read_slice(&mut bytes, GuestAddress(FREE_RAM + index * PAGE))
        .expect("guest memory is mapped");
    bytes
}

#[test]
fn undisturbed_storm_verifies_to_its_last_write() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (_machine, mut vcpu) = one()?;
    for rounds in [1, 3] {
        vcpu.start(STORM, rounds * BYTES / PAGE / 64)?;
        let writes = vcpu.stop()?;
        assert_eq!(vcpu.command(VERIFY)?, writes);
    }
    Ok(())
}

#[test]
fn page_of_an_earlier_round_is_found_by_verify() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one()?;
    vcpu.start(STORM, BYTES / PAGE / 64)?;
    let old = page(&machine, 100);
    vcpu.run(BYTES / PAGE / 64)?;
    vcpu.stop()?;
    machine
        .memory
        .write_slice(&old, GuestAddress(FREE_RAM + 100 * PAGE))?;
    assert_eq!(vcpu.fault(VERIFY)?, Fault::StormMismatch);
    Ok(())
}

#[test]
fn write_lost_under_a_running_storm_is_found_by_the_storm_itself() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one()?;
    vcpu.start(STORM, BYTES / PAGE / 64)?;
    let old = page(&machine, 100);
    vcpu.run(BYTES / PAGE / 64)?;
    machine
        .memory
        .write_slice(&old, GuestAddress(FREE_RAM + 100 * PAGE))?;
    let End::Reply(word) = vcpu.run(2 * BYTES / PAGE / 64)? else {
        panic!("the storm went on")
    };
    assert_eq!(outcome(word), Err((Fault::StormMismatch, 100)));
    Ok(())
}

#[test]
fn half_of_a_page_is_found() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one()?;
    vcpu.start(STORM, BYTES / PAGE / 64)?;
    let old = page(&machine, 5);
    vcpu.run(BYTES / PAGE / 64)?;
    vcpu.stop()?;
    machine
        .memory
        .write_slice(&old[2048..], GuestAddress(FREE_RAM + 5 * PAGE + 2048))?;
    assert_eq!(vcpu.fault(VERIFY)?, Fault::StormMismatch);
    Ok(())
}

#[test]
fn untouched_region_does_not_verify() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (_machine, mut vcpu) = one()?;
    assert_eq!(vcpu.fault(VERIFY)?, Fault::StormMismatch);
    Ok(())
}
