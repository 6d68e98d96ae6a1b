//! What a guest's port and memory accesses do, on the vCPU's own thread.

use brood_bare_guest::mailbox::NEXT;
use brood_bare_guest::{Said, VcpuMailbox};
use brood_vmm::boot::power::PowerRequest;
use brood_vmm::{ExitHandler, IoWait, VcpuEnd, now};

use super::shared::{Notice, Shared};

/// The keyboard controller's command port and its pulse-reset command, the oldest way to ask for a reset.
const I8042_COMMAND: u16 = 0x64;
const I8042_RESET: u8 = 0xfe;

impl ExitHandler for Shared {
    fn port_read(&self, vcpu: IoWait<'_>, port: u16, data: &mut [u8]) {
        if VcpuMailbox::has_port(port) {
            let value = self.mailbox_read(vcpu, port).to_le_bytes();
            data.fill(0);
            data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
            return;
        }
        if !self.hardware().port_read(port, data) {
            data.fill(0xff); // nothing there: a floating bus
        }
    }

    fn port_write(&self, vcpu: IoWait<'_>, port: u16, data: &[u8]) {
        if VcpuMailbox::has_port(port) {
            if let Ok(bytes) = <[u8; 4]>::try_from(data) {
                self.mailbox_write(vcpu.index(), port, u32::from_le_bytes(bytes));
            }
            return;
        }
        if let [value] = data {
            match PowerRequest::decode(port, *value) {
                Some(PowerRequest::Off) => return self.notify(Notice::PowerOff),
                Some(PowerRequest::Reset) => return self.notify(Notice::Reboot),
                None if port == I8042_COMMAND && *value == I8042_RESET => {
                    return self.notify(Notice::Reboot);
                }
                None => {}
            }
        }
        self.hardware().port_write(port, data);
    }

    fn memory_read(&self, gpa: u64, data: &mut [u8]) {
        if !self.hardware().memory_read(gpa, data) {
            data.fill(0xff);
        }
    }

    fn memory_write(&self, gpa: u64, data: &[u8]) {
        self.hardware().memory_write(gpa, data);
    }

    fn first_exit(&self, _vcpu: u32) {
        if self.saw_first() {
            self.notify(Notice::FirstInstruction(now()));
        }
    }

    fn ended(&self, vcpu: u32, end: VcpuEnd) {
        self.notify(Notice::Ended { vcpu, end });
    }
}

impl Shared {
    fn mailbox_read(&self, vcpu: IoWait<'_>, port: u16) -> u32 {
        if port == NEXT {
            // Parking ends the wait with "none", and the guest asks again after the resume.
            let fetched = vcpu.until(|| {
                self.mailbox(vcpu.index())
                    .filter(|mailbox| mailbox.is_pending())
                    .map(|mut mailbox| mailbox.read(NEXT))
            });
            if fetched.is_some() {
                self.owe_reply(vcpu.index());
            }
            return fetched.unwrap_or(0);
        }
        self.mailbox(vcpu.index())
            .map_or(0, |mut mailbox| mailbox.read(port))
    }

    fn mailbox_write(&self, vcpu: u32, port: u16, value: u32) {
        let said = self
            .mailbox(vcpu)
            .map_or(Said::Nothing, |mut mailbox| mailbox.write(port, value));
        if let Said::Reply(value) = said
            && self.takes_reply(vcpu)
        {
            self.notify(Notice::Reply { vcpu, value });
        }
    }
}
