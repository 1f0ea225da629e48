//! What to do about a BackupStore: prove it with a short Job, say what came of it, and prove it again in time. Pure.

use std::sync::Arc;

use holdfast_crds::{
    Backup, BackupPhase, BackupStore, BackupStoreStatus, ConditionType, EmptyStatus, MissingStatus, Reason,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::{Action, Event, Plan};
use super::backup::slot_of;
use super::found::{is_foreign, place_of};
use super::job::{self, Install};
use super::location::is_at;
use super::names::job_name;
use super::observed::Attempt;
use super::refused::{as_refusal, say};
use super::restore::is_safety;
use super::status::{after, find, reason_of, with_condition};
use super::verdict::{Patience, Verdict, judge};
use crate::task::{Failure, Outcome, ProbeReport};

/// A store that is ready is proved again after this many seconds.
pub const READY_SECONDS: i64 = 3600;
/// A store that is not is proved again after this many seconds at first …
pub const FAILING_SECONDS_MIN: i64 = 15;
/// … and after this many at last.
pub const FAILING_SECONDS_MAX: i64 = 300;

/// A store that was proved although a run had failed on it is proved again no sooner than after this many seconds, whatever else fails on
/// it: what a canary object does not find out is not found out by many of them.
pub const SUSPECTED_AGAIN_SECONDS: i64 = 120;

/// After this many probes in a row that told nothing of the store it is not ready any more.
pub const UNANSWERED_PROBES: i32 = 3;

/// What comes in a condition's message between what was found out of the store and why nothing was since.
const SINCE: &str = "; not proved since: ";

/// What is known around a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedStore {
    /// Its probe Jobs.
    pub probes: Vec<Attempt>,
    /// When a run, a restore or a Job that deletes or lists last failed on the store, if that was after its last probe.
    pub suspected: Option<Timestamp>,
    /// The runs that should be in it, the newest of each policy: `<policy>/<runId>/<source>`. Only needed where a probe is due.
    pub newest: Vec<String>,
}

/// At most this many runs are looked for by a probe …
const NEWEST_LIMIT: usize = 1000;
/// … and no more than fit into this many bytes of its task.
const NEWEST_BYTES: usize = 64 * 1024;

/// Decides about a store.
pub fn plan_store(
    install: &Install,
    store: &BackupStore,
    observed: &ObservedStore,
    now: Timestamp,
) -> Plan<BackupStoreStatus> {
    let before = store.status.clone().unwrap_or_default();
    if store.metadata.deletion_timestamp.is_some() {
        return Plan::keep(before);
    }
    let what = probe_name(store, &before);
    let wanted = job_name(
        store.metadata.name.as_deref().unwrap_or_default(),
        store.metadata.uid.as_deref().unwrap_or_default(),
        &what,
    );
    let mut plan = Plan::keep(before.clone());
    // Probes whose result is recorded, or that proved an earlier spec.
    plan.actions = observed
        .probes
        .iter()
        .filter(|p| p.job.name != wanted && !p.job.deleting)
        .map(|p| Action::delete_job(&p.job))
        .collect();

    let due = next_probe(store, &before, observed.suspected);
    if let Some(probe) = observed.probes.iter().find(|p| p.job.name == wanted) {
        record(&mut plan, store, probe, observed.suspected, now);
    } else if due > now {
        plan.check_at(due);
    } else {
        let newest = within_bounds(&observed.newest);
        plan.actions.push(Action::CreateJob(Box::new(job::probe(install, store, &what, newest))));
        if before.observed_generation != store.metadata.generation {
            probing(&mut plan.status, store, now, "a probe has been started".to_owned());
        }
    }
    let (encrypted, reason, message) = encryption(store);
    plan.status.conditions = with_condition(
        &plan.status.conditions,
        ConditionType::Encrypted,
        Some(encrypted),
        reason,
        &message,
        store.metadata.generation,
        now,
    );
    plan
}

