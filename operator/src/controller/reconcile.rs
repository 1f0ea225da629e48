//! observe → plan → apply → report, for one object at a time. Talks to the Kubernetes API through its observer and its writer.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use holdfast_crds::BackupPolicy;
use jiff::Timestamp;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::apply::{Error, Writer};
use super::cache::World;
use super::metrics::Counters;
use super::observe::Observer;
use super::queue::{Queue, Request, Subject};
use super::repeats::Repeats;
use crate::plan::action::{Action, Plan};
use crate::plan::backup::{self, plan_backup};
use crate::plan::found::plan_found;
use crate::plan::job::Install;
use crate::plan::names::TASK_LABEL;
use crate::plan::policy::{self, ObservedPolicy, plan_policy};
use crate::plan::refused::{PolicyRefusals, Refusal};
use crate::plan::restore::{self, plan_restore};
use crate::plan::store::{self, plan_store};
use crate::plan::summary::Summarize;
use crate::plan::verify::plan_verify;
use crate::plan::writer::remember;

/// An attempt that takes longer is given up and made again.
const ATTEMPT: Duration = Duration::from_mins(1);
/// What may pass by itself is said on the object once it has lasted for so long.
const LASTS: Duration = Duration::from_mins(1);
/// Everything that is watched is looked at again after this long at the latest: a clock that jumped or an event that was lost is made up for.
const RESYNC: Duration = Duration::from_mins(10);

/// What reconciling needs.
pub struct Context {
    /// What is known.
    pub world: Arc<World>,
    /// What is to be looked at.
    pub queue: Arc<Queue>,
    /// Reads.
    pub observer: Observer,
    /// Writes.
    pub writer: Writer,
    /// What all Jobs share.
    pub install: Install,
    /// Counts.
    pub counters: Arc<Counters>,
    /// What failed over and over.
    pub repeats: Repeats<Request>,
}

/// Looks at one object after the other until the queue is closed. Several of these run side by side.
pub async fn work(context: Arc<Context>) {
    while let Some(request) = context.queue.next().await {
        let begun = Instant::now();
        let attempt = tokio::time::timeout(ATTEMPT, Box::pin(reconcile(&context, &request)));
        let outcome = AssertUnwindSafe(attempt).catch_unwind().await;
        let failed = match outcome {
            Ok(Ok(Ok(again))) => {
                context.queue.done(request.clone(), again);
                let unsaid = context.repeats.over(&request);
                if unsaid > 0 {
                    tracing::info!(
                        kind = request.subject.as_str(),
                        namespace = request.key.namespace,
                        name = request.key.name,
                        times = unsaid,
                        "attempts that failed are over; so many were not logged"
                    );
                }
                false
            }
            Ok(Ok(Err(error))) => again(&context, &request, &error),
            Ok(Err(_)) => {
                let delay = context.queue.failed(request.clone());
                tracing::error!(kind = request.subject.as_str(), namespace = request.key.namespace, name = request.key.name, again_in = ?delay, "an attempt took too long");
                true
            }
            Err(panic) => {
                let delay = context.queue.failed(request.clone());
                let what = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                tracing::error!(kind = request.subject.as_str(), namespace = request.key.namespace, name = request.key.name, panic = what, again_in = ?delay, "an attempt panicked: this is a bug of Holdfast");
                true
            }
        };
        context.counters.reconciled(request.subject, begun.elapsed(), failed);
    }
}

/// Has an object looked at again whose attempt ended early. Returns whether that is a failure.
fn again(context: &Context, request: &Request, error: &Error) -> bool {
    let (kind, namespace, name) = (request.subject.as_str(), &request.key.namespace, &request.key.name);
    if let Error::NamespaceTerminating { step } = error {
        tracing::debug!(kind, namespace, name, step, "the namespace is going away");
        context.queue.done(request.clone(), None);
        return false;
    }
    let lasts = context.queue.failing_for(request) >= LASTS;
    let delay = context.queue.failed(request.clone());
    match error {
        // The cache needs a moment to see what has changed.
        Error::Changed { step } if !lasts => {
            tracing::debug!(kind, namespace, name, step, again_in = ?delay, "looked at an old version");
            false
        }
        _ => {
            if let Some(times) = context.repeats.times(request.clone(), error.to_string()) {
                tracing::warn!(kind, namespace, name, %error, times, again_in = ?delay, "an attempt failed");
            }
            true
        }
    }
}

