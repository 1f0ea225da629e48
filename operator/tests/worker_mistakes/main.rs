//! Mistakes that people make, each made at the real server that it concerns: what the worker says names the object and the field, the likely
//! cause and the next step, and never a secret. Those that can be seen in the objects alone are in `plan/mistakes.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "it is all tests")]
#![allow(clippy::too_many_lines, reason = "a table is as long as it is")]

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/job.rs"]
mod job;
#[path = "../support/mongodb.rs"]
mod mongodb;
mod of_mongodb;
mod of_postgres;
mod of_redis;
mod of_restores;
mod of_stores;
#[path = "../support/port.rs"]
#[allow(clippy::duplicate_mod, reason = "a server has its own")]
mod port;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/s3.rs"]
mod s3;

use std::sync::Arc;

use holdfast::task::{StorePatience, StoreTask, Task};
use holdfast_crds::Reason;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A name that nobody has (RFC 2606).
const NOWHERE: &str = "nowhere.invalid";
/// What certificates to trust come from.
const AUTHORITIES: &str = "ConfigMap authorities (key ca.crt)";
/// How many mistakes of one table are made side by side.
const AT_A_TIME: usize = 4;

/// What somebody got wrong, and what they are told: the reason, and words of the message.
struct Mistake {
    what: &'static str,
    task: Task,
    reason: Reason,
    says: &'static [&'static str],
}

fn mistake(what: &'static str, task: Task, reason: Reason, says: &'static [&'static str]) -> Mistake {
    Mistake { what, task, reason, says }
}

/// A store that is not what the mistake is about: it may be slow.
fn patient(store: StoreTask) -> StoreTask {
    let patience = StorePatience { unanswered_seconds: 60, still_seconds: 120, ..StorePatience::default() };
    StoreTask { patience, ..store }
}

/// Makes all of them, and compares what is told.
async fn make(mistakes: Vec<Mistake>) {
    let permits = Arc::new(Semaphore::new(AT_A_TIME));
    let mut made = JoinSet::new();
    for Mistake { what, task, reason, says } in mistakes {
        let permits = permits.clone();
        made.spawn(async move {
            let _permit = permits.acquire_owned().await.unwrap();
            let report = job::run(&task).await;
            println!("{what}\n    {}: {}", report.reason, report.message);
            let missing: Vec<_> = says.iter().filter(|words| !report.message.contains(*words)).collect();
            let right = report.reason == reason && missing.is_empty();
            (!right).then(|| format!("{what}: {reason} {missing:?} of {}: {}", report.reason, report.message))
        });
    }
    let wrong: Vec<String> = made.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
