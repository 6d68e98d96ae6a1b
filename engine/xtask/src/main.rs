//! The project's own commands: demo, test, lab, bench, check.

fn main() {}
