//! The controller: looks at one object as its cache has it, decides, and writes; cut off now and then before or after a write. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast::controller::cache::{in_namespace, of_owner, of_policy};
use holdfast::controller::line;
use holdfast::plan::action::{Action, Plan};
use holdfast::plan::backup::{self, Holds, ObservedBackup, plan_backup};
use holdfast::plan::job::{self, Ground, Install};
use holdfast::plan::names::{SCHEDULED_LABEL, TASK_LABEL, label_value};
use holdfast::plan::observed::{Attempt, ObservedJob};
use holdfast::plan::policy::{self, ObservedPolicy, plan_policy};
use holdfast::plan::refused::{PolicyRefusals, Refusal};
use holdfast::plan::restore::{self, ObservedRestore, choose, plan_restore};
use holdfast::plan::store::{self, ObservedStore, plan_store};
use holdfast::plan::summary::Summarize;
use holdfast::plan::suspicion;
use holdfast::plan::verify::{VERIFY, plan_verify, wants_room};
use holdfast::task::{Failure, Outcome, Report};
use holdfast_crds::{Backup, BackupPhase, BackupStatus, Reason, RestoreRequest};
use kube::ResourceExt;

use crate::cluster::{Cluster, NAMESPACE};
use crate::people::delete_backup;

const LIMIT: Option<usize> = Some(2);

/// The controller was cut off: what is left of the plan is not carried out.
struct CutOff;

/// Why the actions of a plan ended early.
enum Stopped {
    CutOff,
    /// The API server refused one of them.
    Refused(Refusal),
}

impl From<CutOff> for Stopped {
    fn from(_: CutOff) -> Self {
        Self::CutOff
    }
}

pub fn look_at_something(cluster: &mut Cluster) {
    let (stores, policies) = (cluster.world.stores.all().len(), cluster.world.policies.all().len());
    let (backups, restores) = (cluster.world.backups.all().len(), cluster.world.restores.all().len());
    match cluster.rng.usize(..1 + stores + 2 * policies + 3 * (backups + restores)) {
        n if n < stores + 1 => at_random(cluster, |c| names(&c.world.stores.all()), look_at_store),
        n if n < 1 + stores + 2 * policies => at_random(cluster, |c| names(&c.world.policies.all()), look_at_policy),
        n if n < 1 + stores + 2 * policies + 3 * backups => {
            at_random(cluster, |c| names(&c.world.backups.all()), look_at_backup);
        }
        _ => at_random(cluster, |c| names(&c.world.restores.all()), look_at_restore),
    }
}

pub fn look_at_all(cluster: &mut Cluster) {
    for name in names(&cluster.world.stores.all()) {
        look_at_store(cluster, &name);
    }
    for name in names(&cluster.world.policies.all()) {
        look_at_policy(cluster, &name);
    }
    for name in names(&cluster.world.backups.all()) {
        look_at_backup(cluster, &name);
    }
    for name in names(&cluster.world.restores.all()) {
        look_at_restore(cluster, &name);
    }
}

fn names<K: ResourceExt>(objects: &[Arc<K>]) -> Vec<String> {
    let names: BTreeSet<String> = objects.iter().map(|o| o.name_any()).collect();
    names.into_iter().collect()
}

fn at_random(cluster: &mut Cluster, names: fn(&Cluster) -> Vec<String>, look: fn(&mut Cluster, &str)) {
    let names = names(cluster);
    if !names.is_empty() {
        let name = names[cluster.rng.usize(..names.len())].clone();
        look(cluster, &name);
    }
}

fn install() -> Install {
    Install {
        cluster_uid: "c1".into(),
        image: "holdfast".into(),
        image_pull_policy: "Never".into(),
        image_pull_secrets: vec![],
        ..Install::default()
    }
}

