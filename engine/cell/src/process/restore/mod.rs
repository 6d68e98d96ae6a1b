//! Restoring: a machine of a snapshot, which runs before its memory is read.
//!
//! ```text
//!  main thread   table, state, disk ─► RAM without pages ─► parts assembled ─► held ─► resumed …
//!  pager thread            waits for whoever touches a page: fetch the chunk, check it, put it there; else fetch ahead
//! ```
//!
//! Invariant: no byte of RAM is seen before its chunk was checked against the table's BLAKE3; a chunk that cannot be had
//! ends the machine with a reason. The pager never touches guest RAM and takes no lock that a thread may hold while it
//! does. Whatever wants all of RAM (a fork, a save, a sealing) waits until it is whole and the pager has ended.

mod pager;
mod sealed;
mod source;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use brood_control::{Control, LastWords, say};
use brood_snapshot::table::Table;
use brood_vmm::boot::RamLayout;
use brood_vmm::{GuestRam, Helper, KvmHost, Userfault};

use super::fork;
use super::jail;
use super::microvm::Microvm;
use super::parts::Body;
use super::refusal::{because, chain, refuse};
use super::save::SavedState;
use super::shared::{Notice, Shared};
use crate::protocol::{ChunkSource, Ending, Event, Fetch, FromCell, Refusal};
use pager::{Pager, PagerError, Progress};
use sealed::SealedBytes;
use source::Source;

const RESTORE: &str = "restore";
const SNAPSHOT: &str = "check the snapshot, or restore another";
const FILES: &str = "raise the limit of open files";

/// The thread that fills RAM, and how far it is.
pub(super) struct Filling {
    thread: Helper,
    progress: Arc<Progress>,
}

impl Filling {
    /// Chunks that are not needed yet come as fast as they can.
    pub(super) fn hurry(&self) {
        self.progress.hurry();
    }

    /// Chunks that nobody has touched come as well, in the background.
    pub(super) fn fetch_ahead(&self) {
        self.progress.fetch_ahead();
    }

    /// The chunks that somebody waited for so far, in order.
    pub(super) fn touched(&self) -> Vec<u32> {
        self.progress.touched()
    }

    /// Waits for the end of a thread that has said that RAM is whole; the chunks that somebody waited for.
    pub(super) fn end(self) -> Vec<u32> {
        self.thread.join();
        self.progress.touched()
    }
}

/// Makes a machine of a snapshot, held before its next instruction.
pub(super) fn restore(
    source: ChunkSource,
    fetch: Fetch,
    control: &Control,
    fds: Vec<OwnedFd>,
) -> Result<Microvm, Refusal> {
    let mut fds = fds.into_iter();
    let mut next = |what: &str| {
        let cause = format!("no descriptor for {what} came along");
        fds.next()
            .ok_or_else(|| refuse(RESTORE, &cause, "send all parts"))
    };
    let host = KvmHost::new(next("/dev/kvm")?).map_err(because(RESTORE, "run `brood doctor`"))?;
    let table = SealedBytes::map(next("the table")?).map_err(because(RESTORE, SNAPSHOT))?;
    let table = Table::parse(table).map_err(because(RESTORE, SNAPSHOT))?;
    let parts = SavedState::read(next("the state")?, RESTORE)?;
    let mut disk: Vec<OwnedFd> = fds.collect();
    let files = table.files() as usize;
    let Some(first) = disk.len().checked_sub(files) else {
        let cause = format!(
            "{} descriptors came for {files} files of chunks",
            disk.len()
        );
        return Err(refuse(RESTORE, &cause, "send all parts"));
    };
    let source = Source::new(source, disk.split_off(first)).map_err(because(RESTORE, SNAPSHOT))?;
    if table.ram_bytes() != parts.ram_bytes() {
        let (table, state) = (table.ram_bytes(), parts.ram_bytes());
        let cause = format!("the table is of {table} bytes of RAM, the state of {state}");
        return Err(refuse(RESTORE, &cause, SNAPSHOT));
    }
    // It needs what the jail gives up.
    let faults = Userfault::new().map_err(because(
        RESTORE,
        "start the engine as root, or set vm.unprivileged_userfaultfd to 1",
    ))?;
    jail::enter()?;
    let layout = RamLayout::new(parts.ram_bytes()).map_err(because(RESTORE, SNAPSHOT))?;
    let memory = because(RESTORE, "free memory on the host");
    let ram = GuestRam::new(&layout.regions()).map_err(memory)?;
    let pages = ram
        .fill_lazily(faults)
        .map_err(because(RESTORE, "run `brood doctor`"))?;
    let progress = Arc::new(Progress::new(fetch).map_err(because(RESTORE, FILES))?);
    let pager = Pager::new(pages, table, source, Arc::clone(&progress));
    let words = control
        .fd()
        .try_clone_to_owned()
        .map_err(because(RESTORE, FILES))?;
    let (whole, is_whole) = std::sync::mpsc::channel::<&'static Shared>();
    let thread = Helper::start(move || match pager.run() {
        // Whoever is told is there by now, or never will be.
        Ok(()) => is_whole.recv().into_iter().for_each(tell_whole),
        Err(error) => give_up(&Control::new(words), &error),
    })
    .map_err(because(RESTORE, "raise the limit of threads"))?;
    let mut vm = parts.assemble(Body { host, ram, disk }, RESTORE)?;
    if whole.send(vm.shared).is_err() {
        // It ends without being told only with the process.
        return Err(refuse(RESTORE, "the pager has ended", "report this"));
    }
    vm.filling = Some(Filling { thread, progress });
    Ok(vm)
}

fn tell_whole(shared: &'static Shared) {
    shared.notify(Notice::Whole);
}

/// The machine's end, by the pager: any other thread may be waiting for the page that does not come.
fn give_up(control: &Control, error: &PagerError) -> ! {
    let ending = Ending::Unreadable {
        chunk: error.chunk(),
        reason: chain(error),
    };
    say(&LastWords::ending(ending.to_string()));
    // If the engine has gone, or reads nothing, there is nobody to tell.
    control
        .send_at_once(&FromCell::Event(Event::Ended(ending)), &[])
        .ok();
    fork::exit(0)
}
