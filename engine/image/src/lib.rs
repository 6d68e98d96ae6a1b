//! Guest images: kernels out of Debian packages, initramfs, root disks.
