//! The serial console: a 16550 at PIO 0x3f8, IRQ 4.
//!
//! Registers are vm-superio's; here are the bounded output ring, the input queue behind the 64-byte FIFO, and the
//! fork protocol. The guest's output is for humans and for finding a panic, nothing is decided on it.
//!
//! Invariant: the guest can print for ever and a client can type for ever without this process growing.

mod ring;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::mem;

use serde::{Deserialize, Serialize};
use vm_superio::serial::{Error as SerialError, NoEvents};
use vm_superio::{Serial, SerialState, Trigger};
use vmm_sys_util::eventfd::EventFd;

use self::ring::Output;
use crate::virtio::signal;

pub use self::ring::{OUTPUT_MAX, OutputChunk};

/// First I/O port of the console.
pub const PORT: u16 = 0x3f8;
/// Number of its I/O ports.
pub const PORTS: u16 = 8;
/// Its interrupt, a GSI.
pub const IRQ: u32 = 4;
/// Bytes of input that wait for the guest.
pub const INPUT_MAX: usize = 64 << 10;
/// Bytes of the receive FIFO as vm-superio has it.
const FIFO: usize = 64;

/// The console.
#[derive(Debug)]
pub struct Console {
    serial: Serial<Line, NoEvents, Output>,
    input: VecDeque<u8>,
}

/// The interrupt line. vm-superio hands out only shared references to it, hence the cell.
#[derive(Debug)]
struct Line(RefCell<Option<EventFd>>);

/// The console could not interrupt the guest. Its registers have changed all the same.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The event was forgotten and none attached yet.
    #[error("console has no event descriptor")]
    Detached,
    /// The eventfd failed.
    #[error("console event failed")]
    Event(#[source] io::Error),
}

/// What a snapshot holds of the console: registers and input. Output is not part of it, only its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Divisor latch, low and high byte.
    pub baud_divisor: [u8; 2],
    /// Interrupt enable register.
    pub interrupt_enable: u8,
    /// Interrupt identification register.
    pub interrupt_identification: u8,
    /// Line control register.
    pub line_control: u8,
    /// Line status register.
    pub line_status: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Modem status register.
    pub modem_status: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Bytes in the receive FIFO, at most 64.
    pub fifo: Vec<u8>,
    /// Bytes behind the FIFO, at most [`INPUT_MAX`].
    pub input: Vec<u8>,
    /// Bytes printed since the start of the VM.
    pub output_end: u64,
}

/// A saved console cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleStateError {
    /// More input than a console can hold.
    #[error("state has {fifo} bytes in the FIFO and {input} behind it")]
    Input {
        /// Bytes in the FIFO.
        fifo: usize,
        /// Bytes behind it.
        input: usize,
    },
    /// The interrupt that is pending in the state could not be raised.
    #[error("pending interrupt could not be raised")]
    Interrupt(#[from] ConsoleError),
}

impl Trigger for Line {
    type E = ConsoleError;

    fn trigger(&self) -> Result<(), ConsoleError> {
        let event = self.0.borrow();
        let event = event.as_ref().ok_or(ConsoleError::Detached)?;
        signal(event).map_err(ConsoleError::Event)
    }
}

impl Console {
    /// A console after power-on whose interrupt is `event`, to be registered as the irqfd of [`IRQ`].
    pub fn new(event: EventFd) -> Self {
        let line = Line(RefCell::new(Some(event)));
        Self {
            serial: Serial::new(line, Output::default()),
            input: VecDeque::new(),
        }
    }

