//! Device models: virtio-mmio block, vsock and rng, the serial console, VMGenID.
