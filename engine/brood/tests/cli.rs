//! The command line against a real server with real cells (bare guests): each command, for people and in JSON.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::serve::{Serve, brood};
use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn ids(items: &Value) -> Vec<&str> {
    let items = items.as_array().into_iter().flatten();
    items.map(|one| text(&one["id"])).collect()
}

/// A tree without what changes from one look to the next.
fn without_cost(mut tree: Value) -> Value {
    let nodes = tree["nodes"].as_array_mut();
    for one in nodes.into_iter().flatten() {
        one.as_object_mut().map(|one| one.remove("stats"));
    }
    tree
}

#[test]
fn templates_are_made_listed_shown_and_removed() {
    let Some(serve) = Serve::start() else { return };
    let create = [
        "template", "create", "counter", "--guest", "bare", "--memory", "64",
    ];
    let made = serve.good(&create);
    assert_eq!(
        (text(&made["guest"]), &made["memory_mib"]),
        ("bare", &64.into())
    );
    assert_eq!(serve.good(&["template", "show", "counter"]), made);
    assert_eq!(serve.good(&["template", "show", text(&made["id"])]), made);
    assert_eq!(serve.good(&["template", "ls"])["items"][0], made);
    let public = [
        "template", "create", "open", "--guest", "bare", "--vcpus", "2", "--public",
    ];
    let listed = serve.text(&public);
    assert!(
        listed.contains("open") && listed.contains("public"),
        "{listed}"
    );
    let listed = serve.text(&["template", "ls"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(
        listed.contains("counter") && listed.contains("64 MiB"),
        "{listed}"
    );
    let removed = serve.good(&["template", "rm", "counter"]);
    assert_eq!(removed["removed"], "counter");
    assert_eq!(serve.text(&["template", "rm", "open"]), "removed open\n");
    assert_eq!(
        serve.good(&["template", "ls"])["items"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_machine_is_made_forked_kept_paused_and_ended() {
    let Some(serve) = Serve::start() else { return };
    let mother = serve.mother();
    let reused = serve.good(&["create", "counter", "--name", "mother", "--reuse"]);
    assert_eq!(text(&reused["id"]), mother);

    let fork = [
        "fork",
        "mother",
        "-n",
        "3",
        "--min-count",
        "2",
        "-l",
        "team=a",
        "--ttl",
        "1h",
    ];
    let forked = serve.good(&fork);
    assert_eq!(
        (&forked["ready"], &forked["requested"]),
        (&3.into(), &3.into())
    );
    let machines: Vec<&Value> = forked["daughters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| &one["machine"])
        .collect();
    assert!(machines.iter().all(|one| text(&one["mother"]) == mother));
    assert!(machines.iter().all(|one| one["expires_at"].is_string()));
    let listed = serve.good(&["ls", "-l", "team=a"]);
    assert_eq!(ids(&listed["items"]).len(), 3);

    // What only an agent can do is asked of the server, and refused by it.
    let file = serve.directory().join("task.json");
    fs::write(&file, "{}").expect("it is written");
    let file = format!("/etc/task.json={}", file.display());
    for option in [["--env", "A=b"], ["--file", &file]] {
        let refused = serve
            .json(&[&["fork", "mother"][..], &option].concat())
            .json();
        assert!(text(&refused["detail"]).contains("set variables, write files"));
    }

    // The end of an id names its machine.
    let daughter = text(&machines[0]["id"]);
    let words = serve.text(&[
        "fork",
        &daughter[20..],
        "--on-error",
        "end",
        "--secrets",
        "inherit",
    ]);
    assert!(words.contains("1 of 1 daughters"), "{words}");
    let words = serve.text(&["fork", "--template", "counter", "-n", "2"]);
    assert!(words.contains("2 of 2 daughters; decided in"), "{words}");

    let paused = serve.good(&["pause", daughter]);
    assert_eq!(paused["state"], "paused");
    let resumed = serve.text(&["resume", daughter]);
    assert!(resumed.contains("running"), "{resumed}");

    let point = serve.good(&["checkpoint", "mother"]);
    assert_eq!(point["state"], "frozen");
    assert!(serve.text(&["checkpoint", "mother"]).contains("frozen"));
    let points = serve.good(&["ls", "--checkpoints"]);
    assert_eq!(ids(&points["items"]).len(), 2);
    let of_point = serve.good(&["fork", text(&point["id"])]);
    assert_eq!(of_point["daughters"][0]["machine"]["mother"], point["id"]);
    assert_eq!(
        serve.good(&["kill", text(&point["id"])])["ended"][0],
        point["id"]
    );

    let words = serve.text(&["kill", "mother", "--cascade"]);
    assert_eq!(
        words.lines().next(),
        Some(format!("ended {mother}").as_str())
    );
    // The mother, three daughters, one granddaughter, the other point, and the daughter of the one that was ended.
    assert_eq!(words.lines().count(), 7, "{words}");
    let ended = serve.good(&["ls", "--ended"]);
    assert!(ids(&ended["items"]).contains(&mother.as_str()));
}

#[test]
fn lists_and_trees_show_who_lives() {
    let Some(serve) = Serve::start() else { return };
    let mother = serve.mother();
    let forked = serve.good(&["fork", "mother", "-n", "2", "-l", "team=a"]);
    let first = text(&forked["daughters"][0]["machine"]["id"]).to_owned();
    let second = text(&forked["daughters"][1]["machine"]["id"]).to_owned();
    let below = serve.good(&["fork", &first]);
    let below = text(&below["daughters"][0]["machine"]["id"]).to_owned();

    let quiet = serve.text(&["ls", "-q"]);
    assert_eq!(quiet, format!("{mother}\n{first}\n{second}\n{below}\n"));
    let some = serve.good(&["ls", "--limit", "2"]);
    assert_eq!(ids(&some["items"]), [&mother, &first]);
    assert!(some["next"].is_string());
    let listed = serve.text(&["ls"]);
    assert!(
        listed.contains("team=a") && listed.contains(&mother),
        "{listed}"
    );

    serve.good(&["kill", &first]);
    let end = |id: &str| id[24..].to_owned();
    let tree = serve.text(&["tree", "mother"]);
    let lines: Vec<&str> = tree.lines().skip(1).collect();
    assert_eq!(lines.len(), 4, "{tree}");
    assert!(
        lines[0].starts_with(&format!("mother {}", end(&mother))),
        "{tree}"
    );
    // She has ended and is shown, because somebody of hers lives.
    assert!(
        lines[1].starts_with(&format!("├─ {}", end(&first))),
        "{tree}"
    );
    assert!(lines[1].contains("○ ended"), "{tree}");
    assert!(
        lines[2].starts_with(&format!("│  └─ {}", end(&below))),
        "{tree}"
    );
    assert!(
        lines[3].starts_with(&format!("└─ {}", end(&second))),
        "{tree}"
    );
    assert!(!tree.contains('\u{1b}'), "no colours without a terminal");

    serve.good(&["kill", &below]);
    assert_eq!(serve.text(&["tree"]).lines().count(), 3);
    assert_eq!(serve.text(&["tree", "--all"]).lines().count(), 5);
    let json = serve.good(&["tree", "mother"]);
    assert_eq!(ids(&json["nodes"]).len(), 4);
    for one in json["nodes"].as_array().into_iter().flatten() {
        let (private, all) = (&one["stats"]["private_kib"], &one["stats"]["pss_kib"]);
        if one["state"] == "ended" {
            assert!(one["stats"].is_null(), "{one}");
        } else {
            assert!(private.as_u64() > Some(0) && private.as_u64() <= all.as_u64());
        }
    }
    let json = without_cost(json);
    assert_eq!(
        without_cost(serve.good(&["tree"])["items"][0].clone()),
        json
    );
    let drawn = serve.text(&["tree", "mother"]);
    assert!(drawn.contains("PRIVATE"), "{drawn}");

    let top = serve.text(&["top"]);
    let first = top.lines().next().unwrap_or_default();
    let promised = "2 running, 0 paused, 0 hibernated, 0 checkpoints in 1 lineages; 2.0 vCPUs and 128 MiB promised; ";
    let taken = first.strip_prefix(promised);
    let taken: Vec<&str> = taken.unwrap_or_default().split(" MiB taken, ").collect();
    let mib = |text: &str| {
        text.split(' ')
            .next()
            .and_then(|text| text.parse::<f64>().ok())
    };
    let numbers: Vec<f64> = taken.iter().filter_map(|text| mib(text)).collect();
    assert!(numbers.len() == 2 && numbers[0] >= numbers[1], "{first}");
    assert_eq!(without_cost(serve.good(&["top"])["items"][0].clone()), json);
}

#[test]
fn events_are_listed_and_followed_until_the_server_stops() {
    let Some(mut serve) = Serve::start() else {
        return;
    };
    let mother = serve.mother();
    let page = serve.good(&["events", "--limit", "1"]);
    assert_eq!(
        (&page["items"][0]["kind"], &page["items"][0]["subject"]),
        (&"machine.born".into(), &mother.as_str().into())
    );
    let words = serve.text(&["events"]);
    assert!(
        words.contains("machine.born") && words.contains(&mother),
        "{words}"
    );
    let number = page["items"][0]["number"].to_string();

    let mut follower = serve
        .program(&["events", "--follow", "--after", &number, "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let stdout = follower.stdout.take().expect("its output");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    serve.good(&["kill", "mother"]);
    let told: Value = serde_json::from_str(&lines.next().expect("an event")).expect("JSON");
    assert_eq!(
        (text(&told["kind"]), text(&told["subject"])),
        ("machine.ended", mother.as_str())
    );
    serve.stop();
    let last: Value = serde_json::from_str(&lines.next().expect("last words")).expect("JSON");
    assert_eq!(text(&last["code"]), "stopping");
    assert_eq!(lines.next(), None);
    assert_eq!(follower.wait().expect("it ends").code(), Some(114));
}

#[test]
fn decisions_keys_tenants_and_the_server_itself_are_shown() {
    let Some(serve) = Serve::start() else { return };
    serve.mother();
    let forked = serve.good(&["fork", "mother"]);
    let intent = text(&forked["intent"]);
    let decisions = serve.good(&["policy", "decisions", intent]);
    let hooks = decisions["items"].as_array().into_iter().flatten();
    let hooks: Vec<&str> = hooks.map(|one| text(&one["hook"])).collect();
    assert_eq!(hooks, ["admission", "placement", "mutation"]);
    let words = serve.text(&["policy", "decisions", intent]);
    assert!(words.contains("enforced"), "{words}");
    let log = serve.good(&["policy", "log", "--limit", "3"]);
    let logged = log["items"].as_array().into_iter().flatten();
    assert!(logged.clone().all(|one| one["intent"] == intent), "{log}");
    assert_eq!(logged.count(), 3);
    let words = serve.text(&["policy", "log"]);
    assert_eq!(words.lines().count(), 6, "{words}");
    assert_eq!(serve.text(&["policy", "log", "--denied"]), "");

    let info = serve.good(&["info"]);
    assert_eq!(
        info["scopes"].as_array().map(Vec::len),
        Some(brood_api::key::Scope::ALL.len())
    );
    assert!(serve.text(&["info"]).contains(&serve.url));

    let made = serve.good(&["key", "create", "look", "--scope", "read", "--ttl", "1h"]);
    let (id, secret) = (text(&made["key"]["id"]), text(&made["secret"]));
    let looked = serve
        .program(&["ls", "-q", "--key", secret])
        .output()
        .expect("it runs");
    assert!(looked.status.success());
    let file = serve.directory().join("key");
    fs::write(
        &file,
        serve.text(&[
            "key",
            "create",
            "all",
            "--scope",
            "read",
            "--scope",
            "keys",
            "--project",
            "p",
        ]),
    )
    .expect("it is written");
    let file = file.display().to_string();
    let keys = serve
        .brood(&["key", "ls", "--key-file", &file, "-o", "json"])
        .good();
    assert_eq!(keys["items"].as_array().map(Vec::len), Some(3));
    let words = serve.text(&["key", "ls"]);
    assert!(
        words.contains("read,keys") && words.contains("ever"),
        "{words}"
    );
    assert_eq!(serve.good(&["key", "rm", id])["revoked"], *id);
    assert!(serve.text(&["key", "ls"]).contains("revoked"));

    let tenant = serve.good(&["tenant", "create", "other"]);
    let other = text(&tenant["first_key"]["secret"]);
    let info = serve.brood(&["info", "--key", other, "-o", "json"]).good();
    assert_eq!(info["tenant"], "other");
    assert!(
        serve
            .text(&["tenant", "create", "third"])
            .starts_with("brood_")
    );
}

#[test]
fn every_command_is_completed() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = brood(&["completion", shell]);
        for word in ["template", "checkpoint", "completion", "plugin"] {
            assert!(script.text().contains(word), "{shell}: {word}");
        }
        // What the engine starts for itself is nobody's to complete.
        assert!(!script.text().contains("plugin-child -"), "{shell}");
    }
}
