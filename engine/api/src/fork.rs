//! The fork: what is asked, and what became of each daughter.

use std::collections::{BTreeMap, BTreeSet};

use brood_units::IntentId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::machine::Machine;
use crate::mistake::Mistakes;
use crate::shape::{self, whole, whole_or_none};
use crate::{IdText, MAX_DAUGHTERS, Problem, Request, Span, limit};

/// Most secrets that a request gives.
const MOST_SECRETS: usize = 64;

/// What becomes of the secrets that the mother was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Secrets {
    /// Daughters do not get them.
    #[default]
    Drop,
    /// Daughters get them.
    Inherit,
}

/// What happens to the others if a daughter does not come to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// They are kept, as long as there are at least `min_count`.
    #[default]
    Keep,
    /// They are ended, and the fork is answered with a problem.
    End,
}

/// A file that a daughter has before her workload runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its absolute path in the guest.
    #[schema(
        pattern = r"^/[^\x00]*$",
        max_length = 4095,
        example = "/etc/task.json"
    )]
    pub path: String,
    /// Its text. `${index}` and the like are left as they are.
    pub text: String,
    /// Permission bits as a number, 420 (`0o644`) if not said.
    #[schema(minimum = 0, maximum = 4095)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub mode: Option<u32>,
}

/// A secret that each daughter gets, as a variable or in a file; one of `env` and `file` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveSecret {
    /// The name that it was put under.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "token")]
    pub name: String,
    /// Which version; the newest if not said.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub version: Option<u32>,
    /// A variable of their later programs.
    #[schema(pattern = r"^[^=\x00]+$", example = "TOKEN")]
    pub env: Option<String>,
    /// The absolute path of a file that root alone reads.
    #[schema(pattern = r"^/[^\x00]*$", max_length = 4095)]
    pub file: Option<String>,
}

/// A fork to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkSpec {
    /// Daughters.
    #[schema(minimum = 1, maximum = 240, example = 3)]
    #[serde(deserialize_with = "whole")]
    pub count: u32,
    /// The fewest that are welcome; `count` if not said.
    #[schema(minimum = 1, maximum = 240)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub min_count: Option<u32>,
    /// Labels of the daughters.
    #[schema(schema_with = shape::labels)]
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long they live; until they are ended if not said.
    pub ttl: Option<Span>,
    /// How long nobody may ask anything of one of them before she ends; looking at her does not count. For ever if not
    /// said.
    pub idle: Option<Span>,
    /// Variables of their later programs.
    #[schema(schema_with = shape::env)]
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files that they have before their workload runs.
    #[serde(default)]
    pub files: Vec<File>,
    /// What becomes of the mother's secrets.
    #[serde(default)]
    pub secrets: Secrets,
    /// Higher goes first where a policy has requests wait for room, as far as the policy allows it.
    #[schema(minimum = -2_147_483_648_i64, maximum = 2_147_483_647)]
    #[serde(default, deserialize_with = "whole")]
    pub priority: i32,
    /// Secrets of the tenant that they get, whatever the mother has. Values are opened for the stamps of daughters alone.
    #[schema(max_items = 64)]
    #[serde(default)]
    pub give_secrets: Vec<GiveSecret>,
    /// What happens to the others if a daughter does not come to be.
    #[serde(default)]
    pub on_error: OnError,
}

impl Request for ForkSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        let count = self.count;
        if !(1..=MAX_DAUGHTERS).contains(&count) {
            mistakes.out_of_range(
                "/count",
                format!("{count}: a fork makes 1 to {MAX_DAUGHTERS} daughters; fork several times for more"),
            );
        }
        if let Some(least) = self.min_count.filter(|least| *least == 0 || *least > count) {
            mistakes.out_of_range(
                "/min_count",
                format!("{least} is not in 1 ..= {count}, the count"),
            );
        }
        limit::labels(&self.labels, mistakes);
        limit::ttl(self.ttl, mistakes);
        limit::idle(self.idle, mistakes);
        limit::env(&self.env, mistakes);
        for (index, file) in self.files.iter().enumerate() {
            limit::guest_path(&format!("/files/{index}/path"), &file.path, mistakes);
            limit::mode(&format!("/files/{index}/mode"), file.mode, mistakes);
        }
        self.check_secrets(mistakes);
    }
}

impl ForkSpec {
    /// Nothing is put where something else is.
    fn check_secrets(&self, mistakes: &mut Mistakes) {
        if self.give_secrets.len() > MOST_SECRETS {
            let words = format!("a daughter is given at most {MOST_SECRETS} secrets");
            mistakes.out_of_range("/give_secrets", words);
        }
        let mut taken: BTreeSet<&str> = self.env.keys().map(String::as_str).collect();
        taken.extend(self.files.iter().map(|file| file.path.as_str()));
        for (index, secret) in self.give_secrets.iter().enumerate() {
            let pointer = |field: &str| format!("/give_secrets/{index}/{field}");
            limit::name(&pointer("name"), &secret.name, mistakes);
            let (field, place) = match (&secret.env, &secret.file) {
                (Some(env), None) => {
                    limit::variable(&pointer("env"), env, mistakes);
                    ("env", env)
                }
                (None, Some(file)) => {
                    limit::guest_path(&pointer("file"), file, mistakes);
                    ("file", file)
                }
                _ => {
                    let words = "a secret goes into a variable or into a file: name one of them";
                    mistakes.out_of_range(pointer("env"), words);
                    continue;
                }
            };
            if !taken.insert(place) {
                let words = "something else goes to this place: name another one";
                mistakes.out_of_range(pointer(field), words);
            }
        }
    }
}

/// What became of a fork.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForkAnswer {
    /// The request, as events and decisions name it.
    #[schema(value_type = IdText)]
    pub intent: IntentId,
    /// How many daughters were asked for.
    pub requested: u32,
    /// How many came to be.
    pub ready: u32,
    /// Those that came to be, and then those that did not.
    pub daughters: Vec<Daughter>,
    /// What bindings said that only warn, and those that failed open.
    pub warnings: Vec<String>,
    /// Where the time went.
    pub timing: ForkTiming,
}

/// What became of one daughter: one of `machine` and `problem` is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Daughter {
    /// She herself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Why she is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Her host name, where she has an agent to set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Microseconds from the fork call to her first instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_instruction_us: Option<f64>,
    /// Microseconds from the fork call until she had confirmed her identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed_us: Option<f64>,
}

/// Where the time of a fork went, microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForkTiming {
    /// All hooks together.
    pub decided_us: f64,
    /// From the decision to the commit of the answer: the fork, the stamps, the database.
    pub forked_us: f64,
    /// How long the mother's vCPUs stood still, within `forked_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mother_pause_us: Option<f64>,
}
