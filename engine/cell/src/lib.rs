//! One microVM's process: event loop, control socket, jail, fork.
