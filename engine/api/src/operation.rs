//! The table of operations: what can be asked, where, and what is answered.
//!
//! Invariant: this table is the only place that says which operations there are. The router and the document are both made
//! of it, so that neither has one that the other lacks.

mod table;

use utoipa::openapi::path::Parameter;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::Page;
use crate::key::Scope;

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// GET: looks.
    Get,
    /// POST: makes, or does.
    Post,
    /// PUT: makes it so.
    Put,
    /// DELETE: ends.
    Delete,
}

/// A type's schema and those it refers to.
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) all: Vec<(String, RefOr<Schema>)>,
}

pub(crate) type SchemaOf = fn() -> Described;

pub(crate) fn schema<T: ToSchema>() -> Described {
    let name = T::name().into_owned();
    let mut all = vec![(name.clone(), T::schema())];
    T::schemas(&mut all);
    Described { name, all }
}

fn page<T: ToSchema>() -> Described {
    let one = schema::<T>();
    let name = format!("{}Page", one.name);
    let mut all = one.all;
    all.push((name.clone(), Page::<T>::schema()));
    Page::<T>::schemas(&mut all);
    Described { name, all }
}

fn parameters<T: IntoParams>() -> Vec<Parameter> {
    T::into_params(|| None)
}

/// What comes with it.
#[derive(Clone, Copy)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON of a type.
    Json(#[doc(hidden)] Json),
    /// Any bytes, as many as there are.
    Bytes,
}

