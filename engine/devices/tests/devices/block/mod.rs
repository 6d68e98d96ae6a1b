//! The block device: requests, overlay, layers.

pub(crate) mod guest;
mod layer;
mod overlay;
mod request;
