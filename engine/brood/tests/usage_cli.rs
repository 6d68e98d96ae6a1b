//! Usage by the command line against a real server with real cells (bare guests): shown, exported, put right, replayed.

use serde_json::Value;

use crate::policy::enforced;
use crate::serve::Serve;
use crate::watch::python;

/// With the prices that ship, enforced.
fn start() -> Option<Serve> {
    Serve::start_with(&enforced())
}

fn amount(value: &Value) -> i128 {
    let text = value.as_str().expect("an amount is text");
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let nanos: i128 = format!("{whole}{places:0<9}").parse().expect("a decimal");
    nanos
}

#[test]
fn what_machines_used_is_shown_exported_and_adds_up() {
    let Some(serve) = start() else { return };
    let mother = serve.mother();
    let forked = serve.good(&["fork", "mother", "-n", "3", "-l", "team=a"]);
    assert_eq!(forked["ready"], 3);
    serve.text(&["kill", "mother", "--cascade"]);
    let rated = serve.good(&["usage", "rate"]);
    assert_eq!((&rated["held"], &rated["dead"]), (&0.into(), &0.into()));

    let summary = serve.good(&["usage"]);
    let group = &summary["groups"][0];
    assert_eq!(
        (&group["measured"]["forks"], &summary["unsealed"]),
        (&"4".into(), &0.into())
    );
    let charges = group["charges"].as_array().expect("charges");
    let sum: i128 = charges.iter().map(|one| amount(&one["amount"])).sum();
    assert_eq!(amount(&summary["totals"][0]["amount"]), sum);
    let lines = serve.text(&["usage", "--lines"]);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        lines
            .iter()
            .map(|line| amount(&line["amount"]))
            .sum::<i128>(),
        sum
    );
    let text = serve.text(&["usage"]);
    println!("{text}");
    assert!(
        text.contains("VCPU-HOURS") && text.contains("list/fork") && text.contains("total "),
        "{text}"
    );

    let by_label = serve.good(&["usage", "--by", "label:team"]);
    let forks: Vec<_> = by_label["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|one| (&one["group"], &one["measured"]["forks"]))
        .collect();
    assert_eq!(
        forks,
        [(&"".into(), &"1".into()), (&"a".into(), &"3".into())]
    );
    let of_mother = serve.text(&["usage", "--machine", &mother, "--ndjson"]);
    let causes: Vec<Value> = of_mother
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["cause"].clone())
        .collect();
    assert_eq!(causes, ["fork", "end"]);
    let csv = serve.text(&["usage", "--csv"]);
    assert!(csv.starts_with("record,machine,kind,tenant,"), "{csv}");
    assert_eq!(
        csv.split("\r\n").filter(|row| !row.is_empty()).count(),
        1 + 2 + 3
    );
    assert!(csv.contains("\"{\"\"team\"\":\"\"a\"\"}\""), "{csv}");
    let month = summary["period"].as_str().expect("a month");
    put_right(&serve, month, lines.len(), sum);
}

/// Replayed, looked through, and one record put right.
fn put_right(serve: &Serve, month: &str, lines: usize, sum: i128) {
    let replayed = serve.good(&["usage", "replay", month]);
    assert_eq!(
        (&replayed["different"], &replayed["lines"]),
        (&serde_json::json!([]), &lines.into())
    );
    let seen = serve.good(&["usage", "check"]);
    assert_eq!(
        (&seen["records"], &seen["breaks"]),
        (&5.into(), &serde_json::json!([]))
    );

    let corrected = serve.good(&["usage", "correct", "1", "--span-us", "3600000000"]);
    assert_eq!(corrected["corrects"], 1);
    serve.good(&["usage", "rate"]);
    let anew = serve.good(&["usage"]);
    // An hour of 1 vCPU at 0.02, and of 64 MiB at 0.005 a GiB, in the place of milliseconds.
    let more = amount(&anew["totals"][0]["amount"]) - sum;
    assert!((20_000_000..20_312_501).contains(&more), "{more}");
    assert_eq!(
        serve
            .json(&["usage", "correct", "99", "--cpu-ns", "1"])
            .status,
        110
    );
    assert_eq!(serve.json(&["usage", "--period", "2026-13"]).status, 2);
    assert_eq!(serve.json(&["usage", "--by", "colour"]).status, 2);
}

