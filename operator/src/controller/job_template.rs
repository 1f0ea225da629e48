//! Reads the chart's `workers.jobTemplate`, to which no API server says that it is wrong. Pure.

use holdfast_crds::JobTemplate;
use serde_json::Value;

/// A template from JSON.
///
/// # Errors
/// What is wrong with it, with its field. What the API server would refuse of a Job it tells when a Job is tried.
pub fn read(json: &str) -> Result<JobTemplate, String> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    let written: Value = serde_json::from_str(json).map_err(|e| format!("workers.jobTemplate is not JSON: {e}"))?;
    let template: JobTemplate =
        serde_json::from_value(written.clone()).map_err(|e| format!("workers.jobTemplate: {e}"))?;
    let read = serde_json::to_value(&template).map_err(|e| format!("workers.jobTemplate: {e}"))?;
    if let Some(unknown) = lost("", &written, &read) {
        return Err(format!("workers.jobTemplate has no field {unknown}: see spec.jobTemplate in docs/api.md"));
    }
    for variable in &template.env {
        if let Some(problem) = holdfast_crds::problem_of_variable(&variable.name, &variable.value) {
            return Err(format!("workers.jobTemplate.env {}: {problem}", variable.name));
        }
    }
    Ok(template)
}

/// The first field of what was written that was not read. What is empty is as good as not written.
fn lost(path: &str, written: &Value, read: &Value) -> Option<String> {
    let is_empty = match written {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match (written, read) {
        _ if is_empty => None,
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            lost(&path, value, read.get(name).unwrap_or(&Value::Null))
        }),
        (Value::Array(written), Value::Array(read)) => written
            .iter()
            .enumerate()
            .find_map(|(i, value)| lost(&format!("{path}[{i}]"), value, read.get(i).unwrap_or(&Value::Null))),
        (_, Value::Null) => Some(path.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_is_read_and_nothing_is_too() {
        assert_eq!(read("").unwrap(), JobTemplate::default());
        assert_eq!(
            read(r#"{"nodeSelector": {}, "affinity": null, "tolerations": []}"#).unwrap(),
            JobTemplate::default()
        );
        let template = read(r#"{"labels": {"team": "platform"}, "resources": {"limits": {"cpu": "1"}}}"#).unwrap();
        assert_eq!(template.labels["team"], "platform");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        for (json, words) in [
            ("{", "workers.jobTemplate is not JSON"),
            (r#"{"nodeSelctor": {"a": "b"}}"#, "workers.jobTemplate has no field nodeSelctor"),
            (r#"{"tolerations": [{"keys": "a"}]}"#, "workers.jobTemplate has no field tolerations[0].keys"),
            (r#"{"securityContext": {"privileged": true}}"#, "no field securityContext.privileged"),
            (r#"{"labels": {"team": 7}}"#, "workers.jobTemplate: invalid type"),
            (r#"{"env": [{"name": "S3_TOKEN", "value": "x"}]}"#, "env S3_TOKEN: this sounds like a secret"),
            (r#"{"env": [{"name": "HOLDFAST_TASK", "value": "x"}]}"#, "env HOLDFAST_TASK: the worker"),
            (r#"{"env": [{"name": "HTTPS_PROXY", "value": "http://me:pw@proxy"}]}"#, "env HTTPS_PROXY: a URL with"),
            (r#"{"env": [{"name": "A B", "value": "x"}]}"#, "env A B: must be the name"),
        ] {
            let said = read(json).unwrap_err();
            assert!(said.contains(words), "{json}: {said}");
            assert!(!said.contains("pw@"), "a password is never repeated");
        }
    }
}
