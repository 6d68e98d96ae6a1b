//! Keys and tenants.

use brood_api::key::{KeySpec, Keys, NewKey, RotateSpec, Scope};
use brood_api::tenant::{NewTenant, Tenant, TenantSpec};
use brood_api::{ListQuery, Page, Time};
use brood_service::engine;
use brood_units::KeyId;

use crate::answer::Answer;
use crate::call::{Call, service_scope};
use crate::convert;
use crate::fault::{Refusal, problem};

const PROJECT: &str = "default";

pub(super) fn list(call: &Call) -> Result<Answer, Refusal> {
    let keys = call.engine().keys(call.caller()?).map_err(problem)?;
    let items = keys.into_iter().map(convert::key);
    Answer::of(&Keys {
        items: items.collect::<Result<_, _>>()?,
    })
}

pub(super) async fn create(mut call: Call) -> Result<Answer, Refusal> {
    let spec: KeySpec = call.body()?;
    let idempotency = call.idempotency();
    let wanted = engine::NewKey {
        name: spec.name,
        project: spec.project.unwrap_or_else(|| PROJECT.to_owned()),
        scopes: spec.scopes.into_iter().map(service_scope).collect(),
        expires: spec.ttl.map(|ttl| engine::now().after(ttl.as_millis())),
    };
    let made = call
        .engine()
        .create_key(call.caller()?, wanted, idempotency);
    Answer::of(&new_key(made.await.map_err(problem)?)?)
}

pub(super) async fn revoke(call: &Call) -> Result<Answer, Refusal> {
    let id: KeyId = call.id("key")?;
    let revoked = call.engine().revoke_key(call.caller()?, id).await;
    revoked.map(|()| Answer::Done).map_err(problem)
}

pub(super) async fn rotate(mut call: Call) -> Result<Answer, Refusal> {
    let idempotency = call.idempotency();
    let spec: RotateSpec = call.body()?;
    let id: KeyId = call.id("key")?;
    let grace_ms = spec.grace.map(brood_api::Span::as_millis);
    let made = call
        .engine()
        .rotate_key(call.caller()?, id, grace_ms, idempotency);
    Answer::of(&new_key(made.await.map_err(problem)?)?)
}

pub(super) fn tenants(call: &Call) -> Result<Answer, Refusal> {
    let query: ListQuery = call.query()?;
    let page = engine::Page {
        after: query.after(),
        limit: query.limit(),
    };
    let found = call.engine().tenants(call.caller()?, page);
    let page: Page<Tenant> = convert::page(found.map_err(problem)?, |row| {
        Ok(Tenant {
            name: row.name,
            created_at: Time(row.created),
        })
    })?;
    Answer::of(&page)
}

pub(super) async fn create_tenant(mut call: Call) -> Result<Answer, Refusal> {
    let idempotency = call.idempotency();
    let spec: TenantSpec = call.body()?;
    let first = engine::NewKey {
        name: "first".to_owned(),
        project: PROJECT.to_owned(),
        scopes: [Scope::Read, Scope::Write, Scope::Keys]
            .map(service_scope)
            .to_vec(),
        expires: None,
    };
    let made = call
        .engine()
        .create_tenant(call.caller()?, &spec.name, first, idempotency);
    let first_key = new_key(made.await.map_err(problem)?)?;
    Answer::of(&NewTenant {
        name: spec.name,
        first_key,
    })
}

fn new_key((key, token): (engine::KeyAnswer, engine::Token)) -> Result<NewKey, Refusal> {
    Ok(NewKey {
        key: convert::key(key)?,
        secret: token.reveal().to_owned(),
    })
}
