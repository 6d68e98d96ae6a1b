//! Power-off and reset as the guest asks for them: three one-byte I/O ports named by the FADT.
//!
//! Linux uses them because the FADT sets HW_REDUCED_ACPI and RESET_REG_SUP: power-off writes the sleep control
//! register (`acpi_hw_extended_sleep`), and only if both sleep registers have an address; reboot writes the reset
//! register (`acpi_reboot`).

/// Port of the sleep control register (ACPI 6.5 §4.8.3.7).
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// Port of the sleep status register; reads give zero, writes mean nothing.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// Port of the reset register (ACPI 6.5 §4.8.3.6).
pub const RESET_PORT: u16 = 0x602;
/// What the guest writes to [`RESET_PORT`].
pub const RESET_VALUE: u8 = 0x06;
/// The sleep type of S5, soft off, in the DSDT's `_S5_` package.
pub const S5_SLEEP_TYPE: u8 = 5;
/// What the guest writes to [`SLEEP_CONTROL_PORT`]: SLP_EN (bit 5) and SLP_TYP (bits 2–4).
pub const S5_VALUE: u8 = 1 << 5 | S5_SLEEP_TYPE << 2;

/// What a guest asks of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// S5: the machine ends.
    Off,
    /// The machine starts anew.
    Reset,
}

impl PowerRequest {
    /// The request that an `out` of `value` to `port` makes, if it makes one.
    pub const fn decode(port: u16, value: u8) -> Option<Self> {
        match (port, value) {
            (SLEEP_CONTROL_PORT, S5_VALUE) => Some(Self::Off),
            (RESET_PORT, RESET_VALUE) => Some(Self::Reset),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agreed_values_on_the_agreed_ports_are_requests() {
        assert_eq!(PowerRequest::decode(0x600, 0x34), Some(PowerRequest::Off));
        assert_eq!(PowerRequest::decode(0x602, 0x06), Some(PowerRequest::Reset));
        for (port, value) in [(0x600, 0x14), (0x600, 0x24), (0x601, 0x34), (0x602, 0x34)] {
            assert_eq!(PowerRequest::decode(port, value), None);
        }
    }
}
