//! What the devices wait for, and what they do when it comes.
//!
//! Invariant: each round is bounded, whatever the guest has queued.

use std::os::fd::{AsRawFd, OwnedFd};

use brood_devices::virtio::Events;
use brood_devices::virtio::block::{MERGE_ABOVE, MergeStep};
use brood_devices::virtio::vsock::VsockToken;
use rustix::event::PollFlags;

use super::Hardware;

/// Blocks copied in one background step.
const MERGE_BLOCKS: u32 = 64;

/// What a round of device work found.
#[derive(Debug, Default)]
pub(in crate::process) struct Work {
    /// More is to be done without waiting.
    pub(in crate::process) more: bool,
    /// A queue was kicked: the guest ran.
    pub(in crate::process) guest_ran: bool,
    /// The disk waits for a layer and has not said so yet.
    pub(in crate::process) wants_layer: bool,
    /// Streams the guest opened to the host.
    pub(in crate::process) connects: Vec<(u32, OwnedFd)>,
}

/// Whose descriptor an entry of the poll list is.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Kick { device: usize, queue: usize },
    Stream(VsockToken),
}

impl Hardware {
    /// Adds what to wait for to the poll list.
    pub(in crate::process) fn interests(&mut self, fds: &mut Vec<libc::pollfd>) {
        self.sources.clear();
        let mut sources = std::mem::take(&mut self.sources);
        for (index, device) in self.devices().enumerate() {
            for (queue, kick) in device
                .events()
                .into_iter()
                .flat_map(Events::kicks)
                .enumerate()
            {
                sources.push(Source::Kick {
                    device: index,
                    queue,
                });
                fds.push(libc::pollfd {
                    fd: kick.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                });
            }
        }
        self.streams.clear();
        self.vsock.device().poll_fds(&mut self.streams);
        for entry in &self.streams {
            sources.push(Source::Stream(entry.token));
            let events = entry.interest.bits() as libc::c_short;
            fds.push(libc::pollfd {
                fd: entry.fd,
                events,
                revents: 0,
            });
        }
        self.sources = sources;
    }

    /// Does one bounded round of work for what poll(2) found.
    pub(in crate::process) fn serve(&mut self, polled: &[libc::pollfd]) -> Work {
        let mut work = Work::default();
        for at in 0..self.sources.len() {
            let (Some(source), Some(polled)) = (self.sources.get(at).copied(), polled.get(at))
            else {
                continue;
            };
            if polled.revents == 0 {
                continue;
            }
            // A device kicks itself where it has more to do, and one whose events fail is without interrupts: its
            // driver sees it time out. Either way there is nothing to do with the answer here.
            match source {
                Source::Kick { device, queue } => {
                    work.guest_ran = true;
                    let memory = self.memory.clone();
                    if let Some(device) = self.device_mut(device) {
                        device.notified(queue, &memory).ok();
                    }
                }
                Source::Stream(token) => {
                    let ready = PollFlags::from_bits_truncate(polled.revents as u16);
                    self.vsock.host_ready(token, ready, &self.memory).ok();
                }
            }
        }
        work.more = self.merge();
        while let Some(connect) = self.vsock.device_mut().take_guest_connect() {
            work.connects.push((connect.port, connect.stream.into()));
        }
        let wants = self
            .disk
            .as_ref()
            .is_some_and(|disk| disk.device().wants_layer());
        work.wants_layer = wants && !std::mem::replace(&mut self.layer_asked, wants);
        work
    }

    /// One step of background merging; whether there is more.
    fn merge(&mut self) -> bool {
        let Some(disk) = &mut self.disk else {
            return false;
        };
        // A failed copy leaves the disk as it is; the next round tries again after other work.
        disk.device().layer_count() > MERGE_ABOVE
            && matches!(
                disk.device_mut().merge_step(MERGE_BLOCKS),
                Ok(MergeStep::Copied { .. })
            )
    }
}
