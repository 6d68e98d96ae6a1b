//! The kernel command line. Invariant: a [`Cmdline`] is printable ASCII that every x86 kernel takes whole.

/// The longest command line without its terminating zero: `COMMAND_LINE_SIZE` of x86 is 2048 with it.
pub const MAX_CMDLINE: usize = 2047;

/// The recommended command line. Each word and its reason; exits are those of one boot of Debian's 6.12 cloud kernel
/// until its init powers off, 251 with all of them:
///
/// - `console=ttyS0`: the 16550 at COM1 is the only console.
/// - `quiet loglevel=4`: a printed byte costs VM exits, and the boot messages some 41 000 of them, more time than the
///   boot itself under emulation. Errors and worse still appear.
/// - `reboot=acpi`: straight to the FADT reset register; no keyboard controller, no BIOS, no triple fault is tried.
/// - `panic=-1`: a panicking guest resets at once, which its cell sees, instead of standing still.
/// - `pci=off`: there is no PCI; 85 exits less. The kernel remarks "No config space access function found".
/// - `8250.nr_uarts=1`: one UART; 18 exits less.
/// - `tsc=reliable`: no clocksource watchdog. It would compare clocks across the gap that a checkpoint leaves and
///   call the TSC unstable; it also skips the TSC synchronisation test of each further CPU.
/// - `nowatchdog`: no soft and hard lockup detectors, which would report the time a machine stood still at a fork.
/// - `cryptomgr.notests`: no self tests of crypto algorithms at boot: 2.1 s instead of 3.1 s under emulation (medians of
///   eight).
///
/// Not needed, because the FADT says HW-reduced ACPI (no PIC, no PIT, no timer check) and no i8042, VGA or CMOS RTC:
/// `no_timer_check`, `noapic`, `i8042.*`. The wall clock comes from kvm-clock.
pub const CMDLINE: &str = "console=ttyS0 quiet loglevel=4 reboot=acpi panic=-1 pci=off 8250.nr_uarts=1 \
     tsc=reliable nowatchdog cryptomgr.notests";

/// [`CMDLINE`] with every boot message on the console.
pub const CMDLINE_DEBUG: &str = "console=ttyS0 reboot=acpi panic=-1 pci=off 8250.nr_uarts=1 \
     tsc=reliable nowatchdog cryptomgr.notests";

/// Why a text is no command line.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CmdlineError {
    /// Longer than the kernel reads.
    #[error(
        "kernel command line of {bytes} bytes is too long: at most {MAX_CMDLINE} are read; shorten it"
    )]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// A byte that is not printable ASCII.
    #[error(
        "kernel command line has byte {byte:#04x} at offset {offset}: only printable ASCII is allowed"
    )]
    NotPrintable {
        /// The byte.
        byte: u8,
        /// Where it stands.
        offset: usize,
    },
}

/// A kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmdline(String);

impl Cmdline {
    /// Takes `text` as it stands.
    ///
    /// # Errors
    /// More than [`MAX_CMDLINE`] bytes, or anything but printable ASCII.
    pub fn new(text: impl Into<String>) -> Result<Self, CmdlineError> {
        let text = text.into();
        if text.len() > MAX_CMDLINE {
            return Err(CmdlineError::TooLong { bytes: text.len() });
        }
        let printable = |byte: &u8| (b' '..=b'~').contains(byte);
        match text.bytes().enumerate().find(|(_, byte)| !printable(byte)) {
            Some((offset, byte)) => Err(CmdlineError::NotPrintable { byte, offset }),
            None => Ok(Self(text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text with its terminating zero, as the guest reads it.
    pub(super) fn to_guest_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.clone().into_bytes();
        bytes.push(0);
        bytes
    }
}

impl Default for Cmdline {
    /// The recommended command line, [`CMDLINE`].
    fn default() -> Self {
        Self(CMDLINE.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommended_lines_are_valid() {
        for line in [CMDLINE, CMDLINE_DEBUG] {
            assert_eq!(Cmdline::new(line).expect("valid").as_str(), line);
            assert!(!line.contains("  "), "{line}");
        }
    }

    #[test]
    fn longest_line_is_taken_and_one_more_byte_is_not() {
        assert!(Cmdline::new("x".repeat(MAX_CMDLINE)).is_ok());
        let refused = Cmdline::new("x".repeat(MAX_CMDLINE + 1));
        assert_eq!(refused, Err(CmdlineError::TooLong { bytes: 2048 }));
    }

    #[test]
    fn zero_newline_and_non_ascii_are_refused_with_their_place() {
        for (text, byte, offset) in [("a\0b", 0, 1), ("ab\n", 10, 2), ("é", 0xc3, 0)] {
            let refused = Cmdline::new(text);
            assert_eq!(refused, Err(CmdlineError::NotPrintable { byte, offset }));
        }
    }

    #[test]
    fn guest_bytes_end_with_one_zero() {
        assert_eq!(Cmdline::new("ab").expect("valid").to_guest_bytes(), b"ab\0");
    }
}
