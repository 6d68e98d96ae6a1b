//! Random bits from an entropy device (virtio 1.3 §5.4).

use super::device::{Device, ENTROPY};
use super::queue::{Buffer, WRITE};
use crate::mailbox::{Fault, Outcome};
use crate::memory::{load, store};

/// 64 bits. A device may give fewer bytes than asked for, so this asks until it has eight.
pub fn random() -> Outcome {
    let (device, _) = Device::open(ENTROPY, 1)?;
    let queue = device.queue(0);
    let buffer = device.buffers();
    store(buffer, 0_u64);
    let mut have = 0;
    while have < 8 {
        queue.describe(
            0,
            &Buffer {
                address: buffer + have,
                bytes: (8 - have) as u32,
                flags: WRITE,
            },
        );
        queue.offer(0);
        queue.notify();
        let bytes = u64::from(device.wait(queue, 0)?);
        if bytes == 0 || bytes > 8 - have {
            device.forsake();
            return Err((Fault::Protocol, bytes as u32));
        }
        have += bytes;
    }
    Ok(load(buffer))
}
