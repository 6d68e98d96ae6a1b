//! Secrets of a plan and of the mother, on their way into stamps.

use std::sync::atomic::{AtomicUsize, Ordering};

use brood_hooks::mutation::{Secret, SecretTarget};
use brood_hooks::{Heard, Permits, check};

use super::*;
use crate::ask::Secrets;
use crate::fork::IdentitySpec;
use crate::secret::{Given, OpenError, Opened, Value, Vault};

const CANARY: &str = "canary-of-the-mine";

/// Has `token` in versions 1 to 3, and counts how often it was asked.
#[derive(Default)]
struct Tokens(AtomicUsize);

impl Vault for Tokens {
    fn open(&self, name: &str, wanted: Option<&str>) -> Result<Opened, OpenError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let version = wanted.map_or(Some(3), |wanted| wanted.parse().ok());
        match version.filter(|version| name == "token" && (1..=3).contains(version)) {
            Some(version) => Ok(Opened {
                version,
                value: Value::from(format!("{CANARY}-{version}")),
            }),
            None => Err(OpenError::Unknown {
                name: name.to_owned(),
                wanted: wanted.map(str::to_owned),
            }),
        }
    }
}

fn secret(name: &str, version: Option<&str>, target: SecretTarget) -> Patch {
    Patch::Secret(Secret {
        name: name.to_owned(),
        version: version.map(str::to_owned),
        target,
    })
}

fn env(name: &str) -> SecretTarget {
    SecretTarget::Env(name.to_owned())
}

fn file(path: &str) -> SecretTarget {
    SecretTarget::File(path.to_owned())
}

fn plan(shared: Vec<Patch>) -> Outcome {
    let rules = Vec::new();
    Outcome::Plan(Plan { shared, rules })
}

fn gives(_: &mutation::Brief) -> Outcome {
    plan(vec![
        secret("token", None, env("TOKEN")),
        secret("token", Some("1"), file("/run/token")),
    ])
}

fn nothing(_: &mutation::Brief) -> Outcome {
    plan(Vec::new())
}

/// A decider that may name a few secrets.
struct Permitted(Planner);

impl Panel<Mutation> for Permitted {
    fn hear(&self, _: Now, brief: mutation::Brief) -> Hearing<'_, Mutation> {
        let permits = Permits {
            secrets: ["token", "tokn", "long"].map(str::to_owned).to_vec(),
            file_roots: vec!["/run".to_owned()],
            ..Permits::default()
        };
        let answer = check::<Mutation>(&brief, &permits, (self.0)(&brief));
        let said = Said {
            binding: "gifts".to_owned(),
            plugin: "gifts".to_owned(),
            weight: 1,
            heard: Heard::Enforced(answer.expect("it keeps to what it may")),
            stands_in: None,
            spent: None,
        };
        Box::pin(std::future::ready(vec![said]))
    }

    fn bound(&self) -> Vec<brood_hooks::Bound> {
        Vec::new()
    }
}

fn giving(plan: Planner) -> Panels {
    Panels {
        mutation: Box::new(Permitted(plan)),
        ..panels(nothing)
    }
}

/// What each daughter's agent would be told.
fn told(stamps: &Stamps) -> Vec<IdentitySpec> {
    let told = stamps.stamps().iter().map(|stamp| {
        let mut identity = stamp.identity.clone();
        stamp.secrets.apply(&mut identity);
        identity
    });
    told.collect()
}

fn variable<'a>(identity: &'a IdentitySpec, name: &str) -> Option<&'a str> {
    let mut found = identity.env.iter().filter(|(known, _)| known == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert_eq!(found.next(), None, "{name} is there once");
    value
}

fn content(identity: &IdentitySpec, path: &str) -> Option<String> {
    let mut found = identity.files.iter().filter(|file| file.path == path);
    let content = found.next().map(|file| {
        assert_eq!(file.mode, 0o600);
        String::from_utf8_lossy(&file.bytes.0).into_owned()
    });
    assert!(found.next().is_none(), "{path} is there once");
    content
}

