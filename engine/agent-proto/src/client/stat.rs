//! Figures, clocks and power of the guest from the host. Invariant: one request, one reply.

use std::time::Duration;

use super::{Client, ClientError};
use crate::message::{Reply, Request};
use crate::stat::{Clocks, Power, Stats};

impl Client {
    /// Figures of the guest.
    ///
    /// # Errors
    /// Those of any call.
    pub fn stats(&mut self) -> Result<Stats, ClientError> {
        match self.call(&Request::Stats, Duration::ZERO)? {
            Reply::Stats(stats) => Ok(stats),
            other => Err(self.unexpected("Stats", &other)),
        }
    }

    /// The guest's clocks.
    ///
    /// # Errors
    /// Those of any call.
    pub fn clocks(&mut self) -> Result<Clocks, ClientError> {
        self.clock(None)
    }

    /// Sets `CLOCK_REALTIME` to `realtime_ns` since the epoch, and returns the clocks after it.
    ///
    /// # Errors
    /// [`crate::AgentError::Os`] if the guest's kernel refuses.
    pub fn set_realtime(&mut self, realtime_ns: u64) -> Result<Clocks, ClientError> {
        self.clock(Some(realtime_ns))
    }

    /// Moves `CLOCK_REALTIME` by `by_ns`, and returns the clocks after it. Unlike a time, a difference is not made wrong
    /// by being late.
    ///
    /// # Errors
    /// [`crate::AgentError::Os`] if the guest's kernel refuses.
    pub fn step_realtime(&mut self, by_ns: i64) -> Result<Clocks, ClientError> {
        match self.call(&Request::ClockStep { by_ns }, Duration::ZERO)? {
            Reply::Clocks(clocks) => Ok(clocks),
            other => Err(self.unexpected("Clocks", &other)),
        }
    }

    fn clock(&mut self, set_realtime_ns: Option<u64>) -> Result<Clocks, ClientError> {
        match self.call(&Request::Clock { set_realtime_ns }, Duration::ZERO)? {
            Reply::Clocks(clocks) => Ok(clocks),
            other => Err(self.unexpected("Clocks", &other)),
        }
    }

    /// Ends the guest after its file systems were synchronised. The reply comes before the guest ends.
    ///
    /// # Errors
    /// [`crate::AgentError::Os`] if the guest's kernel refuses.
    pub fn power(mut self, power: Power) -> Result<(), ClientError> {
        self.call_done(&Request::Power(power))
    }
}
