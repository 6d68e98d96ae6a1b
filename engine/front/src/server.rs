//! Connections.
//!
//! Invariant: no client holds more than its connection: one that is slow to ask is let go, one that goes away changes
//! nothing, and more than the limit wait in the kernel's queue. When the server stops, nothing new is accepted, streams are
//! ended, and requests that run are answered.

use std::io;
use std::sync::Arc;

use axum::Router;
use brood_service::engine::Engine;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::Options;
use crate::route::router;
use crate::state::Shared;

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
    let drain_time = options.drain_time;
    let places = Arc::new(Semaphore::new(options.connections));
    let shared = Shared::new(engine, options, stopped)?;
    let head_time = shared.options.head_time;
    let router = router(shared);
    let graceful = GracefulShutdown::new();
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
                tokio::spawn(converse(
                    http.clone(),
                    stream,
                    router.clone(),
                    graceful.watcher(),
                    place,
                ));
            }
            Err(error) if is_passing(&error) => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    stopping.send_replace(true);
    // Those that take longer lose their connection; what they asked for is seen through by the engine.
    tokio::time::timeout(drain_time, graceful.shutdown())
        .await
        .ok();
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

/// Of one connection or of this moment, not of the listener (man 2 accept).
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

async fn converse(
    http: http1::Builder,
    stream: TcpStream,
    router: Router,
    watcher: Watcher,
    _place: OwnedSemaphorePermit,
) {
    // Answers are small and waited for; if it cannot be set they are only later.
    stream.set_nodelay(true).ok();
    let service = TowerToHyperService::new(router);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    // A client that breaks off is no event of the server's.
    watcher.watch(connection).await.ok();
}
