//! observe → plan → apply → report, for one object at a time. Talks to the Kubernetes API through its observer and its writer.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
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
use crate::plan::action::{Action, Plan};
use crate::plan::backup::plan_backup;
use crate::plan::found::plan_found;
use crate::plan::job::Install;
use crate::plan::policy::plan_policy;
use crate::plan::restore::plan_restore;
use crate::plan::store::plan_store;
use crate::plan::summary::Summarize;
use crate::plan::verify::plan_verify;
use crate::plan::writer::remember;

/// An attempt that takes longer is given up and made again.
const ATTEMPT: Duration = Duration::from_mins(1);
/// The cache needs a moment to see what has changed.
const AFTER_CHANGE: Duration = Duration::from_millis(150);
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
}

/// Looks at one object after the other until the queue is closed. Several of these run side by side.
pub async fn work(context: Arc<Context>) {
    while let Some(request) = context.queue.next().await {
        let begun = Instant::now();
        let attempt = tokio::time::timeout(ATTEMPT, reconcile(&context, &request));
        let outcome = AssertUnwindSafe(attempt).catch_unwind().await;
        let failed = match outcome {
            Ok(Ok(Ok(again))) => {
                context.queue.done(request.clone(), again);
                false
            }
            Ok(Ok(Err(Error::Changed { step }))) => {
                tracing::debug!(
                    kind = request.subject.as_str(),
                    namespace = request.key.namespace,
                    name = request.key.name,
                    step,
                    "looked at an old version"
                );
                context.queue.done(request.clone(), Some(Instant::now() + AFTER_CHANGE));
                false
            }
            Ok(Ok(Err(Error::NamespaceTerminating { step }))) => {
                tracing::debug!(
                    kind = request.subject.as_str(),
                    namespace = request.key.namespace,
                    name = request.key.name,
                    step,
                    "the namespace is going away"
                );
                context.queue.done(request.clone(), None);
                false
            }
            Ok(Ok(Err(error))) => {
                let delay = context.queue.failed(request.clone());
                tracing::warn!(kind = request.subject.as_str(), namespace = request.key.namespace, name = request.key.name, %error, again_in = ?delay, "an attempt failed");
                true
            }
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

async fn reconcile(context: &Context, request: &Request) -> Result<Option<Instant>, Error> {
    let (namespace, name) = (&request.key.namespace, &request.key.name);
    let now = Timestamp::now();
    match request.subject {
        Subject::Store => {
            let Some(store) = context.world.stores.get(namespace, name) else { return Ok(None) };
            let observed = context.observer.store(&store, now).await?;
            carry_out(context, &*store, store.status.as_ref(), plan_store(&context.install, &store, &observed, now))
                .await
        }
        Subject::Policy => {
            let Some(policy) = context.world.policies.get(namespace, name) else { return Ok(None) };
            let observed = context.observer.policy(&policy, now).await?;
            let mut plan = plan_policy(&policy, &observed, now);
            remember(&mut plan.status, context.install.writer.as_ref(), &policy, &observed);
            let mut verify = Plan::keep(plan.status.clone());
            plan_verify(&mut verify, &context.install, &policy, &observed, now);
            // What stands in the way of its Job, such as a quota, keeps no policy from its slots and its status either.
            let verified = act(context, &*policy, &verify.actions).await;
            plan.status = verify.status;
            plan.events.extend(verify.events);
            if let Some(at) = verify.next_check {
                plan.check_at(at);
            }
            let mut found = Plan::keep(plan.status.clone());
            plan_found(&mut found, &context.install, &policy, &observed, now);
            // What stands in the way of reading the bucket, such as a quota, keeps no policy from its slots and its status.
            let taken_in = act(context, &*policy, &found.actions).await;
            if taken_in.is_ok() {
                plan.status.catalogue = found.status.catalogue;
                plan.events.extend(found.events);
            }
            if let Some(at) = found.next_check {
                plan.check_at(at);
            }
            let again = carry_out(context, &*policy, policy.status.as_ref(), plan).await?;
            taken_in.and(verified).map(|()| again)
        }
        Subject::Backup => {
            let Some(backup) = context.world.backups.get(namespace, name) else { return Ok(None) };
            let observed = context.observer.backup(&backup, now).await?;
            let plan = plan_backup(&context.install, &backup, &observed, now);
            let slot = crate::plan::backup::slot_of(&backup);
            let starts = plan.actions.iter().any(|a| matches!(a, Action::CreateJob(_)))
                && backup.status.as_ref().is_none_or(|s| s.start_time.is_none());
            let again = carry_out(context, &*backup, backup.status.as_ref(), plan).await?;
            if starts {
                context.counters.started(Timestamp::now().duration_since(slot).as_secs_f64());
            }
            Ok(again)
        }
        Subject::Restore => {
            let Some(restore) = context.world.restores.get(namespace, name) else { return Ok(None) };
            let observed = context.observer.restore(&restore, now).await?;
            let plan = plan_restore(&context.install, &restore, &observed, now);
            carry_out(context, &*restore, restore.status.as_ref(), plan).await
        }
    }
}

/// Actions, then the status, then the events: each only if what is before it succeeded.
async fn carry_out<K, S>(
    context: &Context,
    object: &K,
    before: Option<&S>,
    mut plan: Plan<S>,
) -> Result<Option<Instant>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    S: Serialize + PartialEq + Summarize,
{
    act(context, object, &plan.actions).await?;
    plan.status.summarize(Timestamp::now());
    if before != Some(&plan.status) {
        context.writer.report(object, &plan.status).await?;
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

/// Carries out actions on behalf of an object.
async fn act(context: &Context, object: &impl ResourceExt, actions: &[Action]) -> Result<(), Error> {
    for action in actions {
        let (what, which) = told(action);
        tracing::info!(namespace = object.namespace(), object = object.name_any(), which, "{what}");
    }
    context.writer.apply(actions).await
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
