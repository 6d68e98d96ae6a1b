//! Ends of a VM, ports, several vCPUs, and devices that are not there.

use std::thread;

use anyhow::{Result, ensure};
use brood_bare_guest::layout::{FREE_RAM, MAX_VCPUS};
use brood_bare_guest::mailbox::{Command, Fault, Width};
use brood_bare_guest::{LoadError, load};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

mod harness;
use harness::{End, MIB, Machine, kvm_present};

#[test]
fn triple_fault_shuts_the_machine_down() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let mut vcpu = Machine::new(64 * MIB, 1)?.vcpus()?.remove(0);
    vcpu.command(Command::Idle {})?;
    assert_eq!(vcpu.end(Command::TripleFault {})?, End::Shutdown);
    Ok(())
}

#[test]
fn wild_access_is_a_triple_fault_and_no_device_access() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let mut vcpu = Machine::new(64 * MIB, 1)?.vcpus()?.remove(0);
    assert_eq!(vcpu.end(Command::Read64 { addr: 64 * MIB })?, End::Shutdown);
    Ok(())
}

#[test]
fn port_writes_reach_the_host_in_their_width_and_the_guest_goes_on() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let machine = Machine::new(64 * MIB, 1)?;
    let mut vcpu = machine.vcpus()?.remove(0);
    for (width, bytes) in [(Width::Byte, 1), (Width::Word, 2), (Width::Long, 4)] {
        let end = vcpu.end(Command::PortOut {
            port: 0x604,
            value: 0x1234_5678,
            width,
        })?;
        assert_eq!(
            end,
            End::Port(0x604, 0x1234_5678_u32.to_le_bytes()[..bytes].to_vec())
        );
        assert_eq!(vcpu.run(1)?, End::Reply(0));
    }
    Ok(())
}

#[test]
fn time_stamps_go_forward_and_spinning_takes_time() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let machine = Machine::new(64 * MIB, 1)?;
    let mut vcpu = machine.vcpus()?.remove(0);
    let before = vcpu.command(Command::Rdtsc {})?;
    assert_eq!(
        vcpu.command(Command::Spin {
            iterations: 100_000
        })?,
        100_000
    );
    assert!(vcpu.command(Command::Rdtsc {})? > before + 10_000);
    Ok(())
}

#[test]
fn idle_vcpu_asks_again_when_there_is_no_command() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let machine = Machine::new(64 * MIB, 1)?;
    let mut vcpu = machine.vcpus()?.remove(0);
    for _ in 0..3 {
        assert_eq!(vcpu.run(1)?, End::Waiting);
    }
    Ok(())
}

#[test]
fn vcpus_storm_and_count_at_once_without_touching_each_others_memory() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let machine = Machine::new(256 * MIB, 4)?;
    let workers = machine
        .vcpus()?
        .into_iter()
        .zip(0_u64..)
        .map(|(mut vcpu, index)| {
            thread::spawn(move || -> Result<()> {
                let (start, bytes, seed) = (FREE_RAM + index * 2 * MIB, 2 * MIB, index);
                vcpu.start(Command::Storm { start, bytes, seed }, 50)?;
                let writes = vcpu.stop()?;
                ensure!(vcpu.command(Command::StormVerify { start, bytes, seed })? == writes);
                vcpu.start(
                    Command::Count {
                        addr: 128 * MIB + index * 8,
                    },
                    500,
                )
            })
        });
    for worker in workers.collect::<Vec<_>>() {
        worker.join().unwrap()?;
    }
    for index in 0..4 {
        assert_eq!(
            machine
                .memory
                .read_obj::<u64>(GuestAddress(128 * MIB + index * 8))?,
            500
        );
    }
    Ok(())
}

#[test]
fn every_vcpu_alone_runs_as_the_first_does() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let machine = Machine::new(64 * MIB, MAX_VCPUS)?;
    for mut vcpu in machine.vcpus()?.into_iter().rev() {
        assert_eq!(vcpu.command(Command::Spin { iterations: 5 })?, 5);
    }
    Ok(())
}

#[test]
fn absent_devices_are_a_fault_and_no_hang() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let machine = Machine::new(64 * MIB, 1)?;
    let mut vcpu = machine.vcpus()?.remove(0);
    let commands = [
        Command::Rng {},
        Command::BlkLoad {
            lba: 0,
            records: 1,
            seed: 1,
            count: 1,
        },
        Command::BlkVerify {},
        Command::BlkRead { lba: 0 },
        Command::BlkWrite { lba: 0, seed: 1 },
        Command::BlkFlush {},
        Command::VsockEcho { port: 1 },
        Command::VsockCount { port: 1 },
        Command::Nonsense {
            device: 0,
            seed: 1,
            rounds: 1,
        },
        Command::Nonsense {
            device: 9,
            seed: 1,
            rounds: 1,
        },
    ];
    for command in commands {
        assert_eq!(vcpu.fault(command)?, Fault::NoDevice, "{command:?}");
    }
    Ok(())
}

#[test]
fn shapes_that_the_guest_cannot_have_are_refused() -> Result<()> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)])?;
    for ram_bytes in [0, 2 * MIB, 5 * MIB, 64 << 30] {
        assert!(matches!(
            load(&memory, ram_bytes, 1),
            Err(LoadError::Ram { .. })
        ));
    }
    for vcpus in [0, 9] {
        assert!(matches!(
            load(&memory, 4 * MIB, vcpus),
            Err(LoadError::Vcpus { .. })
        ));
    }
    let hole = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
    assert!(matches!(
        load(&hole, 4 * MIB, 1),
        Err(LoadError::Memory { .. })
    ));
    Ok(())
}