fn within_bounds(newest: &[String]) -> &[String] {
    let mut bytes = 0;
    let fits = newest.iter().take(NEWEST_LIMIT).take_while(|run| {
        bytes += run.len() + 3;
        bytes <= NEWEST_BYTES
    });
    &newest[..fits.count()]
}

/// The run of a policy that a probe of its store looks for: its newest complete one in the store's place, with one of its sources. One that
/// is known to be gone is looked for, too.
pub fn newest_run(policy: &str, backups: &[Arc<Backup>], store: &BackupStore) -> Option<String> {
    let place = store.spec.s3.place();
    let is_here = |backup: &&Arc<Backup>| {
        backup.metadata.deletion_timestamp.is_none()
            && !is_safety(backup)
            && !is_foreign(backup)
            && backup.status.as_ref().is_some_and(|s| {
                s.phase == BackupPhase::Completed && s.store == store.metadata.name && is_at(s, &place)
            })
    };
    let newest = backups.iter().filter(is_here).max_by_key(|b| (slot_of(b), b.metadata.name.clone()))?;
    let status = newest.status.as_ref()?;
    Some(format!("{policy}/{}/{}", status.run_id.as_ref()?, status.artifacts.first()?.source))
}

fn encryption(store: &BackupStore) -> (bool, Reason, String) {
    let Some(encryption) = &store.spec.encryption else {
        return (false, Reason::NotConfigured, "backups are stored without client-side encryption".to_owned());
    };
    let keys = match encryption.recipients.len() {
        1 => "1 key".to_owned(),
        several => format!("{several} keys"),
    };
    let restores = match &encryption.identity_secret {
        Some(secret) => format!("restores decrypt with Secret {}", secret.name),
        None => "restores need spec.encryption.identitySecret, which is not set".to_owned(),
    };
    (true, Reason::Configured, format!("backups are encrypted to {keys}; {restores}"))
}

/// A probe is named after the spec it proves and the result before it: a new one has a name of its own, the same one never two.
fn probe_name(store: &BackupStore, status: &BackupStoreStatus) -> String {
    let last = status.last_probe_time.as_ref().map_or(0, |t| t.0.as_second());
    format!("probe-{}-{last}", store.metadata.generation.unwrap_or(0))
}

fn next_probe(store: &BackupStore, status: &BackupStoreStatus, suspected: Option<Timestamp>) -> Timestamp {
    let Some(last) = status.last_probe_time.as_ref().map(|t| t.0) else { return Timestamp::MIN };
    let ready = find(&status.conditions, ConditionType::Ready);
    let seen = ready.and_then(|c| c.observed_generation);
    let Some(ready) = ready.filter(|_| seen == store.metadata.generation) else { return Timestamp::MIN };
    if status.unanswered_probes.is_some() {
        return after(last, FAILING_SECONDS_MIN);
    }
    if ready.status == "True" {
        let regular = after(last, READY_SECONDS);
        let gap = if status.last_suspected_time.is_some() { SUSPECTED_AGAIN_SECONDS } else { FAILING_SECONDS_MIN };
        return match suspected.filter(|s| *s > last) {
            Some(_) => regular.min(after(last, gap)),
            None => regular,
        };
    }
    // It has failed for so long: wait as long again, within bounds.
    let failing = last.duration_since(ready.last_transition_time.0).as_secs();
    after(last, failing.clamp(FAILING_SECONDS_MIN, FAILING_SECONDS_MAX))
}

