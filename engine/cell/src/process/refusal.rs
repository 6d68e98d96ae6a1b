//! Refusals: what was asked, why it cannot be, what to do. Causes are joined from the outermost error inwards.

use std::error::Error;
use std::fmt::Write;

use crate::protocol::{Refusal, VERSION};

pub(super) fn refuse(operation: &str, cause: &str, remedy: &str) -> Refusal {
    Refusal {
        operation: operation.to_owned(),
        cause: cause.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// Turns an error of any operation into a refusal with the whole chain of causes.
pub(super) fn because<E: Error>(
    operation: &'static str,
    remedy: &'static str,
) -> impl Fn(E) -> Refusal {
    move |error| refuse(operation, &chain(&error), remedy)
}

pub(super) fn check_version(version: u32) -> Result<(), Refusal> {
    if version == VERSION {
        return Ok(());
    }
    Err(refuse(
        "protocol",
        &format!("the engine speaks version {version}, this cell {VERSION}"),
        "start cells with the engine's own program",
    ))
}

pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        write!(text, ": {cause}").ok();
        source = cause.source();
    }
    text
}
