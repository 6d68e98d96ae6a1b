//! A Linux machine and its agent.
//!
//! Invariant: whoever holds a [`Machine`] holds one that may run its workload: booted, or forked and then stamped and
//! confirmed. What is not yet that has another type ([`crate::fork::Unstamped`]) and no way to run a program.

use std::os::fd::AsFd;
use std::time::{Duration, Instant as Deadline};

use brood_agent_proto::exec::{DEFAULTS_FILE, ExecSpec, ExecState, ProgramDefaults};
use brood_agent_proto::file::{MkdirParents, WriteSpec};
use brood_agent_proto::hello::HelloError;
use brood_agent_proto::{AGENT_PORT, AgentError, Client, ClientError, ForkRefusal};
use brood_cell::protocol::{CMDLINE, DiskSpec, GuestSpec, MachineSpec};
use brood_cell::{Cell, CellError};
use brood_units::MachineId;

use crate::host::Host;
use crate::identity;

/// How long a kernel may take to boot until its agent answers; the lab emulates every instruction.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);
/// How long one agent call may take.
pub const CALL_PATIENCE: Duration = Duration::from_secs(60);
/// The most output of one program that is taken.
const OUTPUT_BYTES: usize = 1 << 20;

/// How big a machine is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// RAM, MiB.
    pub ram_mib: u64,
    /// vCPUs.
    pub vcpus: u32,
}

/// A machine whose workload may run.
pub struct Machine {
    /// Its identity.
    pub id: MachineId,
    /// Whom it was forked from.
    pub mother: Option<MachineId>,
    /// Forks between the first machine of the lineage and this one.
    pub generation: u32,
    /// Its host name.
    pub hostname: String,
    pub(crate) cell: Cell,
    pub(crate) agent: Option<Client>,
}

impl Machine {
    /// Boots a machine and waits until its agent answers.
    ///
    /// # Errors
    /// The cell refuses, the guest ends, or the agent does not answer in time; the console's last lines are shown.
    pub fn boot(host: &Host, size: Size, extra_words: &str) -> anyhow::Result<Self> {
        let from = host.files()?;
        let mut cell = host.spawn()?;
        let machine = MachineSpec {
            ram_bytes: size.ram_mib << 20,
            vcpus: size.vcpus,
            disk: Some(DiskSpec::Base),
        };
        let guest = GuestSpec::Linux {
            command_line: format!("{CMDLINE} {} {extra_words}", from.words),
        };
        let files = [
            host.kvm.as_fd(),
            from.disk.as_fd(),
            from.kernel.as_fd(),
            from.initramfs.as_fd(),
        ];
        cell.boot(&machine, &guest, &files)?;
        cell.resume()?;
        let agent = connect(&mut cell, BOOT_PATIENCE);
        let agent = match agent {
            Ok(agent) => agent,
            Err(error) => {
                let console = cell
                    .console(0)
                    .map(|(_, _, bytes)| bytes)
                    .unwrap_or_default();
                let console = String::from_utf8_lossy(&console).into_owned();
                return Err(error.context(format!("the guest's console says:\n{console}")));
            }
        };
        let mut machine = Self::adopt(cell, agent)?;
        if from.defaults != ProgramDefaults::default() {
            machine.set_defaults(&from.defaults)?;
        }
        Ok(machine)
    }

    /// A machine that somebody else has started, with a conversation with its agent. The caller says that its workload
    /// may run.
    ///
    /// # Errors
    /// No identity can be drawn for it.
    pub fn adopt(cell: Cell, agent: Client) -> anyhow::Result<Self> {
        Ok(Self {
            id: identity::machine_id()?,
            mother: None,
            generation: 0,
            hostname: "mother".to_owned(),
            cell,
            agent: Some(agent),
        })
    }

