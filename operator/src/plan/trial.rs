//! Jobs that the API server is asked about before one is due: it refuses what no schema sees. None of them is ever made. Pure.

use holdfast_crds::{Backup, BackupPolicy, BackupSpec, BackupStore, DeletionPolicy, LocalRef, Reason};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::job::{self, Ground, Install, Run};
use super::status::after;
use crate::task::Failure;

/// What was refused, or got no answer, is asked about again after this many seconds: who refused it may have changed his mind.
pub const AGAIN_SECONDS: i64 = 60;

/// What the answer depends on: the specs that the Jobs are made of. As long as it stays the same, so does the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    policy: (Option<String>, Option<i64>),
    store: (Option<String>, Option<i64>),
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    question: Question,
    at: Timestamp,
    /// Whether it holds as long as the specs do.
    lasts: bool,
    /// Why the Jobs are refused, if they are.
    pub refused: Option<Failure>,
}

impl Question {
    /// Of a policy and its store.
    pub fn of(policy: &BackupPolicy, store: &BackupStore) -> Self {
        let version = |meta: &ObjectMeta| (meta.uid.clone(), meta.generation);
        Self { policy: version(&policy.metadata), store: version(&store.metadata) }
    }

    /// Its answer.
    pub fn answered(self, refused: Option<Failure>, at: Timestamp) -> Answer {
        Answer { question: self, at, lasts: refused.is_none(), refused }
    }

    /// It could not be found out: a run finds it out as well.
    pub fn unanswered(self, at: Timestamp) -> Answer {
        Answer { question: self, at, lasts: false, refused: None }
    }
}

impl Answer {
    /// Whether it is the answer to this question still.
    pub fn answers(&self, question: &Question, now: Timestamp) -> bool {
        self.question == *question && (self.lasts || now < after(self.at, AGAIN_SECONDS))
    }
}

/// The Jobs that a run of the policy would make, by source.
pub fn jobs(install: &Install, policy: &BackupPolicy, store: &BackupStore) -> Vec<(String, Job)> {
    let backup = Backup {
        metadata: ObjectMeta {
            name: policy.metadata.name.clone(),
            namespace: policy.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            policy_ref: LocalRef { name: policy.metadata.name.clone().unwrap_or_default() },
            sources: None,
            deletion_policy: DeletionPolicy::Retain,
        },
        status: None,
    };
    let names: Vec<String> = policy.spec.sources.iter().map(|source| source.name.clone()).collect();
    let run = Run {
        backup: &backup,
        policy,
        store,
        run_id: "19700101T000000Z-000000",
        slot: Timestamp::UNIX_EPOCH,
        begun: Timestamp::UNIX_EPOCH,
        sources: &names,
    };
    let sources = policy.spec.sources.iter();
    sources
        .map(|source| (source.name.clone(), never_made(job::backup(install, run, source, &Ground::default()))))
        .collect()
}

/// A Job that stands for nothing: it has nobody's name and no owner.
fn never_made(mut job: Job) -> Job {
    job.metadata.name = None;
    job.metadata.generate_name = Some("holdfast-never-run-".to_owned());
    job.metadata.owner_references = None;
    if let Some(spec) = job.spec.as_mut() {
        spec.suspend = Some(true);
    }
    job
}

/// What the API server said of a Job that it was asked about, if that is a refusal of the Job itself. `code`: that of HTTP.
pub fn refusal(source: &str, code: u16, words: &str) -> Option<Failure> {
    // What is used up may be free when a run is due, and some webhooks cannot be asked without being told to act.
    let passes = words.contains("exceeded quota") || words.contains("does not support dry run");
    (matches!(code, 400 | 403 | 422) && !passes).then(|| {
        Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "the API server refuses the Job of source {source}: {words}: see spec.jobTemplate of the policy and of its store, and the chart's workers.jobTemplate"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use holdfast_crds::JobTemplate;

    use super::*;
    use crate::plan::fixture::{at, install, policy, ready_store, source};

    #[test]
    fn a_job_of_each_source_is_asked_about_with_the_policys_template_and_nobodys_name() {
        let mut policy = policy();
        policy.spec.sources.push(source("reports"));
        policy.spec.job_template =
            Some(JobTemplate { labels: [("a b".to_owned(), "c".to_owned())].into(), ..JobTemplate::default() });
        let jobs = jobs(&install(), &policy, &ready_store());
        assert_eq!(jobs.iter().map(|(source, _)| source.as_str()).collect::<Vec<_>>(), ["db", "reports"]);
        for (_, job) in jobs {
            assert_eq!((job.metadata.name, job.metadata.owner_references), (None, None));
            assert_eq!(job.metadata.namespace.as_deref(), Some("shop"));
            assert_eq!(job.metadata.labels.unwrap()["a b"], "c");
            assert_eq!(job.spec.unwrap().suspend, Some(true));
        }
    }

    #[test]
    fn an_answer_lasts_as_long_as_the_specs_do_and_a_refusal_for_a_minute() {
        let (policy, store) = (policy(), ready_store());
        let question = Question::of(&policy, &store);
        let taken = question.clone().answered(None, at(100));
        let refused = question.clone().answered(refusal("db", 422, "no"), at(100));
        assert!(taken.answers(&question, at(1_000_000)));
        for passing in [refused, question.clone().unanswered(at(100))] {
            assert!(passing.answers(&question, at(159)) && !passing.answers(&question, at(160)), "{passing:?}");
        }
        for change in ["policy", "store"] {
            let (mut policy, mut store) = (policy.clone(), store.clone());
            let meta = if change == "policy" { &mut policy.metadata } else { &mut store.metadata };
            meta.generation = Some(2);
            assert!(!taken.answers(&Question::of(&policy, &store), at(101)), "{change}");
        }
    }

    #[test]
    fn only_what_is_said_of_the_job_itself_is_a_refusal() {
        let invalid = r#"Job.batch "x" is invalid: spec.template.labels: Invalid value: "a b""#;
        let failure = refusal("db", 422, invalid).unwrap();
        assert!(failure.message.contains("source db") && failure.message.contains(invalid), "{failure}");
        assert!(refusal("db", 400, "quantities must match").is_some());
        assert!(refusal("db", 403, "ValidatingAdmissionPolicy 'x' denied request").is_some());
        for (code, words) in [
            (403, "exceeded quota: q, requested: count/jobs.batch=1, used: 5, limited: 5"),
            (400, "admission webhook \"w\" does not support dry run"),
            (409, "already exists"),
            (429, "too many requests"),
            (500, "internal error"),
        ] {
            assert_eq!(refusal("db", code, words), None, "{code} {words}");
        }
    }
}
