//! What tests and benches share: start cells, wait for them, count what is left behind.
