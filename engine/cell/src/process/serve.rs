//! The main loop: control socket, notices of vCPUs, device queues and streams, by poll(2) on a list made anew each time.
//!
//! A list that is rebuilt has nothing a fork could inherit, which an epoll set does. Invariant: device work is done
//! in bounded rounds between two looks at the control socket, so a busy guest never delays a fork by more than one.
//! Unsafe: poll(2) on descriptors that are polled while their owners stand still.

use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use brood_bare_guest::mailbox::Command;
use brood_control::{Children, Control, LastWords, SocketError, say};
use brood_vmm::{VcpuEnd, now};

use super::birth;
use super::fork::{self, Forked, Infant};
use super::hardware::Work;
use super::microvm::Microvm;
use super::mouth::Mouth;
use super::parts;
use super::refusal::{because, check_version, refuse};
use super::restore::Filling;
use super::save;
use super::shared::Notice;
use super::warm;
use crate::protocol::{
    Ask, Ending, Event, MAX_UNITS, OrphanPolicy, Refusal, Reply, Request, Sealed, Stats, VERSION,
};

/// KVM_SYSTEM_EVENT_SHUTDOWN (KVM API 5).
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;

/// What a request comes to: the answer with its descriptors, and whether the cell goes on.
type Answer = Result<(Reply, Vec<OwnedFd>), Refusal>;

/// Why the loop was left.
enum Turn {
    /// The cell is over, with this exit code.
    Exit(i32),
    /// This process is one that came out of a fork.
    Infant(Infant),
}

/// Descriptors polled before those of the devices: control socket, vCPUs' bell, children, line of last words.
const OWN: usize = 4;

/// Serves a booted or loaded microVM until it ends; a daughter starts over here.
pub(super) fn serve(mut vm: Microvm, control: Control) -> ExitCode {
    let mut mouth = Mouth::new(control);
    loop {
        match run(&mut vm, &mut mouth) {
            Turn::Exit(code) => fork::exit(code),
            Turn::Infant(infant) => match birth::begin(&mut vm, infant) {
                // The mother's socket was closed with everything of hers: its number may be somebody else's by now.
                Ok(own) => std::mem::replace(&mut mouth, Mouth::new(own)).forget(),
                Err(code) => fork::exit(code),
            },
        }
    }
}

/// The loop.
fn run(vm: &mut Microvm, mouth: &mut Mouth) -> Turn {
    let mut fds: Vec<libc::pollfd> = Vec::new();
    let mut work = Work::default();
    let mut waiting = Vec::new();
    loop {
        fds.clear();
        fds.push(mouth.interest());
        fds.push(interest(vm.shared.bell(), libc::POLLIN));
        let children = vm
            .children
            .as_ref()
            .map(|children| children.fd().as_raw_fd());
        fds.push(interest(children.unwrap_or(-1), libc::POLLIN));
        fds.push(interest(libc::STDOUT_FILENO, 0));
        let moving = !vm.is_paused();
        if moving {
            vm.shared.hardware().interests(&mut fds);
        }
        poll(&mut fds, moving && work.more);
        for notice in vm.shared.take_notices() {
            if let Some(ending) = heard(vm, mouth, notice) {
                return finish(mouth, &ending);
            }
        }
        if vm.filling.is_none()
            && let Some((ask, files)) = waiting.pop()
            && let Some(turn) = answer(vm, mouth, ask, files)
        {
            return turn;
        }
        let seen = |at: usize| fds.get(at).map_or(0, |fd| fd.revents);
        let (control, line) = (seen(0), seen(3));
        if seen(2) != 0 {
            tell_children(vm, mouth);
        }
        if moving {
            let ready = fds.get(OWN..).unwrap_or_default();
            work = vm.shared.hardware().serve(ready);
            tell_work(vm, mouth, &mut work);
        }
        // Only a line of last words can break; what else standard output may be cannot.
        if line & (libc::POLLHUP | libc::POLLERR) != 0 {
            return finish(mouth, &Ending::Orphaned);
        }
        if control & libc::POLLOUT != 0 {
            mouth.flush();
        }
        if control & !libc::POLLOUT != 0 {
            match mouth.hear() {
                Ok(Some((ask, files))) if wants_all(&ask.request) && vm.filling.is_some() => {
                    put_off(vm, mouth, &mut waiting, (ask, files));
                }
                Ok(Some((ask, files))) => {
                    if let Some(turn) = answer(vm, mouth, ask, files) {
                        return turn;
                    }
                }
                Ok(None) | Err(SocketError::Malformed(_)) => {}
                Err(_) if vm.orphan == OrphanPolicy::Stay => mouth.close(),
                Err(_) => return finish(mouth, &Ending::Orphaned),
            }
        }
    }
}

