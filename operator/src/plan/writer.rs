//! Which controllers begin runs of a policy, as it remembers them ([`Writers`] tells one from another's). Pure.

use holdfast_crds::{BackupPolicy, BackupPolicyStatus, WriterStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::names::ACCEPT_WRITERS_ANNOTATION;
use super::observed::ObservedPod;
use super::policy::ObservedPolicy;
use crate::task::{Writer, Writers};

/// At most this many IDs are remembered, the newest.
const REMEMBERED: usize = 16;

/// What the retention of a policy is told.
pub fn writers(leader: Option<&Writer>, policy: &BackupPolicy) -> Option<Writers> {
    let of = |w: &WriterStatus| Writer { id: w.id.clone(), since: w.since.0 };
    Some(Writers {
        leader: leader?.clone(),
        before: policy.status.iter().flat_map(|s| &s.writers).map(of).collect(),
        others: policy.status.iter().flat_map(|s| &s.other_writers).map(|w| w.id.clone()).collect(),
        accepted: accepted(policy),
    })
}

/// IDs of writers that somebody has said are gone for good.
fn accepted(policy: &BackupPolicy) -> Vec<String> {
    let annotation = policy.metadata.annotations.as_ref().and_then(|a| a.get(ACCEPT_WRITERS_ANNOTATION));
    annotation.into_iter().flat_map(|text| text.split(',')).map(|id| id.trim().to_owned()).collect()
}

/// Remembers who leads, once it has begun a run of the policy, and which others its retention has found.
pub fn remember(
    status: &mut BackupPolicyStatus,
    leader: Option<&Writer>,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
) {
    let Some(leader) = leader else { return };
    let began = |b: &holdfast_crds::Backup| {
        let start = b.status.as_ref().and_then(|s| s.start_time.as_ref());
        !super::found::is_found(b) && start.is_some_and(|start| start.0 >= leader.since)
    };
    if !status.writers.iter().any(|w| w.id == leader.id) && observed.backups.iter().any(|b| began(b)) {
        status.writers.push(WriterStatus { id: leader.id.clone(), since: Time(leader.since) });
        let forgotten = status.writers.len().saturating_sub(REMEMBERED);
        status.writers.drain(..forgotten);
    }
    let retained = observed.retains.iter().flat_map(|a| &a.pods).filter_map(ObservedPod::retained);
    for other in retained.flat_map(|retained| retained.other_writers) {
        if !status.other_writers.iter().any(|w| w.id == other.id) {
            status.other_writers.push(WriterStatus { id: other.id, since: Time(other.since) });
        }
    }
    let accepted = accepted(policy);
    status.other_writers.retain(|w| !accepted.contains(&w.id));
    let forgotten = status.other_writers.len().saturating_sub(REMEMBERED);
    status.other_writers.drain(..forgotten);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::plan::fixture::{at, attempt, backup_with, ended_pod, failed, job, policy};
    use crate::task::{Outcome, Report, RetainReport};

    fn writer(id: &str, since: i64) -> Writer {
        Writer { id: id.into(), since: at(since) }
    }

    #[test]
    fn a_policy_remembers_who_led_and_whom_its_retention_found() {
        let leader = writer("a1", 100);
        let status = holdfast_crds::BackupStatus { start_time: Some(Time(at(150))), ..Default::default() };
        let report = RetainReport { other_writers: vec![writer("b1", 500)], ..RetainReport::default() };
        let report = Report {
            reason: holdfast_crds::Reason::AnotherWriter,
            message: String::new(),
            outcome: Some(Outcome::Retain(report)),
        };
        let retain = attempt(failed(job("r")), vec![ended_pod("p", 21, &report.to_termination_message())]);
        let observed = |backups: Vec<holdfast_crds::Backup>, retains| ObservedPolicy {
            backups: backups.into_iter().map(Arc::new).collect(),
            retains,
            ..ObservedPolicy::default()
        };
        let mut policy = policy();
        let look = |policy: &BackupPolicy, observed: &ObservedPolicy| {
            let mut status = policy.status.clone().unwrap_or_default();
            remember(&mut status, Some(&leader), policy, observed);
            status
        };
        assert_eq!(look(&policy, &observed(vec![], vec![])).writers, [], "it has begun nothing");
        let began = vec![backup_with("one", 150, status)];
        let told = look(&policy, &observed(began.clone(), vec![retain]));
        assert_eq!(told.writers.iter().map(|w| w.id.as_str()).collect::<Vec<_>>(), ["a1"]);
        assert_eq!(told.other_writers.iter().map(|w| w.id.as_str()).collect::<Vec<_>>(), ["b1"]);
        policy.status = Some(told.clone());
        assert_eq!(look(&policy, &observed(began.clone(), vec![])), told, "once, and for good");
        let accept = BTreeMap::from([(ACCEPT_WRITERS_ANNOTATION.to_owned(), "x, b1".to_owned())]);
        policy.metadata.annotations = Some(accept);
        assert_eq!(look(&policy, &observed(began, vec![])).other_writers, []);
        let told = writers(Some(&leader), &policy).unwrap();
        assert_eq!((told.accepted, told.before.len()), (vec!["x".to_owned(), "b1".to_owned()], 1));
    }
}
