//! What most scenarios start from: a namespace with a store that is ready and the credentials of a database server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bucket::{Bucket, S3};
use crate::installation;
use crate::objects::{backup, condition, has_ended, object, phase, policy, restore};
use crate::postgres::{Postgres, random_name};
use crate::space::Space;
use crate::wait::seconds;

/// A namespace with the BackupStore `main` on a bucket of its own and the Secret `postgres` of a server.
pub struct Scene<'a> {
    /// The namespace.
    pub space: Space,
    /// The bucket behind the store `main`.
    pub bucket: Bucket<'a>,
    /// The server behind the Secret `postgres`.
    pub postgres: &'a Postgres,
}

/// Below which path the store `main` keeps everything.
pub const PREFIX: &str = "pre/fix";
/// How long anything may take before it counts as never: the promise is that a failure is told within two minutes.
pub const PROMISE: Duration = Duration::from_secs(125);

impl Scene<'static> {
    /// A scene on the shared servers.
    pub fn new(purpose: &str) -> Self {
        Self::inside(Space::new(purpose))
    }

    /// A scene on the shared servers, in a namespace that is there already.
    pub fn inside(space: Space) -> Self {
        Self::within(space, S3::shared(), Postgres::shared(18))
    }
}

impl<'a> Scene<'a> {
    /// A scene on these servers.
    pub fn on(purpose: &str, s3: &'a S3, postgres: &'a Postgres) -> Self {
        Self::within(Space::new(purpose), s3, postgres)
    }

    /// A scene in a namespace that is there already.
    pub fn within(space: Space, s3: &'a S3, postgres: &'a Postgres) -> Self {
        installation::require();
        let scene = Self { bucket: s3.create_bucket(), space, postgres };
        scene.space.apply(&s3.credentials("s3-credentials"));
        scene.space.apply(&postgres.credentials("postgres"));
        scene.space.apply(&scene.bucket.store("main", PREFIX));
        scene
    }

    /// Applies a policy on demand for one database, with the fields of `more` in its spec.
    pub fn policy(&self, name: &str, database: &str, more: &Value) -> Value {
        self.policy_of(name, &json!([self.postgres.source("db", database)]), more)
    }

    /// Applies a policy for these sources, with the fields of `more` in its spec.
    #[track_caller]
    pub fn policy_of(&self, name: &str, sources: &Value, more: &Value) -> Value {
        let mut policy = policy(name, sources);
        for (field, value) in more.as_object().into_iter().flatten() {
            policy["spec"][field] = value.clone();
        }
        self.space.apply(&policy)
    }

    /// Makes a Backup by hand and waits until it has ended.
    #[track_caller]
    pub fn try_backup(&self, name: &str, policy: &str) -> Value {
        self.space.apply(&backup(name, policy));
        self.space.wait("Backup", name, "has ended", seconds(PROMISE.as_secs()), has_ended)
    }

    /// Makes a Backup by hand and waits until it is complete.
    #[track_caller]
    pub fn backup(&self, name: &str, policy: &str) -> Value {
        let backup = self.try_backup(name, policy);
        assert_eq!(phase(&backup), "Completed", "{:#}", backup["status"]);
        backup
    }

    /// Makes a RestoreRequest and waits until it has ended.
    #[track_caller]
    pub fn try_restore(&self, request: &Value) -> Value {
        let name = self.space.apply(request)["metadata"]["name"].as_str().unwrap().to_owned();
        self.space.wait("RestoreRequest", &name, "has ended", seconds(PROMISE.as_secs()), has_ended)
    }

    /// Restores the only source and waits until it is complete.
    #[track_caller]
    pub fn restore(&self, from: &Value, into: &Value) -> Value {
        let name = random_name("restore").replace('_', "-");
        let into = if into.is_null() { Value::Null } else { json!([{"source": "db", "postgres": into}]) };
        let restored = self.try_restore(&restore(&name, from, &into));
        assert_eq!(phase(&restored), "Completed", "{:#}", restored["status"]);
        restored
    }

    /// Waits until a policy is ready.
    #[track_caller]
    pub fn wait_policy_ready(&self, name: &str) -> Value {
        self.space.wait("BackupPolicy", name, "is Ready", seconds(60), |p| condition(p, "Ready")["status"] == "True")
    }

    /// Applies another store on the same bucket.
    pub fn store(&self, name: &str, spec: &Value) -> Value {
        self.space.apply(&object("BackupStore", name, spec))
    }

    /// The keys of one run.
    pub fn keys_of(&self, backup: &Value) -> Vec<String> {
        let run = backup["status"]["runId"].as_str().expect("a run that ended has a runId");
        self.bucket.keys().into_iter().filter(|key| key.contains(&format!("/{run}/"))).collect()
    }
}
