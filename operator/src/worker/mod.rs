//! What a Job runs: one task from its environment to its report. Talks to the bucket and, through engines, to sources and targets.
//!
//! A task is cut short by dropping its future (deadline, idle watch, SIGTERM): tools die with their handles, and what the attempt had
//! put into the bucket is taken out again by its ledger.

mod backup;
mod catalogue;
mod delete;
mod integrity;
pub mod pipeline;
mod probe;
mod restore;
mod retain;
mod settle;
mod verify;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use holdfast_crds::Reason;
use sha2::{Digest, Sha256};
use tracing::{error, info, warn};

use crate::hex::hex;
use crate::process::{self, Progress};
use crate::store::client::Bucket;
use crate::task::{Failure, Outcome, POD_NAME_ENV, Report, StoreTask, TASK_ENV, TERMINATION_MESSAGE_PATH, Task};
use pipeline::Ledger;
use watch::Limits;

/// How long tools may take to end, so that what they have under way at a server is cancelled there.
const TOOLS_LIMIT: Duration = Duration::from_secs(4);
/// How long an attempt may take to undo what it did, once it is told to end. Kubernetes waits 30 s before it kills.
const UNDO_LIMIT: Duration = Duration::from_secs(10);

/// How a worker is called. What it is to do stands in the environment variable `HOLDFAST_TASK`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Kind of the task: probe, backup, retain, delete, catalogue, restore, verify or settle. It must be that of HOLDFAST_TASK.
    kind: String,
    /// File that the report is written to.
    #[arg(long, default_value = TERMINATION_MESSAGE_PATH)]
    report: PathBuf,
}

/// Runs the task, writes its report and gives the exit code that stands for its reason. Boxed as [`crate::controller::run`] is.
pub fn run(args: Args) -> LocalBoxFuture<'static, ExitCode> {
    Box::pin(work(args))
}

async fn work(args: Args) -> ExitCode {
    let report = match read_task(&args.kind) {
        Ok(task) => perform(&task).await,
        Err(failure) => failure.into(),
    };
    if report.reason == Reason::Completed {
        info!(reason = %report.reason, "{}", report.message);
    } else {
        error!(reason = %report.reason, "{}", report.message);
    }
    if let Err(problem) = std::fs::write(&args.report, report.to_termination_message()) {
        error!("the report cannot be written to {}: {problem}", args.report.display());
    }
    ExitCode::from(report.reason.exit_code().unwrap_or(1))
}

fn read_task(kind: &str) -> Result<Task, Failure> {
    let invalid = |message: String| Failure::new(Reason::InvalidConfiguration, message);
    let task = Task::from_environment(|name| std::env::var(name).ok()).map_err(invalid)?;
    if task.subcommand() == kind {
        Ok(task)
    } else {
        Err(invalid(format!("{TASK_ENV} holds a task for `worker {}`, not for `worker {kind}`", task.subcommand())))
    }
}

/// What every task works with.
struct Attempt {
    /// Six hex digits that no other attempt at the same task has.
    name: String,
    /// Folder for passwords and the like; gone when the task ends.
    scratch: PathBuf,
    progress: Progress,
    ledger: Ledger,
}

async fn perform(task: &Task) -> Report {
    let scratch = match Scratch::create() {
        Ok(scratch) => scratch,
        Err(failure) => return failure.into(),
    };
    let attempt = Attempt {
        name: attempt_name(),
        scratch: scratch.0.clone(),
        progress: Progress::default(),
        ledger: Ledger::default(),
    };
    let limits = Limits::of(task);
    let result = tokio::select! {
        result = dispatch(task, &attempt) => result,
        failure = watch::until_cut(&limits, &attempt.progress) => Err(failure),
    };
    let mut report = result.unwrap_or_else(Report::from);
    if !matches!(task, Task::Probe(_)) {
        report.reason = of_run(report.reason);
        if let Some(Outcome::Restore(restore)) = &mut report.outcome {
            restore.sources.iter_mut().for_each(|source| source.reason = of_run(source.reason));
        }
    }
    if report.reason != Reason::Completed {
        process::settled(TOOLS_LIMIT).await;
        undo(task, &attempt.ledger).await;
    }
    report
}

