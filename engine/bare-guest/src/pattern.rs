//! What the guest writes where: every pattern is a function of its arguments alone, so host and guest compute the same.
//!
//! Words are little-endian `u64`s at addresses that are multiples of 8.

use crate::layout::PAGE;

/// Scatters a word (the finaliser of SplitMix64, Steele, Lea and Flood 2014): a bijection in which every input bit moves every output bit.
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The word that `Fill` leaves at `address`.
#[must_use]
pub const fn fill_word(seed: u64, address: u64) -> u64 {
    mix(seed ^ mix(address))
}

/// The word that `Touch` leaves at the start of the page at `address`.
#[must_use]
pub const fn touch_word(address: u64) -> u64 {
    mix(address)
}

/// A running checksum over words, sensitive to their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// Of no words at all.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Takes in the next word.
    #[must_use]
    pub const fn add(self, word: u64) -> Self {
        Self(
            (self.0 ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29),
        )
    }

    /// The checksum of all words so far, as `Checksum` and `BlkRead` reply it.
    #[must_use]
    pub const fn finish(self) -> u64 {
        mix(self.0)
    }
}

/// How the pages of a dirty loop lie in its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Next to each other from the start of the span.
    Clustered,
    /// One here, one there: the span is cut into as many equal strata as pages are dirtied, and each stratum has one page at a pseudo-random place.
    Scattered,
}

/// Index in the span of the `index`-th page that a dirty loop writes. All of them differ if `dirty_pages` is at most
/// `span_pages`; both must be below 2^32 and `index` below `dirty_pages`.
#[must_use]
pub const fn dirty_page(spread: Spread, span_pages: u64, dirty_pages: u64, index: u64) -> u64 {
    match spread {
        Spread::Clustered => index,
        Spread::Scattered => {
            let low = index * span_pages / dirty_pages;
            let high = (index + 1) * span_pages / dirty_pages;
            if high > low {
                low + mix(index) % (high - low)
            } else {
                low
            }
        }
    }
}

/// The order in which a write storm visits `pages` pages: a fixed stride that has no common factor with their number,
/// so that neighbours in time are far apart in memory and every page comes once per round.
#[must_use]
pub const fn storm_stride(pages: u64) -> u64 {
    // The golden section spreads visits evenly over the region.
    let mut stride = (pages / 1000) * 618 + (pages % 1000) * 618 / 1000 + 1;
    while greatest_common_divisor(stride, pages) != 1 {
        stride += 1;
    }
    stride
}

const fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The record that write number `sequence` (from 1) of a storm leaves at the start of the page at `address`, and
/// again at its end: (value, ¬value, sequence, address).
#[must_use]
pub const fn storm_record(seed: u64, sequence: u64, address: u64) -> [u64; 4] {
    let value = mix(seed ^ mix(sequence) ^ address);
    [value, !value, sequence, address]
}

/// Offsets in a page of the two copies of a storm record.
pub const STORM_RECORD_AT: [u64; 2] = [0, PAGE - 32];

/// 512-byte sectors in one block record of `BlkLoad`.
pub const BLOCK_SECTORS: u64 = 8;
/// Bytes of a sector, the unit of a block address (virtio 1.3 §5.2.4).
pub const SECTOR: u64 = 512;

/// Word `index` (0 to 63) of the sector `lba` that `BlkLoad` wrote with its write number `sequence`; the first three name all that the rest is made of.
#[must_use]
pub const fn block_word(seed: u64, sequence: u64, lba: u64, index: u64) -> u64 {
    match index {
        0 => seed,
        1 => sequence,
        2 => lba,
        _ => mix(seed ^ mix(sequence) ^ (lba * (SECTOR / 8) + index)),
    }
}
