//! Programs in machines.

use brood_api::OperationId as Id;
use brood_api::exec::{
    Exec, ExecSpec, Execs, Lost, Output, OutputPiece, OutputQuery, SignalSpec, StartedExec,
    StdinSpec, TtySize,
};
use brood_units::MachineId;

use crate::ask::Ask;
use crate::frames::{Frames, STREAM};
use crate::{Client, ClientError};

/// What a follower of output is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Output.
    Piece(OutputPiece),
    /// Bytes were overwritten before they were read.
    Lost(Lost),
    /// The program has ended, and this was all of it.
    End(Exec),
}

/// Output as it comes. It ends with the program's end, or with the error that ended it.
pub struct OutputFollower {
    frames: Frames,
    over: bool,
}

impl OutputFollower {
    fn told(&mut self) -> Result<Told, ClientError> {
        let (kind, data) = self.frames.next()?;
        match kind.as_str() {
            "lost" => self.frames.read(&data).map(Told::Lost),
            "end" => self.frames.read(&data).map(Told::End),
            _ => self.frames.read(&data).map(Told::Piece),
        }
    }
}

impl Iterator for OutputFollower {
    type Item = Result<Told, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let told = self.told();
        self.over = matches!(told, Ok(Told::End(_)) | Err(_));
        Some(told)
    }
}

impl Client {
    /// A machine's programs, those of her mother that she has included.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_execs(&self, machine: MachineId) -> Result<Execs, ClientError> {
        self.call(Ask::to(Id::ListExecs).at(machine))
    }

    /// Starts a program in a machine, and waits for its end if `spec` says so; repeated under the same key `once`, it is
    /// started once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn start_exec(
        &self,
        machine: MachineId,
        spec: &ExecSpec,
        once: Option<&str>,
    ) -> Result<StartedExec, ClientError> {
        let ask = Ask::to(Id::StartExec).at(machine).json(spec)?;
        self.call(ask.once(once))
    }

    /// A program, also after its machine has ended.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn exec(&self, machine: MachineId, exec: u32) -> Result<Exec, ClientError> {
        self.call(Ask::to(Id::ShowExec).at(machine).at(exec))
    }

    /// Output of a program from a place on.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn read_output(
        &self,
        machine: MachineId,
        exec: u32,
        query: &OutputQuery,
    ) -> Result<Output, ClientError> {
        let ask = Ask::to(Id::ReadOutput).at(machine).at(exec);
        let ask = ask.query("stream", Some(query.stream.as_str()));
        let ask = ask.query("offset", query.offset.as_ref());
        self.call(ask.query("limit", query.limit))
    }

    /// Output of a program from a place on, up to its end.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn follow_output(
        &self,
        machine: MachineId,
        exec: u32,
        query: &OutputQuery,
    ) -> Result<OutputFollower, ClientError> {
        let ask = Ask::to(Id::ReadOutput).at(machine).at(exec).accept(STREAM);
        let ask = ask.query("stream", Some(query.stream.as_str()));
        let response = self.send(ask.query("offset", query.offset.as_ref()))?;
        Ok(OutputFollower {
            frames: Frames::of(self, response),
            over: false,
        })
    }

    /// Writes to a program's stdin.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn write_stdin(
        &self,
        machine: MachineId,
        exec: u32,
        spec: &StdinSpec,
    ) -> Result<(), ClientError> {
        self.done(Ask::to(Id::WriteStdin).at(machine).at(exec).json(spec)?)
    }

    /// Sends a signal to a program.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn signal_exec(
        &self,
        machine: MachineId,
        exec: u32,
        spec: &SignalSpec,
    ) -> Result<(), ClientError> {
        self.done(Ask::to(Id::SignalExec).at(machine).at(exec).json(spec)?)
    }

    /// Changes the size of a program's terminal.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn resize_exec(
        &self,
        machine: MachineId,
        exec: u32,
        size: TtySize,
    ) -> Result<(), ClientError> {
        self.done(Ask::to(Id::ResizeExec).at(machine).at(exec).json(&size)?)
    }
}
