//! The program of a cell, for tests and benches of this crate; `brood` carries the same entry point.

fn main() -> std::process::ExitCode {
    brood_cell::process::main()
}
