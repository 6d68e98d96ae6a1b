//! Connections.
//!
//! Invariant: no client holds more than its connection: one that is slow to ask or to read is let go, one that goes away
//! changes nothing, and more than the limit wait in the kernel's queue. A host that is out of descriptors or memory ends
//! nothing: the next client is accepted when there are some again. When the server stops, nothing new is accepted, streams are
//! ended, and requests that run are answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use brood_service::engine::Engine;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;

use crate::Options;
use crate::call::Connection;
use crate::route::router;
use crate::state::{Shared, stop as stopped_by};

/// How long nothing is accepted when the host is out of something.
const PAUSE: Duration = Duration::from_millis(100);
/// EMFILE, ENFILE, ENOBUFS and ENOMEM (errno(3), the numbers of include/uapi/asm-generic/errno-base.h and errno.h).
const SHORTAGE: [i32; 4] = [24, 23, 105, 12];

/// Serves until `stop`, then lets requests end.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    options: Options,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let connections = u32::try_from(options.connections).unwrap_or(u32::MAX);
    let drain_time = options.drain_time;
    let places = Arc::new(Semaphore::new(options.connections));
    let waiting = engine.clone();
    let shared = Shared::new(engine, options, stopped.clone())?;
    let (head_time, write_time) = (shared.options.head_time, shared.options.write_time);
    let metrics = Arc::clone(&shared.metrics);
    let router = router(shared);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_time);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let place = Connection::new(place, metrics.connection());
                tokio::spawn(converse(
                    http.clone(),
                    patient(stream, write_time),
                    router.clone(),
                    stopped.clone(),
                    place,
                ));
            }
            Err(error) => match after(&error) {
                After::Again => tokio::task::yield_now().await,
                After::Pause => {
                    tracing::warn!(%error, "cannot accept connections; trying again after a pause");
                    tokio::select! {
                        () = &mut stop => break,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
                After::End => return Err(error),
            },
        }
    }
    drop(listener);
    waiting.stop_waiting();
    stopping.send_replace(true);
    // Those that take longer lose their connection; what they asked for is seen through by the engine.
    let all = places.acquire_many(connections);
    tokio::time::timeout(drain_time, all).await.ok();
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// What an error of accept means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It was of one connection, or of this moment.
    Again,
    /// The host is out of something. Asking again at once would only keep a CPU busy.
    Pause,
    /// It is of the listener.
    End,
}

/// man 2 accept, "ERRORS".
fn after(error: &io::Error) -> After {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::Interrupted
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable => After::Again,
        _ if error
            .raw_os_error()
            .is_some_and(|errno| SHORTAGE.contains(&errno)) =>
        {
            After::Pause
        }
        _ => After::End,
    }
}

/// A stream that fails once it could not be written to for so long.
fn patient(stream: TcpStream, write_time: Duration) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are small and waited for; if it cannot be set they are only later.
    stream.set_nodelay(true).ok();
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_time));
    Box::pin(stream)
}

async fn converse(
    http: http1::Builder,
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    router: Router,
    stopping: watch::Receiver<bool>,
    place: Connection,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        router.call(request)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection.with_upgrades());
    // A client that breaks off is no event of the server's.
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        () = stopped_by(stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_of_the_host_is_waited_out_and_only_the_listeners_own_errors_end_it() {
        for errno in SHORTAGE {
            assert_eq!(after(&io::Error::from_raw_os_error(errno)), After::Pause);
        }
        // ECONNABORTED of one connection; EBADF and EINVAL of the listener.
        assert_eq!(after(&io::Error::from_raw_os_error(103)), After::Again);
        for errno in [9, 22] {
            assert_eq!(after(&io::Error::from_raw_os_error(errno)), After::End);
        }
    }
}
