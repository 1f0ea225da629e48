//! Objects for the tests of the planner. Pure.

use holdfast_crds::{
    Backup, BackupPolicy, BackupPolicySpec, BackupSpec, BackupStatus, BackupStore, BackupStoreSpec, BackupStoreStatus,
    CompressionSpec, ConditionType, DeletionPolicy, LocalRef, PasswordSecret, PlausibilitySpec, PostgresSource, Reason,
    S3Spec, Source, condition,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::job::Install;
use super::observed::{Attempt, ContainerEnd, JobEnd, ObservedJob, ObservedPod};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn install() -> Install {
    Install {
        cluster_uid: "c1".into(),
        image: "registry.example/holdfast:0.1.0".into(),
        image_pull_policy: "IfNotPresent".into(),
        image_pull_secrets: vec![],
        architectures: vec!["amd64".into()],
        ..Install::default()
    }
}

pub(crate) fn meta(name: &str, uid: &str, created: i64) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("shop".into()),
        uid: Some(uid.into()),
        generation: Some(1),
        resource_version: Some("7".into()),
        creation_timestamp: Some(Time(at(created))),
        ..ObjectMeta::default()
    }
}

pub(crate) fn store() -> BackupStore {
    BackupStore {
        metadata: meta("main", "store-uid", 0),
        spec: BackupStoreSpec {
            s3: S3Spec {
                bucket: "backups".into(),
                prefix: Some("prod".into()),
                endpoint: Some("http://s3.storage.svc:8333".into()),
                region: "us-east-1".into(),
                credentials_secret: Some("s3-credentials".into()),
                ..S3Spec::default()
            },
            encryption: None,
            max_concurrent_runs: None,
            read_only: false,
            append_only: false,
            job_template: None,
        },
        status: None,
    }
}

pub(crate) fn ready_store() -> BackupStore {
    let ready = condition(ConditionType::Ready, Some(true), Reason::Probed, "", Some(1), at(0));
    let status = BackupStoreStatus {
        observed_generation: Some(1),
        conditions: vec![ready],
        last_probe_time: Some(Time(at(0))),
        ..BackupStoreStatus::default()
    };
    BackupStore { status: Some(status), ..store() }
}

pub(crate) fn unready_store(reason: Reason, message: &str) -> BackupStore {
    let ready = condition(ConditionType::Ready, Some(false), reason, message, Some(1), at(0));
    let status = BackupStoreStatus {
        observed_generation: Some(1),
        conditions: vec![ready],
        last_probe_time: Some(Time(at(0))),
        ..BackupStoreStatus::default()
    };
    BackupStore { status: Some(status), ..store() }
}

pub(crate) fn source(name: &str) -> Source {
    Source {
        name: name.into(),
        postgres: Some(PostgresSource {
            host: format!("{name}.shop.svc"),
            port: 5432,
            database: Some("shop".into()),
            credentials_secret: PasswordSecret {
                name: "postgres".into(),
                username_key: "username".into(),
                password_key: "password".into(),
            },
            ..PostgresSource::default()
        }),
        ..Source::default()
    }
}

pub(crate) fn policy() -> BackupPolicy {
    BackupPolicy {
        metadata: meta("shop", "policy-uid", 0),
        spec: BackupPolicySpec {
            store_ref: LocalRef { name: "main".into() },
            schedule: Some("0 2 * * *".into()),
            time_zone: "UTC".into(),
            suspend: false,
            run_on_create: false,
            starting_deadline_seconds: 3600,
            timeout_seconds: 14_400,
            idle_timeout_seconds: 300,
            sources: vec![source("db")],
            compression: CompressionSpec::default(),
            max_age: None,
            plausibility: PlausibilitySpec::default(),
            verify: None,
            retention: None,
            job_template: None,
        },
        status: None,
    }
}

pub(crate) fn backup(name: &str, created: i64) -> Backup {
    Backup {
        metadata: meta(name, &format!("uid-of-{name}"), created),
        spec: BackupSpec {
            policy_ref: LocalRef { name: "shop".into() },
            sources: None,
            deletion_policy: DeletionPolicy::default(),
        },
        status: None,
    }
}

pub(crate) fn backup_with(name: &str, created: i64, status: BackupStatus) -> Backup {
    Backup { status: Some(status), ..backup(name, created) }
}

pub(crate) fn job(name: &str) -> ObservedJob {
    ObservedJob {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        owner: None,
        task: "backup".into(),
        source: "db".into(),
        policy: "shop".into(),
        created: at(100),
        retries: 2,
        ..ObservedJob::default()
    }
}

pub(crate) fn completed(job: ObservedJob) -> ObservedJob {
    let end = JobEnd { completed: true, at: at(500), reason: "CompletionsReached".into(), message: String::new() };
    ObservedJob { end: Some(end), ..job }
}

pub(crate) fn failed(job: ObservedJob) -> ObservedJob {
    let end =
        JobEnd { completed: false, at: at(500), reason: "BackoffLimitExceeded".into(), message: "too often".into() };
    ObservedJob { end: Some(end), ..job }
}

pub(crate) fn attempt(job: ObservedJob, pods: Vec<ObservedPod>) -> Attempt {
    Attempt { job, pods, events: vec![] }
}

pub(crate) fn pending_pod(name: &str, created: i64) -> ObservedPod {
    ObservedPod {
        namespace: "shop".into(),
        name: name.into(),
        created: at(created),
        phase: "Pending".into(),
        ..ObservedPod::default()
    }
}

pub(crate) fn running_pod(name: &str) -> ObservedPod {
    ObservedPod { phase: "Running".into(), started: true, ..pending_pod(name, 100) }
}

/// A Pod whose worker ended; of two, the one with the greater name ended later.
pub(crate) fn ended_pod(name: &str, exit_code: i32, message: &str) -> ObservedPod {
    let later = name.bytes().map(i64::from).sum::<i64>();
    ObservedPod {
        phase: if exit_code == 0 { "Succeeded".into() } else { "Failed".into() },
        started: true,
        ended: Some(ContainerEnd {
            exit_code,
            reason: String::new(),
            message: message.into(),
            at: Some(at(200 + later)),
        }),
        ..pending_pod(name, 100 + later)
    }
}
