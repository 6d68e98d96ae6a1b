//! One function for each operation.

mod exec;
mod file;
mod key;
mod look;
mod machine;
mod secret;
mod snapshot;
mod template;
mod usage;

use brood_api::OperationId;

pub(crate) use look::{log as decisions_behind, page as events_behind};

use crate::answer::Answer;
use crate::call::Call;
use crate::fault::Refusal;
use crate::ui;

/// Does what is asked.
pub(crate) async fn handle(id: OperationId, call: Call) -> Result<Answer, Refusal> {
    match id {
        OperationId::Metrics => look::metrics(call).await,
        OperationId::Live => look::live(),
        OperationId::Ready => look::ready(&call),
        OperationId::Document => Ok(Answer::Json(call.shared.document)),
        OperationId::Info => look::info(&call),
        OperationId::ListProblems => look::problems(),
        OperationId::ShowProblem => look::show_problem(&call),
        OperationId::ListPolicies => look::policies(&call),
        OperationId::Events => look::events(call),
        OperationId::Decisions => look::decisions(&call),
        OperationId::DecisionLog => look::decision_log(call),
        OperationId::Console => Ok(Answer::Page(ui::PAGE)),
        OperationId::ConsoleScript => Ok(Answer::Page(ui::SCRIPT)),
        OperationId::ConsoleStyle => Ok(Answer::Page(ui::STYLE)),
        OperationId::ListMachines => machine::list(&call, machine::MACHINE),
        OperationId::ListCheckpoints => machine::list(&call, machine::CHECKPOINT),
        OperationId::ShowMachine => machine::show(&call, machine::MACHINE),
        OperationId::ShowCheckpoint => machine::show(&call, machine::CHECKPOINT),
        OperationId::ReadFile => file::read(&call).await,
        OperationId::WriteFile => file::write(call).await,
        OperationId::RemoveFile => file::remove(&call).await,
        OperationId::ListDirectory => file::list(&call).await,
        OperationId::StatFile => file::stat(&call).await,
        OperationId::SetTtl => machine::set_ttl(&call).await,
        OperationId::MachineStats => machine::stats(&call).await,
        OperationId::ShowTree => machine::tree(&call).await,
        OperationId::CreateMachine => machine::create(call).await,
        OperationId::NamedMachine => machine::named(call).await,
        OperationId::EndMachine => machine::end(call, machine::MACHINE).await,
        OperationId::EndCheckpoint => machine::end(call, machine::CHECKPOINT).await,
        OperationId::PauseMachine => machine::pause(&call).await,
        OperationId::ResumeMachine => machine::resume(&call).await,
        OperationId::CreateCheckpoint => machine::checkpoint(call).await,
        OperationId::ForkMachine => machine::fork(call, machine::MACHINE).await,
        OperationId::ForkCheckpoint => machine::fork(call, machine::CHECKPOINT).await,
        OperationId::HibernateMachine => snapshot::hibernate(&call).await,
        OperationId::WakeMachine => snapshot::wake(&call).await,
        OperationId::CreateSnapshot => snapshot::take(call, machine::MACHINE).await,
        OperationId::SnapshotCheckpoint => snapshot::take(call, machine::CHECKPOINT).await,
        OperationId::ListSnapshots => snapshot::list(&call),
        OperationId::ShowSnapshot => snapshot::show(&call),
        OperationId::RemoveSnapshot => snapshot::remove(&call).await,
        OperationId::ForkSnapshot => snapshot::fork(call).await,
        OperationId::ExportSnapshot => snapshot::export(&call).await,
        OperationId::ImportSnapshot => snapshot::import(call).await,
        OperationId::ListExecs => exec::list(&call).await,
        OperationId::StartExec => exec::start(&call).await,
        OperationId::ShowExec => exec::show(&call).await,
        OperationId::ReadOutput => exec::output(call).await,
        OperationId::WriteStdin => exec::stdin(&call).await,
        OperationId::SignalExec => exec::signal(&call).await,
        OperationId::ResizeExec => exec::resize(&call).await,
        OperationId::Terminal => exec::terminal(call).await,
        OperationId::ForkTemplate => template::fork(call).await,
        OperationId::ListTemplates => template::list(&call),
        OperationId::ShowTemplate => template::show(&call),
        OperationId::CreateTemplate => template::create(call).await,
        OperationId::RemoveTemplate => template::remove(&call).await,
        OperationId::ListSecrets => secret::list(&call),
        OperationId::PutSecret => secret::put(&call).await,
        OperationId::RemoveSecret => secret::remove(&call).await,
        OperationId::ListKeys => key::list(&call),
        OperationId::CreateKey => key::create(call).await,
        OperationId::RotateKey => key::rotate(call).await,
        OperationId::ListTenants => key::tenants(&call),
        OperationId::RevokeKey => key::revoke(&call).await,
        OperationId::ShowUsage => usage::show(&call).await,
        OperationId::CorrectUsage => usage::correct(&call).await,
        OperationId::CheckUsage => usage::check(&call).await,
        OperationId::RateUsage => usage::rate(&call).await,
        OperationId::ReplayUsage => usage::replay(&call).await,
        OperationId::ListDeadBatches => usage::dead(&call),
        OperationId::PutBackBatches => usage::put_back(&call).await,
        OperationId::PostCredit => usage::post_credit(call).await,
        OperationId::ShowBalance => usage::balance(&call),
        OperationId::CreateTenant => key::create_tenant(call).await,
    }
}
