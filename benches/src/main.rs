//! Benches of the fork path.

fn main() {}
