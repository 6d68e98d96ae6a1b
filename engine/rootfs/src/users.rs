//! Users and groups of an image (passwd(5), group(5)). Invariant: what an image's configuration calls its user is looked up in
//! the image, never on the host; a line that is not well formed is skipped, never half used.

use brood_image::CommandError;
use brood_image::disk::read_file;

use crate::store::Disk;

/// Whom a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Further groups; none if the group was said.
    pub groups: Vec<u32>,
    /// Where the user is at home, if there is a line that says so.
    pub home: Option<String>,
}

/// There is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image's /etc/{file} has no '{name}': say a number, or a name that it has")]
pub struct UserError {
    file: &'static str,
    name: String,
}

/// The users and groups that an image knows.
#[derive(Clone, Debug, Default)]
pub struct Users {
    passwd: String,
    group: String,
}

impl Users {
    /// Of what the files hold.
    pub fn new(passwd: &[u8], group: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            passwd: text(passwd),
            group: text(group),
        }
    }

    /// Of a root disk; one without these files has none.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn of(disk: &Disk) -> Result<Self, CommandError> {
        let passwd = read_file(&disk.path, "/etc/passwd")?;
        let group = read_file(&disk.path, "/etc/group")?;
        Ok(Self::new(&passwd, &group))
    }

    /// `NAME`, `UID`, `NAME:GROUP`, `UID:GID`: as an image's configuration says it (image-spec, config.md, `User`).
    ///
    /// # Errors
    /// A name that there is not.
    pub fn resolve(&self, wanted: &str) -> Result<User, UserError> {
        let (who, with) = match wanted.split_once(':') {
            Some((who, with)) => (who, Some(with)),
            None => (wanted, None),
        };
        let line = self
            .users()
            .find(|line| line.name == who || who.parse() == Ok(line.uid));
        let uid = match &line {
            Some(line) => line.uid,
            None => who.parse().map_err(|_| UserError {
                file: "passwd",
                name: who.to_owned(),
            })?,
        };
        let gid = match with {
            Some(with) => self.group(with)?,
            // A number without a line has the group of the same number, as in the guest.
            None => line.as_ref().map_or(uid, |line| line.gid),
        };
        let groups = match (&line, with) {
            (Some(line), None) => self.memberships(line.name),
            _ => Vec::new(),
        };
        Ok(User {
            uid,
            gid,
            groups,
            home: line.map(|line| line.home.to_owned()),
        })
    }

    fn group(&self, wanted: &str) -> Result<u32, UserError> {
        let named = self.groups().find(|(name, ..)| *name == wanted);
        let gid = named.map(|(_, gid, _)| gid).or_else(|| wanted.parse().ok());
        gid.ok_or_else(|| UserError {
            file: "group",
            name: wanted.to_owned(),
        })
    }

    fn memberships(&self, user: &str) -> Vec<u32> {
        let of_user = |members: &str| members.split(',').any(|member| member == user);
        let groups = self.groups().filter(|(.., members)| of_user(members));
        groups.map(|(_, gid, _)| gid).collect()
    }

    fn users(&self) -> impl Iterator<Item = Line<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            let home = fields.nth(1)?;
            Some(Line {
                name,
                uid,
                gid,
                home,
            })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default()))
        })
    }
}

/// A line of `/etc/passwd`.
struct Line<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\nbroken:x:\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n";
        let group = b"root:x:0:\nann:x:1000:\nsudo:x:27:bob,ann\nbad:x\ndata:x:500:bob\n";
        Users::new(passwd, group)
    }

    #[test]
    fn name_brings_its_groups_and_home() {
        let ann = users().resolve("ann").expect("a user");
        assert_eq!((ann.uid, ann.gid, ann.groups), (1000, 1000, vec![27]));
        assert_eq!(ann.home.as_deref(), Some("/home/ann"));
        assert_eq!(users().resolve("1000").expect("a user").groups, [27]);
    }

    #[test]
    fn group_that_is_said_stands_alone() {
        let ann = users().resolve("ann:data").expect("a user");
        assert_eq!((ann.gid, ann.groups), (500, Vec::new()));
        let numbers = users().resolve("7:8").expect("numbers");
        assert_eq!((numbers.uid, numbers.gid, numbers.home), (7, 8, None));
    }

    #[test]
    fn number_needs_no_line_and_a_name_does() {
        assert_eq!(users().resolve("4242").expect("a number").gid, 4242);
        for (wanted, file) in [
            ("nobody", "passwd"),
            ("broken", "passwd"),
            ("ann:none", "group"),
        ] {
            let said = users().resolve(wanted).expect_err(wanted).to_string();
            assert!(said.contains(file), "{said}");
        }
    }
}
