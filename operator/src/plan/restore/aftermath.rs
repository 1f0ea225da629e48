//! What is said of the target of a restore that was cut off: the worker is gone, so what its engine does says in what state that may be. Pure.

use std::collections::BTreeSet;

use holdfast_crds::{RestoreRequest, RestoreRequestStatus};

use super::settle::is_cut_off;
use crate::plan::observed::ObservedJob;
use crate::task::{Failure, Outcome, Report};

/// The failure of a restore, with what became of its target where the worker could not tell.
pub(super) fn told(
    request: &RestoreRequest,
    status: &RestoreRequestStatus,
    job: &ObservedJob,
    failure: Failure,
    report: Option<&Report>,
) -> Failure {
    if request.spec.dry_run {
        return failure;
    }
    if failure.reason.is_never_started() {
        return Failure::new(failure.reason, format!("{}; nothing was touched", failure.message));
    }
    let knows =
        matches!(report.and_then(|r| r.outcome.as_ref()), Some(Outcome::Restore(done)) if !done.sources.is_empty());
    if !is_cut_off(failure.reason) || knows || job.sources.is_empty() {
        return failure;
    }
    let engines: BTreeSet<&str> = job.sources.iter().map(|(_, engine)| engine.as_str()).collect();
    let left = engines.into_iter().map(|engine| {
        let of_it = job.sources.iter().filter(|(_, e)| e == engine).map(|(source, _)| source.as_str());
        format!("{}: {}", of_it.collect::<Vec<_>>().join(", "), state(engine))
    });
    let order = if job.sources.len() > 1 { " (one source after the other)" } else { "" };
    let saved =
        status.safety_backup.as_ref().map(|b| format!("; Backup {b} has what was there before")).unwrap_or_default();
    let left: Vec<String> = left.collect();
    let message = format!(
        "{}. Look at the target, then restore with another RestoreRequest, which clears away what this one left{saved}. What the target may look \
         like{order}: {}",
        failure.message,
        left.join("; ")
    );
    Failure::new(failure.reason, message)
}

/// In what state a target of an engine may be after a restore into it was cut off.
fn state(engine: &str) -> &'static str {
    match engine {
        "postgres" => {
            "a database that is made or replaced is filled beside its place as …_holdfast_… and swapped in by renaming at the end, so until then the \
             old one is untouched; an empty one is filled in one transaction, and is empty again"
        }
        "mongodb" => {
            "collections are filled beside their places as holdfast_restore_… and renamed at the end one by one, so they are the old ones, or, if it \
             was cut off while renaming, some old and some new; a time-series collection may be missing"
        }
        "redis" => {
            "by replication it keeps its data until it has the whole backup, but may still be a replica that refuses writes (redis-cli REPLICAOF NO \
             ONE); key by key it is partly written, and was emptied first where that was asked for"
        }
        "volume" | "config" => {
            "files are written beside their places in .holdfast-restore-… and swapped in at the end, so until then what was there is untouched; a \
             swap that was cut off is undone by the next restore, and before workloads of scaleDown come back"
        }
        _ => "it may be partly written",
    }
}

#[cfg(test)]
mod tests {
    use holdfast_crds::{OnExisting, Reason, RestoreFrom, RestoreRequestSpec};

    use super::*;
    use crate::plan::fixture::{job, meta};
    use crate::task::{RestoreReport, RestoredSource};

    fn request(dry_run: bool) -> RestoreRequest {
        RestoreRequest {
            metadata: meta("undo", "rr-uid", 0),
            spec: RestoreRequestSpec {
                from: RestoreFrom::default(),
                sources: None,
                into: vec![],
                on_existing: OnExisting::Replace,
                dry_run,
                timeout_seconds: 600,
                safety_backup: None,
                scale_down: vec![],
                job_template: None,
            },
            status: None,
        }
    }

    fn of(sources: &[(&str, &str)]) -> ObservedJob {
        let sources = sources.iter().map(|(s, e)| ((*s).to_owned(), (*e).to_owned())).collect();
        ObservedJob { sources, ..job("undo-restore") }
    }

    fn told_of(sources: &[(&str, &str)], reason: Reason, report: Option<&Report>) -> String {
        let status =
            RestoreRequestStatus { safety_backup: Some("undo-safety".into()), ..RestoreRequestStatus::default() };
        let failure = Failure::new(reason, "Pod p was lost: Evicted: the node was low on memory");
        told(&request(false), &status, &of(sources), failure, report).message
    }

    #[test]
    fn a_restore_that_was_cut_off_says_what_its_target_may_look_like_and_what_to_do() {
        let table = [
            ("postgres", "…_holdfast_…"),
            ("mongodb", "holdfast_restore_…"),
            ("redis", "REPLICAOF NO ONE"),
            ("volume", ".holdfast-restore-…"),
            ("config", ".holdfast-restore-…"),
            ("of-tomorrow", "partly written"),
        ];
        for (engine, state) in table {
            for reason in [Reason::PodLost, Reason::OOMKilled, Reason::DeadlineExceeded, Reason::Stalled] {
                let message = told_of(&[("db", engine)], reason, None);
                let words = ["Pod p was lost: Evicted", "db: ", state, "Backup undo-safety", "another RestoreRequest"];
                assert!(words.iter().all(|w| message.contains(w)), "{message}");
                assert!(message.len() < 1000, "it is cut at 1 KiB: {message}");
            }
        }
        let several = told_of(&[("db", "postgres"), ("uploads", "volume")], Reason::PodLost, None);
        assert!(several.contains("one source after the other") && several.contains("uploads: "), "{several}");
    }

    #[test]
    fn who_knows_better_or_touched_nothing_says_so() {
        let source = RestoredSource {
            source: "db".into(),
            reason: Reason::RestoreFailed,
            items: 0,
            restored_bytes: 0,
            message: "its words".into(),
        };
        let outcome = Outcome::Restore(RestoreReport { run_id: "r".into(), sources: vec![source] });
        let report = Report { reason: Reason::Stalled, message: String::new(), outcome: Some(outcome) };
        assert!(!told_of(&[("db", "postgres")], Reason::Stalled, Some(&report)).contains("may look like"));
        assert!(!told_of(&[("db", "postgres")], Reason::SourceRefused, None).contains("may look like"));
        assert!(told_of(&[("db", "redis")], Reason::PodUnschedulable, None).ends_with("nothing was touched"));
        let status = RestoreRequestStatus::default();
        let dry = told(&request(true), &status, &of(&[("db", "redis")]), Failure::new(Reason::PodLost, "lost"), None);
        assert_eq!(dry.message, "lost");
    }
}
