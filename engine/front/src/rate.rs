//! How many requests are taken of a key, and of all keys of a tenant.
//!
//! Invariant: nothing is kept for somebody who was not authenticated, so that there are as many buckets as there are keys
//! and tenants. A request that is refused takes nothing, and says when to ask again.

use std::time::Duration;

use brood_api::Code;
use brood_service::engine::Caller;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::fault::{Refusal, refusal};
use crate::{Bucket, Options};

/// All buckets.
pub(crate) struct Rates {
    keys: DefaultKeyedRateLimiter<String>,
    tenants: DefaultKeyedRateLimiter<String>,
}

impl Rates {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            keys: RateLimiter::keyed(quota(options.key_rate)),
            tenants: RateLimiter::keyed(quota(options.tenant_rate)),
        }
    }

    /// Takes one request of a caller.
    pub(crate) fn take(&self, caller: &Caller) -> Result<(), Refusal> {
        let subject = &caller.principal.subject;
        check(&self.keys, subject, "this key")?;
        check(&self.tenants, &caller.principal.tenant, "this tenant")
    }
}

fn check(
    buckets: &DefaultKeyedRateLimiter<String>,
    key: &String,
    whose: &str,
) -> Result<(), Refusal> {
    let Err(full) = buckets.check_key(key) else {
        return Ok(());
    };
    let wait = full.wait_time_from(DefaultClock::default().now());
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
    let words =
        format!("{whose} asks more often than the operator allows: ask again in {millis} ms");
    Err(Box::new(
        refusal(Code::RateLimited, words).retry_after(millis),
    ))
}

fn quota(bucket: Bucket) -> Quota {
    // A bucket that fills at once has no bound; a nanosecond is as good.
    let each = bucket.each.max(Duration::from_nanos(1));
    let quota = Quota::with_period(each).unwrap_or(Quota::per_second(bucket.burst));
    quota.allow_burst(bucket.burst)
}
