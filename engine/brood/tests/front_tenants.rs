//! Policies of one tenant and of all others, over HTTP: the shipped quota plugin, bound twice.

use brood_front::Options;
use serde_json::{Value, json};

use crate::http::{Server, text};
use crate::policy::SHIPPED;

/// The quota of everybody but `small`, who has one machine at most.
fn apart() -> String {
    let everybody = "[[admission]]\nplugin = \"quota\"\n";
    let others = "[[admission]]\nplugin = \"quota\"\nexcept-tenants = [\"small\"]\n\n\
                  [[admission]]\nplugin = \"quota-small\"\norder = 200\ntenants = [\"small\"]\n\n\
                  [plugin.quota-small]\ncomponent = \"quota.wasm\"\ngrants = [\"log\", \"config\", \"clock\", \"state\", \"metrics\"]\n\n\
                  [plugin.quota-small.settings.default]\nmax-live = 1\n";
    let policy = SHIPPED.replace(everybody, others);
    assert_ne!(policy, SHIPPED);
    policy
}

#[test]
fn each_tenant_is_decided_on_by_the_bindings_that_are_hers_and_no_other() {
    let Some(server) = Server::start_with(&apart(), Options::default()) else {
        return;
    };
    let small = server.good("POST /v1/tenants", r#"{"name": "small"}"#);
    let small = text(&small["first_key"]["secret"]);
    let mother = server.mother();
    let template = r#"{"name": "counter", "guest": "bare", "memory_mib": 64}"#;
    assert_eq!(
        server.as_key(&small, "POST /v1/templates", template).status,
        201
    );
    let machine = r#"{"template": "counter"}"#;
    assert_eq!(
        server.as_key(&small, "POST /v1/machines", machine).status,
        201
    );
    let denied = server.as_key(&small, "POST /v1/machines", machine);
    assert_eq!((denied.status, denied.code().as_str()), (403, "denied"));
    assert_eq!(denied.json()["denial"]["binding"], "admission/quota-small");

    let forked = server.good(
        &format!("POST /v1/machines/{mother}/forks"),
        r#"{"count": 3}"#,
    );
    let line = format!("GET /v1/intents/{}/decisions", text(&forked["intent"]));
    let said = server.good(&line, "");
    let bindings = said["items"].as_array().into_iter().flatten();
    let bindings: Vec<_> = bindings.map(|one| text(&one["binding"])).collect();
    assert_eq!(
        bindings,
        ["admission/quota", "placement/spread", "mutation/identity"]
    );

    let policies = server.good("GET /v1/policies", "");
    let of = |name: &str| -> Value {
        let all = policies["items"].as_array().into_iter().flatten();
        let mut named = all.filter(|one| one["binding"] == name);
        named.next().cloned().unwrap_or_default()
    };
    assert_eq!(of("admission/quota")["except_tenants"], json!(["small"]));
    assert_eq!(of("admission/quota-small")["tenants"], json!(["small"]));
    assert_eq!(of("placement/spread").get("tenants"), None);
}