async fn reconcile(context: &Context, request: &Request) -> Result<Option<Instant>, Error> {
    let (namespace, name) = (&request.key.namespace, &request.key.name);
    let now = Timestamp::now();
    match request.subject {
        Subject::Store => {
            let Some(store) = context.world.stores.get(namespace, name) else { return Ok(None) };
            let before = store.status.as_ref();
            let refuse = |refusal: &Refusal| store::refuse(&store, &refusal.failure, now);
            let observed = match context.observer.store(&store, now).await {
                Ok(observed) => observed,
                Err(error) => return say(context, request, &*store, before, error.into(), refuse).await,
            };
            let plan = plan_store(&context.install, &store, &observed, now);
            match act(context, &*store, &plan.actions).await {
                Ok(()) => report(context, &*store, before, &plan).await,
                Err(stopped) => say(context, request, &*store, before, stopped, refuse).await,
            }
        }
        Subject::Policy => {
            let Some(policy) = context.world.policies.get(namespace, name) else { return Ok(None) };
            let refuse = |refusal: &Refusal| policy::refuse(&policy, &refusal.failure, now);
            match context.observer.policy(&policy, now).await {
                Ok(observed) => reconcile_policy(context, request, &policy, observed, now).await,
                Err(error) => say(context, request, &*policy, policy.status.as_ref(), error.into(), refuse).await,
            }
        }
        Subject::Backup => {
            let Some(backup) = context.world.backups.get(namespace, name) else { return Ok(None) };
            let before = backup.status.as_ref();
            let observed = match context.observer.backup(&backup, now).await {
                Ok(observed) => observed,
                Err(error) => {
                    let policy = context.world.policies.get(namespace, &backup.spec.policy_ref.name);
                    let refuse = |refusal: &Refusal| backup::refuse(&backup, policy.as_deref(), None, refusal, now);
                    return say(context, request, &*backup, before, error.into(), refuse).await;
                }
            };
            let plan = plan_backup(&context.install, &backup, &observed, now);
            if let Err(mut stopped) = act(context, &*backup, &plan.actions).await {
                stopped.began |= observed.jobs.iter().any(|a| a.job.task == "backup");
                let policy = observed.policy.as_deref();
                let refuse = |refusal: &Refusal| backup::refuse(&backup, policy, Some(&plan.status), refusal, now);
                return say(context, request, &*backup, before, stopped, refuse).await;
            }
            let starts = plan.actions.iter().any(|a| matches!(a, Action::CreateJob(_)))
                && before.is_none_or(|s| s.start_time.is_none());
            let again = report(context, &*backup, before, &plan).await?;
            if starts {
                let slot = backup::slot_of(&backup);
                context.counters.started(Timestamp::now().duration_since(slot).as_secs_f64());
            }
            Ok(again)
        }
        Subject::Restore => {
            let Some(restore) = context.world.restores.get(namespace, name) else { return Ok(None) };
            let before = restore.status.as_ref();
            let refuse = |refusal: &Refusal| restore::refuse(&restore, &refusal.failure, now);
            let observed = match context.observer.restore(&restore, now).await {
                Ok(observed) => observed,
                Err(error) => return say(context, request, &*restore, before, error.into(), refuse).await,
            };
            let plan = plan_restore(&context.install, &restore, &observed, now);
            match act(context, &*restore, &plan.actions).await {
                Ok(()) => report(context, &*restore, before, &plan).await,
                Err(stopped) => say(context, request, &*restore, before, stopped, refuse).await,
            }
        }
    }
}

/// What a policy asks for are three things beside each other: what stands in the way of one, such as a quota, keeps it from none of the
/// others, nor from its status, which says so.
async fn reconcile_policy(
    context: &Context,
    request: &Request,
    policy: &BackupPolicy,
    mut observed: ObservedPolicy,
    now: Timestamp,
) -> Result<Option<Instant>, Error> {
    let lasts = context.queue.failing_for(request) >= LASTS;
    let failure = |outcome: &Result<(), Stopped>| outcome.as_ref().err().and_then(|s| s.error.as_failure(lasts));
    let decide = |observed: &ObservedPolicy| {
        let mut plan = plan_policy(policy, observed, now);
        remember(&mut plan.status, context.install.writer.as_ref(), policy, observed);
        let mut verify = Plan::keep(plan.status.clone());
        plan_verify(&mut verify, &context.install, policy, observed, now);
        let mut found = Plan::keep(verify.status.clone());
        plan_found(&mut found, &context.install, policy, observed, now);
        (plan, verify, found)
    };
    let (mut plan, mut verify, mut found) = decide(&observed);
    let verified = act(context, policy, &verify.actions).await;
    let taken_in = act(context, policy, &found.actions).await;
    let scheduled = act(context, policy, &plan.actions).await;
    observed.refused =
        PolicyRefusals { backup: failure(&scheduled), catalogue: failure(&taken_in), verification: failure(&verified) };
    if observed.refused.is_any() {
        // The same once more, for the status alone: now it is known what came of it.
        (plan, verify, found) = decide(&observed);
    }
    let scheduled = match scheduled {
        // Whether its slot was decided on is not known.
        Err(stopped) if observed.refused.backup.is_none() => return Err(stopped.error),
        outcome => outcome,
    };
    plan.status = verify.status;
    plan.events.extend(verify.events);
    if taken_in.is_ok() {
        plan.status.catalogue = found.status.catalogue;
        plan.events.extend(found.events);
    }
    for at in [verify.next_check, found.next_check].into_iter().flatten() {
        plan.check_at(at);
    }
    let again = report(context, policy, policy.status.as_ref(), &plan).await?;
    [verified, taken_in, scheduled].into_iter().collect::<Result<(), Stopped>>().map_err(|stopped| stopped.error)?;
    Ok(again)
}

