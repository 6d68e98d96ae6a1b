//! The lines on which cells leave their last words.
//!
//! Invariant: a line is heard until the last cell that has it is gone; words are believed of their sender alone, whom the
//! kernel names.

use std::collections::HashMap;

use brood_control::{Control, LastWords, Received, SocketError};
use rustix::io::Errno;

use super::ward::Wards;
use super::watch::{Source, Watch};

/// Packets taken off one line in one turn, so that no cell keeps the others waiting.
const TURN: usize = 64;

/// All lines.
#[derive(Default)]
pub(super) struct Lines {
    open: HashMap<u64, Control>,
    next: u64,
}

impl Lines {
    /// Hears `line` from now on.
    pub(super) fn add(&mut self, line: Control, watch: &mut Watch) -> Result<(), Errno> {
        watch.add(line.fd(), Source::Line(self.next))?;
        self.open.insert(self.next, line);
        self.next += 1;
        Ok(())
    }

    /// Takes what one line has to say.
    pub(super) fn hear(&mut self, number: u64, wards: &mut Wards, watch: &mut Watch) {
        let Some(line) = self.open.get(&number) else {
            return;
        };
        for _ in 0..TURN {
            match line.receive_at_once::<LastWords>() {
                Ok(Some(heard)) => heed(heard, wards),
                Ok(None) => return,
                // What cells should not say changes nothing.
                Err(SocketError::Malformed(_) | SocketError::TooLarge { .. }) => {}
                Err(SocketError::Closed | SocketError::Call(_)) => {
                    watch.remove(line.fd());
                    self.open.remove(&number);
                    return;
                }
            }
        }
    }

    /// Takes what every line has to say.
    pub(super) fn hear_all(&mut self, wards: &mut Wards, watch: &mut Watch) {
        let numbers: Vec<_> = self.open.keys().copied().collect();
        for number in numbers {
            self.hear(number, wards, watch);
        }
    }
}

fn heed(heard: Received<LastWords>, wards: &mut Wards) {
    match (heard.message, heard.sender) {
        (LastWords::Ending { words }, Some(sender)) => {
            wards.said(sender.as_raw_nonzero().get().unsigned_abs(), words);
        }
        (LastWords::Ending { .. }, None) => {}
        (LastWords::Child(end), _) => wards.told_by_cell(end),
    }
}