#[test]
fn credits_are_posted_once_and_only_by_an_operator() {
    let Some(serve) = start() else { return };
    let credit = |tenant, amount, key| {
        serve.json(&["tenant", "credit", tenant, amount, "--idempotency-key", key])
    };
    let posted = credit("default", "25.00", "invoice-7").good();
    assert_eq!(
        (&posted["amount"], &posted["entry"]),
        (&"25".into(), &1.into())
    );
    assert_eq!(credit("default", "25.00", "invoice-7").good(), posted);
    assert_eq!(credit("default", "26.00", "invoice-7").status, 113);
    assert_eq!(credit("nobody", "1", "k").status, 110);
    for wrong in ["1e3", "0.0000000001", "-"] {
        assert_eq!(credit("default", wrong, "k").status, 2, "{wrong}");
    }
    let balance = serve.good(&["tenant", "balance", "default"]);
    assert_eq!(
        (&balance["purses"][0]["credit"], &balance["credits"][0]),
        (&"25".into(), &posted)
    );

    let made = serve.good(&["tenant", "create", "other"]);
    let key = made["first_key"]["secret"].as_str().expect("a key");
    let other = |arguments: &[&str]| {
        let output = serve
            .program(arguments)
            .env("BROOD_KEY", key)
            .output()
            .expect("it runs");
        output.status.code()
    };
    assert_eq!(
        other(&["tenant", "credit", "other", "5", "--idempotency-key", "k"]),
        Some(111)
    );
    assert_eq!(other(&["tenant", "balance", "default"]), Some(111));
    assert_eq!(other(&["usage", "--tenant", "*"]), Some(111));
    assert_eq!(other(&["usage", "check"]), Some(111));
    assert_eq!(other(&["usage"]), Some(0));
    assert_eq!(other(&["tenant", "balance", "other"]), Some(0));
}

#[test]
fn a_record_that_somebody_changed_or_took_away_is_found_by_name_by_a_command() {
    let Some(serve) = start() else { return };
    let mother = serve.mother();
    serve.good(&["fork", "mother", "-n", "2"]);
    serve.text(&["kill", "mother", "--cascade"]);
    serve.good(&["usage", "rate"]);
    let whole = serve.brood(&["usage", "check"]);
    assert_eq!(whole.status, 0, "{}", whole.stdout);
    let change = |sql: &str| {
        let mut python = python(&["sqlite3"])?;
        let file = serve.directory().join("state").join("store.db");
        let code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60); db.execute(sys.argv[2])";
        let done = python.args(["-c", code]).arg(file).arg(sql).status();
        assert!(done.expect("it starts").success(), "{sql}");
        Some(())
    };
    // Records 1 and 2 are the mother's: her fork and her end.
    if change("UPDATE usage SET cpu_ns = cpu_ns / 2 WHERE seq = 1").is_none() {
        return;
    }
    let found = serve.brood(&["usage", "check"]);
    assert_eq!(found.status, 1, "{}", found.stdout);
    let words = format!("usage record 1 of machine {mother} is not what was written");
    assert!(found.stdout.contains(&words), "{}", found.stdout);
    let seen = serve.json(&["usage", "check"]);
    let breaks = seen.json()["breaks"].as_array().map(Vec::len);
    assert_eq!((seen.status, breaks), (1, Some(1)), "one, and no other");
    change("DELETE FROM usage WHERE seq = 3").expect("as before");
    let found = serve.brood(&["usage", "check"]);
    let words = "usage records 3 to 3 are missing";
    assert!(found.stdout.contains(words), "{}", found.stdout);
    // Nothing hangs on the last ones but the batches that they were put into.
    change("DELETE FROM usage WHERE seq > 2").expect("as before");
    let found = serve.brood(&["usage", "check"]);
    let words = "usage records 3 to 4 are missing";
    assert!(
        found.status == 1 && found.stdout.contains(words),
        "{}",
        found.stdout
    );
}
