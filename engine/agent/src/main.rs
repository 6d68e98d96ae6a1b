//! The in-guest agent's program: process 1 of an initramfs, or a service. Invariant: as process 1 it never returns.

use std::io::Write;
use std::process::ExitCode;

use brood_agent::listener::Listener;
use brood_agent::options::{Options, Role};
use brood_agent::system::Kernel;
use brood_agent::{Agent, init, keep_small, serve};

fn main() -> ExitCode {
    keep_small();
    let first = std::process::id() == 1;
    let default_role = if first { Role::Init } else { Role::Service };
    let options = match Options::parse(std::env::args().skip(1), default_role) {
        Ok(options) => options,
        Err(error) if first => {
            say(&format!("{error}; going on with defaults"));
            Options::new(default_role)
        }
        Err(error) => {
            say(&error.to_string());
            return ExitCode::from(2);
        }
    };
    if options.role == Role::Init {
        init::prepare().iter().for_each(|problem| say(problem));
    }
    let Err(error) = run(options);
    say(&error);
    if first {
        // The kernel panics if process 1 ends; a guest that hangs can still be looked at.
        loop {
            std::thread::park();
        }
    }
    ExitCode::FAILURE
}

fn run(options: Options) -> Result<std::convert::Infallible, String> {
    let system = Box::new(Kernel::new(options.role));
    let listen = options.listen.clone();
    let agent = Agent::new(options, system)
        .map_err(|error| format!("making the workload's cgroup: {error}"))?;
    agent
        .enter_own_cgroup()
        .map_err(|error| format!("entering the agent's cgroup: {error}"))?;
    let listener =
        Listener::bind(&listen).map_err(|error| format!("listening at {listen:?}: {error}"))?;
    say("ready");
    serve(&agent, &listener)
}

/// One line for people, on standard output: the console, for process 1.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Where standard output is gone there is nowhere left to say so.
    if writeln!(out, "brood-agent {line}").is_ok() {
        out.flush().unwrap_or_default();
    }
}
