//! `brood shell`
//!
//! Invariant: the terminal is as it was before when the command ends, however it ends. A connection that breaks leaves the
//! program where it is: whoever comes back to it goes on.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use anstream::eprintln;
use brood_api::exec::{Exec, ExecSpec, TtySize};
use brood_client::{Client, Said, Terminal};
use brood_units::MachineId;
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::Run;
use super::exec::{Around, status};
use super::failure::Failure;
use super::name;
use super::out::{Out, raw};

/// What is started if nothing is named.
const SHELL: [&str; 3] = [
    "/bin/sh",
    "-c",
    "if command -v bash >/dev/null; then exec bash; else exec sh; fi",
];
/// Where nothing says how large a terminal is.
const SIZE: TtySize = TtySize { cols: 80, rows: 24 };
/// End of file on a terminal (termios(3), VEOF).
const END: [u8; 1] = [4];
/// The most that is typed at once.
const TYPED: usize = 16 << 10;

/// `brood shell`
#[derive(Args)]
pub struct Arguments {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
    #[command(flatten)]
    around: Around,
    /// Come back to a program with a terminal that runs already, by its number.
    #[arg(long, value_name = "EXEC", conflicts_with_all = ["argv", "env", "cwd", "user"])]
    attach: Option<u32>,
    /// The program and its arguments; the guest's shell if not said.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    argv: Vec<String>,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        if !out.is_text() {
            let words = "a terminal is for people: in JSON, use `brood exec` or `brood logs`";
            return Err(Failure::usage(words));
        }
        let machine = name::machine(client, &self.machine)?;
        let exec = match self.attach {
            Some(exec) => exec,
            None => client.start_exec(machine, &self.spec(), None)?.exec.id,
        };
        // Of the program and not of the terminal, whose modes are being changed.
        let ended = sit(client, machine, exec);
        let ended = ended.inspect_err(|_| {
            eprintln!(
                "\r\nbrood: program {exec} may run on: brood shell {machine} --attach {exec}"
            );
        })?;
        Ok(ExitCode::from(status(&ended)))
    }
}

impl Arguments {
    fn spec(self) -> ExecSpec {
        let argv = match self.argv.is_empty() {
            true => SHELL.map(str::to_owned).to_vec(),
            false => self.argv,
        };
        let mut spec = ExecSpec {
            tty: Some(size().unwrap_or(SIZE)),
            stdin: Some(true),
            wait: Some(false),
            ..self.around.program(argv)
        };
        // Programs ask it how the terminal is steered (environ(7)).
        if let Ok(term) = std::env::var("TERM") {
            spec.env.entry("TERM".to_owned()).or_insert(term);
        }
        spec
    }
}

/// The size of the terminal here, if there is one.
fn size() -> Option<TtySize> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin()));
    size.ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0)
        .map(|size| TtySize {
            cols: size.ws_col,
            rows: size.ws_row,
        })
}

fn sit(client: &Client, machine: MachineId, exec: u32) -> Result<Exec, Failure> {
    let mut terminal = client.terminal(machine, exec, 0)?;
    let resized = resizes()?;
    if let Some(size) = size() {
        terminal.resize(size)?;
    }
    let _raw = Raw::enter()?;
    let stdin = std::io::stdin();
    let mut typing = true;
    loop {
        if let Some(ended) = hear(&mut terminal)? {
            return Ok(ended);
        }
        let sent = terminal.flush()?;
        let ready = wait(
            &terminal,
            sent,
            stdin.as_fd(),
            typing && sent,
            resized.as_fd(),
        )?;
        if ready.typed {
            typing = type_on(&mut terminal, stdin.as_fd())?;
        }
        if ready.resized {
            drain(resized.as_fd());
            if let Some(size) = size() {
                terminal.resize(size)?;
            }
        }
    }
}

/// Shows what is there; the program, if it has ended.
fn hear(terminal: &mut Terminal) -> Result<Option<Exec>, Failure> {
    while let Some(said) = terminal.hear()? {
        match said {
            Said::Output(bytes) => raw(&bytes)?,
            Said::Lost(lost) => eprintln!("\r\nbrood: {} bytes of output are lost\r", lost.bytes),
            Said::End(exec) => return Ok(Some(exec)),
        }
    }
    Ok(None)
}

/// Types what was typed here; whether more may come.
fn type_on(terminal: &mut Terminal, stdin: BorrowedFd<'_>) -> Result<bool, Failure> {
    let mut typed = vec![0; TYPED];
    match rustix::io::read(stdin, &mut typed) {
        Ok(0) => {
            terminal.write(&END)?;
            Ok(false)
        }
        Ok(read) => {
            terminal.write(typed.get(..read).unwrap_or_default())?;
            Ok(true)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(error) => Err(Failure::local(format!(
            "cannot read what is typed: {error}"
        ))),
    }
}

#[derive(Default)]
struct Ready {
    typed: bool,
    resized: bool,
}

fn wait(
    terminal: &Terminal,
    sent: bool,
    stdin: BorrowedFd<'_>,
    typing: bool,
    resized: BorrowedFd<'_>,
) -> Result<Ready, Failure> {
    let talk = match sent {
        true => PollFlags::IN,
        false => PollFlags::IN | PollFlags::OUT,
    };
    let mut watched = vec![
        PollFd::new(terminal, talk),
        PollFd::from_borrowed_fd(resized, PollFlags::IN),
    ];
    if typing {
        watched.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
    }
    match poll(&mut watched, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Ready::default()),
        Err(error) => return Err(Failure::local(format!("cannot wait: {error}"))),
    }
    let happened = |index: usize| {
        watched
            .get(index)
            .is_some_and(|one| !one.revents().is_empty())
    };
    Ok(Ready {
        resized: happened(1),
        typed: happened(2),
    })
}

/// A descriptor with something to read each time the terminal has got another size (SIGWINCH, signal(7)).
fn resizes() -> Result<OwnedFd, Failure> {
    let failed =
        |error: std::io::Error| Failure::local(format!("cannot watch the terminal: {error}"));
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (reader, writer) = pipe_with(flags).map_err(|error| failed(error.into()))?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(failed)?;
    let mut changes = {
        let _inside = runtime.enter();
        signal(SignalKind::window_change()).map_err(failed)?
    };
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while changes.recv().await.is_some() {
                // A pipe that is full says so already.
                if rustix::io::write(&writer, &[1]) == Err(Errno::PIPE) {
                    return;
                }
            }
        });
    });
    Ok(reader)
}

fn drain(pipe: BorrowedFd<'_>) {
    let mut many = [0; 64];
    while rustix::io::read(pipe, &mut many).is_ok_and(|read| read > 0) {}
}

/// Standard input in raw mode, where it is a terminal, until this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let failed = |error: Errno| Failure::local(format!("cannot change the terminal: {error}"));
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Whoever sits there can still type `reset`.
            tcsetattr(std::io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}
