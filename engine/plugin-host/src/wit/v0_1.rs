//! `brood:policy@0.1`: the package in `wit/`.
//!
//! Invariant: what is generated from `wit/` is reached here and in `convert` and nowhere else.

use brood_hooks::{Admission, Billing, HookError, Mutation, Placement};
use brood_policy::Import;
use wasmtime::Store;
use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};

use super::{Answers, Dialect, Found, Hooks, Introduces, Prepared};
use crate::bindings::brood::policy::{clock, config, log, metrics, placement_types, state, types};
use crate::bindings::exports::brood::policy::{admission, billing, mutation, placement, plugin};
use crate::call::Context;
use crate::child::Diagnostic;
use crate::convert::Cross;
use crate::version::Description;

pub(super) const DIALECT: Dialect = Dialect {
    name: "brood:policy@0.1.0",
    prefix: "0.1.",
    types: link_types,
    import: link,
    hook: find,
    introduces: |pre| Ok(Box::new(Own(plugin::GuestIndices::new(pre)?))),
};

fn link_types(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |context| context)?;
    placement_types::add_to_linker::<_, HasSelf<_>>(linker, |context| context)
}

fn link(linker: &mut Linker<Context>, import: Import) -> wasmtime::Result<()> {
    match import {
        Import::Log => log::add_to_linker::<_, HasSelf<_>>(linker, |context| context),
        Import::Config => config::add_to_linker::<_, HasSelf<_>>(linker, |context| context),
        Import::Clock => clock::add_to_linker::<_, HasSelf<_>>(linker, |context| context),
        Import::State => state::add_to_linker::<_, HasSelf<_>>(linker, |context| context),
        Import::Metrics => metrics::add_to_linker::<_, HasSelf<_>>(linker, |context| context),
    }
}

fn find(interface: &str, pre: &InstancePre<Context>, hooks: &mut Hooks) -> wasmtime::Result<Found> {
    match interface {
        "admission" => hooks.admission = Some(Box::new(admission::GuestIndices::new(pre)?)),
        "placement" => hooks.placement = Some(Box::new(placement::GuestIndices::new(pre)?)),
        "mutation" => hooks.mutation = Some(Box::new(mutation::GuestIndices::new(pre)?)),
        "billing" => hooks.billing = Some(Box::new(billing::GuestIndices::new(pre)?)),
        _ => return Ok(Found::Other),
    }
    Ok(Found::Hook)
}

macro_rules! answers {
    ($hook:ident, $interface:ident, $call:ident, $asked:ty) => {
        impl Answers<$hook> for $interface::GuestIndices {
            fn answer(
                &self,
                store: &mut Store<Context>,
                instance: &Instance,
                ask: &<$hook as brood_hooks::Hook>::Ask,
            ) -> wasmtime::Result<Result<<$hook as brood_hooks::Hook>::Answer, HookError>> {
                let hook = self.load(&mut *store, instance)?;
                let asked: $asked = ask.clone().cross();
                let answered = hook.$call(store, &asked)?;
                Ok(answered.map(Cross::cross).map_err(Cross::cross))
            }
        }
    };
}
answers!(Admission, admission, call_review, Vec<admission::Item>);
answers!(Placement, placement, call_rank, placement::Question);
answers!(Mutation, mutation, call_plan_daughters, mutation::Brief);
answers!(Billing, billing, call_rate, billing::Batch);

struct Own(plugin::GuestIndices);

impl Introduces for Own {
    fn describe(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
    ) -> wasmtime::Result<Description> {
        let told = self.0.load(&mut *store, instance)?.call_describe(store)?;
        Ok(Description {
            name: told.name,
            version: told.version,
            settings_schema: told.settings_schema,
            metrics: told.metrics,
        })
    }

    fn prepare(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
        document: &str,
    ) -> wasmtime::Result<Prepared> {
        let own = self.0.load(&mut *store, instance)?;
        let diagnostic = |wrong: plugin::Diagnostic| Diagnostic {
            at: wrong.at,
            message: wrong.message,
        };
        let prepared = own.call_prepare(store, document)?;
        Ok(prepared.map_err(|wrong| wrong.into_iter().map(diagnostic).collect()))
    }
}
