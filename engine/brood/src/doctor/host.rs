//! What the host offers beside KVM: memory, files, limits, programs. Invariant: none of it decides the verdict, so what
//! cannot be read is a warning.

use std::fs;
use std::path::Path;

use brood_vmm::{fault_around_control, memfd_collapse};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::check::{Check, Question, chain};

const KERNEL: Question = Question {
    name: "host kernel",
    why: "sealed memory becomes huge pages with MADV_COLLAPSE, which Linux has since 6.1",
};
const THP: Question = Question {
    name: "huge pages",
    why: "fork(2) copies one entry for a huge page and 512 for small ones: 0.3 ms or 5 ms for 1 GiB",
};
const COLLAPSE: Question = Question {
    name: "sealed huge pages",
    why: "a template in huge pages has shorter page tables and is forked faster",
};
const UFFD: Question = Question {
    name: "userfaultfd",
    why: "a registration that is never armed keeps reads from mapping clean pages, which every fork would copy",
};
const CGROUP: Question = Question {
    name: "cgroup v2",
    why: "the memory of many machines together is what only a cgroup measures and limits",
};
const LAYERS: Question = Question {
    name: "disk layers",
    why: "what guests write to disk goes to unlinked files (O_TMPFILE)",
};
const FILES: Question = Question {
    name: "open files",
    why: "the engine holds a few descriptors for each machine, and a machine one for each of its disk's layers",
};
const PROCESSES: Question = Question {
    name: "processes",
    why: "each machine is a process with a thread for each vCPU",
};
const MEMORY: Question = Question {
    name: "free memory",
    why: "a daughter shares her mother's memory and adds what she writes",
};
const TOOLS: Question = Question {
    name: "image tools",
    why: "kernels are unpacked and disks are made with Debian's programs",
};

const LEAST_FILES: u64 = 4096;
const LEAST_PROCESSES: u64 = 4096;
const LEAST_MEMORY_MIB: u64 = 1024;
/// Programs and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("dpkg-deb", "dpkg"),
    ("depmod", "kmod"),
    ("mke2fs", "e2fsprogs"),
];

/// Looks at everything but KVM.
pub(super) fn examine(layer_directory: &Path) -> Vec<Check> {
    vec![
        kernel(&read("/proc/sys/kernel/osrelease")),
        huge_pages(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
        collapse(),
        userfaultfd(),
        cgroup(),
        layers(layer_directory),
        limit(
            FILES,
            getrlimit(Resource::Nofile).current,
            LEAST_FILES,
            "ulimit -n 65536",
        ),
        limit(
            PROCESSES,
            getrlimit(Resource::Nproc).current,
            LEAST_PROCESSES,
            "ulimit -u 65536",
        ),
        memory(&read("/proc/meminfo")),
        tools(),
    ]
}

/// A small file of the kernel's; empty where it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel(release: &str) -> Check {
    let release = release.trim();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (6, 1) => {
            KERNEL.ok(format!("Linux {release}"))
        }
        (Some(_), Some(_)) => KERNEL.warn(format!("Linux {release}"), "use Linux 6.1 or newer"),
        _ => KERNEL.warn("its version cannot be read", "mount /proc"),
    }
}

fn huge_pages(enabled: &str) -> Check {
    let chosen = enabled.split(['[', ']']).nth(1);
    let remedy = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
    match chosen {
        Some(mode @ ("madvise" | "always")) => THP.ok(mode),
        Some(mode) => THP.warn(mode, remedy),
        None => THP.warn(
            "this kernel has no transparent huge pages, or /sys is not mounted",
            remedy,
        ),
    }
}

fn collapse() -> Check {
    match memfd_collapse() {
        Ok(()) => COLLAPSE.ok("MADV_COLLAPSE works on a memfd"),
        Err(error) => COLLAPSE.warn(
            chain(&error),
            "use Linux 6.1 or newer with CONFIG_TRANSPARENT_HUGEPAGE; free memory if it is full",
        ),
    }
}

