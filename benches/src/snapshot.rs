//! The rows of `bench snapshot`.
//!
//! A machine that has touched half of its RAM is saved once, to one file. Each sample of `lazy-restore` restores it:
//! `first-instruction` lasts from the engine's start of a process until the guest's first exit, which is an upper bound of
//! its first instruction. The table has the working set that one restore before all samples has recorded. `full-read` is
//! the same with all of RAM read before the guest runs. Sizes take turns, sample by sample, so that a slow moment of the
//! host is a slow moment of all. `snapshot-pause` is the pause of a mother of whom a checkpoint is taken and then saved,
//! in turn with a live fork of the same mother.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use brood_bare_guest::mailbox::Command;
use brood_bare_guest::pattern::Spread;
use brood_cell::Cell;
use brood_cell::protocol::{Checkpoint, ChunkSource, Fetch, Start};
use brood_testkit::{Image, sealed};

use crate::fork::{FREE, Plan, dirty_mother, rewrite, settle};
use crate::host::Host;
use crate::report::Report;

/// How long a save or a fill may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a restored guest runs before its working set is what it has touched.
const RECORD: Duration = Duration::from_millis(200);

/// Runs every wanted row.
pub(crate) fn run(host: &Host, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    restores(host, plan, report)?;
    if plan.wants("snapshot-pause/256MiB") {
        pauses(host, plan.samples, report)?;
    }
    Ok(())
}

/// A machine on disk.
struct Saved {
    size: &'static str,
    image: Image,
    table: File,
}

/// How RAM comes.
#[derive(Clone, Copy)]
enum Way {
    /// As it is touched.
    Lazily,
    /// All of it before the guest runs.
    First,
}

fn restores(host: &Host, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let ways = [(Way::Lazily, "lazy-restore"), (Way::First, "full-read")];
    let mut saved = Vec::new();
    for (size, mib) in [("256MiB", 256), ("1GiB", 1024), ("4GiB", 4096)] {
        if ways
            .iter()
            .any(|(_, way)| plan.wants(&format!("{way}/{size}")))
        {
            saved.push(save(host, size, mib)?);
        }
    }
    for sample in 0..plan.samples {
        for saved in &saved {
            for (way, word) in ways {
                let name = format!("{word}/{}", saved.size);
                if plan.wants(&name) {
                    eprint!("\r{name:<40} {sample:>5} of {}", plan.samples);
                    restore(host, saved, (way, &name), report)?;
                }
            }
        }
    }
    eprintln!();
    Ok(())
}

/// Saves a machine of `mib` MiB whose guest counts, and records the working set of a restore.
fn save(host: &Host, size: &'static str, mib: u64) -> anyhow::Result<Saved> {
    let mut cell = host.bare(mib, 1)?;
    let bytes = (mib << 20) / 2 - FREE;
    settle(cell.command(0, Command::Touch { start: FREE, bytes })?)?;
    cell.begin_command(0, Command::Count { addr: FREE })?;
    cell.pause()?;
    let image = Image::of(&mut cell);
    cell.end()?;
    let plain = sealed(&image.table(&[]));
    let mut first = host.spawn()?;
    let parts = image.parts(&host.kvm, &plain, &image.chunks);
    first.restore(&parts, ChunkSource::Files, Fetch::OnlyTouched)?;
    first.resume()?;
    first.first_instruction()?;
    std::thread::sleep(RECORD);
    let working_set = first.working_set()?;
    first.end()?;
    let table = sealed(&image.table(&working_set));
    Ok(Saved { size, image, table })
}

fn restore(
    host: &Host,
    saved: &Saved,
    (way, name): (Way, &str),
    report: &mut Report,
) -> anyhow::Result<()> {
    let parts = saved
        .image
        .parts(&host.kvm, &saved.table, &saved.image.chunks);
    let asked = brood_vmm::now();
    let mut cell = host.spawn()?;
    let spawned = brood_vmm::now();
    let fetch = match way {
        Way::Lazily => Fetch::Ahead,
        Way::First => Fetch::AtOnce,
    };
    cell.restore(&parts, ChunkSource::Files, fetch)?;
    if let Way::First = way {
        cell.fill(PATIENCE)?;
    }
    let restored = brood_vmm::now();
    cell.resume()?;
    let first = cell.first_instruction()?;
    report.micros(name, "first-instruction", first.micros_since(asked));
    for (stage, from, to) in [
        ("spawn", asked, spawned),
        ("restore", spawned, restored),
        ("run", restored, first),
    ] {
        report.micros(name, &format!("stage/{stage}"), to.micros_since(from));
    }
    cell.end()?;
    Ok(())
}

/// One mother, of whom a checkpoint is taken and saved, and a daughter, in turn.
fn pauses(host: &Host, samples: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut mother = dirty_mother(host, 256, 1, Spread::Clustered)?;
    let row = "snapshot-pause/256MiB";
    for sample in 0..samples {
        eprint!("\r{row:<40} {sample:>5} of {samples}");
        for (name, daughters, kept) in [
            (row, 0, Checkpoint::Keep),
            ("live-fork/256MiB", 1, Checkpoint::Drop),
        ] {
            rewrite(&mut mother)?;
            mother.collapse()?;
            mother.clear_events();
            let fork = mother.fork(daughters, kept, Start::Run)?;
            let again = mother.first_instruction()?;
            report.micros(name, "mother-pause", again.micros_since(fork.times.asked));
            let daughters = fork.daughters.into_iter().collect::<Result<Vec<_>, _>>()?;
            Cell::end_all(daughters)?;
            if let Some(checkpoint) = fork.checkpoint {
                let began = brood_vmm::now();
                drain(checkpoint?)?;
                report.micros(name, "save", brood_vmm::now().micros_since(began));
            }
        }
    }
    eprintln!();
    mother.end()?;
    Ok(())
}

/// Saves a checkpoint to a reader that keeps nothing, beside its mother.
fn drain(mut checkpoint: Cell) -> anyhow::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let reader =
        std::thread::spawn(move || io::copy(&mut Read::by_ref(&mut ours), &mut io::sink()));
    checkpoint.save(theirs.into(), PATIENCE)?;
    let copied = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of a save panicked"))?;
    anyhow::ensure!(copied? > 0, "a save wrote nothing");
    checkpoint.end()?;
    Ok(())
}
