//! `brood completion`: a script that a shell completes commands with.

use clap::Args;
use clap_complete::Shell;

use super::failure::Failure;
use super::out::raw;

/// `brood completion`
#[derive(Args)]
pub struct Completion {
    /// The shell that the script is for.
    shell: Shell,
}

impl Completion {
    /// Prints the script for all commands of `program`.
    ///
    /// # Errors
    /// Standard output takes no more.
    pub fn print(&self, mut program: clap::Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "brood", &mut script);
        raw(&script)
    }
}
