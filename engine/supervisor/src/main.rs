//! The program of a supervisor, for tests of this crate; `brood` carries the same entry point.

fn main() -> std::process::ExitCode {
    brood_supervisor::process::main()
}
