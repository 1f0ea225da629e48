//! Pods with containers that are not ours, as the API server shows them. Pure.

use serde_json::{Value, json};

use super::*;

/// A Pod with these containers' and init containers' states.
fn pod(containers: &[(&str, Value)], init_containers: &[(&str, Value)]) -> ObservedPod {
    let statuses = |containers: &[(&str, Value)]| -> Vec<Value> {
        let status = |(name, state): &(&str, Value)| json!({"name": name, "state": state, "started": state["started"]});
        containers.iter().map(status).collect()
    };
    let limits = |name: &str| json!({"limits": {"memory": if name == "worker" { "512Mi" } else { "1Gi" }}});
    let spec: Vec<Value> =
        containers.iter().map(|(name, _)| json!({"name": name, "resources": limits(name)})).collect();
    let pod = json!({
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"containers": spec},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:05:00Z"}],
            "containerStatuses": statuses(containers),
            "initContainerStatuses": statuses(init_containers),
        },
    });
    ObservedPod::from(&serde_json::from_value::<Pod>(pod).unwrap())
}

fn running() -> Value {
    json!({"running": {"startedAt": "1970-01-01T00:00:00Z"}})
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": "its words"}})
}

fn ended(exit_code: i32) -> Value {
    json!({"terminated": {"exitCode": exit_code, "reason": "Error", "message": "{}", "finishedAt": "1970-01-01T00:10:00Z"}})
}

#[test]
fn the_worker_is_found_by_its_name_whatever_else_is_in_the_pod() {
    // A mesh's proxy sorts before it, an agent after it, and the order of the statuses is nobody's promise.
    let seen = pod(&[("istio-proxy", running()), ("worker", waiting("ErrImagePull")), ("x-agent", ended(1))], &[]);
    assert!(!seen.started && seen.ended.is_none());
    assert_eq!(seen.waiting.as_ref().map(|w| w.reason.as_str()), Some("ErrImagePull"));
    assert_eq!(seen.memory_limit.as_deref(), Some("512Mi"));
    assert_eq!(seen.scheduled.map(Timestamp::as_second), Some(300));

    let seen = pod(&[("agent", waiting("CrashLoopBackOff")), ("worker", running())], &[]);
    assert!(seen.started && seen.waiting.is_none() && seen.ended.is_none());

    for beside in [running(), ended(0), ended(137)] {
        let seen = pod(&[("istio-proxy", beside), ("worker", ended(12))], &[]);
        assert_eq!(seen.ended.as_ref().map(|end| end.exit_code), Some(12));
        assert_eq!(seen.ended.and_then(|end| end.at).map(Timestamp::as_second), Some(600));
    }
    let seen = pod(&[("istio-proxy", ended(137))], &[]);
    assert!(!seen.started && seen.ended.is_none(), "what has no worker yet says nothing of it");
}

#[test]
fn what_an_init_container_is_in_the_way_with_is_told() {
    let told = |init: &[(&str, Value)]| {
        let waiting = pod(&[("worker", json!({"waiting": {"reason": "PodInitializing"}}))], init).waiting.unwrap();
        (waiting.reason, waiting.message)
    };
    let mut native = running();
    native["started"] = json!(true);
    let table = [
        (vec![], INITIALIZING, ""),
        (
            vec![("istio-init", ended(0)), ("proxy", waiting("ImagePullBackOff"))],
            "ImagePullBackOff",
            "proxy: its words",
        ),
        (vec![("istio-init", running())], INITIALIZING, "istio-init is running"),
        (
            vec![("istio-init", ended(1)), ("proxy", waiting(INITIALIZING))],
            INIT_FAILED,
            "istio-init ended with exit code 1",
        ),
        // A native sidecar that has started is in nobody's way.
        (vec![("proxy", native)], INITIALIZING, ""),
    ];
    for (init, reason, message) in table {
        let (told, words) = told(&init);
        assert_eq!(told, reason, "{init:?}");
        assert!(words.contains(message), "{words}");
    }
}
