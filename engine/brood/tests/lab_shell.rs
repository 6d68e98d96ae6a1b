//! `brood shell` where Linux guests run: somebody sits at a terminal here and types.

#![expect(clippy::panic, reason = "helpers of tests fail tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::serve::Serve;

/// So long something may take to be shown.
const PATIENCE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

/// A terminal of this host with `brood shell` in it.
struct Sitting {
    master: File,
    /// Held, so that its modes can be looked at when the program has ended.
    slave: OwnedFd,
    child: Child,
    /// What was shown and not looked for yet.
    shown: String,
}

impl Sitting {
    fn begin(serve: &Serve, size: (u16, u16), arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        unlockpt(&master).expect("it opens");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("its other side");
        resize(&master, size);
        let asked = serve.program(&[&["shell", "mother"], arguments].concat());
        // It gets the terminal as its own, so that it hears of another size.
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(asked.get_program())
            .args(asked.get_args());
        for (name, value) in asked.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        command.env("TERM", "dumb");
        command.stdin(end()).stdout(end()).stderr(end());
        Self {
            master: master.into(),
            child: command.spawn().expect("it starts"),
            slave,
            shown: String::new(),
        }
    }

    fn types(&mut self, line: &str) {
        self.master.write_all(line.as_bytes()).expect("it is typed");
    }

    /// Reads what is shown until that has `word`.
    fn shows(&mut self, word: &str) {
        while !self.shown.contains(word) {
            let mut polled = [PollFd::new(&self.master, PollFlags::IN)];
            let there = poll(&mut polled, Some(&PATIENCE)).expect("it is waited for");
            assert!(there > 0, "no {word:?} in {:?}", self.shown);
            let mut bytes = [0; 4096];
            match self.master.read(&mut bytes) {
                Ok(read) if read > 0 => {
                    self.shown += &String::from_utf8_lossy(&bytes[..read]);
                }
                other => panic!("{other:?} after {:?}", self.shown),
            }
        }
        let behind = self.shown.find(word).map_or(0, |at| at + word.len());
        self.shown.drain(..behind);
    }

    /// Whether this side of the terminal shows what is typed and makes lines of it, as it does for programs that do not ask
    /// for more.
    fn is_usual(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("its modes").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    fn ends_with(&mut self, status: i32) {
        let ended = self.child.wait().expect("it is reaped");
        assert_eq!(ended.code(), Some(status), "{:?}", self.shown);
        assert!(self.is_usual(), "the terminal is as it was before");
    }
}

fn resize(master: impl AsFd, (cols, rows): (u16, u16)) {
    let size = Winsize {
        ws_col: cols,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).expect("it is resized");
}

impl Drop for Sitting {
    fn drop(&mut self) {
        // After a test that failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn lab_shell_is_a_terminal_that_is_resized_left_and_come_back_to_and_ends_as_its_program_does() {
    let Some(serve) = Serve::start_with_guest() else {
        return;
    };
    serve.good(&["template", "create", "linux"]);
    serve.good(&["create", "linux", "--name", "mother"]);

    // What is shown is the guest's, and so is the size that its programs see.
    let mut here = Sitting::begin(&serve, (101, 31), &["-e", "WHO=her", "--", "sh"]);
    here.types("X=41; echo $WHO=$((X+1)) $(busybox uname -n)\n");
    here.shows("her=42 ");
    assert!(!here.is_usual(), "keys go to the guest as they are");
    here.types("busybox stty size\n");
    here.shows("31 101");
    resize(&here.master, (77, 22));
    here.types("until [ \"$(busybox stty size)\" = '22 77' ]; do :; done; echo now $((20+2))\n");
    here.shows("now 22");
    // An interrupt is for the program in the guest.
    here.types("sleep 600; echo rc $?\n");
    here.shows("sleep 600");
    here.types("\u{3}");
    here.shows("^C");
    here.types("echo after=$((1+1))\n");
    here.shows("after=2");

    // Whoever is gone finds the program where it was.
    let list = serve.good(&["logs", "mother"]);
    let exec = list["items"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["state"] == "running"))
        .unwrap_or_else(|| panic!("none runs: {list}"));
    let exec = exec["id"].to_string();
    here.child.kill().expect("it is killed");
    here.child.wait().expect("it is reaped");
    let mut again = Sitting::begin(&serve, (101, 31), &["--attach", &exec]);
    again.types("echo again=$((X+2))\n");
    again.shows("again=43");
    again.types("exit 7\n");
    again.ends_with(7);

    // Without a program it is the guest's shell; its end is the command's, however it comes.
    let mut shell = Sitting::begin(&serve, (80, 24), &[]);
    shell.types("kill -9 $$\n");
    shell.ends_with(137);
    let mut late = Sitting::begin(&serve, (80, 24), &["--attach", &exec]);
    late.ends_with(7);
}
