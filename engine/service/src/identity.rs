//! Fresh identities: what makes a daughter different, drawn from the host's generator.

use brood_agent_proto::{BootId, ForkToken, Seed};
use brood_units::MachineId;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha512};

/// A new machine id.
///
/// # Errors
/// The host's generator fails.
pub fn machine_id() -> anyhow::Result<MachineId> {
    Ok(MachineId::from_bytes(random()?))
}

/// A new boot id, a random UUID (RFC 9562 version 4).
///
/// # Errors
/// The host's generator fails.
pub fn boot_id() -> anyhow::Result<BootId> {
    let mut bytes: [u8; 16] = random()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(BootId(bytes))
}

/// The name of one quiesce.
///
/// # Errors
/// The host's generator fails.
pub fn fork_token() -> anyhow::Result<ForkToken> {
    Ok(ForkToken(random()?))
}

/// Randomness for one daughter's kernel. What is in `context` is added to it, and cannot take away from it: bytes that
/// nobody knows stay so, whatever they are combined with by exclusive or.
///
/// # Errors
/// The host's generator fails.
pub fn seed(context: &[u8]) -> anyhow::Result<Seed> {
    let mut bytes: [u8; 64] = random()?;
    if !context.is_empty() {
        for (byte, added) in bytes.iter_mut().zip(Sha512::digest(context)) {
            *byte ^= added;
        }
    }
    Ok(Seed::new(bytes))
}

/// So many bytes that nobody knows.
///
/// # Errors
/// The host's generator fails.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
