//! Which failures cast doubt on a store: a probe looks into them at once. Pure.

use holdfast_crds::{Backup, BackupPhase, BackupStore, ConditionType, Reason, RestoreRequest};
use jiff::Timestamp;

use super::observed::{Attempt, ObservedJob};
use super::status::{find, reason_of};
use super::verdict::{Patience, Verdict, judge};

/// Whether a failure is one of the store. A Secret or a ConfigMap that is missing is, where it is one that the store names.
fn blames(store: &BackupStore, reason: Reason, message: &str) -> bool {
    let s3 = &store.spec.s3;
    match reason {
        Reason::StoreUnreachable
        | Reason::StoreRefused
        | Reason::ClockSkew
        | Reason::CredentialsRejected
        | Reason::BucketNotFound
        | Reason::Unreachable => true,
        Reason::SecretNotFound => s3.credentials_secret.as_ref().is_some_and(|name| has_word(message, name)),
        Reason::ConfigMapNotFound => s3.ca_bundle.as_ref().is_some_and(|ca| has_word(message, &ca.config_map)),
        _ => false,
    }
}

/// Whether a name stands in a message as a whole: `s3` is not in `s3-other`.
fn has_word(message: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    message.split(|c: char| !is_part(c)).any(|word| word.trim_matches('.') == name)
}

/// Whether a Backup may have something to say against its store: what else is known of it need not be looked at.
pub fn may_blame(backup: &Backup) -> bool {
    let Some(status) = &backup.status else { return false };
    let verification = status.verification.as_ref().and_then(|v| v.reason);
    status.artifacts.iter().any(|a| a.reason.is_some()) || verification.is_some()
}

/// When the run of a Backup, or its verification, last failed on this store.
pub fn of_backup(backup: &Backup, store: &BackupStore) -> Option<Timestamp> {
    let status = backup.status.as_ref().filter(|s| s.store == store.metadata.name)?;
    let blamed = |a: &holdfast_crds::ArtifactStatus| {
        a.reason.is_some_and(|reason| blames(store, reason, a.message.as_deref().unwrap_or_default()))
    };
    let run = status.completion_time.as_ref().filter(|_| status.artifacts.iter().any(blamed));
    let verification = status
        .verification
        .as_ref()
        .filter(|v| v.reason.is_some_and(|reason| blames(store, reason, v.message.as_deref().unwrap_or_default())));
    let verification = verification.and_then(|v| v.last_attempt_time.as_ref());
    run.map(|t| t.0).max(verification.map(|t| t.0))
}

/// The store that a restore reads from. `backup`: the Backup that it names, where it names one.
pub fn store_of_restore<'a>(request: &'a RestoreRequest, backup: Option<&'a Backup>) -> Option<&'a str> {
    let named = request.spec.from.store.as_ref().map(|from| from.name.as_str());
    named.or_else(|| backup?.status.as_ref()?.store.as_deref())
}

/// When a restore that reads from this store failed on it.
pub fn of_restore(request: &RestoreRequest, store: &BackupStore) -> Option<Timestamp> {
    let status = request.status.as_ref().filter(|s| s.phase == BackupPhase::Failed)?;
    let complete = find(&status.conditions, ConditionType::Complete)?;
    let reason = reason_of(complete)?;
    // One that never began waited for a probe, and says what that found.
    let begun = status.job.is_some() && blames(store, reason, &complete.message);
    status.completion_time.as_ref().map(|t| t.0).filter(|_| begun)
}

/// Whether a Job failed whose result is written on no Backup: what becomes of its kind is told on the policy or in events.
pub fn may_blame_in_passing(job: &ObservedJob) -> bool {
    let failed = job.end.as_ref().is_some_and(|end| !end.completed);
    failed && matches!(job.task.as_str(), "retain" | "delete" | "catalogue")
}

