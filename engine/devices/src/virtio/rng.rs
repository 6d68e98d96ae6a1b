//! virtio entropy device (virtio 1.3 §5.4): random bytes of the host's kernel, a bounded number for each request.
//!
//! It holds no state at all, hence nothing to fork: mother and daughter ask the same kernel and get different bytes.

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError};
use crate::virtio::device::{DeviceFault, Progress, VirtioDevice};
use crate::virtio::queue::VirtQueue;

/// Requests served in one round.
const REQUESTS_PER_ROUND: usize = 64;
/// Bytes given to one request at most; a driver that wants more asks again.
const BYTES_PER_REQUEST: u64 = 4096;

/// The entropy device.
#[derive(Debug, Default)]
pub struct Rng;

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_max_sizes(&self) -> &'static [u16] {
        &[64]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, _features: u64) {}

    fn process(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        mem: &GuestMemory,
    ) -> Result<Progress, DeviceFault> {
        let Some(queue) = queues.get_mut(index) else {
            return Ok(Progress::Idle);
        };
        let mut chain = Chain::default();
        for _ in 0..REQUESTS_PER_ROUND {
            if !queue.pop(mem, &mut chain)? {
                return Ok(Progress::Idle);
            }
            let written = fill(&chain, mem)?;
            queue.push_used(mem, chain.head(), written)?;
        }
        Ok(Progress::More)
    }

    fn reset(&mut self) {}
}

/// Fills the start of `chain` and says with how many bytes.
fn fill(chain: &Chain, mem: &GuestMemory) -> Result<u32, ChainError> {
    let wanted = chain.writable_len().min(BYTES_PER_REQUEST);
    if chain.readable_len() > 0 || wanted == 0 {
        return Err(ChainError::Shape {
            what: "entropy buffers are device-writable",
        });
    }
    let mut bytes = [0; 256];
    let mut written = 0;
    while written < wanted {
        let len = usize::try_from(wanted - written)
            .unwrap_or(bytes.len())
            .min(bytes.len());
        let Some(part) = bytes.get_mut(..len) else {
            break;
        };
        // Up to 256 bytes are never cut short by a signal (man 2 getrandom). An unseeded or refused pool ends the
        // request early, which the used length tells the driver.
        let filled = getrandom(&mut *part, GetRandomFlags::NONBLOCK).unwrap_or(0);
        let Some(random) = part.get(..filled).filter(|random| !random.is_empty()) else {
            break;
        };
        chain.write(mem, written, random)?;
        written += random.len() as u64;
    }
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}
