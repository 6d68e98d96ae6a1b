//! A server in a process of its own, so that its log can be read and its limits set.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use brood_testkit::scratch;
use rustix::process::{Pid, Signal, kill_process};

use super::{Answer, PATIENCE, answer, request};
use crate::policy::{Bound, bound};

/// `brood serve`.
pub(crate) struct Apart {
    address: String,
    key: String,
    process: Child,
    log: mpsc::Receiver<String>,
    said: String,
    state: Arc<tempfile::TempDir>,
    _bound: Bound,
}

impl Apart {
    /// None, with a printed reason, if the shipped components were not built.
    pub(crate) fn start(policy: &str) -> Option<Self> {
        let bound = bound(policy)?;
        let directory = scratch();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("policy.toml"), policy).expect("written");
        let plugins = bound.components().display();
        let config = format!(
            "listen = \"127.0.0.1:0\"\nstate = \"state\"\npolicy = \"policy.toml\"\nplugins = \"{plugins}\"\n"
        );
        std::fs::write(path("brood.toml"), config).expect("written");
        let mut process = Command::new(env!("CARGO_BIN_EXE_brood"))
            .args(["serve", "--config"])
            .arg(path("brood.toml"))
            .envs([("RUST_LOG", "trace"), ("NO_COLOR", "1")])
            .env_remove("CREDENTIALS_DIRECTORY")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = lines(process.stderr.take().expect("a log"));
        let out = process.stdout.take().expect("an output");
        let mut server = Self {
            address: String::new(),
            key: String::new(),
            process,
            log,
            said: String::new(),
            state: Arc::new(directory),
            _bound: bound,
        };
        let line = server.log_until("serving address=");
        let address = line.split("address=").nth(1).unwrap_or_default();
        server.address = address.split(' ').next().unwrap_or_default().to_owned();
        let mut key = String::new();
        BufReader::new(out).read_line(&mut key).expect("a key");
        server.key = key.trim().to_owned();
        Some(server)
    }

    /// Reads the log up to a line with these words.
    pub(crate) fn log_until(&mut self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| unreachable!("{error}: {}", self.said));
            self.said.push_str(&line);
            if line.contains(words) {
                return line;
            }
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is set");
        stream
    }

    /// Asks with the first key.
    pub(crate) fn call(&self, line: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        let key = format!("Bearer {}", self.key);
        let request = request(line, &[("Authorization", &key)], body);
        stream.write_all(request.as_bytes()).expect("it is sent");
        answer(&mut stream)
    }

    pub(crate) const fn process(&self) -> &Child {
        &self.process
    }

    /// Where it keeps everything, its configuration included.
    pub(crate) fn state(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.state)
    }

    /// Interrupts it, which ends its machines as well; all that it said.
    pub(crate) fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.process), Signal::INT).expect("it is told");
        self.said.extend(self.log.iter());
        assert!(self.process.wait().expect("it ends").success());
        std::mem::take(&mut self.said)
    }
}

/// Lines as they come: a program whose log nobody reads stands still.
fn lines(log: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let log = BufReader::new(log).lines().map_while(Result::ok);
        log.map(|line| sender.send(line + "\n"))
            .take_while(Result::is_ok)
            .count()
    });
    lines
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It has ended already where the test was good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
