//! What the chart installs for Prometheus, before an API server that has prometheus-operator's own definitions.

use holdfast_e2e::command::{helm, try_kubectl};
use holdfast_e2e::definitions::Definitions;
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const MONITORED: &str =
    "metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true";

#[test]
fn the_api_server_takes_every_field_of_the_rules_and_the_monitor_and_keeps_them() {
    let space = Space::new("monitoring");
    let _definitions = Definitions::of_prometheus_operator();
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/holdfast");
    let labels = "metrics.prometheusRule.labels.release=prometheus,metrics.serviceMonitor.labels.release=prometheus";
    let rendered = helm(&[
        "template",
        "monitored",
        chart,
        "--namespace",
        space.name(),
        "--kube-version",
        "1.37.0",
        "--set",
        MONITORED,
        "--set",
        labels,
    ]);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&rendered).unwrap();
    let written: Vec<&Value> = documents
        .iter()
        .filter(|d| ["PrometheusRule", "ServiceMonitor"].contains(&d["kind"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(written.len(), 2, "{rendered}");

    for object in &written {
        let taken = taken(object).unwrap_or_else(|refused| panic!("{refused}\n{object:#}"));
        assert!(!taken["metadata"]["uid"].is_null(), "this is not what the API server answers: {taken:#}");
        assert_eq!(lost(object, &taken), Vec::<String>::new(), "{taken:#}");
    }
    let rules = written.iter().find(|d| d["kind"] == "PrometheusRule").unwrap();
    let kept = taken(rules).unwrap();
    assert!(rules["spec"]["groups"].as_array().is_some_and(|groups| groups.len() > 1), "{rules:#}");
    assert_eq!(kept["spec"], rules["spec"], "every group with every rule, in their order");

    // It would have said so.
    let mut mistaken = (*rules).clone();
    mistaken["spec"]["groups"][0]["rules"][0]["severity"] = json!("critical");
    let refused = taken(&mistaken).unwrap_err();
    assert!(refused.contains("severity"), "{refused}");
    mistaken = (*rules).clone();
    mistaken["spec"]["groups"][0]["rules"][0]["for"] = json!("five minutes");
    let refused = taken(&mistaken).unwrap_err();
    assert!(refused.contains("five minutes"), "{refused}");
}

/// What the API server would make of it, as kubectl applies it; nothing is stored.
fn taken(object: &Value) -> Result<Value, String> {
    let arguments = ["apply", "--server-side", "--validate=strict", "--dry-run=server", "-o", "json", "-f", "-"];
    // A kind whose definition was accepted is not served by all of the API server in that instant.
    wait_for("the API server knows the kind", seconds(60), || {
        let ended = try_kubectl(&arguments, object.to_string().as_bytes());
        let unknown = ended.stderr.contains("no matches for kind") || ended.stderr.contains("NotFound");
        if ended.ok {
            Ok(Ok(serde_json::from_slice(&ended.stdout).unwrap()))
        } else if unknown {
            Err(ended.stderr)
        } else {
            Ok(Err(ended.stderr))
        }
    })
}

/// The fields that were written and are not there, or are others.
fn lost(written: &Value, kept: &Value) -> Vec<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => written
            .iter()
            .flat_map(|(name, value)| {
                let below = kept.get(name).map_or_else(|| vec![String::new()], |kept| lost(value, kept));
                below.into_iter().map(move |rest| format!(".{name}{rest}"))
            })
            .collect(),
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => written
            .iter()
            .zip(kept)
            .flat_map(|(written, kept)| lost(written, kept))
            .map(|rest| format!("[]{rest}"))
            .collect(),
        (written, kept) if written == kept => Vec::new(),
        _ => vec![String::new()],
    }
}
