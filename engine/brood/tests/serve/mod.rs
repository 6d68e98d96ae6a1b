//! The real program twice: one that serves on a port of its own, and one that asks it.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use brood_testkit::scratch;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::policy::SHIPPED;
use crate::program::components;

/// A variable that might say where a server is, or how a terminal looks.
const NOT_INHERITED: [&str; 7] = [
    "BROOD_URL",
    "BROOD_KEY",
    "BROOD_KEY_FILE",
    "XDG_CONFIG_HOME",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
];

/// `brood up` on a port of its own, until it is dropped.
pub(crate) struct Serve {
    child: Child,
    pub(crate) url: String,
    pub(crate) key: String,
    directory: tempfile::TempDir,
}

/// How a command ended, and what it said.
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The one JSON value on standard output.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stderr, "", "JSON is all there is");
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| unreachable!("{error}: {}", self.stdout))
    }

    /// The same, of a command that did what it was told.
    pub(crate) fn good(&self) -> Value {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
        self.json()
    }

    /// For people, of a command that did what it was told.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stderr, "");
        &self.stdout
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The program, knowing of no server.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let usual = || env!("CARGO_BIN_EXE_brood").into();
    let mut command = Command::new(std::env::var_os("BROOD_BIN").unwrap_or_else(usual));
    command.args(arguments).stdin(Stdio::null());
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    // Whose home has no key.
    command.env("HOME", "/nonexistent");
    command
}

/// Has the program do something without a server.
pub(crate) fn brood(arguments: &[&str]) -> Ended {
    program(arguments).output().expect("it runs").into()
}

impl Serve {
    /// None, with a printed reason, if the shipped components were not built.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(SHIPPED)
    }

    pub(crate) fn start_with(policy: &str) -> Option<Self> {
        Self::start_from(policy, &[])
    }

    /// One that has Linux guests; none, with a printed reason, where there are no guest files.
    pub(crate) fn start_with_guest() -> Option<Self> {
        let Some(files) = std::env::var_os("BROOD_GUEST_FILES") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "BROOD_GUEST_FILES is not set: run `cargo xtask test`"
            );
            println!("skipped: BROOD_GUEST_FILES is not set; `cargo xtask test` sets it");
            return None;
        };
        // An emulated machine takes longer to compile a component than a server waits, so nothing is bound there.
        Self::start_from("version = 1\n", &["--files".into(), files])
    }

    fn start_from(policy: &str, more: &[OsString]) -> Option<Self> {
        let plugins = components()?;
        let directory = scratch();
        let file = directory.path().join("policy.toml");
        fs::write(&file, policy).expect("it is written");
        let mut child = program(&["up", "--listen", "127.0.0.1:0"])
            .arg("--state")
            .arg(directory.path().join("state"))
            .arg("--policy")
            .arg(&file)
            .arg("--plugins")
            .arg(&plugins)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let (mut seen, mut address) = (String::new(), None);
        while address.is_none() {
            let line = seen.len();
            let read = log.read_line(&mut seen).expect("its log");
            assert!(read > 0, "it ended: {seen}");
            let words = seen[line..].split_whitespace();
            address = words
                .filter_map(|word| word.strip_prefix("address="))
                .map(str::to_owned)
                .next();
        }
        // It goes on to be read, so that whoever writes it does not wait.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let mut key = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("the key"));
        stdout.read_line(&mut key).expect("the key");
        Some(Self {
            child,
            url: format!("http://{}", address.unwrap_or_default()),
            key: key.trim().to_owned(),
            directory,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The program, knowing of this server.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command
            .env("BROOD_URL", &self.url)
            .env("BROOD_KEY", &self.key);
        command
    }

    /// Has the program do something.
    pub(crate) fn brood(&self, arguments: &[&str]) -> Ended {
        self.program(arguments).output().expect("it runs").into()
    }

    /// The same in JSON. The option stands behind the command's first word, where no program's arguments are.
    pub(crate) fn json(&self, arguments: &[&str]) -> Ended {
        let (command, rest) = arguments.split_at(1);
        self.brood(&[command, &["-o", "json"], rest].concat())
    }

    /// The same in JSON; it did what it was told.
    pub(crate) fn good(&self, arguments: &[&str]) -> Value {
        self.json(arguments).good()
    }

    /// The same for people.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        self.brood(arguments).text().to_owned()
    }

    /// A template and a machine of it, called `mother`; its id.
    pub(crate) fn mother(&self) -> String {
        self.good(&[
            "template", "create", "counter", "--guest", "bare", "--memory", "64",
        ]);
        let made = self.good(&["create", "counter", "--name", "mother"]);
        made["id"].as_str().unwrap_or_default().to_owned()
    }

    /// The body that a plain client is answered with.
    pub(crate) fn body(&self, line: &str, body: &str) -> String {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("it listens");
        let (key, length) = (&self.key, body.len());
        let request = format!(
            "{line} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        body.to_owned()
    }

    /// The head that somebody with another key is answered with.
    pub(crate) fn head_as(&self, key: &str, line: &str) -> String {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("it listens");
        let request = format!(
            "{line} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
        head.to_owned()
    }

    /// Interrupts it, which ends its machines as well, and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        // Once it was waited for, its number may be another's.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill_process(Pid::from_child(&self.child), Signal::INT).ok();
        }
        self.child.wait().ok();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.stop();
    }
}
