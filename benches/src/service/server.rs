//! `brood up` over a database that has rows already.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use brood_store::{
    Born, IntentRow, MachineKind, MachineState, ShapeRow, Store, StoreError, StoreOptions, Write,
};
use brood_units::{IntentId, MachineId, Timestamp};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;

/// The label of the machines that are listed.
pub(crate) const LABEL: (&str, &str) = ("job", "bench");
/// Whose they are: the tenant of the first key.
const TENANT: &str = "default";

/// The server's process.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    key: String,
    _state: tempfile::TempDir,
}

impl Server {
    /// Starts the program with the policy that ships, on a port of its own, over so many machines that have ended.
    pub(crate) fn start(program: &Path, plugins: &Path, ended: u32) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        fill(state.path(), ended)?;
        Self::launch(program, state, &["--plugins".into(), plugins.into()])
    }

    /// Starts the program with Linux guests and no policy, on a port of its own.
    pub(crate) fn start_linux(program: &Path, files: &Path) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let policy = state.path().join("policy.toml");
        std::fs::write(&policy, "version = 1\n")?;
        // No policy names a component.
        let plugins = state.path().into();
        let more = [
            "--policy".into(),
            policy.into(),
            "--plugins".into(),
            plugins,
        ];
        let more = [&more[..], &["--files".into(), files.into()]].concat();
        Self::launch(program, state, &more)
    }

    fn launch(program: &Path, state: tempfile::TempDir, more: &[OsString]) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["up", "--listen", "127.0.0.1:0", "--state"])
            .arg(state.path())
            .args(more)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let stderr = BufReader::new(child.stderr.take().context("no pipe")?);
        let mut stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut key = String::new();
        stdout.read_line(&mut key)?;
        let mut lines = stderr.lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("address=")?
                    .1
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .context("the server ended before it served")?;
        // What it says later is read, so that it never waits for room.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Ok(Self {
            child,
            address,
            key: key.trim().to_owned(),
            _state: state,
        })
    }

    /// A connection of its own.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.address, &self.key)
    }

    /// Ends the server and every machine.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let ended = self.child.wait()?;
        ensure!(ended.success(), "the server ended with {ended}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a bench that failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn fill(state: &Path, ended: u32) -> anyhow::Result<()> {
    let store = Store::open(state, &StoreOptions::default())?;
    let write = move |write: &mut Write<'_>| -> Result<(), StoreError> {
        let now = Timestamp::from_millis(1);
        let intent = IntentId::from_bytes([1; 16]);
        write.put_tenant(TENANT, now)?;
        write.add_intent(&IntentRow {
            id: intent,
            tenant: TENANT.to_owned(),
            operation: "fork".to_owned(),
            subject: MachineId::from_bytes([0; 16]),
            body: "{}".to_owned(),
            holds: Vec::new(),
            units: 0,
            created: now,
            closed: Some(now),
            outcome: Some("done".to_owned()),
        })?;
        for number in 0..ended {
            let mut bytes = [2; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let id = MachineId::from_bytes(bytes);
            write.add_machine(&Born {
                id,
                tenant: TENANT.to_owned(),
                project: "default".to_owned(),
                name: None,
                kind: MachineKind::Machine,
                mother: None,
                lineage: id,
                template: MachineId::from_bytes([0; 16]),
                generation: 0,
                state: MachineState::Running,
                shape: ShapeRow::default(),
                labels: [(LABEL.0.to_owned(), LABEL.1.to_owned())].into(),
                intent,
                created: now,
                expires: None,
                granted: None,
                idle_ms: None,
                carried: "{}".to_owned(),
            })?;
            write.end_machine(id, "long ago", now)?;
        }
        Ok(())
    };
    Ok(store.write(write).wait()?)
}