    /// The guest reads `data.len()` bytes at port `PORT + offset`. Registers are bytes; wider reads give zeroes.
    ///
    /// # Errors
    /// More input could be offered, but not announced.
    pub fn read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), ConsoleError> {
        data.fill(0);
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            *byte = self.serial.read(offset);
            return self.feed();
        }
        Ok(())
    }

    /// The guest writes `data` at port `PORT + offset`. Wider writes than a byte do nothing.
    ///
    /// # Errors
    /// The write calls for an interrupt that cannot be raised.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Result<(), ConsoleError> {
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            settle(self.serial.write(offset, *byte))?;
            return self.feed();
        }
        Ok(())
    }

    /// Types `bytes` on the console; how many were taken, which is fewer when the guest does not read.
    ///
    /// # Errors
    /// The input was taken but could not be announced.
    pub fn push_input(&mut self, bytes: &[u8]) -> Result<usize, ConsoleError> {
        let room = INPUT_MAX.saturating_sub(self.input.len());
        let taken = bytes.len().min(room);
        self.input.extend(bytes.iter().take(taken));
        self.feed().map(|()| taken)
    }

    /// Number of the byte after the last one printed, counted from the start of the VM.
    pub fn output_end(&self) -> u64 {
        self.serial.writer().end()
    }

    /// Up to `max` bytes of output from byte number `from` on.
    pub fn output(&self, from: u64, max: usize) -> OutputChunk {
        self.serial.writer().read(from, max)
    }

    /// The last `count` lines, of the last 32 KiB at most.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.serial.writer().last_lines(count)
    }

    /// The last kernel panic in the output that is kept. It is text of the guest, which can print what it likes.
    pub fn kernel_panic(&self) -> Option<String> {
        self.serial.writer().kernel_panic()
    }

    /// In a process made by fork(2): gives up the mother's event without closing it.
    pub fn forget_event(&mut self) {
        if let Some(event) = self.serial.interrupt_evt().0.take() {
            mem::forget(event);
        }
    }

    /// Gives the console its own event.
    pub fn attach(&mut self, event: EventFd) {
        self.serial.interrupt_evt().0.replace(Some(event));
    }

    /// Runs `f` on the event, unless detached: to register it as an irqfd.
    pub fn with_event<T>(&self, f: impl FnOnce(&EventFd) -> T) -> Option<T> {
        self.serial.interrupt_evt().0.borrow().as_ref().map(f)
    }

    /// After [`Console::attach`] in a daughter: offers waiting input and interrupts once, in case the mother's
    /// interrupt was still on its way.
    ///
    /// # Errors
    /// The interrupt cannot be raised.
    pub fn redeliver(&mut self) -> Result<(), ConsoleError> {
        self.feed()?;
        self.serial.interrupt_evt().trigger()
    }

    /// Registers and input.
    pub fn state(&self) -> ConsoleState {
        let state = self.serial.state();
        ConsoleState {
            baud_divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            fifo: state.in_buffer,
            input: self.input.iter().copied().collect(),
            output_end: self.output_end(),
        }
    }

    /// The console in another process; its output goes on with the same numbers.
    ///
    /// # Errors
    /// `state` is not one of a console, or its pending interrupt cannot be raised on `event`.
    pub fn from_state(state: ConsoleState, event: EventFd) -> Result<Self, ConsoleStateError> {
        let (fifo, input) = (state.fifo.len(), state.input.len());
        if fifo > FIFO || input > INPUT_MAX {
            return Err(ConsoleStateError::Input { fifo, input });
        }
        let [baud_divisor_low, baud_divisor_high] = state.baud_divisor;
        let registers = SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.fifo,
        };
        let line = Line(RefCell::new(Some(event)));
        let output = Output::starting_at(state.output_end);
        let serial = match Serial::from_state(&registers, line, NoEvents, output) {
            Ok(serial) => serial,
            Err(SerialError::Trigger(error)) => return Err(error.into()),
            Err(_) => return Err(ConsoleStateError::Input { fifo, input }),
        };
        Ok(Self {
            serial,
            input: state.input.into(),
        })
    }

    /// Moves waiting input into the FIFO as far as it fits.
    fn feed(&mut self) -> Result<(), ConsoleError> {
        let room = self.serial.fifo_capacity();
        if self.input.is_empty() || room == 0 {
            return Ok(());
        }
        let mut bytes = [0; FIFO];
        let len = room.min(self.input.len()).min(FIFO);
        for (to, from) in bytes.iter_mut().zip(self.input.iter().take(len)) {
            *to = *from;
        }
        match self
            .serial
            .enqueue_raw_bytes(bytes.get(..len).unwrap_or_default())
        {
            // In loopback mode nothing is taken; it is offered again at the next access.
            Ok(taken) => {
                self.input.drain(..taken.min(self.input.len()));
                Ok(())
            }
            Err(error) => {
                // The FIFO has the bytes, only the interrupt failed.
                self.input.drain(..len);
                settle(Err(error))
            }
        }
    }
}

/// The ring takes every byte, so the interrupt is all that can fail.
fn settle(result: Result<(), SerialError<ConsoleError>>) -> Result<(), ConsoleError> {
    match result {
        Err(SerialError::Trigger(error)) => Err(error),
        Err(SerialError::IOError(error)) => Err(ConsoleError::Event(error)),
        Ok(()) | Err(SerialError::FullFifo) => Ok(()),
    }
}