/// What a store refuses has one word where it ends a run; only a probe tells more closely why.
fn of_run(reason: Reason) -> Reason {
    match reason {
        Reason::CredentialsRejected | Reason::BucketNotFound => Reason::StoreRefused,
        other => other,
    }
}

async fn dispatch(task: &Task, attempt: &Attempt) -> Result<Report, Failure> {
    match task {
        Task::Probe(task) => probe::run(task, attempt).await,
        Task::Backup(task) => backup::run(task, attempt).await,
        Task::Retain(task) => retain::run(task).await,
        Task::Delete(task) => delete::run(task).await,
        Task::Catalogue(task) => catalogue::run(task).await,
        Task::Restore(task) => restore::run(task, attempt).await,
        Task::Verify(task) => verify::run(task, attempt).await,
        Task::Settle(task) => settle::run(task).await,
    }
}

/// Takes out of the bucket what a failed attempt had put there. What is left behind is named by no manifest, so it counts for nothing.
async fn undo(task: &Task, ledger: &Ledger) {
    if ledger.is_empty() {
        return;
    }
    let bucket = match Bucket::open(store_of(task)).await {
        Ok(bucket) => bucket,
        Err(failure) => return warn!("an unfinished upload stays in the bucket: {failure}"),
    };
    match tokio::time::timeout(UNDO_LIMIT, ledger.undo(&bucket)).await {
        Ok(Ok(())) => info!("the unfinished upload has been taken out of the bucket"),
        Ok(Err(failure)) => warn!("an unfinished upload stays in the bucket: {failure}"),
        Err(_) => warn!("an unfinished upload stays in the bucket: the store did not answer in time"),
    }
}

fn store_of(task: &Task) -> &StoreTask {
    match task {
        Task::Probe(task) => &task.store,
        Task::Backup(task) => &task.store,
        Task::Retain(task) => &task.store,
        Task::Delete(task) => &task.store,
        Task::Catalogue(task) => &task.store,
        Task::Restore(task) => &task.store,
        Task::Verify(task) => &task.store,
        Task::Settle(task) => &task.store,
    }
}

/// Refuses to write to a store that is read-only.
fn writable(store: &StoreTask) -> Result<(), Failure> {
    if store.read_only {
        return Err(Failure::new(
            Reason::StoreReadOnly,
            format!("store {} is read-only: nothing is written to it and nothing is deleted from it", store.name),
        ));
    }
    Ok(())
}

/// Refuses to delete from a store that is append-only, or read-only.
fn deletable(store: &StoreTask) -> Result<(), Failure> {
    writable(store)?;
    if store.append_only {
        return Err(Failure::new(
            Reason::StoreAppendOnly,
            format!("store {} is append-only (spec.appendOnly): nothing is deleted from it", store.name),
        ));
    }
    Ok(())
}

/// By the Pod's name, which no other attempt has; outside a Pod by the time and the process.
fn attempt_name() -> String {
    let of_pod = std::env::var(POD_NAME_ENV);
    let unique = of_pod.unwrap_or_else(|_| format!("{}-{}", jiff::Timestamp::now(), std::process::id()));
    hex(&Sha256::digest(unique.as_bytes()))[..6].to_owned()
}

/// A folder of this task alone, readable by nobody else, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("holdfast-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| {
            Failure::new(
                Reason::InvalidConfiguration,
                format!("no folder for passwords can be made at {}: {e}", path.display()),
            )
        })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    if let Err(problem) = std::fs::remove_dir_all(path) {
        warn!("{} cannot be removed: {problem}", path.display());
    }
}
