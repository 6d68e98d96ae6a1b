//! The bounds of every answer, each at its last right value and its first wrong one.

use brood_hooks::admission::{Deferral, Grant, Hold, Item, Verdict, WhenFull};
use brood_hooks::billing::{Account, Action, Batch, Budget, Line, Rated, Sample, Sku};
use brood_hooks::mutation::{
    Brief, Content, File, Network, Outcome, Patch, Plan, Rule, Secret, SecretTarget,
};
use brood_hooks::placement::{Answer, Bid, Candidate, Question, Ranking};
use brood_hooks::{
    Admission, Billing, Denial, Flaw, ForkRequest, Mutation, Permits, Placement, Span, check,
};

fn request() -> ForkRequest {
    ForkRequest {
        count: 8,
        min_count: 1,
        ..ForkRequest::default()
    }
}

fn denial(code: &str, message: &str) -> Denial {
    Denial {
        code: code.into(),
        message: message.into(),
        retry_after_ms: None,
    }
}

fn verdict_is_right(verdict: Verdict) -> bool {
    let item = Item {
        request: request(),
        ..Item::default()
    };
    check::<Admission>(&vec![item], &Permits::default(), vec![verdict]).is_ok()
}

fn grant_is_right(change: impl FnOnce(&mut Grant)) -> bool {
    let mut grant = Grant {
        count: 8,
        shape: None,
        ttl_ms: None,
        holds: vec![],
        when_full: WhenFull::Deny(denial("quota", "full")),
        add_labels: vec![],
        warnings: vec![],
    };
    change(&mut grant);
    verdict_is_right(Verdict::Admit(grant))
}

fn queue(name: &str, max_wait_ms: u32) -> Deferral {
    Deferral {
        queue: name.into(),
        priority: 0,
        max_wait_ms,
    }
}

#[test]
fn refusal_has_a_code_and_words_wherever_it_stands() {
    for (code, message, right) in [
        ("quota", "no more today", true),
        ("Quota!", "no more today", false),
        ("", "no more today", false),
        ("quota", "", false),
        ("quota", "\u{1b}[2J", false),
    ] {
        let words = denial(code, message);
        assert_eq!(
            verdict_is_right(Verdict::Deny(words.clone())),
            right,
            "{words:?}"
        );
        let full = grant_is_right(|grant| grant.when_full = WhenFull::Deny(words.clone()));
        assert_eq!(full, right, "{words:?}");
    }
}

#[test]
fn queue_has_a_name_and_an_end_wherever_it_stands() {
    for (name, wait, right) in [
        ("batch", 1, true),
        ("batch", 86_400_000, true),
        ("batch", 0, false),
        ("batch", 86_400_001, false),
        ("two words", 1, false),
        ("", 1, false),
    ] {
        let deferral = queue(name, wait);
        assert_eq!(
            verdict_is_right(Verdict::Queue(deferral.clone())),
            right,
            "{deferral:?}"
        );
        let full = grant_is_right(|grant| grant.when_full = WhenFull::Queue(deferral.clone()));
        assert_eq!(full, right, "{deferral:?}");
    }
}

#[test]
fn grant_has_at_most_64_holds_16_warnings_and_64_labels() {
    let hold = |key: String| Hold {
        key,
        per_daughter: 1,
        limit: 8,
        ..Hold::default()
    };
    let holds = |count| {
        move |grant: &mut Grant| {
            grant.holds = (0..count).map(|n| hold(format!("k{n}"))).collect();
        }
    };
    assert!(grant_is_right(holds(64)) && !grant_is_right(holds(65)));
    let warnings = |count| move |grant: &mut Grant| grant.warnings = vec!["w".into(); count];
    assert!(grant_is_right(warnings(16)) && !grant_is_right(warnings(17)));
    let labels = |count| {
        move |grant: &mut Grant| {
            grant.add_labels = (0..count).map(|n| (format!("l{n}"), "v".into())).collect();
        }
    };
    assert!(grant_is_right(labels(64)) && !grant_is_right(labels(65)));
    let twice = vec![("a".to_owned(), "1".to_owned()); 2];
    assert!(!grant_is_right(|grant| grant.add_labels = twice));
    for (length, right) in [(128, true), (129, false), (0, false)] {
        let key = "k".repeat(length);
        assert_eq!(
            grant_is_right(|grant| grant.holds = vec![hold(key)]),
            right,
            "{length}"
        );
    }
    assert!(!grant_is_right(
        |grant| grant.holds = vec![hold("a b".into())]
    ));
}