fn record(
    plan: &mut Plan<BackupStoreStatus>,
    store: &BackupStore,
    probe: &Attempt,
    suspected: Option<Timestamp>,
    now: Timestamp,
) {
    let first = plan.status.observed_generation != store.metadata.generation;
    match judge(probe, Reason::StoreUnreachable, Patience::PROBE, now) {
        Verdict::Running => {
            if first {
                probing(&mut plan.status, store, now, "the probe is running".to_owned());
            }
        }
        Verdict::Waiting { why, check_at } => {
            plan.check_at(check_at);
            if first {
                let why = why.map_or_else(
                    || "the probe is starting".to_owned(),
                    |w| format!("the probe is starting: {}", w.message),
                );
                probing(&mut plan.status, store, now, why);
            }
        }
        Verdict::Completed(report) => {
            let (message, outcome) = report.map(|r| (r.message, r.outcome)).unwrap_or_default();
            plan.status.missing = match &outcome {
                Some(Outcome::Probe(ProbeReport { missing, .. })) if !missing.is_empty() => {
                    let (place, time) = (store.spec.s3.place(), Time(probe.job.created));
                    Some(MissingStatus { place, time, runs: missing.clone() })
                }
                _ => None,
            };
            plan.status.empty = match outcome {
                Some(Outcome::Probe(ProbeReport { empty_at: Some(at), .. })) => {
                    // A node's clock may be ahead of the API server's, which policies have their age from.
                    let time = probe.ended_at().map_or(at, |ended| at.min(ended));
                    Some(EmptyStatus { place: place_of(store), time: Time(time) })
                }
                _ => None,
            };
            let message = if message.is_empty() { proved(store) } else { message };
            plan.status.last_suspected_time = suspected.map(Time);
            result(plan, store, Some(true), Reason::Probed, message, now);
        }
        Verdict::Failed(failure, _) => {
            if is_of_the_platform(failure.reason) && unanswered(plan, store, &failure, now) {
                return;
            }
            let Failure { reason, message } = failure;
            plan.status.last_suspected_time = None;
            result(plan, store, Some(false), as_store_reason(reason), message, now);
        }
    }
}

/// Whether a probe failed without a word about its store: what became of its Pod says nothing of a bucket.
fn is_of_the_platform(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PodLost
            | Reason::PodUnschedulable
            | Reason::PodNotStarted
            | Reason::ImagePullFailed
            | Reason::OOMKilled
            | Reason::JobVanished
    ) || reason.is_refusal()
}

/// Says that the API server refuses what would prove a store. That says nothing of the store itself: what was found out of it stays.
pub fn refuse(store: &BackupStore, failure: &Failure, now: Timestamp) -> Plan<BackupStoreStatus> {
    let mut plan = Plan::keep(store.status.clone().unwrap_or_default());
    if store.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let generation = store.metadata.generation;
    let known = find(&plan.status.conditions, ConditionType::Ready).filter(|c| {
        c.observed_generation == generation && matches!(c.status.as_str(), "True" | "False") && as_refusal(c).is_none()
    });
    let (value, told) = match known {
        Some(ready) => {
            let reason = reason_of(ready).unwrap_or(failure.reason);
            let known = ready.message.split(SINCE).next().unwrap_or_default();
            (ready.status == "True", Failure::new(reason, format!("{known}{SINCE}{}", failure.message)))
        }
        None => (false, Failure::new(failure.reason, format!("it cannot be proved: {}", failure.message))),
    };
    if say(&mut plan.status.conditions, ConditionType::Ready, Some(value), &told, generation, now) {
        plan.events.push(Event::warning(failure.reason, "Probe", failure.message.clone()));
    }
    plan
}

/// Leaves a store that has been proved, or found wanting, as it is, and says that it is to be proved again. Whether it did: not where it
/// never was under this spec, and not after several such probes.
fn unanswered(plan: &mut Plan<BackupStoreStatus>, store: &BackupStore, failure: &Failure, now: Timestamp) -> bool {
    let status = &mut plan.status;
    let ready = find(&status.conditions, ConditionType::Ready).filter(|c| {
        c.observed_generation == store.metadata.generation && matches!(c.status.as_str(), "True" | "False")
    });
    let Some(ready) = ready else { return false };
    let reason = reason_of(ready).unwrap_or(failure.reason);
    let count = status.unanswered_probes.unwrap_or(0).saturating_add(1);
    if count >= UNANSWERED_PROBES || is_of_the_platform(reason) {
        return false;
    }
    let known = ready.message.split(SINCE).next().unwrap_or_default();
    let message = format!("{known}{SINCE}{}; it is probed again", failure.message);
    let value = ready.status == "True";
    let note = format!("a probe told nothing of the store, which is probed again: {}", failure.message);
    plan.events.push(Event::warning(failure.reason, "Probe", note));
    status.unanswered_probes = Some(count);
    status.last_probe_time = Some(Time(now));
    let generation = store.metadata.generation;
    status.conditions =
        with_condition(&status.conditions, ConditionType::Ready, Some(value), reason, message, generation, now);
    true
}

