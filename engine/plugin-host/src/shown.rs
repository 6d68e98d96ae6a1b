//! Bindings for those who look at them.

use brood_hooks::{Bound, Calls};
use brood_policy::{BindingSpec, Mode, OnFailure, Tenants};

use crate::absent::Absent;
use crate::binding::Binding;
use crate::counter::Counters;
use crate::host::BindableHook;

fn shown(spec: &BindingSpec, counters: Counters) -> Bound {
    let mode = match spec.mode {
        Mode::Off => "off",
        Mode::Shadow => "shadow",
        Mode::Warn => "warn",
        Mode::Enforce => "enforce",
    };
    let on_failure = match &spec.on_failure {
        OnFailure::Closed => "closed".to_owned(),
        OnFailure::Open => "open".to_owned(),
        OnFailure::Fallback(name) => format!("fallback:{name}"),
    };
    let failed = counters.failed.iter();
    let failed = failed.map(|(kind, count)| (kind.as_str().to_owned(), *count));
    let (tenants, except_tenants) = match &spec.tenants {
        Tenants::All => (Vec::new(), Vec::new()),
        Tenants::Only(names) => (names.clone(), Vec::new()),
        Tenants::Except(names) => (Vec::new(), names.clone()),
    };
    Bound {
        tenants,
        except_tenants,
        binding: spec.name(),
        plugin: spec.plugin.clone(),
        mode: mode.to_owned(),
        order: spec.order,
        on_failure,
        calls: Calls {
            failed: failed.collect(),
            answered: counters.answered,
            refused: counters.refused,
            failed_open: counters.failed_open,
            fell_back: counters.fell_back,
            agreed: counters.agreed,
            disagreed: counters.disagreed,
            fuel: counters.fuel,
            nanos: counters.nanos,
            latency: counters.latency.to_vec(),
        },
        ..Bound::default()
    }
}

impl<H: BindableHook> Binding<H> {
    /// As it stands.
    pub(crate) fn shown(&self) -> Bound {
        let version = self.plugin().current();
        let (running, waiting) = self.lane_of(&version).traffic();
        let broken =
            "its breaker is open: its last calls failed, and it is asked again after a while";
        Bound {
            version: Some(version.description().version.clone()),
            digest: Some(version.digest().to_string()),
            settings: Some(version.settings_digest().to_string()),
            running,
            waiting,
            is_broken: self.is_broken(),
            trouble: self.is_broken().then(|| broken.to_owned()),
            ..shown(self.spec(), self.counters())
        }
    }
}

impl<H: BindableHook> Absent<H> {
    /// As it stands.
    pub(crate) fn shown(&self) -> Bound {
        Bound {
            trouble: Some(self.failure().to_string()),
            ..shown(self.spec(), self.counters())
        }
    }
}
