//! What the engine measures of itself, scraped off the real program and read by Prometheus's own parser.

use serde_json::Value;

use crate::policy::{SHIPPED, priced};
use crate::serve::Serve;
use crate::watch::Scrape;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn scrape(server: &Serve) -> Option<Scrape> {
    Scrape::parse(&server.body("GET /metrics", ""))
}

/// How much a sample grew from one scrape to the next.
fn growth<'a>(before: &'a Scrape, after: &'a Scrape) -> impl Fn(&str, &[(&str, &str)]) -> f64 + 'a {
    |name, labels| {
        let at = |scrape: &Scrape| scrape.sum(name, labels).unwrap_or(0.0);
        at(after) - at(before)
    }
}

#[test]
fn a_fork_moves_the_counters_that_it_should_and_by_how_much() {
    let Some(server) = Serve::start() else { return };
    let mother = server.mother();
    let Some(before) = scrape(&server) else {
        return;
    };
    server.good(&["fork", &mother, "-n", "3"]);
    let after = scrape(&server).expect("it is there");
    let grew = growth(&before, &after);
    let machine = [("source", "machine")];
    assert_eq!(
        grew(
            "brood_forks_total",
            &[("source", "machine"), ("outcome", "done")]
        ),
        1.0
    );
    assert_eq!(grew("brood_forks_total", &[]), 1.0, "and nothing else");
    assert_eq!(grew("brood_daughters_total", &machine), 3.0);
    assert_eq!(grew("brood_daughters_missing_total", &[]), 0.0);
    assert_eq!(grew("brood_fork_seconds_count", &machine), 1.0);
    assert_eq!(grew("brood_fork_mother_pause_seconds_count", &machine), 1.0);
    assert_eq!(
        grew("brood_daughter_first_instruction_seconds_count", &machine),
        3.0
    );
    for step in [
        "admission",
        "placement",
        "mutation",
        "intent",
        "queue",
        "fork",
        "commit",
    ] {
        let labels = [("source", "machine"), ("step", step)];
        assert_eq!(
            grew("brood_fork_step_seconds_count", &labels),
            1.0,
            "{step}"
        );
    }
    // A bare guest has no agent to stamp.
    assert_eq!(
        grew("brood_fork_step_seconds_count", &[("step", "stamp")]),
        0.0
    );
    let whole = grew("brood_fork_seconds_sum", &machine);
    let steps = grew("brood_fork_step_seconds_sum", &machine);
    assert!(
        steps <= whole && steps > whole * 0.9,
        "{steps} of {whole}: they add up"
    );
    let running = [("kind", "machine"), ("state", "running")];
    assert_eq!(after.sum("brood_machines", &running), Some(4.0));
    assert_eq!(
        after.sum("brood_machines_memory_given_bytes", &[]),
        Some(f64::from((4 * 64) << 20))
    );
    assert_eq!(
        grew("brood_events_total", &[]),
        3.0,
        "one for each that was born"
    );
    for hook in ["admission", "placement", "mutation"] {
        let answered = [("hook", hook), ("outcome", "answered")];
        assert_eq!(grew("brood_hook_calls_total", &answered), 1.0, "{hook}");
        assert_eq!(
            grew("brood_hook_call_seconds_count", &[("hook", hook)]),
            1.0
        );
        assert!(grew("brood_hook_fuel_total", &[("hook", hook)]) > 0.0);
    }
    // The intent and its outcome, each of which waits for nobody else here.
    assert_eq!(grew("brood_store_commit_seconds_count", &[]), 2.0);
    let fork = [("operation", "forkMachine"), ("status", "201")];
    assert_eq!(grew("brood_http_requests_total", &fork), 1.0);
}