fn ranking_is_right(rankings: Vec<Ranking>, reasons: &[&str]) -> bool {
    let question = Question {
        candidates: vec![Candidate::default()],
        ..Question::default()
    };
    let reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
    let answer = Answer { rankings, reasons };
    check::<Placement>(&question, &Permits::default(), answer).is_ok()
}

#[test]
fn ranking_is_one_a_candidate_within_scores_and_reasons() {
    let bid = |score| vec![Ranking::Bid(Bid { score, at_most: 8 })];
    assert!(ranking_is_right(bid(0), &[]) && ranking_is_right(bid(10_000), &[]));
    assert!(!ranking_is_right(bid(10_001), &[]));
    let reject = |reason| vec![Ranking::Reject(reason)];
    assert!(ranking_is_right(reject(0), &["full", "old"]));
    assert!(ranking_is_right(reject(1), &["full", "old"]));
    assert!(!ranking_is_right(reject(2), &["full", "old"]));
    assert!(!ranking_is_right(reject(0), &[]));
    assert!(!ranking_is_right(vec![], &[]) && !ranking_is_right(bid(1).repeat(2), &[]));
    assert!(ranking_is_right(bid(1), &["r"; 64]) && !ranking_is_right(bid(1), &["r"; 65]));
    assert!(!ranking_is_right(bid(1), &[""]));
}

fn permits() -> Permits {
    Permits {
        secrets: vec!["key".into()],
        network_profiles: vec!["closed".into()],
        file_roots: vec!["/d".into()],
    }
}

fn plan_is_right(shared: Vec<Patch>, rules: Vec<Rule>) -> bool {
    let brief = Brief {
        request: request(),
        daughters: Span { first: 2, count: 4 },
        ..Brief::default()
    };
    let outcome = Outcome::Plan(Plan { shared, rules });
    check::<Mutation>(&brief, &permits(), outcome).is_ok()
}

fn patch_is_right(patch: Patch) -> bool {
    plan_is_right(vec![patch], vec![])
}

fn rule(first: u32, count: u32, patches: Vec<Patch>) -> Rule {
    let daughters = Span { first, count };
    Rule { daughters, patches }
}

fn file(path: &str, length: usize) -> Patch {
    Patch::WriteFile(File {
        path: path.into(),
        mode: 0o600,
        content: Content::Bytes(vec![0; length]),
    })
}

fn template_file(path: &str, length: usize) -> Patch {
    Patch::WriteFile(File {
        path: path.into(),
        mode: 0o600,
        content: Content::Template("t".repeat(length)),
    })
}

fn env(name: &str, length: usize) -> Patch {
    Patch::SetEnv(name.into(), "v".repeat(length))
}

fn secret(name: &str, target: SecretTarget) -> Patch {
    Patch::Secret(Secret {
        name: name.into(),
        version: None,
        target,
    })
}

#[test]
fn env_files_and_entropy_end_at_their_sizes() {
    assert!(patch_is_right(env("A", 32_768)) && !patch_is_right(env("A", 32_769)));
    assert!(patch_is_right(file("/d/a", 262_144)) && !patch_is_right(file("/d/a", 262_145)));
    let (right, wrong) = (
        template_file("/d/a", 262_144),
        template_file("/d/a", 262_145),
    );
    assert!(patch_is_right(right) && !patch_is_right(wrong));
    let entropy = |length| Patch::EntropyContext(vec![1; length]);
    assert!(patch_is_right(entropy(256)) && !patch_is_right(entropy(257)));
}

#[test]
fn name_of_a_variable_is_one() {
    let longest = "A".repeat(128);
    for right in ["A", "_", "a_B", "A1", longest.as_str()] {
        assert!(patch_is_right(env(right, 1)), "{right}");
        assert!(patch_is_right(Patch::UnsetEnv(right.into())), "{right}");
    }
    let too_long = "A".repeat(129);
    for wrong in ["", "1A", "A-B", "A=B", "A B", "ä", too_long.as_str()] {
        assert!(!patch_is_right(env(wrong, 1)), "{wrong}");
        assert!(!patch_is_right(Patch::UnsetEnv(wrong.into())), "{wrong}");
    }
}

