//! What a budget lets happen, over HTTP with the price list that ships: a warning, no more forks, a pause, an end, and credit that
//! makes it well again.

use serde_json::Value;

use crate::policy::{enforced, priced};
use crate::serve::Serve;

/// A fork costs an euro, and nothing else costs anything.
const PREPAID: &str = "[[plugin.price-table.settings.plans.list.prices]]\nname = \"fork\"\ndimension = \"forks\"\nper = 1\n\
    tiers = [{ price = \"1\" }]\n\n[plugin.price-table.settings.plans.list.budget]\nlevels = [\n\
    { below = \"4\", action = \"warn\" },\n{ below = \"3\", action = \"refuse-forks\" },\n\
    { below = \"2\", action = \"pause\" },\n{ below = \"0\", action = \"stop\" },\n]";

fn start() -> Option<Serve> {
    Serve::start_with(&priced(&enforced(), PREPAID))
}

impl Serve {
    fn credit(&self, amount: &str, key: &str) {
        let words = [
            "tenant",
            "credit",
            "default",
            amount,
            "--idempotency-key",
            key,
        ];
        self.good(&words);
    }

    /// The last verdict: what is left, and what follows.
    fn verdict(&self) -> (String, String) {
        let balance = self.good(&["tenant", "balance", "default"]);
        let word = |name: &str| {
            balance["budget"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (word("left"), word("action"))
    }

    fn rated(&self) -> (String, String) {
        let rated = self.good(&["usage", "rate"]);
        assert_eq!(
            (&rated["held"], &rated["dead"]),
            (&0.into(), &0.into()),
            "{rated}"
        );
        self.verdict()
    }

    /// The states of those that are alive.
    fn states(&self) -> Vec<String> {
        let listed = self.good(&["ls"]);
        let items = listed["items"].as_array().expect("machines").iter();
        items
            .map(|one| one["state"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

fn is(left: &str, action: &str) -> (String, String) {
    (left.to_owned(), action.to_owned())
}

#[test]
fn a_budget_that_runs_out_warns_refuses_forks_pauses_and_stops_and_credit_makes_it_well_again() {
    let Some(serve) = start() else { return };
    serve.credit("6", "first");
    assert_eq!(serve.verdict(), is("6", "none"));
    let mother = serve.mother();
    serve.good(&["fork", &mother, "-n", "1"]);
    assert_eq!(serve.rated(), is("4", "none"));

    serve.good(&["fork", &mother, "-n", "1"]);
    assert_eq!(serve.rated(), is("3", "warn"));
    serve.good(&["fork", &mother, "-n", "1"]);
    assert_eq!(
        serve.rated(),
        is("2", "refuse-forks"),
        "a warning takes nothing away"
    );
    let refused = serve.json(&["fork", &mother, "-n", "1"]);
    assert_eq!(refused.status, 112, "{}", refused.stdout);
    let problem: Value = refused.json();
    assert_eq!(
        (&problem["denial"]["binding"], &problem["denial"]["code"]),
        (&"billing".into(), &"budget".into()),
        "{problem}"
    );
    assert_eq!(serve.json(&["create", "counter"]).status, 112);
    assert_eq!(serve.states(), ["running"; 4], "whoever runs goes on");

    // An operator takes a part of it back.
    serve.credit("-1", "second");
    assert_eq!(serve.verdict(), is("1", "pause"));
    assert_eq!(serve.states(), ["paused"; 4]);
    assert_eq!(serve.json(&["resume", &mother]).status, 112);
    serve.credit("9", "third");
    assert_eq!(serve.verdict(), is("10", "none"));
    serve.good(&["resume", &mother]);
    serve.good(&["fork", &mother, "-n", "1"]);
    assert_eq!(serve.rated(), is("9", "none"));

    serve.credit("-10", "fourth");
    assert_eq!(serve.verdict(), is("-1", "stop"));
    assert_eq!(serve.states(), Vec::<String>::new(), "all have ended");
    let ended = serve.good(&["events"]);
    let ended = ended["items"]
        .as_array()
        .or(ended["events"].as_array())
        .expect("events");
    let ends = ended.iter().filter(|one| one["kind"] == "machine.ended");
    let words: Vec<_> = ends.map(|one| one["data"]["how"].clone()).collect();
    assert_eq!(words, vec![Value::from("the budget is used up"); 5]);
    let told = ended.iter().filter(|one| one["kind"] == "budget.changed");
    let told: Vec<_> = told.map(|one| one["data"]["action"].clone()).collect();
    assert_eq!(told, ["warn", "refuse-forks", "pause", "none", "stop"]);
}