/// When such a Job failed on this store.
pub fn of_attempt(attempt: &Attempt, store: &BackupStore, now: Timestamp) -> Option<Timestamp> {
    let end = attempt.job.end.as_ref().filter(|_| may_blame_in_passing(&attempt.job))?;
    // A Pod that is gone without a word says nothing of a bucket.
    match judge(attempt, Reason::PodLost, Patience::RUN, now) {
        Verdict::Failed(failure, _) => blames(store, failure.reason, &failure.message).then_some(end.at),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_crds::{
        ArtifactStatus, BackupStatus, RestoreFrom, RestoreFromStore, RestoreRequestSpec, RestoreRequestStatus,
        VerificationStatus, condition,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::plan::fixture::{at, attempt, backup_with, completed, ended_pod, failed, job, meta, store};

    const WORDS: &[(Reason, &str, bool)] = &[
        (Reason::StoreUnreachable, "source db: it does not answer", true),
        (Reason::StoreRefused, "the bucket is not there", true),
        (Reason::ClockSkew, "an hour apart", true),
        (Reason::SecretNotFound, "Pod p did not start: Secret s3-credentials is not there", true),
        (Reason::SecretNotFound, "Pod p did not start: secret \"s3-credentials\" not found", true),
        (Reason::SecretNotFound, "Pod p did not start: Secret s3-credentials-2 is not there", false),
        (Reason::SecretNotFound, "Pod p did not start: Secret postgres is not there", false),
        (Reason::ConfigMapNotFound, "ConfigMap s3-credentials is not there", false),
        (Reason::SourceRefused, "password authentication failed", false),
        (Reason::ChecksumMismatch, "another object than was stored", false),
        (Reason::DeadlineExceeded, "it took too long", false),
    ];

    #[test]
    fn failures_of_a_run_a_verification_and_a_restore_that_only_a_probe_can_clear_up() {
        for (reason, message, doubt) in WORDS {
            let artifact = ArtifactStatus {
                source: "db".into(),
                phase: BackupPhase::Failed,
                reason: Some(*reason),
                message: Some((*message).to_owned()),
                ..ArtifactStatus::default()
            };
            let run = BackupStatus {
                phase: BackupPhase::Failed,
                store: Some("main".into()),
                completion_time: Some(Time(at(70))),
                artifacts: vec![artifact],
                ..BackupStatus::default()
            };
            let elsewhere = BackupStatus { store: Some("other".into()), ..run.clone() };
            let run = backup_with("b", 1, run);
            assert!(may_blame(&run));
            assert_eq!(of_backup(&run, &store()), doubt.then(|| at(70)), "{reason} {message}");
            assert_eq!(of_backup(&backup_with("b", 1, elsewhere), &store()), None, "{reason} {message}");

            let verification = VerificationStatus {
                reason: Some(*reason),
                message: Some((*message).to_owned()),
                last_attempt_time: Some(Time(at(80))),
                ..VerificationStatus::default()
            };
            let verified = BackupStatus {
                phase: BackupPhase::Completed,
                store: Some("main".into()),
                completion_time: Some(Time(at(10))),
                verification: Some(verification),
                ..BackupStatus::default()
            };
            let verified = backup_with("b", 1, verified);
            assert!(may_blame(&verified));
            assert_eq!(of_backup(&verified, &store()), doubt.then(|| at(80)), "{reason} {message}");

            let complete = condition(ConditionType::Complete, Some(false), *reason, *message, None, at(90));
            let status = RestoreRequestStatus {
                phase: BackupPhase::Failed,
                job: Some("restore-r".into()),
                completion_time: Some(Time(at(90))),
                conditions: vec![complete],
                ..RestoreRequestStatus::default()
            };
            let from = RestoreFromStore { name: "main".into(), policy: "shop".into(), ..RestoreFromStore::default() };
            let spec = RestoreRequestSpec {
                from: RestoreFrom { store: Some(from), ..RestoreFrom::default() },
                ..serde_json::from_value(serde_json::json!({"from": {}})).unwrap()
            };
            let request = RestoreRequest { metadata: meta("r", "uid", 1), spec, status: Some(status) };
            assert_eq!(store_of_restore(&request, None), Some("main"));
            assert_eq!(of_restore(&request, &store()), doubt.then(|| at(90)), "{reason} {message}");
        }
        assert!(!may_blame(&backup_with("b", 1, BackupStatus::default())));
    }

    #[test]
    fn a_job_that_deletes_or_lists_and_fails_on_its_store_casts_doubt_on_it_too() {
        let of = |task: &str| ObservedJob { task: task.into(), ..job("j") };
        let told = |reason| vec![ended_pod("p", 16, &format!(r#"{{"reason":"{reason}","message":"denied"}}"#))];
        for task in ["retain", "delete", "catalogue"] {
            let of_the_store = attempt(failed(of(task)), told("StoreRefused"));
            assert_eq!(of_attempt(&of_the_store, &store(), at(600)), Some(at(500)), "{task}");
            for other in [
                attempt(failed(of(task)), told("ListIncomplete")),
                attempt(failed(of(task)), vec![]),
                attempt(completed(of(task)), vec![]),
                attempt(of(task), vec![]),
            ] {
                assert_eq!(of_attempt(&other, &store(), at(600)), None, "{task}");
            }
        }
        assert_eq!(of_attempt(&attempt(failed(of("probe")), told("StoreRefused")), &store(), at(600)), None);
        assert_eq!(of_attempt(&attempt(failed(of("backup")), told("StoreRefused")), &store(), at(600)), None);
    }
}