/// Whether a restored machine's RAM must be whole before this is done: a fork inherits neither the pager nor its hold on
/// RAM, and whoever reads or replaces all of RAM would do so around pages that are still to come.
fn wants_all(request: &Request) -> bool {
    matches!(
        request,
        Request::Fork(_)
            | Request::Seal
            | Request::Template
            | Request::Collapse { .. }
            | Request::Save
            | Request::Fill
    )
}

/// Has RAM made whole and keeps the ask until it is. An engine has one ask under way; a second one is refused.
fn put_off(
    vm: &Microvm,
    mouth: &mut Mouth,
    waiting: &mut Vec<(Ask, Vec<OwnedFd>)>,
    asked: (Ask, Vec<OwnedFd>),
) {
    if !waiting.is_empty() {
        let refusal = refuse(
            asked.0.request.name(),
            "another ask waits until RAM is whole",
            "wait for its answer",
        );
        return mouth.answer(asked.0.id, Err(refusal), Vec::new());
    }
    waiting.push(asked);
    if let Some(filling) = &vm.filling {
        filling.hurry();
    }
}

fn tell_work(vm: &Microvm, mouth: &mut Mouth, work: &mut Work) {
    if work.guest_ran && vm.shared.saw_first() {
        mouth.tell(Event::FirstInstruction { at: now() }, Vec::new());
    }
    if work.wants_layer {
        mouth.tell(Event::WantsLayer, Vec::new());
    }
    for (port, stream) in work.connects.drain(..) {
        mouth.tell(Event::GuestConnect { port }, vec![stream]);
    }
}

fn tell_children(vm: &Microvm, mouth: &mut Mouth) {
    for ended in vm.children.iter().flat_map(Children::take_ended) {
        say(&LastWords::Child(ended));
        mouth.tell(Event::ChildEnded(ended), Vec::new());
    }
}

fn heard(vm: &mut Microvm, mouth: &mut Mouth, notice: Notice) -> Option<Ending> {
    match notice {
        Notice::FirstInstruction(at) => mouth.tell(Event::FirstInstruction { at }, Vec::new()),
        Notice::Reply { vcpu, value } => {
            mouth.tell(Event::MailboxReply { vcpu, value }, Vec::new());
        }
        Notice::Whole => {
            vm.touched = vm.filling.take().map(Filling::end);
            mouth.tell(Event::Whole, Vec::new());
        }
        Notice::PowerOff => return Some(Ending::PowerOff),
        Notice::Reboot => {
            let panic = vm.shared.hardware().kernel_panic();
            return Some(panic.map_or(Ending::Reboot, |message| Ending::Panic { message }));
        }
        Notice::Ended { vcpu, end } => {
            return Some(match end {
                VcpuEnd::TripleFault => Ending::TripleFault { vcpu },
                VcpuEnd::SystemEvent {
                    kind: SYSTEM_EVENT_SHUTDOWN,
                } => Ending::PowerOff,
                VcpuEnd::SystemEvent { .. } => Ending::Reboot,
                VcpuEnd::Refused { reason } => Ending::Refused { reason },
            });
        }
    }
    None
}