    /// The conversation with the agent; a new one where a fork that failed half-way has ended the last.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn agent(&mut self) -> anyhow::Result<&mut Client> {
        let agent = self.take_agent()?;
        Ok(self.agent.insert(agent))
    }

    /// The conversation with the agent, for one that consumes it.
    pub(crate) fn take_agent(&mut self) -> anyhow::Result<Client> {
        match self.agent.take() {
            Some(agent) => Ok(agent),
            None => self.connect(),
        }
    }

    /// Another connection to the agent.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn connect(&mut self) -> anyhow::Result<Client> {
        connect(&mut self.cell, CALL_PATIENCE)
    }

    /// Makes the next fork of this machine pause shorter: memory that it has written densely gets huge pages. For a
    /// machine that will be forked again, at a time when nobody waits for it; how many units of 2 MiB, and the longest
    /// that its vCPUs stood still for one, microseconds.
    ///
    /// # Errors
    /// As [`Cell::collapse`]; the machine runs on.
    pub fn tend(&mut self) -> Result<(usize, f64), CellError> {
        let units = self.cell.collapse()?.paused_nanos;
        let longest = units.iter().copied().max().unwrap_or(0);
        Ok((units.len(), longest as f64 / 1000.0))
    }

    /// Of a machine that was taken over from an engine that died while it forked her: lets her workload run on. One that
    /// was not frozen goes on as she is.
    ///
    /// # Errors
    /// The agent does not answer, or does not let go in time.
    pub(crate) fn release(&mut self) -> anyhow::Result<()> {
        let deadline = Deadline::now() + CALL_PATIENCE;
        loop {
            match self.agent()?.release() {
                Ok(()) | Err(ClientError::Agent(AgentError::Fork(ForkRefusal::NotQuiesced))) => {
                    return Ok(());
                }
                // The agent has not heard yet that the other conversation is over.
                Err(ClientError::Agent(AgentError::Fork(ForkRefusal::WrongConnection)))
                    if Deadline::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The cell, for what has nothing to do with the guest's inside.
    pub fn cell(&mut self) -> &mut Cell {
        &mut self.cell
    }

    /// Her cell's process.
    pub fn pid(&self) -> u32 {
        self.cell.pid()
    }

    /// The cell alone, for who ends many at once.
    pub fn into_cell(self) -> Cell {
        self.cell
    }

    /// Runs a shell line to its end; its standard output without the last line break.
    ///
    /// # Errors
    /// It cannot be started or fails; its standard error is in the message.
    pub fn shell(&mut self, line: &str) -> anyhow::Result<String> {
        let output = self.agent()?.run(
            &ExecSpec::new(["sh", "-c", line]),
            CALL_PATIENCE,
            OUTPUT_BYTES,
        )?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.state == ExecState::Exited { code: 0 },
            "`{line}` ended with {:?}: {error}",
            output.state
        );
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    /// Says what programs get of whom their client says nothing else, in this machine and in all that are forked from it
    /// from now on.
    ///
    /// # Errors
    /// The agent refuses.
    pub fn set_defaults(&mut self, defaults: &ProgramDefaults) -> anyhow::Result<()> {
        let json = serde_json::to_vec(defaults)?;
        let agent = self.agent()?;
        if let Some((directory, _)) = DEFAULTS_FILE.rsplit_once('/') {
            agent.mkdir(directory, 0o755, MkdirParents::Create)?;
        }
        // Programs that are not root have no say in who the next one is.
        let spec = WriteSpec::replace(DEFAULTS_FILE, 0o644);
        agent.write_file(&spec, &mut json.as_slice())?;
        Ok(())
    }

    /// Ends the machine.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn end(self) -> anyhow::Result<()> {
        self.cell.end()?;
        Ok(())
    }
}

/// Connects to the agent, again and again until it answers or time is up. What answers and is no agent of ours will
/// not become one.
pub(crate) fn connect(cell: &mut Cell, patience: Duration) -> anyhow::Result<Client> {
    let deadline = Deadline::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Deadline::now());
        let attempt = cell
            .connect(AGENT_PORT)
            .map_err(anyhow::Error::from)
            .and_then(|stream| {
                let mut agent = Client::handshake(stream, left.min(CALL_PATIENCE))?;
                agent.set_timeout(CALL_PATIENCE);
                Ok(agent)
            });
        match attempt {
            Ok(client) => return Ok(client),
            Err(error) => {
                if is_final(&error) {
                    return Err(error.context("no conversation with the guest's agent"));
                }
                if Deadline::now() >= deadline {
                    let what =
                        format!("no conversation with the guest's agent within {patience:?}");
                    return Err(error.context(what));
                }
                // Neither driver nor agent says when it is up: a refused connection is all there is.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn is_final(error: &anyhow::Error) -> bool {
    let ended = matches!(
        error.downcast_ref(),
        Some(CellError::Ended(_) | CellError::Socket(_))
    );
    let stranger = matches!(
        error.downcast_ref(),
        Some(ClientError::Version { .. } | ClientError::Hello(HelloError::Magic))
    );
    ended || stranger
}
