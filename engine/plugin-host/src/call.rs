//! One call of a component, under its limits.
//!
//! Invariant: whatever the component does, the call ends, with an answer or a [`Failure`], and the instance that failed
//! is never entered again. What the component used and was told comes back beside the answer.

mod context;
mod import;
mod journal;

use brood_hooks::{Admission, Billing, Failure, Hook, Mutation, Placement};
use brood_policy::Limits;
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

use crate::wit::{Answers, Hooks};

pub(crate) use context::{Beginning, Context, Settings};
pub use context::{LogLine, MetricPoint};
pub use journal::HostAnswer;
pub(crate) use journal::Journal;

/// A store with the instance in it.
pub(crate) struct Live {
    store: Store<Context>,
    instance: Instance,
}

impl Live {
    /// An instance for a call that is still to come; none where it cannot be had beforehand: the pool is empty, or code of
    /// the component would run already, which belongs to the call's fuel and journal.
    pub(crate) fn prepared(pre: &InstancePre<Context>, limits: &Limits) -> Option<Self> {
        let mut store = store(pre, Context::bare(limits));
        store.set_fuel(limits.fuel).ok()?;
        store.set_epoch_deadline(limits.deadline_ms.saturating_add(1));
        let instance = pre.instantiate(&mut store).ok()?;
        (store.get_fuel().ok()? == limits.fuel).then_some(Self { store, instance })
    }
}

/// What became of a call.
pub(crate) struct Ran<A> {
    pub(crate) result: Result<A, Failure>,
    pub(crate) fuel_used: u64,
    pub(crate) context: Context,
    /// The instance, where it may be used again.
    pub(crate) live: Option<Live>,
}

/// A hook that components can have.
pub(crate) trait ComponentHook: Hook {
    /// It, among those of a component.
    fn of(hooks: &Hooks) -> Option<&dyn Answers<Self>>
    where
        Self: Sized;
}

macro_rules! component_hook {
    ($hook:ident, $field:ident) => {
        impl ComponentHook for $hook {
            fn of(hooks: &Hooks) -> Option<&dyn Answers<Self>> {
                hooks.$field.as_deref()
            }
        }
    };
}
component_hook!(Admission, admission);
component_hook!(Placement, placement);
component_hook!(Mutation, mutation);
component_hook!(Billing, billing);

/// Calls a hook, in `live` if there is one, else in a new instance.
pub(crate) fn call<H: ComponentHook>(
    place: Place<'_>,
    context: Context,
    ask: &H::Ask,
) -> Ran<H::Answer> {
    let hook = H::of(place.hooks);
    let ran = run(place, context, |store, instance| {
        let missing = || wasmtime::Error::msg(format!("the component has no {} hook", H::NAME));
        hook.ok_or_else(missing)?.answer(store, instance, ask)
    });
    let (result, live) = match ran.result {
        Ok(Ok(answer)) => (Ok(answer), ran.live),
        // The component said so itself, in good order: its instance is sound.
        Ok(Err(error)) => (Err(Failure::Hook(error)), ran.live),
        Err(failure) => (Err(failure), None),
    };
    Ran {
        result,
        fuel_used: ran.fuel_used,
        context: ran.context,
        live,
    }
}

/// Where a call takes place.
pub(crate) struct Place<'a> {
    pub(crate) pre: &'a InstancePre<Context>,
    pub(crate) hooks: &'a Hooks,
    pub(crate) limits: &'a Limits,
    pub(crate) live: Option<Live>,
}

/// Runs `body` in an instance, under the limits.
pub(crate) fn run<T>(
    place: Place<'_>,
    context: Context,
    body: impl FnOnce(&mut Store<Context>, &Instance) -> wasmtime::Result<T>,
) -> Ran<T> {
    let Place {
        pre, limits, live, ..
    } = place;
    let (mut store, kept) = match live {
        Some(Live {
            mut store,
            instance,
        }) => {
            *store.data_mut() = context;
            (store, Some(instance))
        }
        None => (store(pre, context), None),
    };
    store.set_hostcall_fuel((limits.answer_kib as usize) << 10);
    // One tick more than asked, since the tick that is under way may end at once.
    store.set_epoch_deadline(limits.deadline_ms.saturating_add(1));
    let ran = store.set_fuel(limits.fuel).and_then(|()| {
        let instance = match kept {
            Some(instance) => instance,
            None => pre.instantiate(&mut store)?,
        };
        body(&mut store, &instance).map(|value| (value, instance))
    });
    let left = store.get_fuel().unwrap_or(0);
    let fuel_used = limits.fuel.saturating_sub(left);
    match ran {
        Ok((value, instance)) => {
            let context = std::mem::replace(store.data_mut(), Context::idle());
            let live = Some(Live { store, instance });
            Ran {
                result: Ok(value),
                fuel_used,
                context,
                live,
            }
        }
        Err(error) => {
            let context = store.into_data();
            let failure = failure(&error, limits, &context);
            Ran {
                result: Err(failure),
                fuel_used,
                context,
                live: None,
            }
        }
    }
}

fn store(pre: &InstancePre<Context>, context: Context) -> Store<Context> {
    let mut store = Store::new(pre.component().engine(), context);
    store.limiter(|context| &mut context.bounds);
    store
}

/// What wasmtime's error means to an operator.
fn failure(error: &wasmtime::Error, limits: &Limits, context: &Context) -> Failure {
    if let Some(excess) = error.downcast_ref::<context::Excess>() {
        return Failure::Excess {
            what: excess.what.to_owned(),
            limit: excess.limit,
        };
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Failure::Host {
            message: format!("no instance is free: {error}"),
        };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return Failure::OutOfFuel { fuel: limits.fuel },
        Some(Trap::Interrupt) => {
            return Failure::Deadline {
                deadline_ms: limits.deadline_ms,
            };
        }
        _ => {}
    }
    let message = format!("{error:#}");
    // wasmtime has no type for this one (`HostcallFuel` in its source); a test holds the words.
    if message.contains("too much data is being copied") {
        let what = "bytes in its answer, or in what it hands to an import".to_owned();
        return Failure::Excess {
            what,
            limit: u64::from(limits.answer_kib) << 10,
        };
    }
    Failure::Trap {
        message: context.explain(&message),
    }
}