#[test]
fn plan_has_at_most_4096_patches_over_all_its_parts_and_4096_rules() {
    let many = |count: usize| vec![Patch::UnsetEnv("A".into()); count];
    assert!(plan_is_right(many(4095), vec![rule(2, 1, many(1))]));
    assert!(!plan_is_right(many(4096), vec![rule(2, 1, many(1))]));
    assert!(!plan_is_right(
        vec![],
        vec![rule(2, 1, many(4096)), rule(3, 1, many(1))]
    ));
    assert!(plan_is_right(vec![], vec![rule(2, 1, vec![]); 4096]));
    assert!(!plan_is_right(vec![], vec![rule(2, 1, vec![]); 4097]));
}

#[test]
fn rule_is_of_daughters_of_the_brief_and_of_some() {
    for (first, count, right) in [
        (2, 4, true),
        (5, 1, true),
        (3, 0, false),
        (1, 2, false),
        (5, 2, false),
        (6, 1, false),
        (6, 0, false),
    ] {
        let rules = vec![rule(first, count, vec![])];
        assert_eq!(plan_is_right(vec![], rules), right, "{first} {count}");
    }
}

#[test]
fn what_is_not_permitted_is_refused_and_what_is_permitted_is_not() {
    assert!(patch_is_right(file("/d/a", 1)) && patch_is_right(Patch::RemoveFile("/d/a".into())));
    for outside in ["/e/a", "/da", "/d", "/d/../e/a"] {
        assert!(!patch_is_right(file(outside, 1)), "{outside}");
        assert!(
            !patch_is_right(Patch::RemoveFile(outside.into())),
            "{outside}"
        );
        let target = SecretTarget::File(outside.into());
        assert!(!patch_is_right(secret("key", target)), "{outside}");
    }
    assert!(patch_is_right(secret("key", SecretTarget::Env("K".into()))));
    assert!(patch_is_right(secret(
        "key",
        SecretTarget::File("/d/k".into())
    )));
    assert!(!patch_is_right(secret(
        "other",
        SecretTarget::Env("K".into())
    )));
    assert!(!patch_is_right(secret(
        "key",
        SecretTarget::Env("1".into())
    )));
    let profile = |name: &str| {
        Patch::Network(Network {
            profile: Some(name.into()),
            ..Network::default()
        })
    };
    assert!(patch_is_right(profile("closed")) && !patch_is_right(profile("open")));
}

#[test]
fn host_name_is_one_for_every_daughter() {
    let hostname = |name: &str| {
        Patch::Network(Network {
            hostname: Some(name.into()),
            ..Network::default()
        })
    };
    assert!(patch_is_right(hostname("w-${index}.${node}")));
    for wrong in ["w_${index}", "${ip}", "${mac}", "-w", ""] {
        assert!(!patch_is_right(hostname(wrong)), "{wrong}");
    }
}

/// Each patch with the bytes that it is counted as.
fn counted() -> Vec<(Patch, usize)> {
    let network = Network {
        profile: Some("closed".into()),
        hostname: Some("w${index}".into()),
        egress_allow: Some(vec!["10.0.0.0/8".into(), "example.org".into()]),
        rate_kbps: Some(1),
    };
    vec![
        (env("NAME", 7), 4 + 7),
        (Patch::UnsetEnv("NAME".into()), 4),
        (file("/d/a", 3), 4 + 3),
        (template_file("/d/a", 5), 4 + 5),
        (Patch::RemoveFile("/d/a".into()), 4),
        (secret("key", SecretTarget::Env("K".into())), 3),
        (Patch::Label("team".into(), "abc".into()), 4 + 3),
        (Patch::EntropyContext(vec![0; 9]), 9),
        (Patch::Network(network), 9 + 10 + 11),
    ]
}