#[test]
fn memory_pool_and_ends_are_shown_as_they_are() {
    let Some(server) = Serve::start() else { return };
    let mother = server.mother();
    server.good(&["fork", &mother, "-n", "2"]);
    server.good(&["checkpoint", &mother]);
    let of = |kind| [("kind", kind)];
    let Some(first) = scrape(&server) else { return };
    assert_eq!(first.sum("brood_templates_sealed", &[]), Some(1.0));
    assert_eq!(first.sum("brood_warm_claims_total", &[]), Some(1.0));
    // A pool is filled up behind the answer, and a count of memory stands for a while.
    brood_testkit::settle("all of it is counted", || {
        let scrape = scrape(&server).expect("it is there");
        let positive = |name: &str, kind| scrape.sum(name, &of(kind)).is_some_and(|sum| sum > 0.0);
        scrape.sum("brood_warm_pool_machines", &[]) == Some(4.0)
            && ["machine", "checkpoint", "template", "warm"]
                .iter()
                .all(|kind| positive("brood_memory_private_bytes", kind))
            && positive("brood_memory_shared_bytes", "machine")
            && scrape.sum("brood_cells", &of("machine")) == Some(3.0)
    });
    assert!(first.sum("brood_store_file_bytes", &[]) > Some(4096.0));
    server.good(&["kill", &mother, "--cascade"]);
    let ended = scrape(&server).expect("it is there");
    assert_eq!(ended.sum("brood_machines", &[]), Some(0.0));
    assert_eq!(
        ended.sum("brood_machines_ended_total", &of("machine")),
        Some(3.0)
    );
    assert_eq!(
        ended.sum("brood_machines_ended_total", &of("checkpoint")),
        Some(1.0)
    );
    brood_testkit::settle("who has ended costs nothing", || {
        let scrape = scrape(&server).expect("it is there");
        let none = |name: &str| scrape.sum(name, &of("machine")) == Some(0.0);
        none("brood_memory_private_bytes") && none("brood_cells")
    });
}

#[test]
fn metering_and_rating_are_seen_from_the_window_to_the_line() {
    let Some(server) = Serve::start() else { return };
    let mother = server.mother();
    server.good(&["fork", &mother, "-n", "2"]);
    server.good(&["kill", &mother, "--cascade"]);
    let Some(before) = scrape(&server) else {
        return;
    };
    let at = |scrape: &Scrape, name: &str| scrape.sum(name, &[]).expect("it is there");
    // Her fork, her end and those of two daughters.
    assert_eq!(at(&before, "brood_usage_windows_total"), 4.0);
    assert_eq!(at(&before, "brood_usage_windows_kept"), 4.0);
    assert_eq!(at(&before, "brood_usage_windows_unsealed"), 4.0);
    assert!(at(&before, "brood_usage_unrated_age_seconds") > 0.0);
    assert_eq!(at(&before, "brood_usage_rated_total"), 0.0);
    server.good(&["usage", "rate"]);
    server.good(&["tenant", "credit", "default", "1", "--idempotency-key", "k"]);
    let after = scrape(&server).expect("it is there");
    assert_eq!(at(&after, "brood_usage_windows_unsealed"), 0.0);
    assert_eq!(at(&after, "brood_usage_unrated_age_seconds"), 0.0);
    let grew = growth(&before, &after);
    let forks = [("dimension", "forks")];
    assert_eq!(grew("brood_usage_rated_total", &forks), 3.0);
    let active = [("dimension", "vcpu-active-ns")];
    assert!(grew("brood_usage_rated_total", &active) > 0.0);
    // Three machines with three prices.
    assert_eq!(grew("brood_usage_lines_total", &[]), 9.0);
    assert_eq!(
        grew("brood_usage_batches_rated_total", &[]),
        2.0,
        "of windows, and of the credit"
    );
    assert_eq!(grew("brood_usage_credits_total", &[]), 1.0);
    for state in ["held", "dead"] {
        assert_eq!(
            after.sum("brood_usage_batches", &[("state", state)]),
            Some(0.0)
        );
    }
}

#[test]
fn batches_that_are_not_rated_and_their_age_are_seen() {
    let no_price = "[plugin.price-table.settings.plans.list]\nunpriced = \"refuse\"";
    let Some(server) = Serve::start_with(&priced(SHIPPED, no_price)) else {
        return;
    };
    server.mother();
    assert_eq!(server.good(&["usage", "rate"])["held"], 1);
    let Some(scrape) = scrape(&server) else {
        return;
    };
    assert_eq!(
        scrape.sum("brood_usage_batches", &[("state", "held")]),
        Some(1.0)
    );
    assert_eq!(
        scrape.sum("brood_usage_rating_failures_total", &[]),
        Some(1.0)
    );
    assert_eq!(scrape.sum("brood_usage_windows_unsealed", &[]), Some(0.0));
    assert!(scrape.sum("brood_usage_unrated_age_seconds", &[]) > Some(0.0));
}

