//! Every Job that can be built, as YAML. Pure.

use holdfast_crds::{
    ArtifactStatus, BackupStatus, BackupStore, ConfigMapKey, EncryptionSpec, OnExisting, RestoreFrom, RestoreRequest,
    RestoreRequestSpec, TlsMode, TlsSpec,
};
use k8s_openapi::api::core::v1::Toleration;

use super::*;
use crate::plan::fixture::{at, backup, install, meta, policy, ready_store, source};
use crate::plan::names::run_id;
use crate::task::{PostgresTarget, RestoreTarget, Select, Target};

fn yaml(job: &Job) -> String {
    serde_saphyr::to_string(job).unwrap()
}

fn ca(name: &str) -> ConfigMapKey {
    ConfigMapKey { config_map: name.into(), key: "ca.pem".into() }
}

fn elaborate_store() -> BackupStore {
    let mut store = ready_store();
    store.spec.s3.ca_bundle = Some(ca("s3-ca"));
    store.spec.s3.service_account_name = Some("backup-irsa".into());
    store
}

fn elaborate_policy() -> BackupPolicy {
    let mut policy = policy();
    let mut db = source("db");
    db.postgres.as_mut().unwrap().tls = TlsSpec { mode: TlsMode::VerifyFull, ca_bundle: Some(ca("pg-ca")) };
    db.postgres.as_mut().unwrap().credentials_secret.password_key = "passphrase".into();
    policy.spec.sources = vec![db];
    policy.spec.job_template = Some(JobTemplate {
        node_selector: [("disk".to_owned(), "fast".to_owned())].into(),
        tolerations: vec![Toleration {
            key: Some("backup".into()),
            operator: Some("Exists".into()),
            ..Toleration::default()
        }],
        priority_class_name: Some("low".into()),
        labels: [("team".to_owned(), "shop".to_owned()), ("app.kubernetes.io/managed-by".to_owned(), "me".to_owned())]
            .into(),
        annotations: [("sidecar.istio.io/inject".to_owned(), "false".to_owned())].into(),
        ..JobTemplate::default()
    });
    policy
}

fn of_backup(policy: &BackupPolicy, store: &BackupStore) -> Job {
    let backup = backup("shop-19700101-001640", 1000);
    let id = run_id(at(1000), "uid-of-shop-19700101-001640");
    let names = ["db".to_owned()];
    let run = Run { backup: &backup, policy, store, run_id: &id, slot: at(1000), begun: at(1001), sources: &names };
    super::backup(&install(), run, &policy.spec.sources[0], &Ground::default())
}

fn of_restore() -> Job {
    let (request, task) = request_and_task();
    restore(&install(), &request, &ready_store(), None, task, vec![SourceMount::of(&source("db"))], None)
}

fn request_and_task() -> (RestoreRequest, RestoreTask) {
    let request = RestoreRequest {
        metadata: meta("undo-friday", "rr-uid", 5000),
        spec: RestoreRequestSpec {
            from: RestoreFrom { backup: Some("shop-19700101-001640".into()), ..RestoreFrom::default() },
            sources: None,
            into: vec![],
            on_existing: OnExisting::Replace,
            dry_run: false,
            timeout_seconds: 600,
            safety_backup: None,
            scale_down: vec![],
            job_template: None,
        },
        status: None,
    };
    let mount = SourceMount::of(&source("db"));
    let server = PostgresTarget { host: "db.shop.svc".into(), port: 5432, ..PostgresTarget::default() };
    let task = RestoreTask {
        store: store_task(&ready_store()),
        scope: scope(&install(), &policy()),
        request: "undo-friday".into(),
        request_uid: "rr-uid".into(),
        select: Select::RunId("r1".into()),
        cluster: None,
        sources: Some(vec!["db".into()]),
        targets: vec![RestoreTarget { source: "db".into(), mounts: mount.paths(), server: Target::Postgres(server) }],
        on_existing: OnExisting::Replace,
        dry_run: false,
        claims_to_make: vec![],
        timeout_seconds: 600,
        idle_timeout_seconds: 300,
    };
    (request, task)
}

