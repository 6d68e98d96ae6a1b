//! The `brood` command: guest files, the demo, the doctor, plugins.

pub mod demo;
pub mod doctor;
pub mod files;
pub mod plugin;
pub mod serve;
