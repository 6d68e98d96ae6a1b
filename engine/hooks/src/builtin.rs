//! Deciders of the engine itself.
//!
//! Invariant: they answer in the same records as a component and are checked like one.

use crate::admission::{Grant, Hold, Item, Verdict, WhenFull};
use crate::{Admission, Decide, Denial, Failure, HookError, Now};

/// Admission by two numbers: daughters of one request, and living daughters of one tenant. What an engine without
/// plugins enforces, and a fallback for one whose plugin fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Most daughters of one request.
    pub per_request: u32,
    /// Most living daughters of one tenant.
    pub live_per_tenant: u32,
}

impl Ceiling {
    fn review(self, item: &Item) -> Result<Verdict, Failure> {
        let request = &item.request;
        if request.min_count > self.per_request {
            return Ok(Verdict::Deny(Denial {
                code: "quota".to_owned(),
                message: format!(
                    "{} daughters at once are more than the {} that a request may have",
                    request.min_count, self.per_request
                ),
                retry_after_ms: None,
            }));
        }
        Ok(Verdict::Admit(Grant {
            count: request.count.min(self.per_request),
            shape: None,
            ttl_ms: None,
            holds: vec![Hold {
                key: counter(&request.who.tenant)?,
                per_request: 0,
                per_daughter: 1,
                limit: self.live_per_tenant.into(),
                lasts_ms: None,
            }],
            when_full: WhenFull::Deny(Denial {
                code: "quota".to_owned(),
                message: format!("the tenant has {} living daughters", self.live_per_tenant),
                retry_after_ms: Some(1000),
            }),
            add_labels: Vec::new(),
            warnings: Vec::new(),
        }))
    }
}

/// The counter of a tenant. Its name is kept, and what a key must not hold is escaped, so that no two tenants share one.
fn counter(tenant: &str) -> Result<String, Failure> {
    let escaped: String = tenant
        .bytes()
        .map(|byte| match byte {
            b'%' => "%25".to_owned(),
            byte if byte.is_ascii_graphic() => char::from(byte).to_string(),
            byte => format!("%{byte:02x}"),
        })
        .collect();
    let key = format!("live/{escaped}");
    if key.len() > 128 {
        let message = "the tenant's name is too long for a counter".to_owned();
        return Err(Failure::Hook(HookError::Other(message)));
    }
    Ok(key)
}

impl Decide<Admission> for Ceiling {
    fn decide(&self, _: Now, ask: &Vec<Item>) -> Result<Vec<Verdict>, Failure> {
        ask.iter().map(|item| self.review(item)).collect()
    }
}
