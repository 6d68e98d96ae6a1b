//! Records of the mutation hook.

use brood_hooks::mutation::{self as ours, Content, Outcome, Patch, SecretTarget};

use super::{Cross, record, variant};
use crate::bindings::exports::brood::policy::mutation::{
    self as theirs, Content as TheirContent, Outcome as TheirOutcome, Patch as TheirPatch,
    SecretTarget as TheirSecretTarget,
};

record!(
    ours::PlacedRun,
    theirs::Run {
        daughters,
        node,
        numa
    }
);
record!(
    ours::Brief,
    theirs::Brief {
        request,
        daughters,
        first_id,
        placed
    }
);
record!(
    ours::File,
    theirs::File {
        path,
        mode,
        content
    }
);
record!(
    ours::Secret,
    theirs::Secret {
        name,
        version,
        target
    }
);
record!(
    ours::Network,
    theirs::Network {
        profile,
        hostname,
        egress_allow,
        rate_kbps
    }
);
record!(ours::Rule, theirs::Rule { daughters, patches });
record!(ours::Plan, theirs::Plan { shared, rules });
variant!(Content, TheirContent { Bytes(bytes), Template(template) });
variant!(SecretTarget, TheirSecretTarget { Env(name), File(path) });
variant!(Outcome, TheirOutcome { Plan(plan), Refuse(denial) });

impl Cross<Patch> for TheirPatch {
    fn cross(self) -> Patch {
        match self {
            Self::SetEnv((name, template)) => Patch::SetEnv(name, template),
            Self::UnsetEnv(name) => Patch::UnsetEnv(name),
            Self::WriteFile(file) => Patch::WriteFile(file.cross()),
            Self::RemoveFile(path) => Patch::RemoveFile(path),
            Self::Network(network) => Patch::Network(network.cross()),
            Self::Secret(secret) => Patch::Secret(secret.cross()),
            Self::Limits(limits) => Patch::Limits(limits.cross()),
            Self::Label((label, template)) => Patch::Label(label, template),
            Self::EntropyContext(bytes) => Patch::EntropyContext(bytes),
            Self::TtlMs(ttl) => Patch::TtlMs(ttl),
            Self::Other((name, document)) => Patch::Other(name, document),
        }
    }
}

impl Cross<TheirPatch> for Patch {
    fn cross(self) -> TheirPatch {
        match self {
            Self::SetEnv(name, template) => TheirPatch::SetEnv((name, template)),
            Self::UnsetEnv(name) => TheirPatch::UnsetEnv(name),
            Self::WriteFile(file) => TheirPatch::WriteFile(file.cross()),
            Self::RemoveFile(path) => TheirPatch::RemoveFile(path),
            Self::Network(network) => TheirPatch::Network(network.cross()),
            Self::Secret(secret) => TheirPatch::Secret(secret.cross()),
            Self::Limits(limits) => TheirPatch::Limits(limits.cross()),
            Self::Label(label, template) => TheirPatch::Label((label, template)),
            Self::EntropyContext(bytes) => TheirPatch::EntropyContext(bytes),
            Self::TtlMs(ttl) => TheirPatch::TtlMs(ttl),
            Self::Other(name, document) => TheirPatch::Other((name, document)),
        }
    }
}
