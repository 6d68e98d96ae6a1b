//! The `brood` command: guest files, the demo, the doctor.

pub mod demo;
pub mod doctor;
pub mod files;