/// The status, then the events: each only if what is before it succeeded.
async fn report<K, S>(
    context: &Context,
    object: &K,
    before: Option<&S>,
    plan: &Plan<S>,
) -> Result<Option<Instant>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    S: Serialize + PartialEq + Clone + Summarize,
{
    let mut status = plan.status.clone();
    status.summarize(Timestamp::now());
    if before != Some(&status) {
        context.writer.report(object, &status).await?;
    }
    if !plan.events.is_empty() {
        context.writer.publish(&object.object_ref(&()), &plan.events).await;
        for event in &plan.events {
            tracing::info!(
                namespace = object.namespace(),
                object = object.name_any(),
                reason = event.reason,
                "{}",
                event.note
            );
        }
    }
    Ok(plan.next_check.map(|at| {
        let wait = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
        Instant::now() + wait.min(RESYNC)
    }))
}

/// Says on an object what was not done for it, where that is more than a moment's trouble. Never succeeds: it is to be tried again.
async fn say<K, S>(
    context: &Context,
    request: &Request,
    object: &K,
    before: Option<&S>,
    Stopped { error, task, began }: Stopped,
    refuse: impl FnOnce(&Refusal) -> Plan<S>,
) -> Result<Option<Instant>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    S: Serialize + PartialEq + Clone + Summarize,
{
    let lasts = context.queue.failing_for(request) >= LASTS;
    if let Some(failure) = error.as_failure(lasts) {
        let plan = refuse(&Refusal { failure, task, began });
        match report(context, object, before, &plan).await {
            Ok(Some(at)) => context.queue.at(request.clone(), at),
            Ok(None) => {}
            // It is said the next time.
            Err(error) => tracing::debug!(%error, "what was refused is not said yet"),
        }
    }
    Err(error)
}

/// Where the actions of a plan ended early.
struct Stopped {
    error: Error,
    /// What the Job was to do that could not be created.
    task: Option<String>,
    /// Whether a Job was created before that.
    began: bool,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self { error, task: None, began: false }
    }
}

/// Carries out actions on behalf of an object, up to the first that cannot be.
async fn act(context: &Context, object: &impl ResourceExt, actions: &[Action]) -> Result<(), Stopped> {
    let mut began = false;
    for action in actions {
        if let Err(error) = context.writer.apply(action).await {
            let task = if let Action::CreateJob(job) = action { job.labels().get(TASK_LABEL).cloned() } else { None };
            return Err(Stopped { error, task, began });
        }
        began |= matches!(action, Action::CreateJob(_));
        let (what, which) = told(action);
        tracing::info!(namespace = object.namespace(), object = object.name_any(), which, "{what}");
    }
    Ok(())
}

fn told(action: &Action) -> (&'static str, &str) {
    match action {
        Action::CreateBackup(backup) => ("create Backup", backup.metadata.name.as_deref().unwrap_or_default()),
        Action::ReportBackup(backup) => {
            ("write the status of Backup", backup.metadata.name.as_deref().unwrap_or_default())
        }
        Action::CreateClaim(claim) => {
            ("create PersistentVolumeClaim", claim.metadata.name.as_deref().unwrap_or_default())
        }
        Action::CreateJob(job) => ("create Job", job.metadata.name.as_deref().unwrap_or_default()),
        Action::TryJob(job) => ("try Job", job.metadata.name.as_deref().unwrap_or_default()),
        Action::DeleteJob(target) => ("delete Job", &target.name),
        Action::DeleteBackup(target) => ("delete Backup", &target.name),
        Action::SetFinalizers(target, _) => ("set finalizers of Backup", &target.name),
        Action::SetRestoreFinalizers(target, _) => ("set finalizers of RestoreRequest", &target.name),
        Action::Scale(_, target, 0) => ("scale down", &target.name),
        Action::Scale(_, target, _) => ("scale up", &target.name),
    }
}

/// Has everything that may need it looked at again, now and then.
pub async fn resync(world: Arc<World>, queue: Arc<Queue>) {
    loop {
        tokio::time::sleep(RESYNC).await;
        let policies = world.policies.all().into_iter().map(|p| (Subject::Policy, super::cache::Cached::key(&*p)));
        let stores = world.stores.all().into_iter().map(|s| (Subject::Store, super::cache::Cached::key(&*s)));
        let restores = world.restores.all().into_iter().map(|r| (Subject::Restore, super::cache::Cached::key(&*r)));
        let backups = world.backups.all().into_iter().map(|b| (Subject::Backup, super::cache::Cached::key(&*b)));
        for (subject, key) in policies.chain(stores).chain(restores).chain(backups) {
            queue.now(Request { subject, key });
        }
    }
}
