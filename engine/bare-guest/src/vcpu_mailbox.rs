//! The host's half of one vCPU's mailbox: commands to give, latches, and what the guest says.
//!
//! A plain value without I/O, so whoever runs the vCPU decides how to wait and a fork copies it. Invariant: no port access,
//! however odd, does more than change this value.

use std::collections::VecDeque;

use crate::mailbox::{
    ARGUMENT_COUNT, ARGUMENTS, Command, NEXT, PENDING, REPLY_HIGH, REPLY_LOW, TICK,
};

/// What a port write told the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// One unit of progress.
    Tick,
    /// A command is done. [`outcome`](crate::mailbox::outcome) reads the word.
    Reply(u64),
    /// Half a word, or something the port does not mean.
    Nothing,
}

/// One vCPU's mailbox.
#[derive(Clone, Debug, Default)]
pub struct VcpuMailbox {
    waiting: VecDeque<Command>,
    arguments: [u64; ARGUMENT_COUNT],
    reply_low: u32,
    ticks: u64,
}

impl VcpuMailbox {
    /// Whether a port belongs to the device.
    #[must_use]
    pub const fn has_port(port: u16) -> bool {
        TICK <= port && port < PENDING + 4
    }

    /// Gives a command, behind those not yet fetched.
    pub fn give(&mut self, command: Command) {
        self.waiting.push_back(command);
    }

    /// Whether a command waits to be fetched. If not, an IN of [`NEXT`] would answer 0: the moment to let the vCPU wait.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Ticks so far.
    #[must_use]
    pub const fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Answers an IN of 32 bits; 0 for what is no register.
    pub fn read(&mut self, port: u16) -> u32 {
        match port {
            NEXT => self.waiting.pop_front().map_or(0, |command| {
                let (opcode, arguments) = command.encode();
                self.arguments = arguments;
                opcode
            }),
            PENDING => self.is_pending().into(),
            ARGUMENTS..PENDING => {
                let offset = port - ARGUMENTS;
                let word = self
                    .arguments
                    .get(usize::from(offset / 8))
                    .copied()
                    .unwrap_or(0);
                match offset % 8 {
                    0 => word as u32,
                    4 => (word >> 32) as u32,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Takes an OUT of 32 bits.
    pub const fn write(&mut self, port: u16, value: u32) -> Said {
        match port {
            TICK => {
                self.ticks += 1;
                Said::Tick
            }
            REPLY_LOW => {
                self.reply_low = value;
                Said::Nothing
            }
            REPLY_HIGH => Said::Reply((value as u64) << 32 | self.reply_low as u64),
            _ => Said::Nothing,
        }
    }
}
