//! `brood logs`

use std::io::Write;
use std::process::ExitCode;

use anstream::eprintln;
use brood_api::exec::{Exec, ExecState, Offset, OutputPiece, OutputQuery, Stream, Streams};
use brood_client::{Client, Told};
use brood_units::MachineId;
use clap::{Args, ValueEnum};

use super::Run;
use super::failure::Failure;
use super::name;
use super::out::{BOLD, DIM, Out, PLAIN, Table, raw};
use super::time::{between, now};

/// `brood logs`
#[derive(Args)]
pub struct Arguments {
    /// The machine: its id, its name, or the end of its id.
    machine: String,
    /// The program, by its number; all programs are listed if not said.
    exec: Option<u32>,
    /// Go on with what comes, up to the program's end.
    #[arg(short, long, requires = "exec")]
    follow: bool,
    /// Which output.
    #[arg(long, default_value = "both", requires = "exec")]
    stream: Which,
    /// The place to begin at, as an answer in JSON names it: the beginning if not said.
    #[arg(long, value_name = "PLACE", requires = "exec")]
    offset: Option<Offset>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Both,
    Stdout,
    Stderr,
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        let machine = name::machine(client, &self.machine)?;
        let Some(exec) = self.exec else {
            let all = client.list_execs(machine)?;
            out.answer(&all, || draw(&all.items))?;
            return Ok(ExitCode::SUCCESS);
        };
        let query = OutputQuery {
            stream: match self.stream {
                Which::Both => Streams::Both,
                Which::Stdout => Streams::Stdout,
                Which::Stderr => Streams::Stderr,
            },
            offset: self.offset,
            limit: None,
        };
        match self.follow {
            true => follow(client, out, machine, exec, &query)?,
            false => read(client, out, machine, exec, query)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn follow(
    client: &Client,
    out: Out,
    machine: MachineId,
    exec: u32,
    query: &OutputQuery,
) -> Result<(), Failure> {
    for told in client.follow_output(machine, exec, query)? {
        match told? {
            Told::Piece(piece) => show(out, &piece)?,
            Told::Lost(lost) => lose(lost.bytes),
            Told::End(exec) if out.is_text() => drop(exec),
            Told::End(exec) => out.answer(&exec, String::new)?,
        }
    }
    Ok(())
}

/// What there is at this moment.
fn read(
    client: &Client,
    out: Out,
    machine: MachineId,
    exec: u32,
    mut query: OutputQuery,
) -> Result<(), Failure> {
    loop {
        let output = client.read_output(machine, exec, &query)?;
        for piece in &output.pieces {
            if out.is_text() {
                lose(piece.lost);
            }
            show(out, piece)?;
        }
        if output.pieces.is_empty() || output.ended {
            return Ok(());
        }
        query.offset = Some(output.next);
    }
}

/// In JSON a piece a line; else its bytes, where the program sent them.
fn show(out: Out, piece: &OutputPiece) -> Result<(), Failure> {
    if !out.is_text() {
        return out.answer(piece, String::new);
    }
    match piece.stream {
        Stream::Stdout => raw(&piece.data.0),
        Stream::Stderr => {
            let mut stderr = std::io::stderr().lock();
            Ok(stderr.write_all(&piece.data.0)?)
        }
    }
}

fn lose(bytes: u64) {
    if bytes > 0 {
        eprintln!("brood: {bytes} bytes of output are lost");
    }
}

fn draw(execs: &[Exec]) -> String {
    let (mut table, now) = (Table::new(&["EXEC", "STATE", "AGE", "PROGRAM"]), now());
    for one in execs {
        let (style, state) = match (one.state, one.code, one.signal) {
            (ExecState::Running, ..) => (BOLD, "running".to_owned()),
            (ExecState::Exited, Some(code), _) => (PLAIN, format!("exited {code}")),
            (ExecState::Exited, ..) => (PLAIN, "exited".to_owned()),
            (ExecState::Signaled, _, Some(signal)) => (PLAIN, format!("signal {signal}")),
            (ExecState::Signaled, ..) => (PLAIN, "signal".to_owned()),
            (ExecState::TimedOut, ..) => (PLAIN, "timed out".to_owned()),
            (ExecState::Lost, ..) => (DIM, "lost".to_owned()),
        };
        table.row([
            (PLAIN, one.id.to_string()),
            (style, state),
            (PLAIN, between(now, one.created_at)),
            (PLAIN, one.argv.join(" ")),
        ]);
    }
    table.draw()
}
