//! Metrics that are written as they are looked at.
//!
//! Invariant: each has its words, and a name without its unit, which is put behind it.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// No labels.
pub(super) const NONE: [(&str, &str); 0] = [];

/// Words about a metric.
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    pub(super) help: &'a str,
    pub(super) unit: Option<Unit>,
}

/// One without a unit.
pub(super) const fn about<'a>(name: &'a str, help: &'a str) -> About<'a> {
    About {
        name,
        help,
        unit: None,
    }
}

/// Where a scrape is written.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

/// Calls by the time that they took.
pub(super) struct Times {
    /// Of all together.
    pub(super) seconds: f64,
    /// Upper bounds in seconds, and how many calls are below it and not below the one before.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl<'a> Page<'a> {
    pub(super) const fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    fn begin<'s>(
        &'s mut self,
        about: &'s About<'s>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0
            .encode_descriptor(about.name, about.help, about.unit.as_ref(), kind)
    }

    pub(super) fn gauge<L: EncodeLabelSet>(
        &mut self,
        about: About<'_>,
        each: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.begin(&about, MetricType::Gauge)?;
        for (labels, value) in each {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn counter<L: EncodeLabelSet>(
        &mut self,
        about: About<'_>,
        each: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.begin(&about, MetricType::Counter)?;
        for (labels, count) in each {
            let mut one = metric.encode_family(&labels)?;
            one.encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
        }
        Ok(())
    }

    pub(super) fn histogram<L: EncodeLabelSet>(
        &mut self,
        about: About<'_>,
        each: impl IntoIterator<Item = (L, Times)>,
    ) -> fmt::Result {
        let mut metric = self.begin(&about, MetricType::Histogram)?;
        for (labels, times) in each {
            let Times { seconds, buckets } = times;
            let count = buckets.iter().map(|(_, count)| count).sum();
            let mut one = metric.encode_family(&labels)?;
            one.encode_histogram::<[(&str, &str); 0]>(seconds, count, &buckets, None)?;
        }
        Ok(())
    }
}
