use std::collections::BTreeSet;

use super::{OPENAPI, ROUTES};

fn described() -> serde_json::Value {
    serde_json::from_str(OPENAPI).expect("the description is JSON")
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let described = described();
    let mut found = BTreeSet::new();
    for (path, item) in described["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys().filter(|key| *key != "parameters") {
            found.insert((method.clone(), path.clone()));
        }
    }
    let routes: BTreeSet<_> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), path.replace("{*", "{"))).collect();
    assert_eq!(
        found.difference(&routes).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new(),
        "described only"
    );
    assert_eq!(
        routes.difference(&found).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new(),
        "not described"
    );
}

#[test]
fn every_operation_has_a_name_of_its_own_its_parameters_and_an_answer() {
    let described = described();
    let mut names = BTreeSet::new();
    for (path, item) in described["paths"].as_object().expect("paths") {
        let common = item["parameters"].as_array().cloned().unwrap_or_default();
        for (method, operation) in
            item.as_object().expect("methods").iter().filter(|(key, _)| *key != "parameters")
        {
            let name =
                operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no name"));
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert!(operation["summary"].is_string(), "{name}");
            let answers = operation["responses"].as_object().expect("answers");
            assert!(answers.keys().any(|status| matches!(status.as_bytes()[0], b'1' | b'2')), "{name}");
            assert!(answers.contains_key("default"), "{name} does not say what errors are like");
            let own = operation["parameters"].as_array().cloned().unwrap_or_default();
            let parameters: Vec<_> = common.iter().chain(&own).map(|one| resolve(&described, one)).collect();
            for part in path.split('/').filter(|part| part.starts_with('{')) {
                let wanted = part.trim_matches(['{', '}']);
                let is_described = parameters.iter().any(|one| one["in"] == "path" && one["name"] == wanted);
                assert!(is_described, "{name}: {part}");
            }
        }
    }
}

/// Follows a reference, which must exist.
fn resolve(whole: &serde_json::Value, value: &serde_json::Value) -> serde_json::Value {
    match value["$ref"].as_str() {
        None => value.clone(),
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("a reference within the file");
            whole.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere")).clone()
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(whole: &serde_json::Value, value: &serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                if map.contains_key("$ref") {
                    resolve(whole, value);
                }
                map.values().for_each(|one| walk(whole, one));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|one| walk(whole, one)),
            _ => {}
        }
    }
    let described = described();
    walk(&described, &described);
}
