//! The `brood` command: Linux machines with an agent, the stamped fork, the demo, the doctor, plugins.

pub mod demo;
pub mod doctor;
pub mod files;
pub mod fork;
pub mod host;
pub mod identity;
pub mod machine;
pub mod plugin;
pub mod process;
