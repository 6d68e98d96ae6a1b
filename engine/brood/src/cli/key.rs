//! `brood key`

use std::process::ExitCode;

use brood_api::Span;
use brood_api::key::{Key, KeySpec, NewKey, RotateSpec, Scope};
use brood_client::Client;
use brood_units::KeyId;
use clap::{Args, Subcommand};

use super::Run;
use super::failure::Failure;
use super::out::{BOLD, DIM, Out, PLAIN, Table};
use super::time::{between, now};
use super::value::span;

/// `brood key`
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key. It is printed this once.
    Create(Create),
    /// Make a key in the place of another. It is printed this once.
    Rotate(Rotate),
    /// List the tenant's keys.
    Ls,
    /// Revoke a key.
    Rm {
        /// Its id.
        id: KeyId,
    },
}

#[derive(Args)]
struct Create {
    /// What people call it.
    name: String,
    /// What it allows: read, write, keys, operator. At most what your own key does.
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = scope)]
    scopes: Vec<Scope>,
    /// A part of the tenant; `default` if not said.
    #[arg(long)]
    project: Option<String>,
    /// How long it is good, such as 12h; until it is revoked if not said.
    #[arg(long, value_parser = span)]
    ttl: Option<Span>,
    /// Your own key for this request: repeated under it, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Args)]
struct Rotate {
    /// The id of the old one.
    id: KeyId,
    /// How long the old one stays good, such as 10m; it ends at once if not said.
    #[arg(long, value_parser = span)]
    grace: Option<Span>,
    /// Your own key for this request: repeated under it, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

fn scope(text: &str) -> Result<Scope, String> {
    let known = Scope::ALL.iter().find(|scope| scope.as_str() == text);
    known.copied().ok_or_else(|| {
        let all: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        format!("it is one of {}", all.join(", "))
    })
}

impl Run for Arguments {
    fn run(self, client: &Client, out: Out) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Create(create) => {
                let once = create.idempotency_key.as_deref();
                let spec = KeySpec {
                    name: create.name,
                    scopes: create.scopes,
                    project: create.project,
                    ttl: create.ttl,
                };
                let made = client.create_key(&spec, once)?;
                out.answer(&made, || shown(&made))?;
            }
            Verb::Rotate(rotate) => {
                let spec = RotateSpec {
                    grace: rotate.grace,
                };
                let once = rotate.idempotency_key.as_deref();
                let made = client.rotate_key(rotate.id, &spec, once)?;
                out.answer(&made, || shown(&made))?;
            }
            Verb::Ls => {
                let keys = client.list_keys()?;
                out.answer(&keys, || draw(&keys.items))?;
            }
            Verb::Rm { id } => {
                client.revoke_key(id)?;
                let revoked = serde_json::json!({ "revoked": id });
                out.answer(&revoked, || format!("revoked {id}"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The key itself, alone on its line, so that it can be sent to a file.
pub(super) fn shown(made: &NewKey) -> String {
    format!("{}\n", made.secret)
}

fn draw(keys: &[Key]) -> String {
    let head = ["ID", "NAME", "PROJECT", "SCOPES", "AGE", "GOOD FOR"];
    let (mut table, now) = (Table::new(&head), now());
    for one in keys {
        let scopes: Vec<&str> = one.scopes.iter().map(|scope| scope.as_str()).collect();
        let (style, good) = match (one.revoked_at, one.expires_at) {
            (Some(_), _) => (DIM, "revoked".to_owned()),
            (None, Some(at)) if at.0.as_millis() <= now => (DIM, "expired".to_owned()),
            (None, Some(at)) => (PLAIN, between(now, at)),
            (None, None) => (PLAIN, "ever".to_owned()),
        };
        table.row([
            (style, one.id.to_string()),
            (if style == DIM { DIM } else { BOLD }, one.name.clone()),
            (style, one.project.clone()),
            (style, scopes.join(",")),
            (style, between(now, one.created_at)),
            (style, good),
        ]);
    }
    table.draw()
}
