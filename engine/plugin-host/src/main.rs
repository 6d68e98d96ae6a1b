//! The child of the plugin host as a program of its own, for tests and for engines that do not call
//! [`brood_plugin_host::child::run`] from their own `main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    brood_plugin_host::child::run(std::env::args().skip(1))
}