#[test]
fn what_is_refused_is_counted_with_its_reason() {
    let few = SHIPPED.replace("max-per-request = 64", "max-per-request = 2");
    let Some(server) = Serve::start_with(&few) else {
        return;
    };
    let mother = server.mother();
    let Some(before) = scrape(&server) else {
        return;
    };
    assert_eq!(server.json(&["fork", &mother, "-n", "3"]).status, 112);
    server.body("GET /nowhere", "");
    server.body("GET /v1/machines?limit=0", "");
    let after = scrape(&server).expect("it is there");
    let grew = growth(&before, &after);
    assert_eq!(grew("brood_forks_total", &[("outcome", "denied")]), 1.0);
    assert_eq!(grew("brood_forks_total", &[]), 1.0);
    let refused = [("hook", "admission"), ("outcome", "refused")];
    assert_eq!(grew("brood_hook_calls_total", &refused), 1.0);
    for code in ["denied", "no_such_route", "invalid_request"] {
        assert_eq!(
            grew("brood_http_problems_total", &[("code", code)]),
            1.0,
            "{code}"
        );
    }
    let nowhere = [("operation", "none"), ("status", "404")];
    assert_eq!(grew("brood_http_requests_total", &nowhere), 1.0);
}

#[test]
fn each_metric_has_a_name_by_convention_a_help_and_no_label_of_somebodys_choice() {
    let Some(server) = Serve::start() else { return };
    let mother = server.mother();
    server.good(&["fork", &mother, "-n", "2", "--label", "team=secret-team"]);
    let text = server.body("GET /metrics", "");
    for word in [mother.as_str(), "secret-team", "tenant=", "counter"] {
        // Types are named so; a template is as well.
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        assert!(
            !lines.clone().any(|line| line.contains(word)),
            "{word}: {text}"
        );
    }
    let Some(scrape) = Scrape::parse(&text) else {
        return;
    };
    let mut count = 0;
    for (name, kind, help) in scrape.families() {
        assert!(name.starts_with("brood_"), "{name}");
        assert!(help.len() > 8, "{name} has no help");
        let units = ["_seconds", "_bytes"];
        let unit = units.iter().any(|unit| name.ends_with(unit));
        let counts = kind == "histogram" && !name.ends_with("_jobs");
        assert!(!counts || unit, "{name} is a histogram without a unit");
        count += 1;
    }
    assert!(count > 30, "{count}");
    // So that a dashboard is not made of machines: the same again after more of them.
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    server.good(&["fork", &mother, "-n", "8"]);
    let more = server.body("GET /metrics", "");
    let after = more.lines().filter(|line| !line.starts_with('#')).count();
    // One new operation may have been asked meanwhile: the scrape itself.
    assert!(after <= series + 16, "{series} series became {after}");
}

#[test]
fn a_key_for_metrics_reads_them_and_nothing_else() {
    let Some(server) = Serve::start() else { return };
    let key = |scope: &str| -> String {
        let made = server.good(&["key", "create", scope, "--scope", scope]);
        made["secret"].as_str().unwrap_or_default().to_owned()
    };
    let ask = |key: &str, line: &str| server.head_as(key, line);
    let (metrics, read) = (key("metrics"), key("read"));
    let head = ask(&metrics, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains(OPENMETRICS), "{head}");
    for line in ["GET /v1/machines", "GET /v1/policies", "GET /v1/tenants"] {
        let head = ask(&metrics, line);
        assert!(head.starts_with("HTTP/1.1 403"), "{line}: {head}");
    }
    let head = ask(&read, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(ask("", "GET /metrics").starts_with("HTTP/1.1 401"));
    let operator = key("operator");
    assert!(ask(&operator, "GET /metrics").starts_with("HTTP/1.1 200"));
    let problem: Value =
        serde_json::from_str(&server.body("GET /metrics?x=1", "")).unwrap_or_default();
    assert_eq!(
        problem,
        Value::Null,
        "a query is passed over, as scrapers may have one"
    );
}
