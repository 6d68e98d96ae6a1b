//! The template of the demo: booted, sealed, with a pool of warm daughters.

use std::time::Instant as Stopwatch;

use brood_service::fork::{Template, Warm, wall_clock_ns};
use brood_service::host::Host;
use brood_service::machine::Machine;

use super::member::{Being, Member, Row};
use super::say;
use super::step::SIZE;

/// Warm daughters held ready; the mother and two more are claimed.
const POOL: u32 = 3;

/// Boots a template, seals it and fills the pool.
pub(super) fn template(host: &Host) -> anyhow::Result<(Member, Vec<Warm>)> {
    say(&format!(
        "boot a template with a stock kernel: {} MiB, {} vCPU",
        SIZE.ram_mib, SIZE.vcpus
    ));
    let watch = Stopwatch::now();
    let mut machine = Machine::boot(host, SIZE, "")?;
    let kernel = machine.shell("uname -sr")?;
    let boot_us = watch.elapsed().as_secs_f64() * 1e6;
    let mut row = Row {
        id: machine.id.to_string(),
        mother: None,
        kind: "template",
        hostname: "template".to_owned(),
        machine_id: machine.id.to_string(),
        random: machine.shell("head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \\n'")?,
        count_at_fork: None,
        answer: kernel,
        pause_us: None,
        first_instruction_us: None,
        confirmed_us: None,
        first_answer_us: boot_us,
        private_kib: 0,
        pss_kib: 0,
    };
    println!(
        "  {}; first answer after {:.0} ms",
        row.answer,
        boot_us / 1000.0
    );
    let watch = Stopwatch::now();
    let template = Template::seal(machine)?;
    println!(
        "  quiesced, paused and sealed in {:.0} ms",
        watch.elapsed().as_secs_f64() * 1e3
    );
    let watch = Stopwatch::now();
    let pool: Vec<_> = (0..POOL)
        .map(|index| template.warm(host, index))
        .collect::<Result<_, _>>()?;
    println!(
        "  {POOL} warm daughters in {:.0} ms",
        watch.elapsed().as_secs_f64() * 1e3
    );
    row.id = template.id().to_string();
    Ok((
        Member {
            being: Being::Template(template),
            row,
            born_ns: wall_clock_ns(),
        },
        pool,
    ))
}
