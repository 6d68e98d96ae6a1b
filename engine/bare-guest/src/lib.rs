//! A bare-metal guest of a few pages for tests and benches of the fork path.
