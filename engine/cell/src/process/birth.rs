//! Birth: a frozen point becomes a daughter with a machine of her own, or stays and serves as a checkpoint.
//!
//! Invariant: the daughter's guest does not run before all her state is in place and she has a generation id of her
//! own; one that cannot be made says why and ends, and never runs half made.

use std::os::fd::AsFd;

use brood_vmm::{Machine, now};

use super::fork::{Calling, Infant};
use super::microvm::Microvm;
use super::refusal::{because, refuse};
use crate::protocol::{BirthTimes, Event, FromCell, Refusal, Start, VERSION};
use brood_control::Control;

const BIRTH: &str = "birth";
const REMEDY: &str = "free memory, descriptors or processes on the host and fork again";

/// Makes an infant what she is to become and announces her; the exit code if she cannot be.
pub(super) fn begin(vm: &mut Microvm, infant: Infant) -> Result<Control, i32> {
    let Infant {
        index,
        born,
        control,
        calling,
    } = infant;
    let mut times = BirthTimes {
        born,
        created: born,
        restored: born,
    };
    let made = match calling {
        Calling::Daughter(start) => make(vm, &mut times).and_then(|()| match start {
            Start::Run => vm.resume(),
            Start::Hold => Ok(()),
        }),
        Calling::Checkpoint => vm.renew_ears().map_err(because(BIRTH, REMEDY)),
    };
    match made {
        Ok(()) if announce(&control, index, times) => {
            // Not before: nobody waits for it, and until then a read maps more clean pages than it needs.
            vm.ram.keep_clean_pages_unmapped();
            Ok(control)
        }
        Ok(()) => Err(1),
        Err(refusal) => Err(stillborn(&control, index, &refusal)),
    }
}

/// A machine over the inherited memory, with the inherited state.
fn make(vm: &mut Microvm, times: &mut BirthTimes) -> Result<(), Refusal> {
    vm.renew_ears().map_err(because(BIRTH, REMEDY))?;
    let (machine, fds) =
        Machine::create(&vm.host, &vm.ram, vm.vcpus.count()).map_err(because(BIRTH, REMEDY))?;
    times.created = now();
    settle(vm, machine, fds)?;
    times.restored = now();
    Ok(())
}

/// Puts the state in place: interrupt controllers, vCPUs, events, queues, generation id.
pub(super) fn settle(
    vm: &mut Microvm,
    machine: Machine,
    fds: Vec<brood_vmm::VcpuFd>,
) -> Result<(), Refusal> {
    let Some(standing) = &vm.standing else {
        return Err(refuse(
            BIRTH,
            "there is no state to start from",
            "fork again",
        ));
    };
    machine
        .load_irqchips(&standing.state)
        .map_err(because(BIRTH, REMEDY))?;
    vm.vcpus.give_fds(fds);
    vm.vcpus.load().map_err(because(BIRTH, REMEDY))?;
    let mut hardware = vm.shared.hardware();
    hardware.renew_events()?;
    hardware.attach(&machine)?;
    hardware.become_daughter()?;
    drop(hardware);
    vm.machine = Some(machine);
    vm.vcpus.start().map_err(because(BIRTH, REMEDY))
}

fn announce(control: &Control, index: u32, times: BirthTimes) -> bool {
    let pid = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let event = Event::Born {
        version: VERSION,
        index,
        times,
    };
    let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
    control.send(&FromCell::Event(event), &fds).is_ok()
}

fn stillborn(control: &Control, index: u32, refusal: &Refusal) -> i32 {
    let event = Event::Stillborn {
        index,
        reason: refusal.to_string(),
    };
    // If the engine has gone there is nobody to tell.
    control.send(&FromCell::Event(event), &[]).ok();
    1
}
