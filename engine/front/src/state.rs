//! What all requests share.

use std::sync::Arc;

use axum::body::Bytes;
use brood_service::engine::Engine;
use tokio::sync::watch;

use crate::metric::Metrics;
use crate::rate::Rates;
use crate::{Options, status};

/// Until the server is to stop.
pub(crate) async fn stop(mut stopping: watch::Receiver<bool>) {
    // Who can no longer say so is gone itself.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Cloned for each request.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) options: Arc<Options>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) metrics: Arc<Metrics>,
    /// The OpenAPI document, made once.
    pub(crate) document: Bytes,
    /// Becomes true when the server is to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        options: Options,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, serde_json::Error> {
        let document =
            serde_json::to_vec(&brood_api::document(|outcome| status::of(outcome).as_u16()))?;
        Ok(Self {
            metrics: Arc::new(Metrics::new(&engine, options.tenant_labels)),
            engine,
            rates: Arc::new(Rates::new(&options)),
            options: Arc::new(options),
            document: document.into(),
            stopping,
        })
    }
}
