//! A limit on how many tasks a set of processes may have, by a pids cgroup (kernel: admin-guide/cgroup-v1/pids, cgroup-v2).
//!
//! Invariant: the cgroup is this test's own and goes when the value does.

use std::fs;
use std::path::PathBuf;

use crate::settle;

/// A cgroup whose processes can be kept from forking.
#[derive(Debug)]
pub struct TaskLimit {
    cgroup: PathBuf,
}

impl TaskLimit {
    /// A limit on `pid` and whoever it forks from now on, or none (with a printed reason) where nobody insists.
    ///
    /// # Panics
    /// In CI on a host whose pids cgroups this process may not use.
    pub fn on(pid: u32) -> Option<Self> {
        let Some(parent) = delegate() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "no pids cgroup that this process may use"
            );
            println!("skipped: no pids cgroup that this process may use");
            return None;
        };
        let cgroup = parent.join(format!("brood-test-{pid}"));
        fs::create_dir(&cgroup).expect("a cgroup of this test's own");
        let limit = Self { cgroup };
        limit.write("cgroup.procs", &pid.to_string());
        Some(limit)
    }

    /// Lets the processes have `more` tasks than they have now.
    ///
    /// # Panics
    /// The cgroup is gone.
    pub fn allow(&self, more: u32) {
        let current = fs::read_to_string(self.cgroup.join("pids.current")).expect("pids.current");
        let current: u32 = current.trim().parse().expect("a number of tasks");
        self.write("pids.max", &(current + more).to_string());
    }

    /// Lets them have any number.
    ///
    /// # Panics
    /// The cgroup is gone.
    pub fn lift(&self) {
        self.write("pids.max", "max");
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.cgroup.join(file), text).expect(file);
    }
}

impl Drop for TaskLimit {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            settle("the limit's cgroup is empty and goes", || {
                fs::remove_dir(&self.cgroup).is_ok()
            });
        }
    }
}

/// A cgroup below which this process may make one with a pids controller.
fn delegate() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind, options) = (PathBuf::from(words.next()?), words.next()?, words.next()?);
        match kind {
            "cgroup" if options.split(',').any(|option| option == "pids") => {}
            "cgroup2" => fs::write(place.join("cgroup.subtree_control"), "+pids").ok()?,
            _ => return None,
        }
        let probe = place.join(format!("brood-probe-{}", std::process::id()));
        fs::create_dir(&probe).ok()?;
        let has_limit = probe.join("pids.max").exists();
        fs::remove_dir(&probe).ok()?;
        has_limit.then_some(place)
    })
}
