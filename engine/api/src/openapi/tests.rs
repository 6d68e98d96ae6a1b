use serde_json::Value;

use super::*;

fn document() -> Value {
    let status = |outcome: Outcome| match outcome {
        Outcome::Reply(_) => 200,
        Outcome::Problem(Code::NotFound) => 404,
        Outcome::Problem(_) => 400,
    };
    serde_json::to_value(super::document(status)).expect("JSON")
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("$ref") {
                found.push(name.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_of_the_document_has_a_schema() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for name in found {
        let pointer = name.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{name}");
    }
}

#[test]
fn a_request_is_closed_and_a_fork_shows_its_bounds() {
    let document = document();
    let fork = &document["components"]["schemas"]["ForkSpec"];
    assert_eq!(fork["additionalProperties"], false, "{fork}");
    assert_eq!(fork["properties"]["count"]["maximum"], crate::MAX_DAUGHTERS);
    assert_eq!(fork["required"], serde_json::json!(["count"]));
    assert!(fork["description"].is_string());
}

#[test]
fn each_list_is_a_page_of_what_it_lists() {
    let document = document();
    for (path, item) in [
        ("/v1/machines", "Machine"),
        ("/v1/templates", "Template"),
        ("/v1/tenants", "Tenant"),
    ] {
        let responses = &document["paths"][path]["get"]["responses"]["200"];
        let page = &responses["content"]["application/json"]["schema"]["$ref"];
        let page = page.as_str().unwrap_or_default().trim_start_matches('#');
        let items = &document.pointer(page).expect(path)["properties"]["items"];
        let expected = format!("#/components/schemas/{item}");
        assert_eq!(items["items"]["$ref"], expected.as_str(), "{path}");
    }
}

#[test]
fn each_operation_is_in_the_document_with_its_key_and_its_problems() {
    let document = document();
    let fork = &document["paths"]["/v1/machines/{machine}/forks"]["post"];
    assert_eq!(fork["operationId"], "forkMachine");
    assert!(fork["security"][0]["key"].is_array());
    let parameters = fork["parameters"].as_array().expect("parameters");
    let names: Vec<_> = parameters.iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["machine", "Idempotency-Key"]);
    let unhappy = fork["responses"]["400"]["description"].as_str();
    assert!(unhappy.is_some_and(|words| words.contains("denied")));
    let list = &document["paths"]["/v1/machines"]["get"]["parameters"];
    let label = list
        .as_array()
        .expect("parameters")
        .iter()
        .find(|one| one["name"] == "label");
    assert_eq!(label.expect("label")["in"], "query");
    let all: usize = document["paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(|item| item.as_object().map_or(0, serde_json::Map::len))
        .sum();
    assert_eq!(all, Operation::ALL.len());
}