#[test]
fn a_secret_that_a_plan_names_joins_the_identity_at_the_stamp_and_shows_nowhere_before() {
    let mut spec = ForkSpec::of(3);
    spec.env.insert("TOKEN".to_owned(), "of caller".to_owned());
    let vault = Tokens::default();
    let safe = Safe {
        vault: &vault,
        mother: &[],
    };
    let mut holds = Holds::default();
    let stamps = way_with(&spec, &giving(gives), &[9], &mut holds, safe).expect("it may happen");
    for identity in told(&stamps) {
        assert_eq!(variable(&identity, "TOKEN"), Some("canary-of-the-mine-3"));
        let content = content(&identity, "/run/token");
        assert_eq!(content.as_deref(), Some("canary-of-the-mine-1"));
        assert!(!format!("{identity:?}").contains(CANARY));
    }
    let given: Vec<_> = stamps.stamps()[0].secrets.given().collect();
    assert_eq!((given[0].version, given[1].version), (3, 1));
    assert_eq!(
        vault.0.load(Ordering::Relaxed),
        2,
        "each version is opened once"
    );
    assert!(!format!("{stamps:?}").contains(CANARY));
    let decisions = serde_json::to_string(stamps.decisions()).expect("JSON");
    assert!(!decisions.contains(CANARY));
}

#[test]
fn a_secret_that_is_not_there_stops_the_request_before_the_fork_and_says_which() {
    let cases: [(Planner, &str); 3] = [
        (
            |_| plan(vec![secret("tokn", None, env("T"))]),
            "there is no secret 'tokn':",
        ),
        (
            |_| plan(vec![secret("token", Some("4"), env("T"))]),
            "'token' version 4",
        ),
        (
            |_| plan(vec![secret("token", Some("new"), env("T"))]),
            "'token' version new",
        ),
    ];
    let vault = Tokens::default();
    let safe = Safe {
        vault: &vault,
        mother: &[],
    };
    for (plan, words) in cases {
        let mut holds = Holds::default();
        let stopped = way_with(&ForkSpec::of(2), &giving(plan), &[9], &mut holds, safe);
        let stopped = stopped.expect_err(words);
        assert!(stopped.to_string().contains(words), "{stopped}");
        assert!(stopped.held.is_some(), "units are handed back");
    }
    let none = way(
        &ForkSpec::of(2),
        &giving(gives),
        &[9],
        &mut Holds::default(),
    );
    let none = none.expect_err("an engine without a key").to_string();
    assert!(none.contains("keeps none"), "{none}");
}

#[test]
fn what_the_mother_was_given_is_emptied_or_given_again_and_whoever_puts_something_there_wins() {
    let given = |version, target| Given {
        name: "token".to_owned(),
        version,
        target,
    };
    let mother = [
        given(2, env("OLD")),
        given(2, file("/run/old")),
        given(2, env("MINE")),
        given(2, env("TOKEN")),
    ];
    let vault = Tokens::default();
    let safe = Safe {
        vault: &vault,
        mother: &mother,
    };
    let fork = |choice| {
        let mut spec = ForkSpec::of(1);
        spec.env.insert("MINE".to_owned(), "of caller".to_owned());
        spec.secrets = choice;
        let stamps = way_with(&spec, &giving(gives), &[9], &mut Holds::default(), safe);
        told(&stamps.expect("it may happen")).remove(0)
    };
    for (choice, old) in [
        (Secrets::Drop, ""),
        // Hers, though there is a newer one.
        (Secrets::Inherit, "canary-of-the-mine-2"),
    ] {
        let daughter = fork(choice);
        assert_eq!(variable(&daughter, "OLD"), Some(old));
        assert_eq!(content(&daughter, "/run/old").as_deref(), Some(old));
        assert_eq!(variable(&daughter, "MINE"), Some("of caller"));
        assert_eq!(variable(&daughter, "TOKEN"), Some("canary-of-the-mine-3"));
    }
    let gone = [given(9, env("OLD"))];
    let safe = Safe {
        vault: &vault,
        mother: &gone,
    };
    let mut spec = ForkSpec::of(1);
    spec.secrets = Secrets::Inherit;
    let lost = way_with(&spec, &giving(nothing), &[9], &mut Holds::default(), safe);
    let lost = lost.expect_err("it was removed").to_string();
    assert!(lost.contains("'token' version 9"), "{lost}");
}

#[test]
fn secrets_count_for_what_a_stamp_can_carry() {
    struct Long;
    impl Vault for Long {
        fn open(&self, _: &str, _: Option<&str>) -> Result<Opened, OpenError> {
            let value = Value::from("x".repeat(64 * 1024));
            Ok(Opened { version: 1, value })
        }
    }
    let four: Planner = |_| {
        let each = (0..4).map(|index| secret("long", None, env(&format!("LONG{index}"))));
        plan(each.collect())
    };
    let safe = Safe {
        vault: &Long,
        mother: &[],
    };
    let full = way_with(
        &ForkSpec::of(1),
        &giving(four),
        &[9],
        &mut Holds::default(),
        safe,
    );
    let full = full.expect_err("four are too many").to_string();
    assert!(full.contains("secrets are 262164 bytes"), "{full}");
}
