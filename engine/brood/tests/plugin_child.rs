//! The `brood` program as the child that compiles for the plugin host.

use std::path::Path;
use std::sync::Arc;

use brood::plugin::child::compile_options;
use brood_plugin_host::{CompileError, Host, HostOptions, LoadError, Silent, VolatileState};
use brood_policy::parse;

fn refused(seconds: u64, memory_mib: u64) -> LoadError {
    let program = Path::new(env!("CARGO_BIN_EXE_brood"));
    let mut compile = compile_options(program, None);
    (compile.seconds, compile.memory_mib) = (seconds, memory_mib);
    let options = HostOptions::new(compile);
    let state = Arc::new(VolatileState::default());
    let host = Host::start(&options, state, Arc::new(Silent)).expect("starts");
    // Component Model, binary format: an empty component.
    let empty = b"\0asm\x0d\0\x01\0";
    let file = "version = 1\n[plugin.empty]\ncomponent = \"empty.wasm\"\n[[admission]]\nplugin = \"empty\"\n";
    let set = parse("empty.toml", file).expect("right");
    let refused = host.load(&set.plugins[0], empty);
    refused.err().expect("an empty component is no plugin")
}

#[test]
fn component_is_compiled_by_the_program_itself_and_then_looked_at() {
    let error = refused(60, 2048);
    assert!(matches!(error, LoadError::NoHook { .. }), "{error}");
}

#[test]
fn limits_reach_the_child() {
    let error = refused(60, 1);
    let LoadError::Compile { source, .. } = &error else {
        unreachable!("{error}")
    };
    assert!(
        matches!(
            source,
            CompileError::Died { .. } | CompileError::Refused { .. } | CompileError::Child { .. }
        ),
        "{error}"
    );
}
