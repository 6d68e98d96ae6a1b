//! Templates.

use brood_api::fork::ForkSpec;
use brood_api::template::{GuestKind, Template, TemplateSpec, Visibility};
use brood_api::{ListQuery, Page as WirePage};
use brood_service::engine::{self, CreateTemplate, Page};

use super::machine::fork_of;
use crate::answer::Answer;
use crate::call::Call;
use crate::convert;
use crate::fault::{Refusal, problem};

pub(super) fn list(call: &Call) -> Result<Answer, Refusal> {
    let query: ListQuery = call.query()?;
    let caller = call.caller()?;
    let page = Page {
        after: query.after(),
        limit: query.limit(),
    };
    let found = call.engine().templates(caller, page).map_err(problem)?;
    let page: WirePage<Template> = convert::page(found, |row| convert::template(caller, row))?;
    Answer::of(&page)
}

pub(super) fn show(call: &Call) -> Result<Answer, Refusal> {
    let caller = call.caller()?;
    let row = call.engine().template(caller, call.text("template")?);
    Answer::of(&convert::template(caller, row.map_err(problem)?)?)
}

pub(super) async fn create(mut call: Call) -> Result<Answer, Refusal> {
    let idempotency = call.idempotency();
    let spec: TemplateSpec = call.body()?;
    let caller = call.caller()?;
    let wanted = CreateTemplate {
        name: spec.name,
        guest: match spec.guest {
            GuestKind::Linux => engine::GuestKind::Linux,
            GuestKind::Bare => engine::GuestKind::Bare,
        },
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        public: spec.visibility == Visibility::Public,
    };
    let row = call.engine().create_template(caller, wanted, idempotency);
    Answer::of(&convert::template(caller, row.await.map_err(problem)?)?)
}

pub(super) async fn remove(call: &Call) -> Result<Answer, Refusal> {
    let which = call.text("template")?;
    let removed = call.engine().remove_template(call.caller()?, which).await;
    removed.map(|()| Answer::Done).map_err(problem)
}

pub(super) async fn fork(mut call: Call) -> Result<Answer, Refusal> {
    let spec: ForkSpec = call.body()?;
    let requested = spec.count;
    let idempotency = call.idempotency();
    let which = call.text("template")?;
    let forked = call
        .engine()
        .fork_template(call.caller()?, which, fork_of(spec), idempotency);
    let (answer, stages) = convert::fork(requested, forked.await.map_err(problem)?)?;
    Answer::timed(&answer, stages)
}
