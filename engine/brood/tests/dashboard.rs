//! The dashboard that ships, against what a running engine serves.

use std::collections::BTreeSet;
use std::fs;

use brood_front::{Options, TenantLabels};
use serde_json::Value;

use crate::http::Server;
use crate::watch::{Scrape, workspace};

/// Metrics that are on no panel, each with its reason.
const LEFT_OUT: [&str; 0] = [];

fn dashboard() -> Value {
    let file = workspace().join("examples/grafana/brood.json");
    let text = fs::read_to_string(file).expect("the dashboard");
    serde_json::from_str(&text).expect("JSON")
}

/// All queries, of panels and of variables.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "query" => found.push(text.to_owned()),
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|one| queries(one, found)),
        _ => {}
    }
}

/// The names of ours in a query.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("brood_"))
}

/// Under which names a query finds a metric (OpenMetrics 1.0, "Suffixes").
fn series(name: &str, kind: &str) -> Vec<String> {
    let suffixes: &[&str] = match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        _ => &[""],
    };
    let with = |suffix: &&str| format!("{name}{suffix}");
    suffixes.iter().map(with).collect()
}

#[test]
fn every_name_on_the_dashboard_is_served_and_every_metric_is_on_it() {
    let options = Options {
        tenant_labels: TenantLabels::Apart,
        ..Options::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let mother = server.mother();
    server.good(
        &format!("POST /v1/machines/{mother}/forks"),
        r#"{"count": 1}"#,
    );
    let text = server.call("GET /metrics", "").body;
    let text = String::from_utf8(text).expect("UTF-8");
    let Some(scrape) = Scrape::parse(&text) else {
        return;
    };
    let tenant = scrape.sum("brood_tenant_machines", &[("tenant", "acme")]);
    assert_eq!(tenant, Some(2.0));

    let mut all = Vec::new();
    queries(&dashboard(), &mut all);
    assert!(all.len() > 40, "{}", all.len());
    let drawn: BTreeSet<&str> = all.iter().flat_map(|query| names(query)).collect();
    let served: Vec<(String, Vec<String>)> = scrape
        .families()
        .map(|(name, kind, _)| (name.to_owned(), series(name, kind)))
        .collect();
    let known: BTreeSet<&str> = served
        .iter()
        .flat_map(|(_, series)| series.iter().map(String::as_str))
        .collect();
    for name in &drawn {
        assert!(
            known.contains(name),
            "{name} is on the dashboard and not served"
        );
    }
    for (name, series) in &served {
        let shown = series.iter().any(|one| drawn.contains(one.as_str()));
        let left_out = LEFT_OUT.contains(&name.as_str());
        assert!(
            shown != left_out,
            "{name} is on no panel and not named as left out, or both"
        );
    }
}

#[test]
fn the_dashboard_can_be_provisioned_as_it_is() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "brood");
    // One that was exported for sharing asks for its data source instead of having a variable for it.
    assert!(dashboard["__inputs"].is_null());
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().filter_map(|one| one["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels.iter().filter(|one| one["type"] != "row") {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(
            !title.is_empty() && panel["description"].is_string(),
            "{panel}"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let (x, width) = (&panel["gridPos"]["x"], &panel["gridPos"]["w"]);
        let right = x.as_u64().zip(width.as_u64()).map(|(x, width)| x + width);
        assert!(
            right.is_some_and(|right| right <= 24),
            "{title} is too wide"
        );
    }
}