fn result(
    plan: &mut Plan<BackupStoreStatus>,
    store: &BackupStore,
    ready: Option<bool>,
    reason: Reason,
    message: String,
    now: Timestamp,
) {
    let before = find(&plan.status.conditions, ConditionType::Ready).map(|c| (c.status == "True", c.reason.clone()));
    if before != Some((ready == Some(true), reason.to_string())) {
        plan.events.push(match ready {
            Some(true) => Event::normal(reason, "Probe", message.clone()),
            _ => Event::warning(reason, "Probe", message.clone()),
        });
    }
    let status = &mut plan.status;
    status.last_probe_time = Some(Time(now));
    status.unanswered_probes = None;
    status.observed_generation = store.metadata.generation;
    status.conditions = with_condition(
        &status.conditions,
        ConditionType::Ready,
        ready,
        reason,
        message,
        store.metadata.generation,
        now,
    );
}

fn probing(status: &mut BackupStoreStatus, store: &BackupStore, now: Timestamp, message: String) {
    status.conditions = with_condition(
        &status.conditions,
        ConditionType::Ready,
        None,
        Reason::Probing,
        message,
        store.metadata.generation,
        now,
    );
}

fn proved(store: &BackupStore) -> String {
    let done = match &store.spec {
        spec if spec.read_only => "read and listed",
        spec if spec.append_only => "written, read and listed",
        _ => "written, read, listed and deleted",
    };
    format!("a canary object was {done} in bucket {}", store.spec.s3.bucket)
}

