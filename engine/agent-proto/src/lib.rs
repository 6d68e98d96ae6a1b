//! Messages between the engine and the in-guest agent, and the host-side client.
