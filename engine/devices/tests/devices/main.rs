//! The devices as a driver meets them: through registers, rings and interrupts.
#![cfg(test)]

mod block;
mod console;
mod driver;
mod fork;
mod nonsense;
mod transport;
mod vsock;
