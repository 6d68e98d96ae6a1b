//! How long saving and planning take here: `cargo run --release -p brood-snapshot --example measure -- DIR [MIB]`.
//!
//! It saves pseudo-random RAM through a socket, as a frozen cell does, then the same with 10 MiB changed; then it opens and
//! plans snapshots of several sizes, thirty times each.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::BufWriter;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use brood_snapshot::manifest::Meta;
use brood_snapshot::stream::Writer;
use brood_snapshot::{CHUNK, SaveSpec, SnapshotStore};
use brood_units::SnapshotId;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = arguments
        .next()
        .ok_or("name a directory that is not there")?;
    let mib = match arguments.next() {
        Some(text) => text.to_string_lossy().parse()?,
        None => 1024,
    };
    let directory = Path::new(&directory);
    let store = SnapshotStore::open(directory)?;
    let mut ram = vec![0; mib << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut ram);
    println!("RAM {mib} MiB, pseudo-random");
    save(&store, 1, &ram, "the first")?;
    let changed = ram.len() / 2..ram.len() / 2 + (10 << 20);
    for byte in ram.get_mut(changed).ok_or("more than 20 MiB")? {
        *byte ^= 1;
    }
    save(&store, 2, &ram, "10 MiB changed")?;
    save(&store, 3, &ram, "nothing changed")?;
    drop(ram);
    for mib in [256, 1024, 4096] {
        plans(&directory.join(format!("plan-{mib}")), mib)?;
    }
    Ok(())
}

fn save(store: &SnapshotStore, number: u8, ram: &[u8], what: &str) -> Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let begun = Instant::now();
    let saved = std::thread::scope(|scope| {
        let cell = scope.spawn(move || {
            let mut writer = Writer::new(theirs, ram.len() as u64);
            for (at, part) in ram.chunks(32 << 20).enumerate() {
                writer.write((at << 25) as u64, part)?;
            }
            writer.finish().map(drop)
        });
        let saved = store.save(SaveSpec {
            id: SnapshotId::from_bytes([number; 16]),
            meta: Meta::default(),
            ram_bytes: ram.len() as u64,
            ram: ours,
            state: &[7; 20_000],
            disks: &[],
        });
        cell.join().map_err(|_| "the cell's side panicked")??;
        Ok::<_, Box<dyn Error>>(saved?)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "save, {what}: {seconds:.3} s, {:.0} MiB/s of RAM, {} bytes of chunks and {} others written",
        ram.len() as f64 / seconds / 1_048_576.0,
        saved.new_bytes,
        saved.other_bytes
    );
    Ok(())
}

/// A snapshot of that size, each chunk of another content but few of them written: what counts is the table.
fn plans(directory: &Path, mib: usize) -> Result<()> {
    let store = SnapshotStore::open(directory)?;
    let chunks = (mib << 20) / CHUNK;
    let mut stream = BufWriter::new(Vec::new());
    let mut writer = Writer::new(&mut stream, (chunks * CHUNK) as u64);
    let mut page = [0; 4096];
    for chunk in 0..chunks {
        page[..8].copy_from_slice(&(chunk as u64 + 1).to_le_bytes());
        writer.write((chunk * CHUNK) as u64, &page)?;
    }
    writer.finish()?;
    let id = SnapshotId::from_bytes([1; 16]);
    store.save(SaveSpec {
        id,
        meta: Meta::default(),
        ram_bytes: (chunks * CHUNK) as u64,
        ram: &stream.into_inner().map_err(|error| error.into_error())?[..],
        state: &[7; 20_000],
        disks: &[],
    })?;
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..30 {
        let begun = Instant::now();
        let snapshot = store.snapshot(id)?;
        times.entry("open").or_default().push(millis(begun));
        let begun = Instant::now();
        drop(store.plan(&snapshot)?);
        times.entry("plan").or_default().push(millis(begun));
    }
    for (what, mut times) in times {
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times.get(times.len() * part / 100).copied();
        println!(
            "{what}, {mib} MiB: p50 {:.2} ms, p90 {:.2} ms",
            at(50).unwrap_or(0.0),
            at(90).unwrap_or(0.0)
        );
    }
    Ok(())
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
