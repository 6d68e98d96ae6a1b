use brood_plugin::lifecycle::Batch;
use brood_plugin::metrics;
use brood_plugin::settings::{Diagnostics, Prepared};

brood_plugin::settings! {
    /// There is nothing to set.
    pub struct Settings {}
}

/// The plugin.
#[derive(Debug)]
pub struct Policy;

impl brood_plugin::Plugin for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    // Others are dropped by the engine, and counted.
    const METRICS: &'static [&'static str] = &["failed"];
    type Settings = Settings;

    fn prepare(_settings: &Settings, _prepared: &mut Prepared, _wrong: &mut Diagnostics) {}
}

impl brood_plugin::Lifecycle for Policy {
    fn observe(batch: Batch) {
        let failed = batch.kinds.iter().position(|kind| kind == "failed");
        let count = batch
            .events
            .iter()
            .filter(|event| Some(event.kind as usize) == failed)
            .count();
        if count > 0 {
            metrics::emit("failed", count as i64, &[]);
        }
    }
}

brood_plugin::export!(Policy: lifecycle);

#[cfg(test)]
mod tests {
    use brood_plugin::Lifecycle;
    use brood_plugin::lifecycle::Event;
    use brood_plugin::testkit::{Host, id};

    use super::*;

    #[test]
    fn failures_are_counted() {
        let host = Host::with_settings::<Policy>("{}").unwrap();
        let event = |kind| Event {
            request: id(1),
            daughter: None,
            kind,
            at_ns: 0,
            node: 0,
            code: 0,
        };
        let batch = Batch {
            lost: 0,
            kinds: vec!["ready".to_owned(), "failed".to_owned()],
            events: vec![event(0), event(1), event(1)],
        };
        host.call(|| {
            Policy::observe(batch);
            Ok(())
        })
        .unwrap();
        assert_eq!(host.metrics(), [("failed".to_owned(), 2)]);
    }
}
