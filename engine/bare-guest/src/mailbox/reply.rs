//! Replies: one `u64` per command, in which one value in 2^32 says that the command failed.
//!
//! A failure is `FAULT_MARK` in the high half, the [`Fault`]'s code in bits 24–31, a detail below. A command whose
//! result may be any word (`Read64`, `Rng`, `Rdtsc`) can look like a failure with a chance of 2^-32.

const FAULT_MARK: u64 = 0xfa17_fa17;
const DETAIL_BITS: u32 = 24;

/// What a command came to: its result, or why it failed with a detail (saturated at 2^24 - 1).
pub type Outcome = Result<u64, (Fault, u32)>;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a command failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Fault { $($(#[$doc])* $name = $code,)* }

        impl Fault {
            const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

faults! {
    /// The guest does not know this opcode or these arguments.
    BadCommand = 1,
    /// The range is not aligned, is empty, or is not wholly in RAM above the guest's own 2 MiB.
    BadRange = 2,
    /// No virtio-mmio device of this kind answers. Detail: the virtio device id.
    NoDevice = 3,
    /// The device did not come up (features refused, queue too small). Detail: the device status register.
    BadDevice = 4,
    /// Another vCPU uses the device.
    Busy = 5,
    /// The device did not answer in time; it is reset at its next use.
    Timeout = 6,
    /// The device answered a block request with an error. Detail: the status byte.
    BlockStatus = 7,
    /// A block does not hold what was last written to it. Detail: the record's index.
    BlockMismatch = 8,
    /// A storm's page does not hold what the storm last wrote to it. Detail: the page's index.
    StormMismatch = 9,
    /// The device broke the protocol (used an unknown descriptor, overran the credit). Detail: a number that tells the place.
    Protocol = 10,
    /// The guest program panicked: a bug in it.
    Panic = 11,
}

/// Writes an outcome as the reply word.
#[must_use]
pub fn reply(outcome: Outcome) -> u64 {
    match outcome {
        Ok(value) => value,
        Err((fault, detail)) => {
            let detail = detail.min((1 << DETAIL_BITS) - 1);
            (FAULT_MARK << 32) | ((fault as u64) << DETAIL_BITS) | u64::from(detail)
        }
    }
}

/// Reads a reply word.
///
/// # Errors
/// The fault that the guest reports.
pub const fn outcome(reply: u64) -> Outcome {
    if reply >> 32 != FAULT_MARK {
        return Ok(reply);
    }
    match Fault::from_code((reply >> DETAIL_BITS) as u8) {
        Some(fault) => Err((fault, (reply & ((1 << DETAIL_BITS) - 1)) as u32)),
        None => Ok(reply),
    }
}
