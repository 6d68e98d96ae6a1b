use brood_plugin::admission::{Grant, Hold, Item, Verdict, WhenFull};
use brood_plugin::settings::{Diagnostics, Prepared, prepared};
use brood_plugin::types::{Denial, HookError};

brood_plugin::settings! {
    /// Limits of every tenant.
    pub struct Settings {
        /// Most live machines of a tenant.
        max_live: u32 = 8,
    }
}

/// The plugin.
#[derive(Debug)]
pub struct Policy;

impl brood_plugin::Plugin for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    // Runs when the settings change. What the hook needs is stored, so that no call parses JSON.
    fn prepare(settings: &Settings, prepared: &mut Prepared, _wrong: &mut Diagnostics) {
        prepared.put("max-live", &settings.max_live);
    }
}

impl brood_plugin::Admission for Policy {
    fn review(items: Vec<Item>) -> Result<Vec<Verdict>, HookError> {
        let max_live: u32 = prepared("max-live")?;
        Ok(items.iter().map(|item| decide(max_live, item)).collect())
    }
}

/// Admits, with a hold: the engine counts what lives, and refuses in our words when the limit is reached.
fn decide(max_live: u32, item: &Item) -> Verdict {
    let request = &item.request;
    let tenant = &request.who.tenant;
    Verdict::Admit(Grant {
        count: request.count,
        shape: None,
        ttl_ms: None,
        holds: vec![Hold {
            key: format!("live/{tenant}"),
            per_request: 0,
            per_daughter: 1,
            limit: max_live.into(),
            lasts_ms: None,
        }],
        when_full: WhenFull::Deny(Denial {
            code: "quota".to_owned(),
            message: format!("tenant {tenant} may have {max_live} live machines"),
            retry_after_ms: None,
        }),
        add_labels: Vec::new(),
        warnings: Vec::new(),
    })
}

brood_plugin::export!(Policy: admission);

#[cfg(test)]
mod tests {
    use brood_plugin::Admission;
    use brood_plugin::testkit::{Host, item};

    use super::*;

    #[test]
    fn every_machine_is_held_against_the_limit() {
        let host = Host::with_settings::<Policy>(r#"{"max-live": 3}"#).unwrap();
        let verdicts = host.call(|| Policy::review(vec![item(2)])).unwrap();
        let [Verdict::Admit(grant)] = &verdicts[..] else {
            panic!("not admitted: {verdicts:?}")
        };
        assert_eq!((grant.holds[0].per_daughter, grant.holds[0].limit), (1, 3));
    }

    #[test]
    fn wrong_settings_are_refused_with_their_place() {
        let refused = Host::with_settings::<Policy>(r#"{"max-live": -1}"#)
            .err()
            .unwrap();
        assert_eq!(refused.0[0].at, "/max-live");
    }
}
