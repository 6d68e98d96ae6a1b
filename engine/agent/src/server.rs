//! The accept loop. Invariant: it ends only with the agent; a connection that cannot be served is told so and closed.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use brood_agent_proto::frame;
use brood_agent_proto::hello;
use brood_agent_proto::{AgentError, Reply};

use crate::agent::{Agent, ConnectionSlot, MAX_CONNECTIONS};
use crate::connection;
use crate::listener::Listener;
use crate::mem;

/// Serves connections for ever.
pub fn serve(agent: &Arc<Agent>, listener: &Listener) -> ! {
    loop {
        match listener.accept() {
            Ok(stream) => admit(agent, stream),
            Err(error) => {
                eprintln!("brood-agent: accept: {error}");
                // Out of descriptors or memory: trying again at once would only burn the guest's CPU.
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn admit(agent: &Arc<Agent>, stream: UnixStream) {
    let Some(slot) = ConnectionSlot::take(agent) else {
        turn_away(stream);
        return;
    };
    let started = thread::Builder::new()
        .name("connection".to_owned())
        .stack_size(mem::CONNECTION_STACK)
        .spawn(move || connection::serve(&slot, stream));
    if let Err(error) = started {
        eprintln!("brood-agent: no thread for a connection: {error}");
    }
}

/// Says why, without waiting for the client.
fn turn_away(mut stream: UnixStream) {
    let limit = AgentError::Limit {
        what: "connections".to_owned(),
        limit: u64::try_from(MAX_CONNECTIONS).unwrap_or(u64::MAX),
    };
    let told = stream
        .set_write_timeout(Some(Duration::from_millis(50)))
        .is_ok()
        && hello::write(&mut stream, hello::VERSION).is_ok()
        && frame::write_frame(&mut stream, &Reply::Error(limit)).is_ok();
    if !told {
        eprintln!("brood-agent: a connection over the limit was closed untold");
    }
}
