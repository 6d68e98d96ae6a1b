//! Users and groups out of `/etc/passwd` and `/etc/group` (passwd(5), group(5)), read directly: a static program has no
//! name service. Invariant: a line that is not well formed is skipped, never half used.

use std::fs;
use std::path::Path;

/// Whom a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Name, home and shell, where the user has a line.
    pub(crate) entry: Option<Entry>,
}

/// What only `/etc/passwd` knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Longest user database read, in bytes.
const LONGEST: u64 = 4 << 20;

/// Looks up `name`, `uid`, `name:group` or `uid:gid` below `root`. None if a name is unknown.
pub(crate) fn look_up(wanted: &str, root: &Path) -> Option<User> {
    let passwd = read(&root.join("etc/passwd"));
    let group = read(&root.join("etc/group"));
    resolve(wanted, &passwd, &group)
}

fn read(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() <= LONGEST => fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default(),
        _ => String::new(),
    }
}

fn resolve(wanted: &str, passwd: &str, group: &str) -> Option<User> {
    let (who, with) = match wanted.split_once(':') {
        Some((who, with)) => (who, Some(with)),
        None => (wanted, None),
    };
    let line = passwd
        .lines()
        .filter_map(parse_user)
        .find(|(uid, _, entry)| entry.name == who || who.parse() == Ok(*uid));
    let (uid, own_gid, entry) = match line {
        Some((uid, gid, entry)) => (uid, Some(gid), Some(entry)),
        None => (who.parse().ok()?, None, None),
    };
    let gid = match with {
        Some(with) => parse_group(with, group)?,
        // A number without a line: the group of the same number, as a container runtime would not guess root.
        None => own_gid.unwrap_or(uid),
    };
    // An explicit group replaces the supplementary ones (as with docker's USER).
    let groups = match (&entry, with) {
        (Some(entry), None) => supplementary(&entry.name, group),
        _ => Vec::new(),
    };
    Some(User {
        uid,
        gid,
        groups,
        entry,
    })
}

fn parse_user(line: &str) -> Option<(u32, u32, Entry)> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let (_password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
    let (_gecos, home, shell) = (fields.next()?, fields.next()?, fields.next()?);
    let entry = Entry {
        name,
        home: home.to_owned(),
        shell: shell.to_owned(),
    };
    Some((uid.parse().ok()?, gid.parse().ok()?, entry))
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn parse_group(wanted: &str, group: &str) -> Option<u32> {
    group_lines(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .or_else(|| wanted.parse().ok())
}

fn supplementary(user: &str, group: &str) -> Vec<u32> {
    group_lines(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken:x:\nann:x:1000:1000:Ann:/home/ann:/bin/bash\n";
    const GROUP: &str =
        "root:x:0:\nann:x:1000:\nsudo:x:27:bob,ann\nvideo:x:44:ann\ndata:x:500:bob\n";

    #[test]
    fn a_name_brings_its_groups_and_home() {
        let user = resolve("ann", PASSWD, GROUP).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups),
            (1000, 1000, vec![27, 44])
        );
        assert_eq!(user.entry.unwrap().home, "/home/ann");
    }

    #[test]
    fn a_group_after_a_colon_stands_alone() {
        let user = resolve("ann:data", PASSWD, GROUP).unwrap();
        assert_eq!((user.gid, user.groups), (500, vec![]));
        assert_eq!(resolve("7:8", PASSWD, GROUP).unwrap().gid, 8);
    }

    #[test]
    fn a_number_needs_no_line_and_a_name_does() {
        let user = resolve("4242", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, user.entry), (4242, 4242, None));
        assert_eq!(resolve("nobody-here", PASSWD, GROUP), None);
        assert_eq!(resolve("broken", PASSWD, GROUP), None);
        assert_eq!(resolve("ann:nogroup-here", PASSWD, GROUP), None);
    }
}
