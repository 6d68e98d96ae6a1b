//! The one registry of problems.
//!
//! Invariant: a code never changes its meaning, and each has a cause and a remedy that a caller can act on.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What the registry says of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of problem it is.
    pub title: &'static str,
    /// Why such a thing happens.
    pub cause: &'static str,
    /// What to do about it.
    pub remediation: &'static str,
    /// Whether the same request may be answered otherwise later.
    pub retryable: bool,
}

macro_rules! registry {
    ($($(#[$doc:meta])* $code:ident = $word:literal { $title:literal, $cause:literal, $remedy:literal, $retry:expr })*) => {
        /// What kind of problem it is, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $word)] $code,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $word,)* }
            }

            /// What the registry says of it.
            pub const fn entry(self) -> Entry {
                match self {
                    $(Self::$code => Entry {
                        title: $title,
                        cause: $cause,
                        remediation: $remedy,
                        retryable: $retry,
                    },)*
                }
            }
        }
    };
}

registry! {
    /// The body is no JSON.
    MalformedJson = "malformed_json" {
        "The body is not JSON",
        "The body ends early or has a character that JSON does not have at that place.",
        "Look at the line and column in the detail, and send JSON (RFC 8259) in UTF-8.", false
    }
    /// A field is wrong.
    InvalidRequest = "invalid_request" {
        "The request means nothing",
        "A field or parameter is unknown, missing, of another type or outside of what is allowed.",
        "Look at each of `errors`: it names the place and what would be right there.", false
    }
    /// The body is of another type.
    UnsupportedMediaType = "unsupported_media_type" {
        "The body is of another type",
        "The Content-Type is not what this operation takes.",
        "Send the Content-Type that the document at /v1/openapi.json names for the operation.", false
    }
    /// Nothing that the caller accepts can be sent.
    NotAcceptable = "not_acceptable" {
        "Nothing acceptable can be sent",
        "The Accept header names only types that this operation does not answer with.",
        "Accept what the detail names, or leave the header out.", false
    }
    /// Only a WebSocket is there.
    UpgradeRequired = "upgrade_required" {
        "This is a WebSocket",
        "The operation is a WebSocket (RFC 6455), and the request does not ask for one.",
        "Use a WebSocket client, of version 13.", false
    }
    /// The body is too large.
    BodyTooLarge = "body_too_large" {
        "The body is too large",
        "The operator limits the size of bodies, and this one has more bytes.",
        "Send less; large files go through the files operation, which has a limit of its own.", false
    }
    /// The body came too slowly.
    BodyTooSlow = "body_too_slow" {
        "The body came too slowly",
        "The whole body has to arrive within a time that the operator sets.",
        "Send the request again over a better connection, or send less at once.", true
    }
    /// There is no key.
    MissingKey = "missing_key" {
        "A key is needed",
        "There is no `Authorization: Bearer` header, or what it holds is not written like a key.",
        "Send `Authorization: Bearer brood_…` with a key of this server.", false
    }
    /// The key is not good.
    BadKey = "bad_key" {
        "The key is not valid",
        "The key is unknown here, has expired or was revoked.",
        "Ask whoever gives out keys here for another one.", false
    }
    /// The key does not allow it.
    MissingScope = "missing_scope" {
        "The key does not allow it",
        "The key is valid, and has not the scope that the operation needs.",
        "Use a key with the scope that the detail names.", false
    }
    /// There is no such route.
    NoSuchRoute = "no_such_route" {
        "There is no such route",
        "The path is none of this API's.",
        "Look the path up in /v1/openapi.json.", false
    }
    /// The route is there, with other methods.
    MethodNotAllowed = "method_not_allowed" {
        "The route has no such method",
        "The path is right, and is not asked with this method.",
        "Use a method that the Allow header names.", false
    }
    /// There is none of the caller's with this id.
    NotFound = "not_found" {
        "There is no such object",
        "Nothing of this kind with this id or name is yours.",
        "List what is there, and use an id of that list.", false
    }
    /// It was there, and has ended.
    Ended = "ended" {
        "It has ended",
        "The machine or checkpoint was ended, ran out of its time, or ended by itself.",
        "Make another one; its mother or a checkpoint can be forked as long as she is there.", false
    }
    /// It cannot be done in its state.
    Conflict = "conflict" {
        "It cannot be done in its present state",
        "Something exists already, or the object is in a state in which this is not possible.",
        "Look at the object, bring it into the state that the detail names, and ask again.", false
    }
    /// The same request is being worked on.
    RequestInFlight = "request_in_flight" {
        "The same request is being worked on",
        "A request with this Idempotency-Key has come before and has no answer yet.",
        "Send the same request again after a while: it gets the answer of the first.", true
    }
    /// Another request came with this key.
    IdempotencyKeyReused = "idempotency_key_reused" {
        "The Idempotency-Key belongs to another request",
        "The key came before with another body, and an answer to that one would be a lie.",
        "Use a new Idempotency-Key for each new request, and the same one only to repeat a request.", false
    }
    /// A policy says no.
    Denied = "denied" {
        "A policy denies it",
        "A policy that the operator bound to this decision said no.",
        "The detail has the policy's own words; whoever owns the binding in `denial` can change it.", false
    }
    /// A policy says not now.
    Busy = "busy" {
        "There is no room for it now",
        "A policy lets it wait until others have ended, and they did not in time.",
        "Ask again later, ask for fewer, or lower `min_count`.", true
    }
    /// The caller asks too often.
    RateLimited = "rate_limited" {
        "Requests come too often",
        "The operator limits how many requests a key, and all keys of a tenant together, may make in a time.",
        "Ask again after `retry_after_ms`; follow events instead of asking for the state again and again.", true
    }
    /// The disk of the database is full.
    StoreFull = "store_full" {
        "The disk of the engine is full",
        "The database cannot grow, so that nothing new can be written down; nothing of this request was kept.",
        "The operator has to free space in the state directory; then ask again.", true
    }
    /// The database does not work.
    StoreFailed = "store_failed" {
        "The database does not work",
        "The database of the engine is damaged or its disk fails; nothing of this request was kept.",
        "The operator has to look at the log and the state directory.", true
    }
    /// A snapshot is not what was written.
    SnapshotDamaged = "snapshot_damaged" {
        "The snapshot is damaged",
        "Bytes of the snapshot are missing or are not those that were written: a disk, a copy or a transfer has changed them.",
        "Take another snapshot, or import it again from a copy that is whole; remove this one.", false
    }
    /// A snapshot is of another kind of host or engine.
    SnapshotUnfit = "snapshot_unfit" {
        "The snapshot does not fit this host",
        "It was taken on a host with features that this one lacks, or by an engine that writes another format.",
        "Use it on a host that has what the detail names, or with an engine of the version that it names.", false
    }
    /// There is no room for a snapshot.
    SnapshotDiskFull = "snapshot_disk_full" {
        "There is no room for the snapshot",
        "The disk that snapshots are kept on is full; nothing of this one was kept, and the machine runs on.",
        "Remove snapshots, or have the operator free space in the state directory; then ask again.", true
    }
    /// The server is about to stop.
    Stopping = "stopping" {
        "The server is about to stop",
        "The operator stops or restarts the server; requests that run are answered first.",
        "Ask again after a while.", true
    }
    /// It did not work out.
    Failed = "failed" {
        "It failed",
        "The engine set out to do it, and something on the host or in the guest went wrong.",
        "Look at the detail and at the log under the request id; ask again if the reason has gone.", true
    }
}

// Written out because the derive does not see the words of a macro's variants.
impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let words = Self::ALL.iter().map(|code| code.as_str());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("What kind of problem it is, for programs."))
            .enum_values(Some(words))
            .into()
    }
}

impl ToSchema for Code {}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_a_word_of_its_own_and_says_what_to_do() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        let all = words.len();
        words.dedup();
        assert_eq!(words.len(), all);
        for code in Code::ALL {
            let entry = code.entry();
            for sentence in [entry.cause, entry.remediation] {
                assert!(sentence.len() > 20 && sentence.ends_with('.'), "{code}");
            }
            let word = serde_json::to_value(code).expect("a word");
            assert_eq!(word, code.as_str());
        }
        let schema = serde_json::to_value(Code::schema()).expect("a schema");
        assert_eq!(schema["enum"], serde_json::json!(Code::ALL));
    }
}