fn look_at_store(cluster: &mut Cluster, name: &str) {
    let Some(store) = cluster.world.stores.get(NAMESPACE, name) else { return };
    let since = store.status.as_ref().and_then(|s| s.last_probe_time.as_ref()).map(|t| t.0);
    let backups = cluster.world.backups.all();
    let restores = cluster.world.restores.all();
    let failed = backups.iter().filter_map(|b| suspicion::of_backup(b, &store));
    let failed = failed.chain(restores.iter().filter_map(|r| suspicion::of_restore(r, &store))).max();
    let suspected = failed.filter(|at| since.is_some_and(|since| *at > since));
    let probes = attempts(cluster, store.metadata.uid.as_deref(), &[]);
    let observed = ObservedStore { suspected, probes, ..ObservedStore::default() };
    let plan = plan_store(&install(), &store, &observed, cluster.now);
    let now = cluster.now;
    let refuse = |_: &_, refusal: &Refusal| store::refuse(&store, &refusal.failure, now);
    let _ = carry_out(cluster, plan, refuse, |cluster, status| {
        let live =
            cluster.stores.live.get(name).filter(|o| o.metadata.resource_version == store.metadata.resource_version);
        let mut object = live.ok_or(CutOff)?.clone();
        if object.status.as_ref() == Some(&status) {
            return Ok(false);
        }
        object.status = Some(status);
        object.metadata.resource_version = Some(cluster.next_version());
        cluster.stores.put(name, object);
        Ok(true)
    });
}

fn look_at_policy(cluster: &mut Cluster, name: &str) {
    let Some(policy) = cluster.world.policies.get(NAMESPACE, name) else { return };
    let jobs = cluster.world.jobs.of(&of_policy(NAMESPACE, &label_value(name)));
    let of_task = |task: &'static str| jobs.iter().filter(move |j| j.task == task);
    let stores = cluster.world.stores.all();
    let mut observed = ObservedPolicy {
        store: cluster.world.stores.get(NAMESPACE, &policy.spec.store_ref.name),
        backups: cluster.world.backups.of(&of_policy(NAMESPACE, name)),
        catalogues: attempts(cluster, policy.metadata.uid.as_deref(), &[]),
        retains: of_task("retain").map(|j| attempt(cluster, (**j).clone())).collect(),
        verifications: of_task(VERIFY).map(|j| (**j).clone()).collect(),
        stores: stores.iter().map(|store| (store.name_any(), store.clone())).collect(),
        ..ObservedPolicy::default()
    };
    observed.crowded =
        wants_room(&policy, &observed, cluster.now).and_then(|store| line::crowded(&cluster.world, store, LIMIT));
    // As `controller/reconcile.rs` does it.
    let now = cluster.now;
    let both = |observed: &ObservedPolicy| {
        let plan = plan_policy(&policy, observed, now);
        let mut verify = Plan::keep(plan.status.clone());
        plan_verify(&mut verify, &install(), &policy, observed, now);
        (plan, verify)
    };
    let (mut plan, mut verify) = both(&observed);
    let refused = |outcome: Result<(), Stopped>| match outcome {
        Ok(()) => Ok(None),
        Err(Stopped::Refused(refusal)) => Ok(Some(refusal.failure)),
        Err(Stopped::CutOff) => Err(CutOff),
    };
    let Ok(verification) = refused(act(cluster, &verify.actions)) else { return };
    let Ok(backup) = refused(act(cluster, &plan.actions)) else { return };
    observed.refused = PolicyRefusals { backup, verification, catalogue: None };
    if observed.refused.is_any() {
        (plan, verify) = both(&observed);
    }
    plan.actions = Vec::new();
    plan.status = verify.status;
    let refuse = |_: &_, refusal: &Refusal| policy::refuse(&policy, &refusal.failure, now);
    let _ = carry_out(cluster, plan, refuse, |cluster, status| {
        let live =
            cluster.policies.live.get(name).filter(|o| o.metadata.resource_version == policy.metadata.resource_version);
        let mut object = live.ok_or(CutOff)?.clone();
        if object.status.as_ref() == Some(&status) {
            return Ok(false);
        }
        object.status = Some(status);
        object.metadata.resource_version = Some(cluster.next_version());
        cluster.policies.put(name, object);
        Ok(true)
    });
}

