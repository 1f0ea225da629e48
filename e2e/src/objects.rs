//! Objects as a user writes them. Pure.

use serde_json::{Value, json};

/// An object of Holdfast's API.
pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A Secret.
pub fn secret(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// A policy on demand: store `main`, these sources, and limits that suit a test.
pub fn policy(name: &str, sources: &Value) -> Value {
    object(
        "BackupPolicy",
        name,
        &json!({
            "storeRef": {"name": "main"},
            "sources": sources,
            "timeoutSeconds": 110,
            "idleTimeoutSeconds": 60,
            "jobTemplate": {"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}},
        }),
    )
}

/// A Backup made by hand.
pub fn backup(name: &str, policy: &str) -> Value {
    object("Backup", name, &json!({"policyRef": {"name": policy}}))
}

/// A RestoreRequest.
pub fn restore(name: &str, from: &Value, into: &Value) -> Value {
    let mut request = object("RestoreRequest", name, &json!({"from": from, "timeoutSeconds": 110}));
    if !into.is_null() {
        request["spec"]["into"] = into.clone();
    }
    request
}

/// The phase of a Backup or RestoreRequest; empty before there is one.
pub fn phase(object: &Value) -> &str {
    object["status"]["phase"].as_str().unwrap_or_default()
}

/// Whether the phase never changes again.
pub fn has_ended(object: &Value) -> bool {
    matches!(phase(object), "Completed" | "Failed")
}

/// A condition of an object; null when it is not there.
pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    let conditions = object["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|c| c["type"] == type_)).unwrap_or(&NULL)
}

/// Whether a condition has this status and this reason.
pub fn has_condition(object: &Value, type_: &str, status: &str, reason: &str) -> bool {
    let condition = condition(object, type_);
    condition["status"] == status && condition["reason"] == reason
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
