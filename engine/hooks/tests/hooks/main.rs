//! What answers may be, and what several of them come to.
#![expect(clippy::panic, reason = "a helper of a test ends the test")]

// What tests share.
mod said;

mod agrees;
mod bounds;
mod joined;
mod narrowing;
mod planned;
