//! The write storm: a region in which every page always carries a record that says which write made it, so that a torn
//! or lost write, or one that came from another VM, shows.
//!
//! Write number s (from 1) goes to the page at place (s - 1) mod n of storm order and replaces that page's write s - n.

use crate::mailbox::{Fault, Outcome};
use crate::memory::{self, Span};
use crate::pattern::{STORM_RECORD_AT, storm_record, storm_stride};
use crate::{Machine, port};

/// Pages written between two looks at the mailbox.
const BATCH: u64 = 64;

/// Storms until a command is pending. Replies the number of writes.
pub fn run(machine: Machine, span: Span, seed: u64) -> Outcome {
    let pages = span.page_count();
    let mut order = Order::new(pages);
    let mut sequence = 0;
    loop {
        sequence += 1;
        let page = order.next();
        let address = span.page(page);
        if sequence > pages {
            check(address, storm_record(seed, sequence - pages, address), page)?;
        }
        let record = storm_record(seed, sequence, address);
        for at in STORM_RECORD_AT {
            for (place, word) in (address + at..).step_by(8).zip(record) {
                memory::store(place, word);
            }
        }
        if sequence.is_multiple_of(BATCH) {
            port::tick(machine.vcpu);
            if sequence >= pages && port::pending() {
                return Ok(sequence);
            }
        }
    }
}

/// Checks every page against the newest write found. Replies that write's number.
pub fn verify(span: Span, seed: u64) -> Outcome {
    let pages = span.page_count();
    let newest = (0..pages)
        .map(|page| memory::load::<u64>(span.page(page) + 16))
        .fold(0, u64::max);
    if newest < pages {
        return Err((Fault::StormMismatch, u32::MAX));
    }
    let mut order = Order::new(pages);
    for place in 0..pages {
        // The last write at or before `newest` that fell on this place.
        let sequence = newest - (newest - 1 - place) % pages;
        let page = order.next();
        check(
            span.page(page),
            storm_record(seed, sequence, span.page(page)),
            page,
        )?;
    }
    Ok(newest)
}

fn check(address: u64, record: [u64; 4], page: u64) -> Result<(), (Fault, u32)> {
    for at in STORM_RECORD_AT {
        for (place, word) in (address + at..).step_by(8).zip(record) {
            if memory::load::<u64>(place) != word {
                return Err((Fault::StormMismatch, page as u32));
            }
        }
    }
    Ok(())
}

/// Storm order: all pages, again and again.
struct Order {
    pages: u64,
    stride: u64,
    page: u64,
}

impl Order {
    fn new(pages: u64) -> Self {
        Self {
            pages,
            stride: storm_stride(pages) % pages,
            page: 0,
        }
    }

    fn next(&mut self) -> u64 {
        let page = self.page;
        self.page = (page + self.stride) % self.pages;
        page
    }
}