fn look_at_backup(cluster: &mut Cluster, name: &str) {
    let Some(backup) = cluster.world.backups.get(NAMESPACE, name) else { return };
    let observed = observe_backup(cluster, &backup);
    let plan = plan_backup(&install(), &backup, &observed, cluster.now);
    let now = cluster.now;
    let refuse = |planned: &BackupStatus, refusal: &Refusal| {
        let began = refusal.began || observed.jobs.iter().any(|a| a.job.task == "backup");
        let refusal = Refusal { began, ..refusal.clone() };
        backup::refuse(&backup, observed.policy.as_deref(), Some(planned), &refusal, now)
    };
    let _ = carry_out(cluster, plan, refuse, |cluster, status| {
        let live =
            cluster.backups.live.get(name).filter(|o| o.metadata.resource_version == backup.metadata.resource_version);
        let mut object = live.ok_or(CutOff)?.clone();
        if object.status.as_ref() == Some(&status) {
            return Ok(false);
        }
        cluster.tally.backup_changes(&object, &status, &cluster.bucket);
        object.status = Some(status);
        object.metadata.resource_version = Some(cluster.next_version());
        cluster.backups.put(name, object);
        Ok(true)
    });
}

/// As `controller/observe.rs` does it.
fn observe_backup(cluster: &Cluster, backup: &Backup) -> ObservedBackup {
    let world = &cluster.world;
    let status = backup.status.clone().unwrap_or_default();
    let policy_name = &backup.spec.policy_ref.name;
    let pending = status.phase == BackupPhase::Pending;
    let turn = if pending { line::turn_of(world, backup, LIMIT) } else { None };
    let by_hand = !backup.labels().contains_key(SCHEDULED_LABEL);
    let mut policy = world.policies.get(NAMESPACE, policy_name);
    if pending && turn.is_none() && by_hand {
        policy = cluster.policies.live.get(policy_name).cloned().map(Arc::new);
    }
    let store = status.store.clone().or_else(|| policy.as_ref().map(|p| p.spec.store_ref.name.clone()));
    let store = store.and_then(|name| world.stores.get(NAMESPACE, &name));
    let needed: Vec<String> = if status.phase == BackupPhase::Running {
        let open = status.artifacts.iter().filter(|a| !a.phase.is_terminal());
        open.map(|a| job::backup_name(backup, &a.source)).collect()
    } else {
        Vec::new()
    };
    let siblings = world.backups.of(&of_policy(NAMESPACE, policy_name));
    ObservedBackup {
        jobs: attempts(cluster, backup.metadata.uid.as_deref(), &needed),
        holds: holds(cluster, policy_name),
        retention_waits: is_retaining(cluster, backup, &siblings),
        siblings,
        policy,
        store,
        turn,
        ground: Ground::default(),
        ..ObservedBackup::default()
    }
}

fn holds(cluster: &Cluster, policy: &str) -> Holds {
    let mut holds = Holds::default();
    for restore in cluster.world.restores.of(&in_namespace(NAMESPACE)) {
        let status = restore.status.clone().unwrap_or_default();
        if status.phase.is_terminal() {
            continue;
        }
        let named = restore.spec.from.backup.as_ref().and_then(|name| cluster.world.backups.get(NAMESPACE, name));
        let concerns = match &restore.spec.from.policy {
            Some(from) => from.name == policy,
            None => named.as_ref().is_some_and(|b| b.spec.policy_ref.name == policy),
        };
        if concerns {
            let saved = named.and_then(|b| b.status.as_ref().and_then(|s| s.run_id.clone()));
            match status.run_id.or(saved) {
                Some(run_id) => holds.run_ids.push(run_id),
                None => holds.unknown = true,
            }
        }
    }
    let jobs = cluster.world.jobs.of(&of_policy(NAMESPACE, &label_value(policy)));
    for job in jobs.iter().filter(|j| j.task == VERIFY && j.end.is_none()) {
        let backup = job.owner.as_ref().and_then(|o| cluster.world.backups.get(NAMESPACE, &o.name));
        holds.run_ids.extend(backup.and_then(|b| b.status.as_ref().and_then(|s| s.run_id.clone())));
    }
    holds
}

fn is_retaining(cluster: &Cluster, backup: &Backup, siblings: &[Arc<Backup>]) -> bool {
    let jobs = cluster.world.jobs.of(&of_policy(NAMESPACE, &label_value(&backup.spec.policy_ref.name)));
    jobs.iter().filter(|j| j.task == "retain" && j.owner.as_ref().map(|o| &o.uid) != backup.metadata.uid.as_ref()).any(
        |job| {
            let pods = cluster.world.pods.of(&of_owner(&job.uid));
            let reports =
                pods.iter().filter_map(|p| Report::from_termination_message(&p.ended.as_ref()?.message)?.outcome);
            let deleted: Vec<String> = reports
                .flat_map(|o| if let Outcome::Retain(retained) = o { retained.deleted } else { Vec::new() })
                .collect();
            let unrecorded = siblings
                .iter()
                .any(|s| s.status.as_ref().and_then(|s| s.run_id.as_ref()).is_some_and(|id| deleted.contains(id)));
            job.end.is_none() || unrecorded
        },
    )
}