fn userfaultfd() -> Check {
    match fault_around_control() {
        Ok(()) => UFFD.ok("UFFD_USER_MODE_ONLY works, write protection can be registered"),
        Err(error) => UFFD.warn(
            chain(&error),
            "forks are slower and correct without it; allow the system call userfaultfd (a container's seccomp \
             filter may refuse it), or use a kernel with CONFIG_USERFAULTFD and write protection",
        ),
    }
}

fn cgroup() -> Check {
    match fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(controllers) => CGROUP.ok(format!("controllers: {}", controllers.trim())),
        Err(_) => CGROUP.warn(
            "/sys/fs/cgroup is not cgroup v2",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 there; guests run without it",
        ),
    }
}

fn layers(directory: &Path) -> Check {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => LAYERS.ok(format!("O_TMPFILE works in {}", directory.display())),
        Err(errno) => LAYERS.fail(
            format!("no O_TMPFILE in {}: {errno}", directory.display()),
            "set TMPDIR to a writable directory on ext4, xfs, btrfs or tmpfs",
        ),
    }
}

fn limit(question: Question, current: Option<u64>, least: u64, command: &str) -> Check {
    match current {
        None => question.ok("no limit"),
        Some(limit) if limit >= least => question.ok(format!("at most {limit}")),
        Some(limit) => question.warn(
            format!("at most {limit}"),
            format!("`{command}` before a fork into more than a few dozen daughters"),
        ),
    }
}

fn memory(meminfo: &str) -> Check {
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib >> 10);
    match available {
        Some(mib) if mib >= LEAST_MEMORY_MIB => MEMORY.ok(format!("{mib} MiB available")),
        Some(mib) => MEMORY.warn(
            format!("{mib} MiB available"),
            format!("free memory: the demo and a few daughters want {LEAST_MEMORY_MIB} MiB"),
        ),
        None => MEMORY.warn("/proc/meminfo cannot be read", "mount /proc"),
    }
}

fn tools() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Administrators' programs are often not on a user's PATH, and are found all the same.
    let extra = ["/usr/sbin", "/sbin"].map(Into::into);
    let places: Vec<_> = std::env::split_paths(&path).chain(extra).collect();
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| !places.iter().any(|place| place.join(program).is_file()))
        .collect();
    if missing.is_empty() {
        let programs: Vec<_> = PROGRAMS.iter().map(|(program, _)| *program).collect();
        return TOOLS.ok(programs.join(", "));
    }
    let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    TOOLS.warn(
        format!("missing: {}", names.join(", ")),
        format!("apt-get install {}", packages.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Status;
    use super::*;

    #[test]
    fn kernels_before_6_1_are_warned_of() {
        assert_eq!(kernel("6.18.44-fc\n").status, Status::Ok);
        assert_eq!(kernel("6.1.0-40-amd64").status, Status::Ok);
        assert_eq!(kernel("5.15.0").status, Status::Warn);
        assert_eq!(kernel("10.0").status, Status::Ok);
        assert_eq!(kernel("").status, Status::Warn);
        assert_eq!(kernel("99999999999999.1").status, Status::Warn);
    }

    #[test]
    fn chosen_huge_page_mode_is_the_one_in_brackets() {
        assert_eq!(huge_pages("always [madvise] never\n").found, "madvise");
        assert_eq!(huge_pages("[always] madvise never\n").status, Status::Ok);
        assert_eq!(huge_pages("always madvise [never]\n").status, Status::Warn);
        assert_eq!(huge_pages("").status, Status::Warn);
    }

    #[test]
    fn available_memory_is_read_in_mebibytes() {
        assert_eq!(
            memory("MemTotal: 9 kB\nMemAvailable:  4194304 kB\n").found,
            "4096 MiB available"
        );
        assert_eq!(memory("MemAvailable: 1024 kB\n").status, Status::Warn);
        assert_eq!(memory("MemAvailable: lots\n").status, Status::Warn);
    }

    #[test]
    fn a_low_limit_names_the_command_that_raises_it() {
        assert_eq!(limit(FILES, None, 10, "ulimit -n").status, Status::Ok);
        assert!(
            limit(FILES, Some(9), 10, "ulimit -n 65536")
                .remedy
                .contains("ulimit -n 65536")
        );
    }
}