/// Answers one ask; a turn if the loop is left for it.
fn answer(vm: &mut Microvm, mouth: &mut Mouth, ask: Ask, files: Vec<OwnedFd>) -> Option<Turn> {
    let Ask { id, request } = ask;
    let killed = matches!(request, Request::Kill);
    let greeted = matches!(request, Request::Hello { .. });
    let answer = match request {
        Request::Fork(spec) => match fork::fork(vm, spec, files) {
            Ok(Forked::Infant(infant)) => return Some(Turn::Infant(infant)),
            Ok(Forked::Mother { times, point }) => Ok((Reply::Forked { times, point }, Vec::new())),
            Err(refusal) => Err(refusal),
        },
        request => handle(vm, request, files),
    };
    let (result, fds) = match answer {
        Ok((reply, fds)) => (Ok(reply), fds),
        Err(refusal) => (Err(refusal), Vec::new()),
    };
    mouth.answer(id, result, fds);
    // Whoever was asked before may have gone without giving it.
    if greeted && vm.shared.hardware().ask_again_for_layer() {
        mouth.tell(Event::WantsLayer, Vec::new());
    }
    killed.then(|| finish(mouth, &Ending::Killed))
}

fn handle(vm: &mut Microvm, request: Request, files: Vec<OwnedFd>) -> Answer {
    let done = |()| (Reply::Done, Vec::new());
    match request {
        // A fork is answered by whoever calls this.
        Request::Boot { .. }
        | Request::Load { .. }
        | Request::Restore { .. }
        | Request::Fork(_) => Err(refuse(
            "boot",
            "this cell has its machine already",
            "start another cell",
        )),
        Request::Resume => vm.resume().map(done),
        Request::Pause => vm.pause().map(done),
        Request::Seal => seal(vm).map(|reply| (reply, Vec::new())),
        Request::Collapse { units } => collapse(vm, &units).map(|reply| (reply, Vec::new())),
        Request::Template => warm::template(vm).map(|fds| (Reply::Template, fds)),
        Request::Save => save::save(vm, files).map(|fds| (Reply::Saved, fds)),
        // Its answer was put off until RAM was whole.
        Request::Fill => Ok(done(())),
        Request::WorkingSet => working_set(vm),
        Request::Stats => Ok((Reply::Stats(stats(vm)), Vec::new())),
        Request::Console { offset } => {
            let (lost, next, bytes) = vm.shared.hardware().console(offset);
            Ok((Reply::Console { lost, next, bytes }, Vec::new()))
        }
        Request::Mailbox {
            vcpu,
            operation,
            arguments,
        } => {
            let wrong = || {
                refuse(
                    "mailbox",
                    "no such vCPU or command",
                    "ask as brood_bare_guest::mailbox says",
                )
            };
            let command = Command::decode(operation, arguments).ok_or_else(wrong)?;
            let mailbox = vm.shared.mailbox(vcpu).filter(|_| vcpu < vm.vcpus.count());
            mailbox.ok_or_else(wrong)?.give(command);
            vm.vcpus.ring(vcpu);
            Ok(done(()))
        }
        Request::VsockOpen { port } => vm.shared.hardware().connect(port, one(files)?).map(done),
        Request::VsockListen => vm.shared.hardware().listen(one(files)?).map(done),
        Request::VsockServe { port } => {
            vm.shared.hardware().serve_port(port);
            Ok(done(()))
        }
        Request::GiveLayer => vm.shared.hardware().give_layer(one(files)?).map(done),
        Request::Orphan(policy) => {
            vm.orphan = policy;
            Ok(done(()))
        }
        Request::Kill => Ok(done(())),
        Request::Hello { version, nonce } => check_version(version).map(|()| {
            let (version, state) = (VERSION, vm.state());
            let hello = Reply::Hello {
                version,
                nonce,
                state,
            };
            (hello, Vec::new())
        }),
        Request::Name { id } => {
            vm.name = Some(id);
            Ok(done(()))
        }
    }
}

/// The chunks that were waited for; their record is complete.
fn working_set(vm: &Microvm) -> Answer {
    const WORKING_SET: &str = "working set";
    let Some(chunks) = vm
        .filling
        .as_ref()
        .map(Filling::touched)
        .or_else(|| vm.touched.clone())
    else {
        let cause = "this machine was not restored";
        return Err(refuse(WORKING_SET, cause, "ask the restored one"));
    };
    if let Some(filling) = &vm.filling {
        filling.fetch_ahead();
    }
    let bytes: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| chunk.to_le_bytes())
        .collect();
    let file = parts::in_memory(&bytes, WORKING_SET)?;
    // RAM has fewer chunks than that.
    let chunks = chunks.len() as u32;
    Ok((Reply::WorkingSet { chunks }, vec![file]))
}

