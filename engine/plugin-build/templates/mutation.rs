use brood_plugin::mutation::{Brief, Network, Outcome, Patch, Plan};
use brood_plugin::settings::{Diagnostics, Prepared, prepared};
use brood_plugin::types::HookError;

brood_plugin::settings! {
    /// What daughters are given.
    pub struct Settings {
        /// Pattern of their host names; the engine fills in `${index}` and `${id}`.
        hostname: String,
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
    fn prepare(settings: &Settings, prepared: &mut Prepared, wrong: &mut Diagnostics) {
        if !settings.hostname.contains("${i") {
            wrong.add(
                &["hostname"],
                "without ${index} or ${id} all would have the same name",
            );
        }
        prepared.put("hostname", &settings.hostname);
    }
}

impl brood_plugin::Mutation for Policy {
    fn plan_daughters(brief: Brief) -> Result<Outcome, HookError> {
        let hostname: String = prepared("hostname")?;
        let tenant = brief.request.who.tenant;
        Ok(Outcome::Plan(Plan {
            shared: vec![
                Patch::Network(Network {
                    profile: None,
                    hostname: Some(hostname),
                    egress_allow: None,
                    rate_kbps: None,
                }),
                Patch::Label(("owner".to_owned(), tenant)),
            ],
            rules: Vec::new(),
        }))
    }
}

brood_plugin::export!(Policy: mutation);

#[cfg(test)]
mod tests {
    use brood_plugin::Mutation;
    use brood_plugin::testkit::{Host, brief};

    use super::*;

    #[test]
    fn one_pattern_names_all_daughters() {
        let host = Host::with_settings::<Policy>(r#"{"hostname": "web-${index}"}"#).unwrap();
        let outcome = host.call(|| Policy::plan_daughters(brief(1000))).unwrap();
        let Outcome::Plan(plan) = outcome else {
            panic!("refused: {outcome:?}")
        };
        assert!(
            matches!(&plan.shared[0], Patch::Network(network) if network.hostname.as_deref() == Some("web-${index}"))
        );
    }

    #[test]
    fn pattern_that_names_all_the_same_is_refused() {
        let refused = Host::with_settings::<Policy>(r#"{"hostname": "web"}"#)
            .err()
            .unwrap();
        assert_eq!(refused.0[0].at, "/hostname");
    }
}
