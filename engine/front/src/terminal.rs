//! A program's terminal as a WebSocket (RFC 6455).
//!
//! ```text
//!  client ── binary: what is typed, text: resize ──► keyboard, one thing at a time ──► guest
//!  client ◄─ binary: what is shown, text: lost, end, problem ◄── follower ◄────────── guest
//! ```
//!
//! Invariant: nothing is read from the client before the guest has taken what it said before, and nothing is taken from the
//! guest before the client has what was shown before, so that neither makes the server hold more than a frame. A client that
//! goes away ends its socket and nothing else; the socket ends with the program, with its key, or with the server.

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use brood_api::exec::{Lost, TerminalAsk, TerminalWord};
use brood_service::engine::exec::{Followed, Keyboard, Piece, Terminal, TtySize};
use tokio::sync::mpsc;

use crate::call::Connection;
use crate::convert;
use crate::fault::{Refusal, problem};
use crate::output_stream::{beat, stops};
use crate::state::{Shared, stop};

/// The longest frame that a client may send, bytes: an agent's frame holds it.
const FRAME: usize = 64 << 10;

/// A client, a program, and what is between them.
pub(crate) struct Sitting {
    pub(crate) shared: Shared,
    pub(crate) key: String,
    pub(crate) terminal: Terminal,
}

/// The response with which the connection becomes a WebSocket.
pub(crate) fn sit(
    (socket, connection): (WebSocketUpgrade, Connection),
    sitting: Sitting,
) -> Response {
    let socket = socket.max_frame_size(FRAME).max_message_size(FRAME);
    socket.on_upgrade(move |mut socket| async move {
        let ended = converse(&mut socket, sitting).await;
        let code = match ended {
            Ok(Ending::Program) => close_code::NORMAL,
            // Nobody is there to be told.
            Ok(Ending::Client) => return,
            Err(problem) => {
                let word = TerminalWord::Problem(problem);
                say(&mut socket, &word).await.ok();
                close_code::AWAY
            }
        };
        let close = CloseFrame {
            code,
            reason: "".into(),
        };
        socket.send(Message::Close(Some(close))).await.ok();
        // The place of the connection is free from here on.
        drop(connection);
    })
}

enum Ending {
    Program,
    Client,
}

enum Typed {
    Bytes(Bytes),
    Resize(TtySize),
}

/// The client is gone.
struct Gone;

async fn converse(socket: &mut WebSocket, sitting: Sitting) -> Result<Ending, Refusal> {
    let Sitting {
        shared,
        key,
        terminal,
    } = sitting;
    let Terminal {
        mut follower,
        keyboard,
    } = terminal;
    let mut stopping = std::pin::pin!(stop(shared.stopping.clone()));
    let mut beat = beat(&shared);
    let (typed, to_type) = mpsc::channel(1);
    let (failed, mut failures) = mpsc::channel(1);
    // It ends when nothing more can be typed.
    tokio::spawn(type_all(keyboard, to_type, failed));
    loop {
        let done = tokio::select! {
            biased;
            () = &mut stopping => return Err(stops()),
            _ = beat.tick() => {
                shared.engine.authenticate(&key).map_err(problem)?;
                socket.send(Message::Ping(Bytes::new())).await.map_err(|_| Gone)
            }
            Some(failure) = failures.recv() => say(socket, &TerminalWord::Problem(failure)).await,
            message = socket.recv(), if typed.capacity() > 0 => match message {
                Some(Ok(message)) => hear(socket, message, &typed).await,
                _ => Err(Gone),
            },
            () = follower.ready() => match follower.take().await.map_err(problem)? {
                None => Ok(()),
                Some(Followed::Piece(piece)) => show(socket, piece).await,
                Some(Followed::Ended(row)) => {
                    let end = TerminalWord::End(convert::exec(row));
                    return Ok(match say(socket, &end).await {
                        Ok(()) => Ending::Program,
                        Err(Gone) => Ending::Client,
                    });
                }
            },
        };
        if matches!(done, Err(Gone)) {
            return Ok(Ending::Client);
        }
    }
}

/// Types one thing after the other.
async fn type_all(
    mut keyboard: Keyboard,
    mut to_type: mpsc::Receiver<Typed>,
    failed: mpsc::Sender<Refusal>,
) {
    while let Some(typed) = to_type.recv().await {
        let done = match typed {
            Typed::Bytes(bytes) => keyboard.write(&bytes).await,
            Typed::Resize(size) => keyboard.resize(size).await,
        };
        if let Err(error) = done
            && failed.send(problem(error)).await.is_err()
        {
            return;
        }
    }
}

async fn hear(
    socket: &mut WebSocket,
    message: Message,
    typed: &mpsc::Sender<Typed>,
) -> Result<(), Gone> {
    let typing = match message {
        Message::Binary(bytes) => Typed::Bytes(bytes),
        Message::Text(text) => match brood_api::decode::<TerminalAsk>(text.as_bytes()) {
            Ok(TerminalAsk::Resize { cols, rows }) => Typed::Resize(TtySize { rows, cols }),
            Err(error) => {
                let problem = TerminalWord::Problem(Box::new(error.into()));
                return say(socket, &problem).await;
            }
        },
        Message::Ping(_) | Message::Pong(_) => return Ok(()),
        Message::Close(_) => return Err(Gone),
    };
    typed.send(typing).await.map_err(|_| Gone)
}

async fn show(socket: &mut WebSocket, piece: Piece) -> Result<(), Gone> {
    if piece.lost > 0 {
        let lost = TerminalWord::Lost(Lost {
            stream: convert::stream(piece.stream),
            offset: piece.offset.saturating_sub(piece.lost),
            bytes: piece.lost,
        });
        say(socket, &lost).await?;
    }
    let shown = Message::Binary(piece.bytes.into());
    socket.send(shown).await.map_err(|_| Gone)
}

async fn say(socket: &mut WebSocket, word: &TerminalWord) -> Result<(), Gone> {
    // Of strings and numbers alone, these have a JSON form.
    let text = serde_json::to_string(word).map_err(|_| Gone)?;
    socket
        .send(Message::Text(text.into()))
        .await
        .map_err(|_| Gone)
}
