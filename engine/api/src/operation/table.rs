//! The rows of the table.

use super::{Operation, OperationId as Id, Verb};
use crate::event::{EventQuery, Events};
use crate::exec::{
    Exec, ExecSpec, Execs, Output, OutputQuery, SignalSpec, StartedExec, StdinSpec, TerminalAsk,
    TerminalQuery, TerminalWord, TtySize,
};
use crate::file::{Directory, FileStat, FileWritten, PathQuery, RemoveQuery, WriteQuery};
use crate::fork::{ForkAnswer, ForkSpec};
use crate::info::{Health, Info};
use crate::key::{KeySpec, Keys, NewKey, RotateSpec, Scope};
use crate::machine::{
    EndAnswer, EndQuery, Machine, MachineListQuery, MachineSpec, MachineStats, NamedMachineSpec,
    Tree, TreeQuery, TtlSpec,
};
use crate::policy::{Bindings, DecisionLog, DecisionQuery, Decisions};
use crate::problem::RegistryEntry;
use crate::secret::{Secret, SecretList, SecretSpec};
use crate::snapshot::{ImportQuery, Snapshot, SnapshotSpec};
use crate::template::{Template, TemplateSpec};
use crate::tenant::{NewTenant, Tenant, TenantSpec};
use crate::usage::{
    Balance, ChainCheck, Corrected, CorrectionSpec, Credit, CreditSpec, DeadBatches, PutBack,
    PutBackSpec, Rated, ReplaySpec, Replayed, UsageQuery, UsageSummary,
};
use crate::{ListQuery, Registry};

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#protocol-negotiation>
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const CHECKPOINTS: &str = "/v1/checkpoints";
const CHECKPOINT: &str = "/v1/checkpoints/{checkpoint}";
const MACHINES: &str = "/v1/machines";
const MACHINE: &str = "/v1/machines/{machine}";
const EXECS: &str = "/v1/machines/{machine}/execs";
const FILE: &str = "/v1/machines/{machine}/files/{path}";
const SECRET: &str = "/v1/secrets/{name}";
const SNAPSHOTS: &str = "/v1/snapshots";
const SNAPSHOT: &str = "/v1/snapshots/{snapshot}";
const TENANTS: &str = "/v1/tenants";
const TEMPLATES: &str = "/v1/templates";
const TEMPLATE: &str = "/v1/templates/{template}";