/// A store with a key for those who read.
fn encrypting() -> BackupStore {
    let mut store = ready_store();
    store.spec.encryption = Some(EncryptionSpec {
        recipients: vec!["age1public".into()],
        identity_secret: Some(SecretKey { name: "age-key".into(), key: "identity".into() }),
    });
    store
}

/// A backup that is complete.
fn stored() -> Backup {
    let source = |name: &str| ArtifactStatus { source: name.into(), ..ArtifactStatus::default() };
    let status = BackupStatus {
        run_id: Some("r1".into()),
        artifacts: vec![source("db"), source("uploads")],
        ..BackupStatus::default()
    };
    Backup { status: Some(status), ..backup("shop-19700101-001640", 1000) }
}

fn reading(known: &[&str]) -> Reading {
    let known = known.iter().map(ToString::to_string).collect();
    Reading { what: "s3://backups/prod".into(), known, ..Reading::default() }
}

/// One of each.
fn all() -> Vec<(&'static str, Job)> {
    let retention = RetentionSpec { keep_last: Some(7), ..RetentionSpec::default() };
    let known = vec![KnownRun {
        run_id: "r1".into(),
        sources: vec!["db".into()],
        suspicious: false,
        imported: false,
        damaged: false,
    }];
    let done = backup("shop-19700101-001640", 1000);
    let mut with_pull_secret = install();
    with_pull_secret.image_pull_secrets = vec!["registry".into()];
    let mut ambient = ready_store();
    ambient.spec.s3.credentials_secret = None;
    vec![
        ("probe", probe(&install(), &ready_store(), "probe-1-0", &[])),
        ("probe_ambient", probe(&with_pull_secret, &ambient, "probe-1-0", &[])),
        ("backup", of_backup(&policy(), &ready_store())),
        ("backup_elaborate", of_backup(&elaborate_policy(), &elaborate_store())),
        ("retain", retain(&install(), &done, &policy(), &ready_store(), &retention, (known, vec!["r2".into()]))),
        ("delete", delete(&install(), &done, None, &ready_store(), "r1")),
        ("catalogue", catalogue(&install(), &policy(), &ready_store(), reading(&["r1"]), 50)),
        ("restore", of_restore()),
        ("verify", verify(&install(), &stored(), &policy(), &encrypting(), "2026-11-21T04:00:00Z")),
    ]
}

#[test]
fn jobs_are_what_the_snapshots_say() {
    for (name, job) in all() {
        insta::assert_snapshot!(name, yaml(&job));
    }
}

