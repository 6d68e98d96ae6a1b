//! What a cell leaves with the process above it before it ends, so that it is known when nobody reads its socket.
//!
//! ```text
//!  cell ─┬ standard input   control socket, of which the supervisor has a duplicate that it never reads
//!        └ standard output  this line, whose other end only the supervisor has
//! ```
//!
//! A cell whose standard output is not such a line says nothing; one whose line has broken has lost its supervisor.
//! Invariant: [`say`] never waits, and [`listener`] lets the kernel name the sender, so no cell speaks for another.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::{ChildEnd, Control};

/// The most bytes of words that are kept of one cell.
pub const MAX_WORDS: usize = 256;

/// One packet of the line. It grows at the end only, as a cell keeps speaking what it was born with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastWords {
    /// Why the cell that says this ends next.
    Ending {
        /// In words, at most [`MAX_WORDS`] bytes.
        words: String,
    },
    /// A process that the cell had forked has ended, and its status was the cell's to take.
    Child(ChildEnd),
}

/// Two ends of a line: the supervisor's, then the cell's.
///
/// # Errors
/// The host has no more descriptors.
pub fn listener() -> io::Result<(Control, OwnedFd)> {
    let (ours, theirs) = Control::pair_that_names_senders()?;
    Ok((Control::new(ours), theirs))
}

/// Leaves words on this process's standard output, if that is a line and has room.
pub fn say(words: &LastWords) {
    let Ok(line) = io::stdout().as_fd().try_clone_to_owned() else {
        return;
    };
    // Not a line, a full or a broken one: whoever reaps this process sees its status in any case.
    Control::new(line).send_at_once(words, &[]).ok();
}

impl LastWords {
    /// Words of an ending, cut where they are too long.
    pub fn ending(words: impl Into<String>) -> Self {
        let mut words = words.into();
        if words.len() > MAX_WORDS {
            let fits = (0..=MAX_WORDS).rfind(|at| words.is_char_boundary(*at));
            words.truncate(fits.unwrap_or(0));
        }
        Self::Ending { words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_too_long_are_cut_between_characters() {
        let LastWords::Ending { words } = LastWords::ending("é".repeat(MAX_WORDS)) else {
            unreachable!("made as an ending");
        };
        assert_eq!(words, "é".repeat(MAX_WORDS / 2));
        let LastWords::Ending { words } = LastWords::ending(format!("x{}", "é".repeat(MAX_WORDS)))
        else {
            unreachable!("made as an ending");
        };
        assert_eq!(words.len(), MAX_WORDS - 1);
    }

    #[test]
    fn the_kernel_names_who_speaks() {
        let (ours, theirs) = listener().expect("a line");
        let said = LastWords::ending("power off");
        Control::new(theirs).send_at_once(&said, &[]).expect("send");
        let heard = ours.receive_from::<LastWords>().expect("receive");
        let this = Some(rustix::process::getpid());
        assert_eq!((heard.message, heard.sender), (said, this));
    }
}