/// A worker's reason in the words of a store.
fn as_store_reason(reason: Reason) -> Reason {
    match reason {
        Reason::StoreUnreachable | Reason::DeadlineExceeded | Reason::Stalled => Reason::Unreachable,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{at, attempt, completed, ended_pod, failed, install, job as a_job, pending_pod, store};
    use crate::plan::observed::{ObservedJob, ObservedPod, Words};

    fn ready_of(status: &BackupStoreStatus) -> (String, String) {
        find(&status.conditions, ConditionType::Ready).map(|c| (c.status.clone(), c.reason.clone())).unwrap_or_default()
    }

    fn created(plan: &Plan<BackupStoreStatus>) -> Vec<String> {
        plan.actions
            .iter()
            .filter_map(|a| match a {
                Action::CreateJob(job) => job.metadata.name.clone(),
                _ => None,
            })
            .collect()
    }

    fn with_status(status: BackupStoreStatus) -> BackupStore {
        BackupStore { status: Some(status), ..store() }
    }

    /// The probe that the plan wants for this store.
    fn probe(store: &BackupStore, job: ObservedJob, pods: Vec<ObservedPod>) -> ObservedStore {
        let plan = plan_store(&install(), store, &ObservedStore::default(), Timestamp::MAX);
        let name = created(&plan).remove(0);
        ObservedStore { probes: vec![attempt(ObservedJob { name, ..job }, pods)], ..ObservedStore::default() }
    }

    #[test]
    fn a_new_store_is_probed_at_once_and_only_once() {
        let plan = plan_store(&install(), &store(), &ObservedStore::default(), at(0));
        assert_eq!(created(&plan).len(), 1);
        assert_eq!(ready_of(&plan.status), ("Unknown".into(), "Probing".into()));
        let under_way = probe(&store(), a_job("x"), vec![]);
        let again = plan_store(&install(), &with_status(plan.status), &under_way, at(1));
        assert!(again.actions.is_empty(), "{:?}", again.actions);
    }

    #[test]
    fn results_become_reasons() {
        let told = |reason: &str| ended_pod("p", 16, &format!(r#"{{"reason":"{reason}","message":"the words"}}"#));
        let table = [
            (completed(a_job("x")), vec![ended_pod("p", 0, r#"{"reason":"Completed"}"#)], "True", "Probed"),
            (completed(a_job("x")), vec![], "True", "Probed"),
            (failed(a_job("x")), vec![told("StoreRefused")], "False", "StoreRefused"),
            (failed(a_job("x")), vec![told("CredentialsRejected")], "False", "CredentialsRejected"),
            (failed(a_job("x")), vec![told("BucketNotFound")], "False", "BucketNotFound"),
            (failed(a_job("x")), vec![told("ClockSkew")], "False", "ClockSkew"),
            (failed(a_job("x")), vec![told("StoreUnreachable")], "False", "Unreachable"),
            (failed(a_job("x")), vec![], "False", "PodLost"),
        ];
        for (job, pods, status, reason) in table {
            let plan = plan_store(&install(), &store(), &probe(&store(), job, pods), at(1000));
            assert_eq!(ready_of(&plan.status), (status.into(), reason.into()));
            assert_eq!(plan.status.last_probe_time, Some(Time(at(1000))));
            assert_eq!(plan.events.len(), 1);
        }
    }

    #[test]
    fn a_probe_looks_for_the_newest_run_of_each_policy_and_says_which_is_gone() {
        use holdfast_crds::{ArtifactStatus, BackupStatus};

        use crate::plan::fixture::backup_with;
        let of = |name: &str, created, location: &str, phase| {
            let status = BackupStatus {
                phase,
                run_id: Some(format!("run-of-{name}")),
                store: Some("main".into()),
                location: Some(location.into()),
                artifacts: vec![ArtifactStatus { source: "db".into(), ..ArtifactStatus::default() }],
                ..BackupStatus::default()
            };
            Arc::new(backup_with(name, created, status))
        };
        let place = store().spec.s3.place();
        let mut gone = (*of("gone", 300, &place, BackupPhase::Completed)).clone();
        gone.status = crate::plan::location::gone(&gone, &place, "it is not there", at(400));
        let mut backups = vec![
            of("old", 100, &place, BackupPhase::Completed),
            Arc::new(gone),
            of("elsewhere", 500, "s3://old", BackupPhase::Completed),
            of("failed", 600, &place, BackupPhase::Failed),
        ];
        let newest = |backups: &[Arc<Backup>]| newest_run("shop", backups, &store());
        assert_eq!(newest(&backups).as_deref(), Some("shop/run-of-gone/db"), "it may be back");
        backups.remove(1);
        assert_eq!(newest(&backups).as_deref(), Some("shop/run-of-old/db"));
        assert_eq!(newest(&backups[1..]), None);

        let observed = ObservedStore { newest: vec!["shop/r1/db".into(); 2000], ..ObservedStore::default() };
        let plan = plan_store(&install(), &store(), &observed, at(0));
        let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("{plan:?}") };
        let env = job.spec.clone().unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
        assert_eq!(env[0].value.as_ref().unwrap().matches("shop/r1/db").count(), NEWEST_LIMIT, "bounded");

        let told = |report: &str| {
            let pods = vec![ended_pod("p", 0, report)];
            plan_store(&install(), &store(), &probe(&store(), completed(a_job("x")), pods), at(5000)).status
        };
        let missing = told(r#"{"reason":"Completed","outcome":{"probe":{"missing":["shop/r1"]}}}"#).missing.unwrap();
        assert_eq!((missing.place, missing.time.0, missing.runs), (place, at(100), vec!["shop/r1".to_owned()]));
        assert_eq!(told(r#"{"reason":"Completed","outcome":{"probe":{}}}"#).missing, None);
    }

    #[test]
    fn that_nothing_is_there_is_known_from_the_last_proof_alone() {
        let told = |store: &BackupStore, job: ObservedJob, exit_code, report: &str| {
            let pods = vec![ended_pod("p", exit_code, report)];
            let empty = plan_store(&install(), store, &probe(store, job, pods), at(5000)).status.empty;
            empty.map(|empty| (empty.place, empty.time.0))
        };
        let nothing = r#"{"reason":"Completed","outcome":{"probe":{"emptyAt":"1970-01-01T00:06:40Z"}}}"#;
        let known = told(&store(), completed(a_job("x")), 0, nothing).unwrap();
        assert_eq!(known, (place_of(&store()), at(400)));
        let ahead = r#"{"reason":"Completed","outcome":{"probe":{"emptyAt":"2126-11-21T02:00:00Z"}}}"#;
        let ended = completed(a_job("x")).end.unwrap().at;
        assert_eq!(told(&store(), completed(a_job("x")), 0, ahead).unwrap().1, ended, "no later than its Job's end");
        let empty = EmptyStatus { place: known.0.clone(), time: Time(known.1) };
        let before = with_status(BackupStoreStatus { empty: Some(empty), ..BackupStoreStatus::default() });
        for report in [r#"{"reason":"Completed","outcome":{"probe":{}}}"#, r#"{"reason":"Completed"}"#, ""] {
            assert_eq!(told(&before, completed(a_job("x")), 0, report), None, "{report}");
        }
        let failed = told(&before, failed(a_job("x")), 16, r#"{"reason":"StoreRefused","message":"denied"}"#);
        assert_eq!(failed, Some(known), "a failure tells nothing of what is there");
    }

    #[test]
    fn a_probe_whose_pod_is_lost_or_never_starts_leaves_the_store_as_it_was_until_it_happens_again_and_again() {
        let evicted = || {
            let word = Some(Words { reason: "Evicted".into(), message: "the node was low on memory".into() });
            vec![ObservedPod { word, ..ended_pod("p", 137, "") }]
        };
        let step = |store: &mut BackupStore, job: ObservedJob, pods, now| {
            let plan = plan_store(&install(), store, &probe(store, job, pods), at(now));
            store.status = Some(plan.status.clone());
            plan
        };
        for (job, pods, before) in [
            (completed(a_job("x")), vec![], ("True", "Probed")),
            (
                failed(a_job("x")),
                vec![ended_pod("p", 16, r#"{"reason":"CredentialsRejected","message":"denied"}"#)],
                ("False", "CredentialsRejected"),
            ),
        ] {
            let before = (before.0.to_owned(), before.1.to_owned());
            let mut store = store();
            step(&mut store, job, pods, 1000);
            assert_eq!(ready_of(store.status.as_ref().unwrap()), before);
            let words = |store: &BackupStore| {
                find(&store.status.as_ref().unwrap().conditions, ConditionType::Ready).unwrap().message.clone()
            };
            let known = words(&store);
            let never = vec![pending_pod("p", 100)];
            for (now, job, pods, why) in [
                (5000, failed(a_job("x")), evicted(), "Evicted: the node was low on memory"),
                (5015, a_job("x"), never, "did not start within"),
            ] {
                let plan = step(&mut store, job, pods, now);
                assert_eq!(ready_of(&plan.status), before);
                assert!(words(&store).starts_with(&format!("{known}; not proved since: ")), "{}", words(&store));
                assert!(words(&store).contains(why) && words(&store).matches("not proved since").count() == 1);
                assert_eq!(plan.events.len(), 1);
                let soon = plan_store(&install(), &store, &ObservedStore::default(), at(now)).next_check;
                assert_eq!(soon, Some(at(now + FAILING_SECONDS_MIN)));
            }
            let mut answered = store.clone();
            let plan = step(&mut answered, completed(a_job("x")), vec![], 5030);
            assert_eq!((ready_of(&plan.status).0.as_str(), plan.status.unanswered_probes), ("True", None));
            step(&mut store, failed(a_job("x")), evicted(), 5030);
            assert_eq!(ready_of(store.status.as_ref().unwrap()), ("False".into(), "PodLost".into()));
            let again = step(&mut store, failed(a_job("x")), evicted(), 5045);
            assert_eq!(again.status.unanswered_probes, None, "from here on ever more seldom");
        }
    }

    #[test]
    fn a_missing_secret_is_told_without_waiting_for_the_job_to_end() {
        let mut observed = probe(&store(), a_job("x"), vec![pending_pod("p", 100)]);
        observed.probes[0].events =
            vec![Words { reason: "FailedMount".into(), message: "secret \"s3-credentials\" not found".into() }];
        let early = plan_store(&install(), &store(), &observed, at(105));
        assert_eq!(ready_of(&early.status).1, "Probing");
        let plan = plan_store(&install(), &store(), &observed, at(115));
        assert_eq!(ready_of(&plan.status), ("False".into(), "SecretNotFound".into()));
    }

    #[test]
    fn a_first_probe_that_waits_for_a_node_says_so_and_is_not_given_up() {
        let words = "0/1 nodes are available: 1 node(s) had untolerated taint(s)";
        let unschedulable = Some(Words { reason: "Unschedulable".into(), message: words.into() });
        let observed = probe(&store(), a_job("x"), vec![ObservedPod { unschedulable, ..pending_pod("p", 100) }]);
        for now in [110, 300, 699] {
            let plan = plan_store(&install(), &store(), &observed, at(now));
            assert_eq!(ready_of(&plan.status), ("Unknown".into(), "Probing".into()), "{now}");
            assert!(find(&plan.status.conditions, ConditionType::Ready).unwrap().message.contains(words));
        }
        let given_up = plan_store(&install(), &store(), &observed, at(700));
        assert_eq!(ready_of(&given_up.status), ("False".into(), "PodUnschedulable".into()));
    }

    #[test]
    fn a_recorded_probe_is_deleted_and_the_next_one_comes_in_time() {
        let observed = probe(&store(), completed(a_job("x")), vec![]);
        let recorded = with_status(plan_store(&install(), &store(), &observed, at(1000)).status);
        let plan = plan_store(&install(), &recorded, &observed, at(1001));
        assert!(matches!(&plan.actions[..], [Action::DeleteJob(_)]), "{:?}", plan.actions);
        assert!(plan.events.is_empty());
        assert_eq!(plan.next_check, Some(at(1000 + READY_SECONDS)));
        let hour = plan_store(&install(), &recorded, &ObservedStore::default(), at(1000 + READY_SECONDS));
        assert_eq!(created(&hour).len(), 1);
        assert_eq!(ready_of(&hour.status), ("True".into(), "Probed".into()), "it stays ready while it is proved again");
    }

    #[test]
    fn a_failing_store_is_probed_ever_more_seldom_and_a_changed_one_at_once() {
        let mut store_now = store();
        let mut now = 1000;
        let mut gaps = vec![];
        for _ in 0..8 {
            let observed = probe(&store_now, failed(a_job("x")), vec![]);
            store_now = with_status(plan_store(&install(), &store_now, &observed, at(now)).status);
            let next = plan_store(&install(), &store_now, &ObservedStore::default(), at(now)).next_check.unwrap();
            gaps.push(next.as_second() - now);
            now = next.as_second();
        }
        assert_eq!(gaps, [15, 15, 30, 60, 120, 240, 300, 300]);
        store_now.metadata.generation = Some(2);
        let changed = plan_store(&install(), &store_now, &ObservedStore::default(), at(now - 1));
        assert_eq!(created(&changed).len(), 1);
        assert_eq!(ready_of(&changed.status), ("Unknown".into(), "Probing".into()));
    }

    #[test]
    fn a_failure_on_the_store_has_it_probed_at_once_and_many_of_them_no_oftener() {
        let job_of = |now| ObservedJob { created: at(now), ..completed(a_job("x")) };
        let mut store_now = store();
        let mut step = |failed: Option<i64>, now| {
            let mut observed = probe(&store_now, job_of(now), vec![]);
            observed.suspected = failed.map(at);
            store_now = with_status(plan_store(&install(), &store_now, &observed, at(now)).status);
            store_now.clone()
        };
        let at_once = |store: &BackupStore, failed: i64, now: i64| {
            let observed = ObservedStore { suspected: Some(at(failed)), ..ObservedStore::default() };
            let plan = plan_store(&install(), store, &observed, at(now));
            assert_eq!(ready_of(&plan.status).0, "True", "it is as good as it was until the probe has ended");
            match created(&plan).len() {
                0 => plan.next_check.map(Timestamp::as_second),
                probes => {
                    assert_eq!(probes, 1);
                    None
                }
            }
        };
        let proved = step(None, 1000);
        assert_eq!(at_once(&proved, 900, 1501), Some(1000 + READY_SECONDS), "that was before the probe");
        assert_eq!(at_once(&proved, 1500, 1501), None);
        assert_eq!(at_once(&proved, 1005, 1006), Some(1000 + FAILING_SECONDS_MIN), "not twice in a moment");
        // The canary is fine, and runs go on to fail: a probe every two minutes, however many they are.
        let in_vain = step(Some(1500), 1505);
        assert_eq!(in_vain.status.as_ref().unwrap().last_suspected_time, Some(Time(at(1500))));
        assert_eq!(at_once(&in_vain, 1500, 1510), Some(1505 + READY_SECONDS), "a failure is looked into once");
        for failed in [1506, 1540, 1600] {
            assert_eq!(at_once(&in_vain, failed, 1610), Some(1505 + SUSPECTED_AGAIN_SECONDS));
        }
        assert_eq!(at_once(&in_vain, 1600, 1505 + SUSPECTED_AGAIN_SECONDS), None);
        // A regular probe ends that.
        let regular = step(None, 6000);
        assert_eq!(regular.status.as_ref().unwrap().last_suspected_time, None);
        assert_eq!(at_once(&regular, 6050, 6051), None);
    }

    #[test]
    fn a_refused_probe_says_why_and_leaves_a_store_that_was_proved_as_it_was() {
        let words = |n| {
            Failure::new(
                Reason::QuotaExceeded,
                format!("the API server refused to create Job shop/p{n}: exceeded quota"),
            )
        };
        let plan = refuse(&store(), &words(1), at(10));
        assert_eq!((ready_of(&plan.status), plan.events.len()), (("False".into(), "QuotaExceeded".into()), 1));
        let said = with_status(plan.status);
        assert!(refuse(&said, &words(1), at(100)).events.is_empty());
        assert_eq!(
            created(&plan_store(&install(), &said, &ObservedStore::default(), at(100))).len(),
            1,
            "it is tried again"
        );
        // A probe whose Pod is lost says more than what was refused before it.
        let lost = plan_store(&install(), &said, &probe(&said, failed(a_job("x")), vec![]), at(1000));
        assert_eq!(ready_of(&lost.status), ("False".into(), "PodLost".into()));

        let proved = plan_store(&install(), &store(), &probe(&store(), completed(a_job("x")), vec![]), at(1000));
        let proved = with_status(proved.status);
        let plan = refuse(&proved, &words(1), at(5000));
        assert_eq!((ready_of(&plan.status), plan.events.len()), (("True".into(), "Probed".into()), 1));
        assert_eq!(plan.status.last_probe_time, proved.status.as_ref().unwrap().last_probe_time);
        let again = refuse(&with_status(plan.status.clone()), &words(2), at(5060));
        assert_eq!((&again.status, again.events.len()), (&plan.status, 0));
    }
}