#[test]
fn every_pod_is_restricted_and_holds_no_secret_and_no_token() {
    for (name, job) in all() {
        let template = job.spec.clone().unwrap().template;
        let pod = template.spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
        let security = pod.security_context.unwrap();
        assert_eq!(security.run_as_non_root, Some(true), "{name}");
        assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert_eq!(pod.containers.len(), 1);
        let container = &pod.containers[0];
        let security = container.security_context.clone().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(security.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
        let env = container.env.clone().unwrap();
        assert!(env.iter().all(|e| e.value_from.as_ref().is_none_or(|v| v.secret_key_ref.is_none())), "{name}");
        let writable = container.volume_mounts.iter().flatten().filter(|m| m.read_only != Some(true));
        assert_eq!(writable.map(|m| m.mount_path.as_str()).collect::<Vec<_>>(), ["/tmp"], "{name}");
        assert!(pod.host_network.is_none() && pod.host_pid.is_none());
        assert!(pod.volumes.iter().flatten().all(|v| v.host_path.is_none()));
        assert_eq!(template.metadata.unwrap().labels.unwrap()["app.kubernetes.io/managed-by"], "holdfast");
        assert!(job.metadata.name.unwrap().len() <= 52);
        assert!(job.spec.unwrap().active_deadline_seconds.is_some_and(|s| s > 0));
    }
}

#[test]
fn private_keys_are_mounted_where_something_is_read_and_nowhere_else() {
    let retention = RetentionSpec { keep_last: Some(7), ..RetentionSpec::default() };
    let store = encrypting();
    let (policy, done) = (policy(), stored());
    let mounts = |job: &Job| {
        let text = yaml(job);
        (text.contains("age-key"), text.contains(STORE_IDENTITY))
    };
    for job in [
        of_backup(&policy, &store),
        retain(&install(), &done, &policy, &store, &retention, (vec![], vec![])),
        delete(&install(), &done, None, &store, "r1"),
        catalogue(&install(), &policy, &store, reading(&[]), 50),
        probe(&install(), &store, "probe-1-0", &[]),
    ] {
        assert_eq!(mounts(&job), (false, false), "{:?}", job.metadata.name);
    }
    assert_eq!(mounts(&verify(&install(), &done, &policy, &store, "now")), (true, true));
    let keyless = verify(&install(), &done, &policy, &ready_store(), "now");
    assert_eq!(mounts(&keyless), (false, false));
    assert_eq!(keyless.spec.unwrap().backoff_limit, Some(1), "what is found damaged is looked at once more");
}

#[test]
fn a_restore_is_tried_once() {
    let spec = of_restore().spec.unwrap();
    assert_eq!(spec.backoff_limit, Some(0));
    assert!(spec.pod_failure_policy.is_none(), "to ignore a disruption would be a second try");
}

#[test]
fn a_task_fits_into_an_environment_variable_however_many_runs_there_are() {
    let runs = (0..10_000)
        .map(|i| KnownRun {
            run_id: format!("run-{i:06}"),
            sources: vec!["x".repeat(40); 3],
            suspicious: false,
            imported: false,
            damaged: false,
        })
        .collect();
    let retention = RetentionSpec::default();
    let job = retain(&install(), &backup("b", 1), &policy(), &ready_store(), &retention, (runs, vec![]));
    let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let task = env[0].value.clone().unwrap();
    assert!(task.len() < 100_000, "{}", task.len());
    assert!(task.contains("run-009999") && !task.contains("run-000001"), "the newest are the ones to know");
}

/// A template that says one thing in each place.
fn template(value: serde_json::Value) -> JobTemplate {
    serde_json::from_value(value).unwrap()
}

#[test]
#[allow(clippy::large_stack_arrays, reason = "it is one table")]
fn every_job_keeps_to_all_levels_of_the_template() {
    let mut install = install();
    install.template = template(serde_json::json!({
        "labels": {"level": "chart", "chart": "yes"},
        "nodeSelector": {"pool": "backup"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "imagePullSecrets": [{"name": "of-the-chart"}],
        "resources": {"limits": {"cpu": "1"}},
    }));
    let mut store = encrypting();
    store.spec.job_template = Some(template(serde_json::json!({
        "labels": {"level": "store", "store": "yes"},
        "imagePullSecrets": [{"name": "of-the-store"}],
        "resources": {"limits": {"memory": "1Gi"}},
        "dnsConfig": {"nameservers": ["fd00::a"]},
    })));
    let mut policy = policy();
    policy.spec.job_template = Some(template(serde_json::json!({"labels": {"level": "policy"}})));
    let (done, retention) = (stored(), RetentionSpec { keep_last: Some(7), ..RetentionSpec::default() });
    let names = ["db".to_owned()];
    let run = Run {
        backup: &done,
        policy: &policy,
        store: &store,
        run_id: "r1",
        slot: at(1000),
        begun: at(1001),
        sources: &names,
    };
    let (mut request, task) = request_and_task();
    request.spec.job_template = Some(template(serde_json::json!({"labels": {"level": "request"}})));
    let restored = |policy| restore(&install, &request, &store, policy, task.clone(), vec![], None);
    for (name, level, job) in [
        ("probe", "store", probe(&install, &store, "probe-1-0", &[])),
        ("delete without a policy", "store", delete(&install, &done, None, &store, "r1")),
        ("delete", "policy", delete(&install, &done, Some(&policy), &store, "r1")),
        ("backup", "policy", super::backup(&install, run, &policy.spec.sources[0], &Ground::default())),
        ("retain", "policy", retain(&install, &done, &policy, &store, &retention, (vec![], vec![]))),
        ("catalogue", "policy", catalogue(&install, &policy, &store, reading(&[]), 50)),
        ("verify", "policy", verify(&install, &done, &policy, &store, "now")),
        ("restore from the store", "request", restored(None)),
        ("restore", "request", restored(Some(&policy))),
    ] {
        let spec = job.spec.unwrap().template;
        for labels in [job.metadata.labels.unwrap(), spec.metadata.unwrap().labels.unwrap()] {
            assert_eq!(
                (labels["level"].as_str(), labels["chart"].as_str(), labels["store"].as_str()),
                (level, "yes", "yes"),
                "{name}"
            );
        }
        let pod = spec.spec.unwrap();
        let secrets: Vec<String> = pod.image_pull_secrets.into_iter().flatten().map(|s| s.name).collect();
        assert_eq!(secrets, ["of-the-chart", "of-the-store"], "{name}");
        let selector = pod.node_selector.unwrap();
        assert_eq!((selector["pool"].as_str(), selector["kubernetes.io/os"].as_str()), ("backup", "linux"), "{name}");
        assert!(pod.affinity.is_some(), "{name}: the image's architectures");
        assert_eq!(pod.dns_config.unwrap().nameservers.unwrap(), ["fd00::a"], "{name}");
        let container = &pod.containers[0];
        let limits = container.resources.clone().unwrap().limits.unwrap();
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("1", "1Gi"), "{name}");
        let env = container.env.clone().unwrap();
        assert!(
            env.iter().any(|e| e.name == "HTTPS_PROXY" && e.value.as_deref() == Some("http://proxy:3128")),
            "{name}"
        );
    }
}

#[test]
fn ids_are_left_to_the_platform_everywhere() {
    let openshift = Install { leave_ids_out: true, ..install() };
    let mut policy = policy();
    let volume = holdfast_crds::VolumeSource { claim_name: "uploads".into(), ..holdfast_crds::VolumeSource::default() };
    policy.spec.sources =
        vec![source("db"), Source { name: "uploads".into(), volume: Some(volume), ..Source::default() }];
    let (store, done) = (ready_store(), stored());
    let names = ["db".to_owned(), "uploads".to_owned()];
    let run = Run {
        backup: &done,
        policy: &policy,
        store: &store,
        run_id: "r1",
        slot: at(1000),
        begun: at(1001),
        sources: &names,
    };
    let anywhere = Ground::of(None, &[], &[]);
    for (name, job) in [
        ("probe", probe(&openshift, &store, "probe-1-0", &[])),
        ("db", super::backup(&openshift, run, &policy.spec.sources[0], &anywhere)),
        ("uploads", super::backup(&openshift, run, &policy.spec.sources[1], &anywhere)),
    ] {
        let pod = job.spec.unwrap().template.spec.unwrap();
        let security = pod.security_context.unwrap();
        assert_eq!((security.run_as_user, security.run_as_group, security.fs_group), (None, None, None), "{name}");
        assert_eq!(security.run_as_non_root, Some(true), "{name}");
        let capabilities = pod.containers[0].security_context.clone().unwrap().capabilities.unwrap();
        assert_eq!((capabilities.add, capabilities.drop), (None, Some(vec!["ALL".to_owned()])), "{name}");
    }
    // Whoever says an id means it.
    let mut shaped = policy.clone();
    shaped.spec.job_template =
        Some(template(serde_json::json!({"securityContext": {"runAsUser": 1_000_700_000, "fsGroup": 1_000_700_000}})));
    let run = Run { policy: &shaped, ..run };
    let said = super::backup(&openshift, run, &shaped.spec.sources[0], &anywhere).spec.unwrap().template.spec.unwrap();
    let security = said.security_context.unwrap();
    assert_eq!((security.run_as_user, security.fs_group), (Some(1_000_700_000), Some(1_000_700_000)));
}