/// What is answered if all goes well.
#[derive(Clone, Copy)]
pub enum Reply {
    /// Something that was made.
    Created(#[doc(hidden)] Json),
    /// What was asked for.
    Found(#[doc(hidden)] Json),
    /// The same, or a stream of it, as the caller accepts.
    FoundOrStream(#[doc(hidden)] Json),
    /// The same, or lines of text, as the query says.
    FoundOrLines(#[doc(hidden)] Json),
    /// Any bytes, as many as there are.
    Bytes,
    /// Text of this media type.
    Text(&'static str),
    /// Nothing.
    Done,
    /// A WebSocket (RFC 6455).
    Socket(#[doc(hidden)] Frames),
}

/// The types of a WebSocket's text frames, by their schemas.
#[derive(Clone, Copy)]
pub struct Frames {
    pub(crate) from_client: SchemaOf,
    pub(crate) from_server: SchemaOf,
}

/// A type by its schema.
#[derive(Clone, Copy)]
pub struct Json(pub(crate) SchemaOf);

/// Whether a caller may say that two requests are the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Plain,
    IdempotencyKey,
}

/// One operation.
#[derive(Clone, Copy)]
pub struct Operation {
    /// Which.
    pub id: OperationId,
    /// How it is asked.
    pub verb: Verb,
    /// Where; parameters stand in braces.
    pub path: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What a key has to allow; none if it takes no key.
    pub scope: Option<Scope>,
    /// What comes with it.
    pub body: Body,
    /// What is answered if all goes well.
    pub reply: Reply,
    pub(crate) query: Option<fn() -> Vec<Parameter>>,
    pub(crate) repeat: Repeat,
}

impl Operation {
    /// All of them, by path.
    pub const ALL: &[Self] = table::OPERATIONS;

    /// Whether an `Idempotency-Key` makes two requests the same one.
    pub fn takes_idempotency_key(&self) -> bool {
        self.repeat == Repeat::IdempotencyKey
    }

    /// Whether it writes snapshots to disk or reads them from there.
    pub(crate) fn keeps_snapshots(&self) -> bool {
        use OperationId::{
            CreateSnapshot, ExportSnapshot, ForkSnapshot, HibernateMachine, ImportSnapshot,
            SnapshotCheckpoint, WakeMachine,
        };
        let keeps = [
            CreateSnapshot,
            ExportSnapshot,
            ForkSnapshot,
            HibernateMachine,
            ImportSnapshot,
            SnapshotCheckpoint,
            WakeMachine,
        ];
        keeps.contains(&self.id)
    }

    /// Whether policies have a say in it.
    pub(crate) fn asks_policies(&self) -> bool {
        use OperationId::{
            CreateMachine, ForkCheckpoint, ForkMachine, ForkSnapshot, ForkTemplate, NamedMachine,
            WakeMachine,
        };
        let makes = [
            CreateMachine,
            ForkCheckpoint,
            ForkMachine,
            ForkSnapshot,
            ForkTemplate,
            NamedMachine,
            WakeMachine,
        ];
        makes.contains(&self.id)
    }

    const fn new(id: OperationId, verb: Verb, path: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            verb,
            path,
            summary,
            scope: None,
            body: Body::None,
            reply: Reply::Done,
            query: None,
            repeat: Repeat::Plain,
        }
    }

    const fn needs(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    const fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Body::Json(Json(schema::<T>));
        self
    }

    const fn takes_bytes(mut self) -> Self {
        self.body = Body::Bytes;
        self
    }

    const fn sends_bytes(mut self) -> Self {
        self.reply = Reply::Bytes;
        self
    }

    const fn sends_text(mut self, media: &'static str) -> Self {
        self.reply = Reply::Text(media);
        self
    }

    const fn query<T: IntoParams>(mut self) -> Self {
        self.query = Some(parameters::<T>);
        self
    }

    const fn makes<T: ToSchema>(mut self) -> Self {
        self.reply = Reply::Created(Json(schema::<T>));
        self
    }

    const fn finds<T: ToSchema>(mut self) -> Self {
        self.reply = Reply::Found(Json(schema::<T>));
        self
    }

    const fn pages<T: ToSchema>(mut self) -> Self {
        self.reply = Reply::Found(Json(page::<T>));
        self
    }

    const fn follows<T: ToSchema>(mut self) -> Self {
        self.reply = Reply::FoundOrStream(Json(schema::<T>));
        self
    }

    const fn lists<T: ToSchema>(mut self) -> Self {
        self.reply = Reply::FoundOrLines(Json(schema::<T>));
        self
    }

    const fn converses<C: ToSchema, S: ToSchema>(mut self) -> Self {
        self.reply = Reply::Socket(Frames {
            from_client: schema::<C>,
            from_server: schema::<S>,
        });
        self
    }

    const fn once(mut self) -> Self {
        self.repeat = Repeat::IdempotencyKey;
        self
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident = $word:literal,)*) => {
        /// Which operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum OperationId {
            $($(#[$doc])* $id,)*
        }

        impl OperationId {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$id,)*];

            /// Its name in the document, from which clients make their methods' names.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$id => $word,)* }
            }
        }
    };
}

ids! {
    /// Lists checkpoints.
    ListCheckpoints = "listCheckpoints",
    /// Shows one.
    ShowCheckpoint = "showCheckpoint",
    /// Ends one.
    EndCheckpoint = "endCheckpoint",
    /// Forks one.
    ForkCheckpoint = "forkCheckpoint",
    /// Lists or follows events.
    Events = "events",
    /// What this server is.
    Info = "info",
    /// Lists keys.
    ListKeys = "listKeys",
    /// Makes one.
    CreateKey = "createKey",
    /// Revokes one.
    RevokeKey = "revokeKey",
    /// Makes a key in the place of another.
    RotateKey = "rotateKey",
    /// Lists machines.
    ListMachines = "listMachines",
    /// Makes one.
    CreateMachine = "createMachine",
    /// Finds or makes one by name.
    NamedMachine = "namedMachine",
    /// Shows one.
    ShowMachine = "showMachine",
    /// Ends it.
    EndMachine = "endMachine",
    /// Keeps a checkpoint of it.
    CreateCheckpoint = "createCheckpoint",
    /// Has a machine sleep on disk.
    HibernateMachine = "hibernateMachine",
    /// Has her go on.
    WakeMachine = "wakeMachine",
    /// Takes a snapshot of a machine.
    CreateSnapshot = "createSnapshot",
    /// Takes one of a checkpoint.
    SnapshotCheckpoint = "snapshotCheckpoint",
    /// Lists snapshots.
    ListSnapshots = "listSnapshots",
    /// Shows one.
    ShowSnapshot = "showSnapshot",
    /// Removes one.
    RemoveSnapshot = "removeSnapshot",
    /// Forks one.
    ForkSnapshot = "forkSnapshot",
    /// Sends one as bytes.
    ExportSnapshot = "exportSnapshot",
    /// Takes one that was exported.
    ImportSnapshot = "importSnapshot",
    /// Lists programs.
    ListExecs = "listExecs",
    /// Starts one.
    StartExec = "startExec",
    /// Shows one.
    ShowExec = "showExec",
    /// Shows or follows its output.
    ReadOutput = "readOutput",
    /// Writes to it.
    WriteStdin = "writeStdin",
    /// Sends it a signal.
    SignalExec = "signalExec",
    /// Resizes its terminal.
    ResizeExec = "resizeExec",
    /// Sits down at its terminal.
    Terminal = "terminal",
    /// Forks it.
    ForkMachine = "forkMachine",
    /// Pauses it.
    PauseMachine = "pauseMachine",
    /// Resumes it.
    ResumeMachine = "resumeMachine",
    /// Shows its lineage.
    ShowTree = "showTree",
    /// Sets its time to live.
    SetTtl = "setTtl",
    /// Reads a file of it.
    ReadFile = "readFile",
    /// Writes one.
    WriteFile = "writeFile",
    /// Removes one.
    RemoveFile = "removeFile",
    /// Lists a directory of it.
    ListDirectory = "listDirectory",
    /// Shows what a path of it is.
    StatFile = "statFile",
    /// What it costs.
    MachineStats = "machineStats",
    /// Who is bound to which hook.
    ListPolicies = "listPolicies",
    /// What policies said about a request.
    Decisions = "decisions",
    /// Lists or follows all that they said.
    DecisionLog = "decisionLog",
    /// The page that looks at the engine.
    Console = "console",
    /// Its script.
    ConsoleScript = "consoleScript",
    /// Its style.
    ConsoleStyle = "consoleStyle",
    /// The document.
    Document = "document",
    /// Lists kinds of problems.
    ListProblems = "listProblems",
    /// Shows one.
    ShowProblem = "showProblem",
    /// Lists secrets.
    ListSecrets = "listSecrets",
    /// Puts one.
    PutSecret = "putSecret",
    /// Removes one.
    RemoveSecret = "removeSecret",
    /// Lists templates.
    ListTemplates = "listTemplates",
    /// Makes one.
    CreateTemplate = "createTemplate",
    /// Shows one.
    ShowTemplate = "showTemplate",
    /// Removes one.
    RemoveTemplate = "removeTemplate",
    /// Forks one.
    ForkTemplate = "forkTemplate",
    /// Lists tenants.
    ListTenants = "listTenants",
    /// Makes one.
    CreateTenant = "createTenant",
    /// What was used, and what it comes to.
    ShowUsage = "showUsage",
    /// Puts a record right.
    CorrectUsage = "correctUsage",
    /// Looks through the chain of records.
    CheckUsage = "checkUsage",
    /// Rates what is due.
    RateUsage = "rateUsage",
    /// Rates a month once more.
    ReplayUsage = "replayUsage",
    /// Lists batches that wait for an operator.
    ListDeadBatches = "listDeadBatches",
    /// Puts them back.
    PutBackBatches = "putBackBatches",
    /// Posts a credit.
    PostCredit = "postCredit",
    /// What a tenant has.
    ShowBalance = "showBalance",
    /// What the engine measures of itself.
    Metrics = "metrics",
    /// Whether the server lives.
    Live = "live",
    /// Whether it can be asked.
    Ready = "ready",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_in_the_table_once_and_has_a_place_of_its_own() {
        for id in OperationId::ALL {
            let rows = Operation::ALL
                .iter()
                .filter(|operation| operation.id == *id);
            assert_eq!(rows.count(), 1, "{id:?}");
        }
        let mut places: Vec<_> = Operation::ALL
            .iter()
            .map(|one| (one.path, one.verb))
            .collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), OperationId::ALL.len());
    }

    #[test]
    fn whoever_changes_something_shows_a_key_for_it() {
        for operation in Operation::ALL.iter().filter(|one| one.verb != Verb::Get) {
            let scope = operation.scope;
            assert!(
                scope.is_some_and(|scope| scope != Scope::Read),
                "{}",
                operation.path
            );
        }
    }
}