fn look_at_restore(cluster: &mut Cluster, name: &str) {
    let Some(request) = cluster.world.restores.get(NAMESPACE, name) else { return };
    let observed = observe_restore(cluster, &request);
    let plan = plan_restore(&install(), &request, &observed, cluster.now);
    let now = cluster.now;
    let refuse = |_: &_, refusal: &Refusal| restore::refuse(&request, &refusal.failure, now);
    let _ = carry_out(cluster, plan, refuse, |cluster, status| {
        let live = cluster
            .restores
            .live
            .get(name)
            .filter(|o| o.metadata.resource_version == request.metadata.resource_version);
        let mut object = live.ok_or(CutOff)?.clone();
        if object.status.as_ref() == Some(&status) {
            return Ok(false);
        }
        cluster.tally.restore_changes(&object, &status);
        object.status = Some(status);
        object.metadata.resource_version = Some(cluster.next_version());
        cluster.restores.put(name, object);
        Ok(true)
    });
}

fn observe_restore(cluster: &Cluster, request: &RestoreRequest) -> ObservedRestore {
    let status = request.status.clone().unwrap_or_default();
    let mut observed = ObservedRestore::default();
    if status.phase != BackupPhase::Pending {
        let name = job::restore_name(request);
        let cached = cluster.world.jobs.get(NAMESPACE, &name).map(|j| (*j).clone());
        let live = || cluster.work.get(&name).map(|w| w.job.clone());
        let found = cached.or_else(|| if status.phase.is_terminal() { None } else { live() });
        let uid = request.metadata.uid.as_deref().unwrap();
        let owned = found.filter(|j| j.owner.as_ref().is_some_and(|o| o.uid == uid));
        observed.job = owned.map(|j| attempt(cluster, j));
    }
    if status.phase.is_terminal() || status.job_uid.is_some() {
        return observed;
    }
    let from = &request.spec.from;
    observed.backups = match (&from.backup, &from.policy) {
        (Some(name), _) => cluster.world.backups.get(NAMESPACE, name).into_iter().collect(),
        (_, Some(policy)) => cluster.world.backups.of(&of_policy(NAMESPACE, &policy.name)),
        _ => Vec::new(),
    };
    if let Ok(choice) = choose(request, &observed.backups) {
        observed.policy = cluster.world.policies.get(NAMESPACE, &choice.policy);
        observed.store = cluster.world.stores.get(NAMESPACE, &choice.store);
    }
    observed
}

fn attempts(cluster: &Cluster, owner: Option<&str>, needed: &[String]) -> Vec<Attempt> {
    let owner = owner.unwrap();
    let mut jobs: Vec<ObservedJob> = cluster.world.jobs.of(&of_owner(owner)).iter().map(|j| (**j).clone()).collect();
    for name in needed.iter().filter(|name| !jobs.iter().any(|j| j.name == **name)).collect::<Vec<_>>() {
        let live = cluster.work.get(name).map(|w| w.job.clone());
        jobs.extend(live.filter(|j| j.owner.as_ref().is_some_and(|o| o.uid == owner)));
    }
    jobs.into_iter().map(|j| attempt(cluster, j)).collect()
}

fn attempt(cluster: &Cluster, job: ObservedJob) -> Attempt {
    let mut pods: Vec<_> = cluster.world.pods.of(&of_owner(&job.uid)).iter().map(|p| (**p).clone()).collect();
    if job.end.is_some() && !pods.iter().any(|p| p.ended.is_some()) {
        pods = cluster.work.get(&job.name).filter(|w| w.job.uid == job.uid).map(|w| w.pods.clone()).unwrap_or_default();
    }
    Attempt { job, pods, events: vec![] }
}

