//! A program's terminal, as a WebSocket (RFC 6455).
//!
//! Invariant: nothing here waits. What is not there yet is said so, and what cannot be sent yet is kept until
//! [`Terminal::flush`] has sent it, so that one thread can watch the connection and whoever types.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};

use brood_api::exec::{Exec, Lost, TerminalAsk, TerminalWord, TtySize};
use brood_api::{OperationId as Id, Problem};
use brood_units::MachineId;
use tungstenite::client::client;
use tungstenite::{ClientRequestBuilder, Error, HandshakeError, Message, WebSocket};

use crate::ask::Ask;
use crate::client::{CONNECT, refused};
use crate::{Client, ClientError};

/// What a terminal says.
#[derive(Debug)]
pub enum Said {
    /// What is shown.
    Output(Vec<u8>),
    /// Bytes were overwritten before they were read.
    Lost(Lost),
    /// The program has ended.
    End(Exec),
}

/// A seat at a terminal.
#[derive(Debug)]
pub struct Terminal {
    client: Client,
    socket: WebSocket<TcpStream>,
}

impl Client {
    /// Sits down at a program's terminal, from a byte of its output on.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn terminal(
        &self,
        machine: MachineId,
        exec: u32,
        offset: u64,
    ) -> Result<Terminal, ClientError> {
        let ask = Ask::to(Id::Terminal).at(machine).at(exec);
        let (_, target) = ask.query("offset", Some(offset)).target()?;
        let host = self.address().host();
        let uri = format!("ws{}{target}", self.address().behind_scheme());
        let uri = uri.parse().map_err(|error| ClientError::NotSent {
            why: format!("{uri}: {error}"),
        })?;
        let mut request = ClientRequestBuilder::new(uri);
        if let Some(key) = self.key() {
            request = request.with_header("Authorization", key.bearer());
        }
        let stream = connect(&host).map_err(|error| self.unreachable(error))?;
        let socket = match client(request, stream) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let status = response.status().as_u16();
                let body = response.into_body().unwrap_or_default();
                return Err(self.refused(status, &body));
            }
            Err(HandshakeError::Failure(error)) => return Err(self.unreachable(error)),
            // The stream waits until here.
            Err(HandshakeError::Interrupted(_)) => return Err(self.unreachable("interrupted")),
        };
        let set = socket.get_ref().set_nonblocking(true);
        set.map_err(|error| self.unreachable(error))?;
        Ok(Terminal {
            client: self.clone(),
            socket,
        })
    }
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                // What is typed is small and waited for; if it cannot be set it is only later.
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Terminal {
    /// What comes next; none if nothing is there yet.
    ///
    /// # Errors
    /// The server's last words, or the connection has broken.
    pub fn hear(&mut self) -> Result<Option<Said>, ClientError> {
        loop {
            let text = match self.socket.read() {
                Ok(Message::Binary(bytes)) => return Ok(Some(Said::Output(bytes.into()))),
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                Err(error) if waits(&error) => return Ok(None),
                Err(error) => return Err(self.client.unreachable(error)),
            };
            let word = serde_json::from_str(&text);
            let word = word.map_err(|error| {
                let why = error.to_string();
                self.client.not_understood(101, &why, text.as_bytes())
            })?;
            return match word {
                TerminalWord::Lost(lost) => Ok(Some(Said::Lost(lost))),
                TerminalWord::End(exec) => Ok(Some(Said::End(exec))),
                TerminalWord::Problem(problem) => Err(last_words(*problem)),
            };
        }
    }

    /// Types something.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.send(Message::Binary(bytes.to_vec().into()))
    }

    /// Says that it has another size.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn resize(&mut self, size: TtySize) -> Result<(), ClientError> {
        let ask = TerminalAsk::Resize {
            cols: size.cols,
            rows: size.rows,
        };
        let text = serde_json::to_string(&ask).map_err(|error| ClientError::NotSent {
            why: error.to_string(),
        })?;
        self.send(Message::Text(text.into()))
    }

    /// Sends what was not sent yet; whether that was all of it.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn flush(&mut self) -> Result<bool, ClientError> {
        match self.socket.flush() {
            Ok(()) => Ok(true),
            Err(error) if waits(&error) => Ok(false),
            Err(error) => Err(self.client.unreachable(error)),
        }
    }

    fn send(&mut self, message: Message) -> Result<(), ClientError> {
        match self.socket.write(message) {
            Err(error) if !waits(&error) => Err(self.client.unreachable(error)),
            _ => Ok(()),
        }
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn waits(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn last_words(problem: Problem) -> ClientError {
    // Of strings and numbers alone it has a JSON form.
    let json = serde_json::to_string(&problem).unwrap_or_default();
    refused(problem, json)
}
