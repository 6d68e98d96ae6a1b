//! The OpenAPI 3.1 document, made of the table of operations and the schemas of the types.
//!
//! Invariant: nothing in it is written by hand that the code says already. Which status a reply or a problem has is the
//! caller's to say: this crate knows none.

use std::collections::BTreeMap;

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
    PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema,
};

use crate::operation::{Body, Described, Operation, Reply, Verb, schema};
use crate::usage::{UsageLine, UsageRecord};
use crate::{Code, IdText, OperationId, Problem, limit};

/// What a request may come to.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// All goes well.
    Reply(Reply),
    /// It does not.
    Problem(Code),
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const BYTES: &str = "application/octet-stream";
const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";
const STREAM: &str = "text/event-stream";
const KEY: &str = "key";

/// The document, with statuses as the server uses them.
pub fn document(status: impl Fn(Outcome) -> u16) -> OpenApi {
    let mut schemas = Schemas::default();
    schemas.add(schema::<Problem>());
    schemas.add(schema::<IdText>());
    // Lines of text have no schema of their own in the document.
    schemas.add(schema::<UsageRecord>());
    schemas.add(schema::<UsageLine>());
    let mut paths = PathsBuilder::new();
    for operation in Operation::ALL {
        let method = match operation.verb {
            Verb::Get => HttpMethod::Get,
            Verb::Post => HttpMethod::Post,
            Verb::Put => HttpMethod::Put,
            Verb::Delete => HttpMethod::Delete,
        };
        let item = PathItem::new(method, describe(operation, &mut schemas, &status).build());
        paths = paths.path(operation.path, item);
    }
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("brood_…")
        .build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas.0)
        .security_scheme(KEY, SecurityScheme::Http(scheme))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Brood")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Forks running microVMs. Every problem is one of /v1/problems.",
                ))
                .build(),
        )
        .paths(paths.build())
        .components(Some(components))
        .build()
}

#[derive(Default)]
struct Schemas(BTreeMap<String, RefOr<Schema>>);

impl Schemas {
    fn add(&mut self, described: Described) -> Ref {
        self.0.extend(described.all);
        Ref::from_schema_name(described.name)
    }
}

fn describe(
    operation: &Operation,
    schemas: &mut Schemas,
    status: &impl Fn(Outcome) -> u16,
) -> OperationBuilder {
    let mut builder = OperationBuilder::new()
        .operation_id(Some(operation.id.as_str()))
        .summary(Some(operation.summary));
    for parameter in path_parameters(operation.path) {
        builder = builder.parameter(parameter);
    }
    for parameter in operation.query.map(|query| query()).unwrap_or_default() {
        builder = builder.parameter(parameter);
    }
    if operation.takes_idempotency_key() {
        // Who posts a credit twice by mistake posts money twice.
        let required = match operation.id {
            OperationId::PostCredit => Required::True,
            _ => Required::False,
        };
        builder = builder.parameter(idempotency_key(required));
    }
    if let Some(scope) = operation.scope {
        builder = builder
            .security(SecurityRequirement::new(KEY, [""; 0]))
            .description(Some(format!(
                "Needs a key with scope `{}`.",
                scope.as_str()
            )));
    }
    if let Body::Json(json) = operation.body {
        let schema = schemas.add((json.0)());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let body = RequestBodyBuilder::new().content(JSON, content);
        builder = builder.request_body(Some(body.required(Some(Required::True)).build()));
    }
    if let Body::Bytes = operation.body {
        let schema = ObjectBuilder::new().schema_type(Type::String).build();
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let body = RequestBodyBuilder::new().content(BYTES, content);
        builder = builder.request_body(Some(body.required(Some(Required::True)).build()));
    }
    let code = status(Outcome::Reply(operation.reply)).to_string();
    builder = builder.response(code, reply(operation.reply, schemas));
    for (code, codes) in by_status(operation, status) {
        let words: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Problem")))
            .build();
        let response = ResponseBuilder::new()
            .description(words.join(", "))
            .content(PROBLEM, content);
        builder = builder.response(code.to_string(), response.build());
    }
    builder
}