pub(super) const OPERATIONS: &[Operation] = &[
    get(Id::Live, "/healthz", "Whether the server lives").finds::<Health>(),
    get(Id::Ready, "/readyz", "Whether the server can be asked").finds::<Health>(),
    get(
        Id::Metrics,
        "/metrics",
        "What the engine measures of itself, for Prometheus",
    )
    .needs(Scope::Metrics)
    .sends_text(METRICS),
    get(Id::ListCheckpoints, CHECKPOINTS, "Lists checkpoints")
        .needs(Scope::Read)
        .query::<MachineListQuery>()
        .pages::<Machine>(),
    get(Id::ShowCheckpoint, CHECKPOINT, "Shows a checkpoint")
        .needs(Scope::Read)
        .finds::<Machine>(),
    delete(Id::EndCheckpoint, CHECKPOINT, "Ends a checkpoint")
        .needs(Scope::Write)
        .finds::<EndAnswer>(),
    post(
        Id::ForkCheckpoint,
        "/v1/checkpoints/{checkpoint}/forks",
        "Forks a checkpoint",
    )
    .needs(Scope::Write)
    .takes::<ForkSpec>()
    .makes::<ForkAnswer>()
    .once(),
    post(
        Id::SnapshotCheckpoint,
        "/v1/checkpoints/{checkpoint}/snapshots",
        "Takes a snapshot of a checkpoint, which stays",
    )
    .needs(Scope::Write)
    .takes::<SnapshotSpec>()
    .makes::<Snapshot>()
    .once(),
    get(
        Id::DecisionLog,
        "/v1/decisions",
        "Lists what policies said of all requests, or follows it as `text/event-stream`",
    )
    .needs(Scope::Read)
    .query::<DecisionQuery>()
    .follows::<DecisionLog>(),
    get(
        Id::Events,
        "/v1/events",
        "Lists events, or follows them as `text/event-stream`",
    )
    .needs(Scope::Read)
    .query::<EventQuery>()
    .follows::<Events>(),
    get(
        Id::Info,
        "/v1/info",
        "What this server is, and what the key allows",
    )
    .needs(Scope::Read)
    .finds::<Info>(),
    get(Id::ListKeys, "/v1/keys", "Lists the tenant's keys")
        .needs(Scope::Keys)
        .finds::<Keys>(),
    get(
        Id::ListMachines,
        MACHINES,
        "Lists machines, by label if asked to",
    )
    .needs(Scope::Read)
    .query::<MachineListQuery>()
    .pages::<Machine>(),
    post(Id::CreateMachine, MACHINES, "Makes a machine of a template")
        .needs(Scope::Write)
        .takes::<MachineSpec>()
        .makes::<Machine>()
        .once(),
    put(
        Id::NamedMachine,
        "/v1/machines/by-name/{name}",
        "Finds the machine of this name, or makes it",
    )
    .needs(Scope::Write)
    .takes::<NamedMachineSpec>()
    .finds::<Machine>(),
    get(
        Id::ShowMachine,
        MACHINE,
        "Shows a machine, ended ones as well",
    )
    .needs(Scope::Read)
    .finds::<Machine>(),
    delete(
        Id::EndMachine,
        MACHINE,
        "Ends a machine, and all its descendants if asked to",
    )
    .needs(Scope::Write)
    .query::<EndQuery>()
    .finds::<EndAnswer>(),
    post(
        Id::ForkMachine,
        "/v1/machines/{machine}/forks",
        "Forks a running machine",
    )
    .needs(Scope::Write)
    .takes::<ForkSpec>()
    .makes::<ForkAnswer>()
    .once(),
    post(
        Id::PauseMachine,
        "/v1/machines/{machine}/pause",
        "Has a machine's vCPUs stand still",
    )
    .needs(Scope::Write)
    .finds::<Machine>(),
    post(
        Id::ResumeMachine,
        "/v1/machines/{machine}/resume",
        "Has them run again",
    )
    .needs(Scope::Write)
    .finds::<Machine>(),
    post(
        Id::HibernateMachine,
        "/v1/machines/{machine}/hibernate",
        "Has a machine sleep on disk: she keeps her id and name, and nothing of her is in memory",
    )
    .needs(Scope::Write)
    .finds::<Machine>(),
    post(
        Id::WakeMachine,
        "/v1/machines/{machine}/wake",
        "Has a hibernated machine go on where she was",
    )
    .needs(Scope::Write)
    .finds::<Machine>(),
    post(
        Id::CreateSnapshot,
        "/v1/machines/{machine}/snapshots",
        "Takes a snapshot of a running machine, which stands still as long as for a fork",
    )
    .needs(Scope::Write)
    .takes::<SnapshotSpec>()
    .makes::<Snapshot>()
    .once(),
    get(
        Id::ShowTree,
        "/v1/machines/{machine}/tree",
        "Shows the whole lineage of a machine",
    )
    .needs(Scope::Read)
    .query::<TreeQuery>()
    .finds::<Tree>(),
    get(Id::ReadFile, FILE, "Reads a file of a machine")
        .needs(Scope::Write)
        .sends_bytes(),
    put(
        Id::WriteFile,
        FILE,
        "Writes a file of a machine; it is there whole or as it was",
    )
    .needs(Scope::Write)
    .query::<WriteQuery>()
    .takes_bytes()
    .finds::<FileWritten>(),
    delete(
        Id::RemoveFile,
        FILE,
        "Removes a file of a machine, or a directory",
    )
    .needs(Scope::Write)
    .query::<RemoveQuery>(),
    get(
        Id::ListDirectory,
        "/v1/machines/{machine}/directory",
        "Lists a directory of a machine",
    )
    .needs(Scope::Write)
    .query::<PathQuery>()
    .finds::<Directory>(),
    get(
        Id::StatFile,
        "/v1/machines/{machine}/stat",
        "Shows what a path of a machine is",
    )
    .needs(Scope::Write)
    .query::<PathQuery>()
    .finds::<FileStat>(),
    put(
        Id::SetTtl,
        "/v1/machines/{machine}/ttl",
        "Has a machine end sooner, or as late as it was admitted to",
    )
    .needs(Scope::Write)
    .takes::<TtlSpec>()
    .finds::<Machine>(),
    get(
        Id::MachineStats,
        "/v1/machines/{machine}/stats",
        "What a machine costs its host at this moment",
    )
    .needs(Scope::Read)
    .finds::<MachineStats>(),
    get(
        Id::ListPolicies,
        "/v1/policies",
        "Lists who is bound to which hook, and what became of the calls",
    )
    .needs(Scope::Operator)
    .finds::<Bindings>(),
    get(Id::Document, "/v1/openapi.json", "This document").finds::<serde_json::Value>(),
    get(
        Id::ListProblems,
        "/v1/problems",
        "Lists all kinds of problems",
    )
    .finds::<Registry>(),
    get(
        Id::ShowProblem,
        "/v1/problems/{code}",
        "Shows a kind of problem",
    )
    .finds::<RegistryEntry>(),
    get(
        Id::ListSecrets,
        "/v1/secrets",
        "Lists the tenant's secrets by name; values are never shown",
    )
    .needs(Scope::Read)
    .finds::<SecretList>(),
    put(
        Id::PutSecret,
        SECRET,
        "Gives a secret a value, as a new version",
    )
    .needs(Scope::Write)
    .takes::<SecretSpec>()
    .finds::<Secret>(),
    delete(
        Id::RemoveSecret,
        SECRET,
        "Removes all versions of a secret; machines keep what they were given",
    )
    .needs(Scope::Write),
    get(Id::ListSnapshots, SNAPSHOTS, "Lists the tenant's snapshots")
        .needs(Scope::Read)
        .query::<ListQuery>()
        .pages::<Snapshot>(),
    post(
        Id::ImportSnapshot,
        "/v1/snapshots/import",
        "Takes a snapshot that was exported, here or elsewhere; it is there whole or not at all",
    )
    .needs(Scope::Write)
    .query::<ImportQuery>()
    .takes_bytes()
    .makes::<Snapshot>(),
    get(Id::ShowSnapshot, SNAPSHOT, "Shows a snapshot, by name or id")
        .needs(Scope::Read)
        .finds::<Snapshot>(),
    delete(
        Id::RemoveSnapshot,
        SNAPSHOT,
        "Removes a snapshot; machines that were made of it live on",
    )
    .needs(Scope::Write),
    get(
        Id::ExportSnapshot,
        "/v1/snapshots/{snapshot}/export",
        "Sends a snapshot as bytes, with the memory of its machine and whatever secrets are in it",
    )
    .needs(Scope::Write)
    .sends_bytes(),
    post(
        Id::ForkSnapshot,
        "/v1/snapshots/{snapshot}/forks",
        "Makes machines of a snapshot; each begins a lineage",
    )
    .needs(Scope::Write)
    .takes::<ForkSpec>()
    .makes::<ForkAnswer>()
    .once(),
    get(
        Id::ListTemplates,
        TEMPLATES,
        "Lists the tenant's templates and public ones",
    )
    .needs(Scope::Read)
    .query::<ListQuery>()
    .pages::<Template>(),
    get(Id::ShowTemplate, TEMPLATE, "Shows a template")
        .needs(Scope::Read)
        .finds::<Template>(),
    delete(
        Id::RemoveTemplate,
        TEMPLATE,
        "Removes a template; its machines stay",
    )
    .needs(Scope::Write),
    post(
        Id::ForkTemplate,
        "/v1/templates/{template}/forks",
        "Makes machines of a template",
    )
    .needs(Scope::Write)
    .takes::<ForkSpec>()
    .makes::<ForkAnswer>()
    .once(),
    post(
        Id::CreateCheckpoint,
        "/v1/machines/{machine}/checkpoints",
        "Keeps a checkpoint of a machine",
    )
    .needs(Scope::Write)
    .makes::<Machine>()
    .once(),
    get(
        Id::ListExecs,
        EXECS,
        "Lists a machine's programs, ended ones and those of her mother that she has included",
    )
    .needs(Scope::Read)
    .finds::<Execs>(),
    post(
        Id::StartExec,
        EXECS,
        "Starts a program in a machine, and waits for its end if asked to",
    )
    .needs(Scope::Write)
    .takes::<ExecSpec>()
    .makes::<StartedExec>(),
    get(
        Id::ShowExec,
        "/v1/machines/{machine}/execs/{exec}",
        "Shows a program, also after its machine has ended",
    )
    .needs(Scope::Read)
    .finds::<Exec>(),
    get(
        Id::ReadOutput,
        "/v1/machines/{machine}/execs/{exec}/output",
        "Shows a program's output, or follows it to its end as `text/event-stream`",
    )
    .needs(Scope::Read)
    .query::<OutputQuery>()
    .follows::<Output>(),
    post(
        Id::WriteStdin,
        "/v1/machines/{machine}/execs/{exec}/stdin",
        "Writes to a program's stdin, and answers when it was taken",
    )
    .needs(Scope::Write)
    .takes::<StdinSpec>(),
    post(
        Id::SignalExec,
        "/v1/machines/{machine}/execs/{exec}/signal",
        "Sends a signal to a program",
    )
    .needs(Scope::Write)
    .takes::<SignalSpec>(),
    post(
        Id::ResizeExec,
        "/v1/machines/{machine}/execs/{exec}/resize",
        "Changes the size of a program's terminal",
    )
    .needs(Scope::Write)
    .takes::<TtySize>(),
    get(
        Id::Terminal,
        "/v1/machines/{machine}/execs/{exec}/tty",
        "Sits down at a program's terminal: a WebSocket with what is typed and shown in binary frames",
    )
    .needs(Scope::Write)
    .query::<TerminalQuery>()
    .converses::<TerminalAsk, TerminalWord>(),
    get(
        Id::Decisions,
        "/v1/intents/{intent}/decisions",
        "Shows what policies said about a request",
    )
    .needs(Scope::Read)
    .finds::<Decisions>(),
    post(
        Id::CreateKey,
        "/v1/keys",
        "Makes a key; it is shown this once",
    )
    .needs(Scope::Keys)
    .takes::<KeySpec>()
    .makes::<NewKey>()
    .once(),
    delete(Id::RevokeKey, "/v1/keys/{key}", "Revokes a key").needs(Scope::Keys),
    post(
        Id::RotateKey,
        "/v1/keys/{key}/rotate",
        "Makes a key in the place of another; it is shown this once",
    )
    .needs(Scope::Keys)
    .takes::<RotateSpec>()
    .makes::<NewKey>()
    .once(),
    post(
        Id::CreateTemplate,
        TEMPLATES,
        "Makes a template; it is booted and sealed when it is first used",
    )
    .needs(Scope::Write)
    .takes::<TemplateSpec>()
    .makes::<Template>()
    .once(),
    get(Id::ListTenants, TENANTS, "Lists all tenants")
        .needs(Scope::Operator)
        .query::<ListQuery>()
        .pages::<Tenant>(),
    post(
        Id::CreateTenant,
        TENANTS,
        "Makes a tenant with its first key; it is shown this once",
    )
    .needs(Scope::Operator)
    .takes::<TenantSpec>()
    .makes::<NewTenant>()
    .once(),
    get(Id::Console, "/ui", "A page to look at the engine with").sends_text(HTML),
    get(Id::ConsoleScript, "/ui/console.js", "The script of that page").sends_text(SCRIPT),
    get(Id::ConsoleStyle, "/ui/console.css", "The style of that page").sends_text(STYLE),
    get(
        Id::ShowUsage,
        "/v1/usage",
        "Shows what was used in a month and what it comes to, as a summary or line by line",
    )
    .needs(Scope::Read)
    .query::<UsageQuery>()
    .lists::<UsageSummary>(),
    get(
        Id::CheckUsage,
        "/v1/usage/chain",
        "Looks through all usage records for one that is not what was written",
    )
    .needs(Scope::Operator)
    .finds::<ChainCheck>(),
    post(
        Id::CorrectUsage,
        "/v1/usage/corrections",
        "Puts a usage record right; what was billed of it is taken back and billed anew",
    )
    .needs(Scope::Operator)
    .takes::<CorrectionSpec>()
    .makes::<Corrected>(),
    post(
        Id::RateUsage,
        "/v1/usage/ratings",
        "Has all usage rated that was counted and is due, at once",
    )
    .needs(Scope::Operator)
    .finds::<Rated>(),
    post(
        Id::ReplayUsage,
        "/v1/usage/replays",
        "Has a month rated once more, and compares; nothing is changed",
    )
    .needs(Scope::Operator)
    .takes::<ReplaySpec>()
    .finds::<Replayed>(),
    get(
        Id::ListDeadBatches,
        "/v1/usage/dead-batches",
        "Lists batches of usage that were tried in vain too often",
    )
    .needs(Scope::Operator)
    .finds::<DeadBatches>(),
    post(
        Id::PutBackBatches,
        "/v1/usage/dead-batches/put-back",
        "Has them tried again",
    )
    .needs(Scope::Operator)
    .takes::<PutBackSpec>()
    .finds::<PutBack>(),
    post(
        Id::PostCredit,
        "/v1/tenants/{tenant}/credits",
        "Posts a credit, once for each Idempotency-Key, which it has to have",
    )
    .needs(Scope::Operator)
    .takes::<CreditSpec>()
    .makes::<Credit>()
    .once(),
    get(
        Id::ShowBalance,
        "/v1/tenants/{tenant}/balance",
        "Shows what a tenant has paid in advance, has spent and has left",
    )
    .needs(Scope::Read)
    .finds::<Balance>(),
];

const fn get(id: Id, path: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, Verb::Get, path, summary)
}

const fn post(id: Id, path: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, Verb::Post, path, summary)
}

const fn put(id: Id, path: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, Verb::Put, path, summary)
}

const fn delete(id: Id, path: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, Verb::Delete, path, summary)
}