#[test]
fn plan_carries_at_most_a_mebibyte_whatever_it_is_made_of() {
    const LARGEST: usize = 1024 * 1024;
    for (patch, size) in counted() {
        // Three files of the largest size, and one that fills up to the last byte.
        let rest = LARGEST - size - 3 * (4 + 262_144) - 4;
        let fill = |rest| {
            let mut patches = vec![file("/d/b", 262_144); 3];
            patches.push(file("/d/c", rest));
            patches
        };
        let with = |mut patches: Vec<Patch>| {
            patches.push(patch.clone());
            patches
        };
        assert!(plan_is_right(with(fill(rest)), vec![]), "{patch:?}");
        assert!(!plan_is_right(with(fill(rest + 1)), vec![]), "{patch:?}");
        let rules = |rest| vec![rule(2, 1, fill(rest)), rule(3, 1, vec![patch.clone()])];
        assert!(plan_is_right(vec![], rules(rest)), "{patch:?}");
        assert!(!plan_is_right(vec![], rules(rest + 1)), "{patch:?}");
    }
}

fn flaw_of(change: impl FnOnce(&mut Batch, &mut Rated)) -> Option<Flaw> {
    let mut batch = Batch {
        accounts: vec![Account::default(); 2],
        dimensions: vec!["vcpu-ns".into()],
        samples: vec![Sample::default()],
        ..Batch::default()
    };
    let mut rated = Rated {
        skus: vec![Sku {
            name: "cpu".into(),
            currency: "EUR".into(),
            unit: "vcpu-ns".into(),
            per: 1,
        }],
        lines: vec![Line {
            sample: Some(0),
            ..Line::default()
        }],
        ..Rated::default()
    };
    change(&mut batch, &mut rated);
    let wrong = check::<Billing>(&batch, &Permits::default(), rated).err()?;
    Some(wrong.flaw)
}

#[test]
fn sku_has_a_name_a_currency_a_unit_and_a_number_of_units() {
    let sku = |change: fn(&mut Sku)| flaw_of(|_, rated| change(&mut rated.skus[0])).is_none();
    assert!(sku(|_| ()) && sku(|sku| sku.currency = "credit".into()));
    let wrong: [fn(&mut Sku); 7] = [
        |sku| sku.name = "two words".into(),
        |sku| sku.name.clear(),
        |sku| sku.currency = "eur".into(),
        |sku| sku.currency = "EURO".into(),
        |sku| sku.currency.clear(),
        |sku| sku.per = 0,
        |sku| sku.unit = "VCPU".into(),
    ];
    for (index, change) in wrong.into_iter().enumerate() {
        assert!(!sku(change), "{index}");
    }
}

#[test]
fn line_of_a_sample_that_is_not_there_is_refused_beside_right_ones() {
    for sample in [1, 2, u32::MAX] {
        let beside = flaw_of(|_, rated| {
            rated.lines.push(Line {
                sample: Some(sample),
                ..Line::default()
            });
        });
        assert!(matches!(beside, Some(Flaw::Range { .. })), "{beside:?}");
    }
}

#[test]
fn spending_that_overflows_only_in_sum_is_refused() {
    let half = i64::MAX / 2 + 1;
    let line = Line {
        sample: Some(0),
        sku: 0,
        quantity: half,
        unit_price_nanos: 1,
        amount_nanos: half,
    };
    let lines = |count| {
        let lines = vec![line.clone(); count];
        flaw_of(move |_, rated| rated.lines = lines)
    };
    assert_eq!(lines(1), None);
    assert_eq!(lines(2), Some(Flaw::Overflow));
}

#[test]
fn account_has_one_budget_with_an_action_that_is_known_and_words_for_it() {
    let budget = |account, action, message: &str| Budget {
        account,
        left_nanos: 0,
        action,
        message: message.into(),
    };
    let flaw = |budgets: Vec<Budget>| flaw_of(|_, rated| rated.budgets = budgets);
    let warn = |account| budget(account, Action::Warn, "low");
    assert_eq!(flaw(vec![warn(0), warn(1)]), None);
    assert!(matches!(
        flaw(vec![warn(1), warn(1)]),
        Some(Flaw::Duplicate { .. })
    ));
    assert!(matches!(flaw(vec![warn(2)]), Some(Flaw::Range { .. })));
    assert_eq!(flaw(vec![budget(0, Action::None, "")]), None);
    assert_eq!(flaw(vec![budget(0, Action::None, "fine")]), None);
    for (action, message) in [
        (Action::None, "\u{1b}"),
        (Action::Stop, ""),
        (Action::Other("tax".into()), "more"),
    ] {
        assert!(
            flaw(vec![budget(0, action, message)]).is_some(),
            "{message}"
        );
    }
}
