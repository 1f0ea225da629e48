//! The Pods of servers and tools that tests start, from the images that `make test-images` builds. Pure.

use serde_json::{Value, json};

/// A Pod with a Postgres server, whose password for `postgres` is in the Secret `<name>-server`. Its data goes with it.
pub fn postgres_pod(name: &str, version: u32) -> Value {
    pod(
        name,
        999,
        &format!("postgres:{version}"),
        &json!({
            "env": [{"name": "POSTGRES_PASSWORD_FILE", "value": "/secret/password"}],
            "args": [
            "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
            "-c", "max_locks_per_transaction=256", "-c", "max_prepared_transactions=50",
        ],
        "volumeMounts": [
                {"name": "secret", "mountPath": "/secret", "readOnly": true},
                {"name": "data", "mountPath": "/var/lib/postgresql"},
            ],
        }),
    )
}

/// A Pod with a MongoDB server, whose password for `root` is in the Secret `<name>-server`. Its data goes with it.
pub fn mongodb_pod(name: &str) -> Value {
    pod(
        name,
        999,
        "mongodb:2",
        &json!({
            "env": [{"name": "MONGODB_PASSWORD_FILE", "value": "/secret/password"}],
            "startupProbe": {"exec": {"command": ["ferretdb", "ping"]}, "periodSeconds": 1, "failureThreshold": 120},
            "volumeMounts": [
                {"name": "secret", "mountPath": "/secret", "readOnly": true},
                {"name": "data", "mountPath": "/var/lib/mongodb"},
            ],
        }),
    )
}

/// A Pod with a Redis or Valkey server (`redis:7`, `redis:8`, `valkey:9`), whose password is in the Secret `<name>-server`. Its data
/// outlives its container and goes with it.
pub fn redis_pod(name: &str, image: &str) -> Value {
    pod(
        name,
        999,
        image,
        &json!({
            "args": ["--appendonly", "yes", "--save", "", "--enable-debug-command", "yes", "--loglevel", "verbose"],
            "volumeMounts": [
                {"name": "secret", "mountPath": "/etc/redis-secret", "readOnly": true},
                {"name": "data", "mountPath": "/data"},
            ],
        }),
    )
}

/// A Pod of an application that works as this user with the files of a claim, in `/claim`.
pub fn claim_pod(name: &str, claim: &str, user: u32) -> Value {
    let mut pod = pod(name, user, "tools:1", &json!({"volumeMounts": [{"name": "claim", "mountPath": "/claim"}]}));
    pod["spec"]["volumes"] = json!([{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}]);
    if user == 0 {
        pod["spec"]["securityContext"] = json!({"runAsUser": 0, "runAsGroup": 0});
        pod["spec"]["containers"][0]["securityContext"] = json!({});
    }
    pod
}

/// A Pod with an S3 server, whose keys are in the Secret `<name>-server`. Its data goes with it.
pub fn s3_pod(name: &str) -> Value {
    pod(
        name,
        65532,
        "s3:1",
        &json!({
        // Each bucket grows volumes of its own, by default seven at once, until the server has no more to give.
            "env": [{"name": "WEED_MASTER_VOLUME_GROWTH_COPY_1", "value": "1"}],
            "volumeMounts": [
                {"name": "secret", "mountPath": "/etc/s3", "readOnly": true},
                {"name": "data", "mountPath": "/data"},
            ],
        }),
    )
}

/// What the Secret of an S3 server holds: who may do everything.
pub fn s3_identities(access_key: &str, secret_key: &str) -> Value {
    let identities = json!({"identities": [{
        "name": "all",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    json!({"identities.json": identities.to_string()})
}

/// A Pod with what a person has at hand without Holdfast: psql, pg_restore, zstd, rclone.
pub fn tools_pod(name: &str) -> Value {
    pod(name, 65532, "tools:1", &json!({"env": [{"name": "RCLONE_CONFIG", "value": "/dev/null"}]}))
}

/// A Deployment of Pods that do nothing: an application that can be stopped.
pub fn deployment(name: &str, replicas: u32) -> Value {
    let mut pod = tools_pod(name);
    pod["metadata"] = json!({"labels": {"application": name}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"application": name}},
            "template": {"metadata": pod["metadata"], "spec": pod["spec"]},
        },
    })
}

fn pod(name: &str, user: u32, image: &str, container: &Value) -> Value {
    let prefix = std::env::var("TEST_IMAGES").unwrap_or_else(|_| "localhost/holdfast-test".to_owned());
    let mut container = container.clone();
    container["name"] = json!("server");
    container["image"] = json!(format!("{prefix}/{image}"));
    container["imagePullPolicy"] = json!("IfNotPresent");
    container["securityContext"] = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"server": name}},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [
                {"name": "secret", "secret": {"secretName": format!("{name}-server"), "optional": true}},
                // In memory: no data here outlive their Pod, and making a database makes a thousand files.
                {"name": "data", "emptyDir": {"medium": "Memory"}},
            ],
            "containers": [container],
        },
    })
}