/// Actions, then the status; each of them may be the last thing that the controller does, before it took effect or after. Where an action
/// is refused, the status says so.
fn carry_out<S: Summarize>(
    cluster: &mut Cluster,
    plan: Plan<S>,
    refuse: impl FnOnce(&S, &Refusal) -> Plan<S>,
    report: impl FnOnce(&mut Cluster, S) -> Result<bool, CutOff>,
) -> Result<(), CutOff> {
    let mut plan = match act(cluster, &plan.actions) {
        Ok(()) => plan,
        Err(Stopped::Refused(refusal)) => refuse(&plan.status, &refusal),
        Err(Stopped::CutOff) => return Err(CutOff),
    };
    dropped(cluster)?;
    plan.status.summarize(cluster.now);
    if report(cluster, plan.status)? {
        cluster.writes += 1;
    }
    Ok(())
}

fn act(cluster: &mut Cluster, actions: &[Action]) -> Result<(), Stopped> {
    let mut jobs = 0;
    for action in actions {
        dropped(cluster)?;
        let refused = match action {
            Action::CreateJob(job) => {
                jobs += 1;
                let there = cluster.work.contains_key(&job.name_any());
                let refuses = cluster.refuses_jobs_after.is_some_and(|most| jobs > most) && !there;
                refuses.then(|| (Reason::JobRefused, job.labels().get(TASK_LABEL).cloned()))
            }
            Action::CreateBackup(_) => cluster.refuses_backups.then_some((Reason::RequestRefused, None)),
            _ => None,
        };
        if let Some((reason, task)) = refused {
            cluster.tally.refused();
            let failure = Failure::new(reason, "the API server refused to create it: its words");
            return Err(Stopped::Refused(Refusal { failure, task, began: jobs > 1 }));
        }
        apply(cluster, action)?;
        dropped(cluster)?;
    }
    Ok(())
}

fn dropped(cluster: &mut Cluster) -> Result<(), CutOff> {
    if cluster.faulty && cluster.chance(4) { Err(CutOff) } else { Ok(()) }
}

#[allow(clippy::match_wildcard_for_single_variants, reason = "none of the others happens in this world")]
fn apply(cluster: &mut Cluster, action: &Action) -> Result<(), CutOff> {
    cluster.writes += 1;
    match action {
        Action::CreateBackup(backup) => {
            let name = backup.name_any();
            if let Some(there) = cluster.backups.live.get(&name) {
                return if there.spec.policy_ref == backup.spec.policy_ref { Ok(()) } else { Err(CutOff) };
            }
            let mut backup = (**backup).clone();
            backup.metadata = cluster.created(backup.metadata);
            cluster.tally.scheduled(&backup);
            cluster.backups.put(&name, backup);
        }
        Action::CreateJob(job) => {
            if let Some(there) = cluster.work.get(&job.name_any()) {
                let owner = job.owner_references()[0].uid.clone();
                let ours = there.job.owner.as_ref().is_some_and(|o| o.uid == owner);
                return if ours { Ok(()) } else { Err(CutOff) };
            }
            cluster.create_job(job);
        }
        Action::DeleteJob(target) => {
            if cluster.work.get(&target.name).is_some_and(|w| w.job.uid == target.uid) {
                cluster.remove_job(&target.name);
            }
        }
        Action::DeleteBackup(target) => {
            let live = cluster.backups.live.get(&target.name);
            let Some(live) = live else { return Ok(()) };
            let same = live.metadata.uid.as_ref() == Some(&target.uid);
            if !same || live.metadata.resource_version != target.resource_version {
                return Err(CutOff);
            }
            delete_backup(cluster, &target.name);
        }
        Action::SetFinalizers(target, finalizers) => {
            let Some(mut backup) = cluster.backups.live.get(&target.name).cloned() else { return Ok(()) };
            if backup.metadata.resource_version != target.resource_version {
                return Err(CutOff);
            }
            backup.metadata.finalizers = Some(finalizers.clone());
            backup.metadata.resource_version = Some(cluster.next_version());
            if finalizers.is_empty() && backup.metadata.deletion_timestamp.is_some() {
                cluster.backups.remove(&target.name);
                cluster.collect_garbage(&target.uid);
            } else {
                cluster.backups.put(&target.name, backup);
            }
        }
        other => panic!("nothing here needs {other:?}"),
    }
    Ok(())
}
