//! Secrets.

use brood_api::Time;
use brood_api::secret::{Secret, SecretList, SecretSpec};
use brood_service::engine::SecretAnswer;
use brood_service::secret::Value;

use crate::answer::Answer;
use crate::call::Call;
use crate::fault::{Refusal, problem};

pub(super) fn list(call: &Call) -> Result<Answer, Refusal> {
    let secrets = call.engine().secrets(call.caller()?).map_err(problem)?;
    Answer::of(&SecretList {
        items: secrets.into_iter().map(shown).collect(),
    })
}

pub(super) async fn put(call: &Call) -> Result<Answer, Refusal> {
    let spec: SecretSpec = call.body()?;
    let (name, value) = (call.text("name")?, Value::from(spec.value));
    let put = call.engine().put_secret(call.caller()?, name, value).await;
    Answer::of(&shown(put.map_err(problem)?))
}

pub(super) async fn remove(call: &Call) -> Result<Answer, Refusal> {
    let name = call.text("name")?;
    let removed = call.engine().remove_secret(call.caller()?, name).await;
    removed.map(|()| Answer::Done).map_err(problem)
}

fn shown(answer: SecretAnswer) -> Secret {
    Secret {
        name: answer.name,
        version: answer.version,
        versions: answer.versions,
        created_at: Time(answer.created),
        updated_at: Time(answer.updated),
    }
}
