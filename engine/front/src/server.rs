//! Connections.
//!
//! Invariant: no client holds more than its connection: one that is slow to ask is let go, one that goes away changes
//! nothing, and more than the limit wait in the kernel's queue. When the server stops, nothing new is accepted, streams are
//! ended, and requests that run are answered.

use std::io;
use std::sync::Arc;

use axum::Router;
use brood_service::engine::Engine;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::Options;
use crate::call::Connection;
use crate::route::router;
use crate::state::{Shared, stop as stopped_by};

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
    let shared = Shared::new(engine, options, stopped.clone())?;
    let head_time = shared.options.head_time;
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
                tokio::spawn(converse(
                    http.clone(),
                    stream,
                    router.clone(),
                    stopped.clone(),
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
    stopping: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    // Answers are small and waited for; if it cannot be set they are only later.
    stream.set_nodelay(true).ok();
    let (router, place) = (TowerToHyperService::new(router), Connection::new(place));
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
