//! What the kernel says of other processes, in /proc (man 5 proc).
//!
//! Invariant: looking changes nothing.

use std::fs;

use anyhow::Context;

/// What a process costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Pages that are its own alone, KiB.
    pub private_kib: u64,
    /// Those and its share of pages that it has in common with others, KiB.
    pub pss_kib: u64,
}

/// The memory of a process by the kernel's own count (man 5 proc_pid_smaps).
///
/// # Errors
/// It is gone, or not ours to look at.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(rollup(&text))
}

fn rollup(text: &str) -> Memory {
    let field = |name: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum()
    };
    Memory {
        private_kib: field("Private_Clean:") + field("Private_Dirty:"),
        pss_kib: field("Pss:"),
    }
}

/// The parent of a process; none if it is gone.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; behind it come state and parent.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_pages_are_clean_and_dirty_ones_and_no_other_line_counts() {
        let text = "7f0000000000-7fff00000000 ---p 00000000 00:00 0 [rollup]\n\
            Rss: 900 kB\nPss: 70 kB\nPss_Dirty: 60 kB\nPss_Anon: 50 kB\nShared_Clean: 400 kB\n\
            Private_Clean: 3 kB\nPrivate_Dirty: 40 kB\nPrivate_Hugetlb: 0 kB\n";
        let memory = rollup(text);
        assert_eq!((memory.private_kib, memory.pss_kib), (43, 70));
    }

    #[test]
    fn parent_is_known_of_a_living_process_and_of_no_other() {
        let own = std::process::id();
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
        assert!(memory(own).expect("it lives").private_kib > 0);
        assert_eq!(parent(u32::MAX), None);
    }
}