fn reply(reply: Reply, schemas: &mut Schemas) -> utoipa::openapi::Response {
    let json = |schemas: &mut Schemas, json: crate::operation::Json| {
        let schema = schemas.add((json.0)());
        ContentBuilder::new().schema(Some(schema)).build()
    };
    let text = || {
        let schema = ObjectBuilder::new().schema_type(Type::String).build();
        ContentBuilder::new().schema(Some(schema)).build()
    };
    let response = ResponseBuilder::new();
    let response = match reply {
        Reply::Created(of) => response
            .description("It was made")
            .content(JSON, json(schemas, of)),
        Reply::Found(of) => response
            .description("Here it is")
            .content(JSON, json(schemas, of)),
        Reply::FoundOrStream(of) => response
            .description("Here it is, as one answer or as a stream")
            .content(JSON, json(schemas, of))
            .content(STREAM, text()),
        Reply::FoundOrLines(of) => response
            .description(
                "Here it is, as one object, or as lines: a `UsageRecord` or a `UsageLine` each",
            )
            .content(JSON, json(schemas, of))
            .content(NDJSON, text())
            .content(CSV, text()),
        Reply::Bytes => response.description("Here it is").content(BYTES, text()),
        Reply::Text(media) => response.description("Here it is").content(media, text()),
        Reply::Done => response.description("It was done"),
        Reply::Socket(frames) => {
            let client = schemas.add((frames.from_client)()).ref_location;
            let server = schemas.add((frames.from_server)()).ref_location;
            response.description(format!(
                "The connection is a WebSocket. Text frames of the client are `{client}`, of the server `{server}`."
            ))
        }
    };
    let id = ObjectBuilder::new().schema_type(Type::String).build();
    let header = HeaderBuilder::new()
        .schema(Some(id))
        .description(Some("The request, as in the log"));
    response.header("X-Request-Id", header.build()).build()
}

/// What may go wrong with an operation, by what it takes; grouped by status.
fn by_status(operation: &Operation, status: &impl Fn(Outcome) -> u16) -> BTreeMap<u16, Vec<Code>> {
    let mut codes = vec![];
    if operation.scope.is_some() {
        codes.extend([Code::MissingKey, Code::BadKey, Code::MissingScope]);
        codes.extend([Code::StoreFailed, Code::Failed, Code::RateLimited]);
    }
    // Of these the body names what they are about.
    let named = [OperationId::CorrectUsage, OperationId::PutBackBatches];
    if operation.path.contains('{') || named.contains(&operation.id) {
        codes.push(Code::NotFound);
    }
    if operation.query.is_some() || operation.path.contains('{') {
        codes.push(Code::InvalidRequest);
    }
    match operation.body {
        Body::None => {}
        Body::Bytes => codes.extend([Code::InvalidRequest, Code::BodyTooSlow]),
        Body::Json(_) => codes.extend([
            Code::MalformedJson,
            Code::InvalidRequest,
            Code::UnsupportedMediaType,
            Code::BodyTooLarge,
            Code::BodyTooSlow,
        ]),
    }
    if operation.verb != Verb::Get {
        codes.extend([Code::Conflict, Code::StoreFull]);
    }
    // Rows can be looked at for ever; what asks the machine itself needs one that is there.
    if operation.path.contains("{machine}") || operation.path.contains("{checkpoint}") {
        codes.extend([Code::Conflict, Code::Ended]);
    }
    if operation.path.contains("/execs") {
        codes.extend([Code::Conflict, Code::Ended]);
    }
    if operation.takes_idempotency_key() {
        codes.extend([Code::RequestInFlight, Code::IdempotencyKeyReused]);
    }
    if operation.keeps_snapshots() {
        codes.extend([Code::SnapshotDamaged, Code::SnapshotUnfit]);
        codes.extend([Code::SnapshotDiskFull, Code::Conflict]);
    }
    if operation.asks_policies() {
        codes.extend([Code::Denied, Code::Busy]);
    }
    if matches!(operation.reply, Reply::FoundOrStream(_)) {
        codes.push(Code::NotAcceptable);
    }
    if matches!(operation.reply, Reply::Socket(_)) {
        codes.push(Code::UpgradeRequired);
    }
    let mut groups: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let group = groups.entry(status(Outcome::Problem(code))).or_default();
        if !group.contains(&code) {
            group.push(code);
        }
    }
    groups
}

fn path_parameters(path: &str) -> impl Iterator<Item = Parameter> {
    let names = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next());
    names.map(|name| {
        let schema = match name {
            "machine" | "checkpoint" | "key" | "intent" => {
                RefOr::Ref(Ref::from_schema_name("IdText"))
            }
            "code" => RefOr::Ref(Ref::from_schema_name("Code")),
            "name" => RefOr::T(Schema::Object(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some(limit::NAME_PATTERN))
                    .build(),
            )),
            "exec" => RefOr::T(Schema::Object(
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(0))
                    .maximum(Some(u32::MAX))
                    .build(),
            )),
            _ => RefOr::T(Schema::Object(
                ObjectBuilder::new().schema_type(Type::String).build(),
            )),
        };
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(schema))
            .build()
    })
}

fn idempotency_key(required: Required) -> Parameter {
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(required)
        .description(Some(
            "1 to 255 visible characters. The same key with the same body gets the answer of the first request.",
        ))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255))
                .pattern(Some("^[!-~]+$"))
                .build(),
        ))
        .build()
}

#[cfg(test)]
mod tests;
