//! Warm daughters: machines made in a fresh process from a sealed template, held before their first instruction.
//!
//! A fresh process has an address layout of its own, so daughters of a template may belong to different tenants.
//! Invariant: a warm daughter has every descriptor, mapping and register in place; a claim only lets her go.

use std::os::fd::OwnedFd;

use brood_vmm::boot::RamLayout;
use brood_vmm::{GuestRam, KvmHost, SealedRam, SealedRun};
use serde::{Deserialize, Serialize};

use super::jail;
use super::microvm::Microvm;
use super::parts::{self, Body, Parts};
use super::refusal::{because, refuse};
use crate::protocol::Refusal;

const TEMPLATE: &str = "template";
const LOAD: &str = "load";

/// Everything of a template but its memory and disk.
#[derive(Serialize, Deserialize)]
struct TemplateState {
    runs: Vec<SealedRun>,
    parts: Parts,
}

/// What warm daughters are made of: sealed RAM, state, disk files.
pub(super) fn template(vm: &mut Microvm) -> Result<Vec<OwnedFd>, Refusal> {
    if vm.machine.is_none() {
        return Err(refuse(
            TEMPLATE,
            "this is a frozen checkpoint",
            "fork it held and make the daughter a template",
        ));
    }
    parts::stand(vm, TEMPLATE)?;
    vm.ram
        .seal()
        .map_err(because(TEMPLATE, "free memory on the host"))?;
    let Some(sealed) = vm.ram.sealed() else {
        return Err(refuse(TEMPLATE, "RAM is not sealed", "report this"));
    };
    let image = sealed
        .fd()
        .try_clone_to_owned()
        .map_err(because(TEMPLATE, "raise the limit of open files"))?;
    let runs = sealed.runs().to_vec();
    let (parts, disk) = parts::read(vm, TEMPLATE)?;
    let mut fds = vec![image];
    fds.push(parts::to_file(&TemplateState { runs, parts }, TEMPLATE)?);
    fds.extend(disk);
    Ok(fds)
}

/// Makes a warm daughter of the parts of a template.
pub(super) fn load(fds: Vec<OwnedFd>) -> Result<Microvm, Refusal> {
    let mut fds = fds.into_iter();
    let mut next = |what: &str| {
        fds.next().ok_or_else(|| {
            refuse(
                LOAD,
                &format!("no descriptor for {what} came along"),
                "send all parts",
            )
        })
    };
    let host = KvmHost::new(next("/dev/kvm")?).map_err(because(LOAD, "run `brood doctor`"))?;
    let image = next("sealed RAM")?;
    let TemplateState { runs, parts } = parts::from_file(next("the state")?, LOAD)?;
    let disk: Vec<OwnedFd> = fds.collect();
    jail::enter()?;
    let anew = "make the template anew with this engine";
    let layout = RamLayout::new(parts.ram_bytes()).map_err(because(LOAD, anew))?;
    let sealed =
        SealedRam::from_parts(image, parts.ram_bytes(), runs).map_err(because(LOAD, anew))?;
    let ram = GuestRam::from_sealed(&layout.regions(), sealed)
        .map_err(because(LOAD, "free memory on the host"))?;
    let mut vm = parts.assemble(Body { host, ram, disk }, LOAD)?;
    vm.depth += 1;
    Ok(vm)
}
