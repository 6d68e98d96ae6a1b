//! The `brood` command: guest files, the demo, the doctor, plugins, the server, and the commands that ask one.

pub mod cli;
pub mod demo;
pub mod doctor;
pub mod files;
pub mod image;
pub mod plugin;
pub mod serve;