fn one(files: Vec<OwnedFd>) -> Result<OwnedFd, Refusal> {
    let wrong = || refuse("message", "it needs exactly one descriptor", "send one");
    <[OwnedFd; 1]>::try_from(files)
        .map(|[file]| file)
        .map_err(|_| wrong())
}

fn seal(vm: &mut Microvm) -> Result<Reply, Refusal> {
    if vm.machine.is_none() {
        return Err(refuse(
            "seal",
            "this is a frozen checkpoint",
            "seal a daughter of it",
        ));
    }
    let began = now();
    let was_running = !vm.is_paused();
    vm.pause()?;
    let sealed = vm.ram.seal().map_err(because(
        "seal",
        "free memory on the host: the image needs as much as the guest has touched",
    ));
    if was_running {
        vm.resume()?;
    }
    let report = sealed?;
    Ok(Reply::Sealed(Sealed {
        image_bytes: report.image_bytes,
        huge_bytes: report.huge_bytes,
        paused_nanos: now().as_nanos().saturating_sub(began.as_nanos()),
    }))
}

fn collapse(vm: &mut Microvm, units: &[u32]) -> Result<Reply, Refusal> {
    const COLLAPSE: &str = "collapse";
    if vm.machine.is_none() || units.len() > MAX_UNITS {
        return Err(refuse(
            COLLAPSE,
            "this is a frozen checkpoint, or too much is asked for at once",
            &format!("collapse at most {MAX_UNITS} units of a machine at a time"),
        ));
    }
    let mut paused_nanos = Vec::with_capacity(units.len());
    for unit in units {
        let memory = because(COLLAPSE, "free memory on the host");
        let empty = vm.ram.prepare_collapse(*unit).map_err(&memory)?;
        let began = now();
        let ram = &vm.ram;
        vm.vcpus
            .while_stopped(|| ram.collapse(empty))
            .map_err(because(COLLAPSE, "the machine has ended; start another"))?
            .map_err(&memory)?;
        paused_nanos.push(now().as_nanos().saturating_sub(began.as_nanos()));
    }
    Ok(Reply::Collapsed { paused_nanos })
}

fn stats(vm: &Microvm) -> Stats {
    let times = vm.vcpus.times().next().unwrap_or_default();
    Stats {
        ticks: (0..vm.vcpus.count())
            .filter_map(|vcpu| Some(vm.shared.mailbox(vcpu)?.ticks()))
            .sum(),
        paused: vm.is_paused(),
        parked: times.parked,
        entered: times.entered,
        first_exit: times.first_exit,
        layers: vm.shared.hardware().layers(),
        depth: vm.depth,
        ram_address: vm.ram.address(),
        ram_bytes: vm.ram.bytes(),
    }
}

/// Says how it ended, and goes with the exit code for that.
fn finish(mouth: &mut Mouth, ending: &Ending) -> Turn {
    say(&LastWords::ending(ending.to_string()));
    mouth.tell(Event::Ended(ending.clone()), Vec::new());
    Turn::Exit(0)
}

fn interest(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

/// Waits until there is a first message, or the end of who could send it. Breaks where the supervisor has gone, which
/// leaves the other end open with an engine that may never use it.
pub(super) fn wait_for_first(control: &Control) -> ControlFlow<()> {
    loop {
        let mut fds = [
            interest(control.fd().as_raw_fd(), libc::POLLIN),
            interest(libc::STDOUT_FILENO, 0),
        ];
        poll(&mut fds, false);
        let [control, line] = fds.map(|fd| fd.revents);
        if control != 0 {
            return ControlFlow::Continue(());
        }
        if line & (libc::POLLHUP | libc::POLLERR) != 0 {
            return ControlFlow::Break(());
        }
    }
}

/// Waits for one of `fds`, or only looks when there is more work to do.
fn poll(fds: &mut [libc::pollfd], more: bool) {
    let timeout = if more { 0 } else { -1 };
    // SAFETY: the slice is live and of the given length; a negative descriptor is skipped by the kernel.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout) };
    if result < 0 {
        // Interrupted: nothing is known to be ready, so look again.
        fds.iter_mut().for_each(|fd| fd.revents = 0);
    }
}
