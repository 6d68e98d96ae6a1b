//! The commands: what each does, what it replies, and its form on the wire, an opcode and four words.
//!
//! In all of them `start` and `addr` are guest-physical addresses, `bytes` is a length, `seed` names a pattern, `lba` is a
//! 512-byte sector. "Until pending" means that the command runs on until the host gives this vCPU its next one.

use crate::pattern::Spread;

/// Arguments of a command.
pub const ARGUMENT_COUNT: usize = 4;

/// Width of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Long,
}

/// An argument as a word on the wire.
trait Argument: Sized {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Option<Self>;
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $opcode:literal { $($field:ident: $kind:ty),* })*) => {
        /// One command. Every one replies once; a reply of 0 is not mentioned. How to read a reply: [`outcome`](super::outcome).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Command {
            $($(#[$doc])* $name {
                $(#[doc = concat!("The argument `", stringify!($field), "`, as the command's text explains it.")] $field: $kind,)*
            },)*
        }

        impl Command {
            /// The command as opcode (never 0) and arguments.
            #[must_use]
            pub fn encode(self) -> (u32, [u64; ARGUMENT_COUNT]) {
                match self {
                    $(Self::$name { $($field),* } => ($opcode, fill([$($field.to_word()),*])),)*
                }
            }

            /// The command that an opcode and its arguments say, or `None` if they say none.
            #[must_use]
            pub fn decode(opcode: u32, arguments: [u64; ARGUMENT_COUNT]) -> Option<Self> {
                let mut words = arguments.into_iter();
                match opcode {
                    $($opcode => Some(Self::$name { $($field: Argument::from_word(words.next()?)?),* }),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Does nothing; ends what ran "until pending" and leaves the vCPU in its blocking IN.
    Idle = 1 {}
    /// Writes [`touch_word`](crate::pattern::touch_word) at the start of each page. Replies the number of pages.
    Touch = 2 { start: u64, bytes: u64 }
    /// Until pending: increments the `u64` at the start of each of `pages` pages of the span, with one tick after every
    /// page, looking for a command once a pass. Which pages: [`dirty_page`](crate::pattern::dirty_page). Replies the number of increments.
    DirtyLoop = 3 { start: u64, bytes: u64, pages: u64, spread: Spread }
    /// Writes [`fill_word`](crate::pattern::fill_word) at every word. Replies the number of words.
    Fill = 4 { start: u64, bytes: u64, seed: u64 }
    /// Replies the [`Checksum`](crate::pattern::Checksum) of all words.
    Checksum = 5 { start: u64, bytes: u64 }
    /// Until pending: increments the `u64` at `addr`, with one tick each. Replies the number of increments.
    Count = 6 { addr: u64 }
    /// Replies the `u64` at `addr`, RAM or MMIO.
    Read64 = 7 { addr: u64 }
    /// Writes a `u64` anywhere outside the guest's own 2 MiB, RAM or MMIO.
    Write64 = 8 { addr: u64, value: u64 }
    /// Replies 64 bits of the entropy device.
    Rng = 9 {}
    /// `count` times, or until pending if `count` is 0: picks one of `records` (at most 4000) records of 8 sectors each
    /// from sector `lba` on, verifies what it last held, writes it full of [`block_word`](crate::pattern::block_word)s, reads back,
    /// verifies, ticks. The ledger of what each record holds lies in guest memory and stays in force from one
    /// command to the next, whatever the seed, while `lba` and `records` are the same. Replies the number of writes.
    BlkLoad = 10 { lba: u64, records: u64, seed: u64, count: u64 }
    /// Reads back and verifies every record that the ledger knows. Replies their number.
    BlkVerify = 11 {}
    /// Reads one sector. Replies the checksum of its 64 words.
    BlkRead = 12 { lba: u64 }
    /// Writes one sector, whose word at byte b of the disk is `fill_word(seed, b)`.
    BlkWrite = 13 { lba: u64, seed: u64 }
    /// Flushes the disk.
    BlkFlush = 14 {}
    /// Listens at vsock port `port`, accepts a connection from the host and echoes its bytes until it is closed, or until
    /// pending. After a transport reset it accepts anew. Replies the number of bytes echoed on the last connection.
    VsockEcho = 15 { port: u32 }
    /// Until pending: listens at vsock port `port`, accepts a connection from the host, sends it the `u64`s 0, 1, 2, … as far as its
    /// credit allows, with a tick after each packet; accepts anew, and from 0, after a close or a transport reset.
    /// Replies how many numbers the last connection was sent.
    VsockCount = 16 { port: u32 }
    /// Drives the device in register window `device` (0…8) with seeded nonsense in every register, descriptor and ring,
    /// and resets it, for `rounds` rounds. A device that believes an address may write anywhere in RAM from 2 MiB up. Replies the number of rounds.
    Nonsense = 17 { device: u64, seed: u64, rounds: u64 }
    /// Ends the VM with a triple fault. No reply.
    TripleFault = 18 {}
    /// Writes `value` to the I/O port `port`.
    PortOut = 19 { port: u16, value: u32, width: Width }
    /// Replies the time-stamp counter.
    Rdtsc = 20 {}
    /// Until pending, but at least one round: writes a [`storm_record`](crate::pattern::storm_record) to page after page of
    /// the region in [storm order](crate::pattern::storm_stride), and checks before each write that the page holds its record of one round
    /// ago. Ticks and looks for a command every 64 pages. Replies the number of writes.
    Storm = 21 { start: u64, bytes: u64, seed: u64 }
    /// Checks that every page of a storm's region holds exactly the record that it must hold after the last write that is
    /// to be found there. Replies that write's number. Give it to the vCPU that ran the storm: seen from elsewhere, one page may be half-written.
    StormVerify = 22 { start: u64, bytes: u64, seed: u64 }
    /// Runs a loop of register instructions. Replies the number of iterations.
    Spin = 23 { iterations: u64 }
}

fn fill<const N: usize>(words: [u64; N]) -> [u64; ARGUMENT_COUNT] {
    let mut arguments = [0; ARGUMENT_COUNT];
    for (argument, word) in arguments.iter_mut().zip(words) {
        *argument = word;
    }
    arguments
}

macro_rules! integer_argument {
    ($($kind:ty),*) => { $(impl Argument for $kind {
        fn to_word(self) -> u64 { self.into() }
        fn from_word(word: u64) -> Option<Self> { word.try_into().ok() }
    })* };
}
integer_argument!(u16, u32, u64);

impl Argument for Spread {
    fn to_word(self) -> u64 {
        match self {
            Self::Clustered => 0,
            Self::Scattered => 1,
        }
    }

    fn from_word(word: u64) -> Option<Self> {
        match word {
            0 => Some(Self::Clustered),
            1 => Some(Self::Scattered),
            _ => None,
        }
    }
}

impl Argument for Width {
    fn to_word(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Long => 4,
        }
    }

    fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Long),
            _ => None,
        }
    }
}
