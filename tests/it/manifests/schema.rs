//! Holds a document against a schema of Kubernetes.
//!
//! Of JSON Schema as much as those use; a keyword beyond that is a fault of the schema, and not passed
//! over.

use serde_json::{Map, Value};

/// What a document may look like.
pub struct Schema(Value);

impl Schema {
    /// Reads the schema of the repository; `tests/data/README.md` says where it is from.
    pub fn read() -> Self {
        Self(serde_json::from_str(include_str!("../../data/kubernetes.json")).unwrap())
    }

    /// What is wrong with a document of a kind that is in the schema, each with its place.
    pub fn faults(&self, document: &Value) -> Vec<String> {
        let kind = document["kind"].as_str().unwrap_or_default();
        let Some(name) = self.0["kinds"][kind].as_str() else {
            return vec![format!("the kind {kind:?} is not in the schema")];
        };
        let mut faults = Vec::new();
        self.judge(document, self.definition(name), kind, &mut faults);
        faults
    }

    fn definition(&self, name: &str) -> &Map<String, Value> {
        let name = name.rsplit('/').next().unwrap();
        self.0["definitions"][name].as_object().unwrap_or_else(|| panic!("no {name}"))
    }

    fn judge(&self, value: &Value, rules: &Map<String, Value>, at: &str, faults: &mut Vec<String>) {
        for (keyword, rule) in rules {
            match keyword.as_str() {
                "$ref" => {
                    let definition = self.definition(rule.as_str().unwrap());
                    self.judge(value, definition, at, faults);
                }
                "type" if !is_of(value, rule) => faults.push(format!("{at}: {value} is no {rule}")),
                "enum" if !rule.as_array().unwrap().contains(value) => {
                    faults.push(format!("{at}: {value} is none of {rule}"));
                }
                "oneOf" => {
                    let fits = |rules: &&Value| {
                        let mut faults = Vec::new();
                        self.judge(value, rules.as_object().unwrap(), at, &mut faults);
                        faults.is_empty()
                    };
                    if rule.as_array().unwrap().iter().filter(fits).count() != 1 {
                        faults.push(format!("{at}: {value} does not fit one of {rule}"));
                    }
                }
                "required" => {
                    let names = rule.as_array().unwrap().iter().filter_map(Value::as_str);
                    let missing = names.filter(|name| value.get(name).is_none());
                    faults.extend(missing.map(|name| format!("{at}: {name} is missing")));
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        let at = format!("{at}[{number}]");
                        self.judge(item, rule.as_object().unwrap(), &at, faults);
                    }
                }
                "properties" | "additionalProperties" | "format" | "type" | "enum" => {}
                _ => faults.push(format!("{at}: the schema has the keyword {keyword}")),
            }
        }
        self.judge_properties(value, rules, at, faults);
    }

    fn judge_properties(
        &self,
        value: &Value,
        rules: &Map<String, Value>,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        let known = rules.get("properties").and_then(Value::as_object);
        for (name, value) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let rule = known.and_then(|known| known.get(name));
            match rule.or_else(|| rules.get("additionalProperties")) {
                Some(Value::Object(rule)) => self.judge(value, rule, &at, faults),
                Some(Value::Bool(false)) => faults.push(format!("{at}: is not known")),
                Some(_) | None => {}
            }
        }
    }
}

/// Whether the value is of the type that is named, or of one of those.
fn is_of(value: &Value, names: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => panic!("the schema has the type {name}"),
    };
    names.as_array().map_or_else(|| is(names), |names| names.iter().any(is))
}

#[test]
fn a_document_that_does_not_fit_its_schema_is_told_where() {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [
            {"name": "c", "securityContext": {"privileged": "no"}, "resources": {"limits": {"cpu": 1}}},
            {"image": "i", "readinessProbe": {"httpGet": {"port": "health", "pfad": "/"}}},
        ]},
    });
    assert_eq!(
        Schema::read().faults(&pod),
        [
            "Pod.spec.containers[0].securityContext.privileged: \"no\" is no [\"boolean\",\"null\"]",
            "Pod.spec.containers[1]: name is missing",
            "Pod.spec.containers[1].readinessProbe.httpGet.pfad: is not known",
        ]
    );
    let other = serde_json::json!({"kind": "Potato"});
    assert_eq!(Schema::read().faults(&other), ["the kind \"Potato\" is not in the schema"]);
}
