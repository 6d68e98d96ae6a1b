//! File systems every guest needs. Invariant: what is mounted already stays as it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// One file system and where it goes.
struct Mount {
    kind: &'static str,
    at: &'static str,
    flags: MountFlags,
    data: &'static std::ffi::CStr,
}

const PLAIN: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const SHARED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// In this order.
const MOUNTS: [Mount; 8] = [
    Mount {
        kind: "proc",
        at: "/proc",
        flags: PLAIN,
        data: c"",
    },
    Mount {
        kind: "sysfs",
        at: "/sys",
        flags: PLAIN,
        data: c"",
    },
    Mount {
        kind: "devtmpfs",
        at: "/dev",
        flags: MountFlags::NOSUID,
        data: c"mode=0755",
    },
    Mount {
        kind: "devpts",
        at: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: c"gid=5,mode=0620,ptmxmode=0666",
    },
    Mount {
        kind: "tmpfs",
        at: "/dev/shm",
        flags: SHARED,
        data: c"mode=1777",
    },
    Mount {
        kind: "tmpfs",
        at: "/run",
        flags: SHARED,
        data: c"mode=0755",
    },
    Mount {
        kind: "tmpfs",
        at: "/tmp",
        flags: SHARED,
        data: c"mode=1777",
    },
    Mount {
        kind: "cgroup2",
        at: "/sys/fs/cgroup",
        flags: PLAIN,
        data: c"",
    },
];

/// Links that programs expect in `/dev`.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts all of them; what failed, as lines.
pub(super) fn all() -> Vec<String> {
    let mut problems = Vec::new();
    for Mount {
        kind,
        at,
        flags,
        data,
    } in MOUNTS
    {
        if let Err(error) = fs::create_dir_all(at) {
            problems.push(format!("making {at}: {error}"));
        }
        match mount(kind, at, kind, flags, data) {
            // The kernel mounts /dev itself where it is built to (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(Errno::BUSY) => {}
            Err(errno) => problems.push(format!("mounting {kind} at {at}: {errno}")),
        }
    }
    for (target, link) in LINKS {
        if !Path::new(link).is_symlink()
            && let Err(error) = symlink(target, link)
        {
            problems.push(format!("linking {link}: {error}"));
        }
    }
    problems
}
