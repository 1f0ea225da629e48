//! Names and labels of everything the controller makes: functions of the parent alone, valid, and different for different parents. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// Label of everything the controller makes; its watches select by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "holdfast";
/// Label with the name of the program in a Pod.
pub const APP_LABEL: &str = "app.kubernetes.io/name";
/// Value of [`APP_LABEL`] of Jobs and their Pods.
pub const WORKER_APP: &str = "holdfast-worker";
/// Label with the policy.
pub const POLICY_LABEL: &str = "holdfast.dev/policy";
/// Label with the Backup.
pub const BACKUP_LABEL: &str = "holdfast.dev/backup";
/// Label with the RestoreRequest.
pub const RESTORE_LABEL: &str = "holdfast.dev/restore";
/// Label with the store.
pub const STORE_LABEL: &str = "holdfast.dev/store";
/// Label with the source.
pub const SOURCE_LABEL: &str = "holdfast.dev/source";
/// Label with what a Job does.
pub const TASK_LABEL: &str = "holdfast.dev/task";
/// Label of Backups that the schedule made.
pub const SCHEDULED_LABEL: &str = "holdfast.dev/scheduled";
/// Label of Backups that were made before a restore replaced what they hold: the RestoreRequest.
pub const SAFETY_LABEL: &str = "holdfast.dev/safety-for";
/// Annotation with the slot of a Backup that the schedule made, RFC 3339.
pub const SLOT_ANNOTATION: &str = "holdfast.dev/slot";
/// Label of Backups that were found in the bucket.
pub const FOUND_LABEL: &str = "holdfast.dev/found";
/// Annotation of a Backup that was found in the bucket: what its status says, as JSON.
pub const FOUND_ANNOTATION: &str = "holdfast.dev/found";
/// Label with the UID of the cluster that made a Backup, where that is another one.
pub const CLUSTER_LABEL: &str = "holdfast.dev/cluster";
/// Annotation of a Backup that somebody has looked at and found right, however small: `true`.
pub const ACCEPTED_ANNOTATION: &str = "holdfast.dev/accepted";
/// Annotation of a Backup that is to be verified once more: any text that it did not say the last time, such as the time.
pub const VERIFY_ANNOTATION: &str = "holdfast.dev/verify";
/// Annotation of a Job: how many seconds its Pods may take to start. An edit of the policy changes nothing of a Job that is under way.
pub const START_DEADLINE_ANNOTATION: &str = "holdfast.dev/start-deadline-seconds";
/// Annotation of a Job that saves or restores: its sources with their engines, such as `db=postgres,uploads=volume`.
pub const SOURCES_ANNOTATION: &str = "holdfast.dev/sources";
/// Name of the worker's container. Other containers of a Pod are not ours: a mesh's proxy, an agent.
pub const WORKER_CONTAINER: &str = "worker";
/// Annotation of a Backup that makes up for one that failed because its store was down, or that never started: the name of that one.
pub const CATCH_UP_ANNOTATION: &str = "holdfast.dev/catch-up-of";
/// Annotation of a policy: IDs of writers, separated by commas, that are gone for good and whose runs are the policy's.
pub const ACCEPT_WRITERS_ANNOTATION: &str = "holdfast.dev/accept-writers";
/// Finalizer that keeps a Backup until its data is deleted.
pub const FINALIZER: &str = "holdfast.dev/delete-data";

/// Finalizer that keeps a RestoreRequest until the workloads it has stopped are brought back.
pub const SCALE_FINALIZER: &str = "holdfast.dev/scale-up";

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// Pods of a Job are named after it with eleven characters more, and their names end up in host names.
const MAX_JOB_NAME: usize = 52;

/// The folder of a run in the bucket: sorts by time, and is different for each Backup object.
pub fn run_id(slot: Timestamp, backup_uid: &str) -> String {
    format!("{}-{}", in_utc(slot, "%Y%m%dT%H%M%SZ"), hash(&[backup_uid], 6))
}

/// The name of the Backup of a slot.
pub fn scheduled_backup_name(policy: &str, slot: Timestamp) -> String {
    let suffix = in_utc(slot, "-%Y%m%d-%H%M%S");
    let room = MAX_NAME - suffix.len();
    if policy.len() <= room {
        return format!("{policy}{suffix}");
    }
    format!("{}-{}{suffix}", cut(policy, room - 11), hash(&[policy], 10))
}

/// The name of the Backup of a run that was found in the bucket: never that of a slot's Backup, which has no hash.
pub fn found_backup_name(policy: &str, slot: Timestamp, run_id: &str) -> String {
    format!("{}-{}", scheduled_backup_name(cut(policy, MAX_NAME - 40), slot), hash(&[policy, run_id], 8))
}

/// What a Job does to one thing of several: `what` and a hash of that thing.
pub fn what_to(what: &str, thing: &str) -> String {
    format!("{what}-{}", hash(&[thing], 8))
}

/// The name of the Job that does `what` for an object.
pub fn job_name(parent: &str, parent_uid: &str, what: &str) -> String {
    let hash = hash(&[parent_uid, what], 10);
    let what = cut(what, 20).replace(['.', '/'], "-");
    let parent = cut(parent, MAX_JOB_NAME - hash.len() - what.len() - 2).replace('.', "-");
    format!("{}-{what}-{hash}", parent.trim_end_matches('-'))
}

/// A name as the value of a label: itself where it can be, else shortened, with a hash.
pub fn label_value(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    if name.len() <= MAX_LABEL && name.chars().all(safe) && ends(name.chars().next()) && ends(name.chars().last()) {
        return name.to_owned();
    }
    let cleaned: String = name.chars().map(|c| if safe(c) { c } else { '-' }).collect();
    let kept = cut(&cleaned, MAX_LABEL - 11).trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let hash = hash(&[name], 10);
    if kept.is_empty() { hash } else { format!("{kept}-{hash}") }
}

fn in_utc(at: Timestamp, format: &str) -> String {
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// The first `length` hex digits of the SHA-256 of the parts, which cannot run into each other.
fn hash(parts: &[&str], length: usize) -> String {
    let digest = Sha256::digest(parts.join("\n"));
    let mut text = String::with_capacity(64);
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    text.truncate(length);
    text
}

/// At most `length` bytes of an ASCII text, without separators at its end.
fn cut(text: &str, length: usize) -> &str {
    let end = (0..=length.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text[..end].trim_end_matches(['-', '.', '_'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_dns_label(text: &str) -> bool {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        text.chars().all(inner) && end(text.chars().next()) && end(text.chars().last())
    }

    fn is_dns_subdomain(text: &str) -> bool {
        text.len() <= 253 && text.split('.').all(is_dns_label)
    }

    fn is_label_value(text: &str) -> bool {
        let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= 63
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && end(text.chars().next())
            && end(text.chars().last())
    }

    /// Names as the API server takes them: 1 to 253 characters, also such as `a.b-c` and long ones that differ at the end only.
    fn names() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9]{1,3}(\\.[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){0,8}",
            "[a-z0-9][a-z0-9-]{0,61}[a-z0-9]",
            "[a-z]{1,4}".prop_map(|end| format!("{}{end}", "x".repeat(253 - end.len()))),
            "[a-z]{1,4}".prop_map(|end| format!("{}.{end}", "a-b.".repeat(62) + &"c".repeat(4 - end.len()))),
        ]
        .prop_filter("valid", |name| is_dns_subdomain(name))
    }

    proptest! {
        #[test]
        fn job_names_are_valid_and_short(parent in names(), uid in "[0-9a-f-]{36}", what in "[a-z][a-z0-9-]{0,39}[a-z0-9]") {
            let name = job_name(&parent, &uid, &what);
            prop_assert!(is_dns_label(&name) && name.len() <= 52, "{name}");
        }

        #[test]
        fn job_names_differ_where_parents_or_tasks_do(
            parent in names(), one in "[0-9a-f-]{36}", other in "[0-9a-f-]{36}", a in "[a-z]{1,30}", b in "[a-z]{1,30}",
        ) {
            prop_assume!((&one, &a) != (&other, &b));
            prop_assert_ne!(job_name(&parent, &one, &a), job_name(&parent, &other, &b));
        }

        #[test]
        fn scheduled_names_are_valid_and_differ(a in names(), b in names(), at in 0i64..4_000_000_000, later in 0i64..1000) {
            let (t, u) = (Timestamp::from_second(at).unwrap(), Timestamp::from_second(at + later).unwrap());
            let (x, y) = (scheduled_backup_name(&a, t), scheduled_backup_name(&b, u));
            prop_assert!(is_dns_subdomain(&x), "{x}");
            prop_assert_eq!(x == y, a == b && t == u);
        }

        #[test]
        fn names_of_found_backups_are_valid_and_differ(
            a in names(), b in names(), at in 0i64..4_000_000_000, x in "[0-9a-f]{6}", y in "[0-9a-f]{6}",
        ) {
            let slot = Timestamp::from_second(at).unwrap();
            let (one, other) = (found_backup_name(&a, slot, &x), found_backup_name(&b, slot, &y));
            prop_assert!(is_dns_subdomain(&one), "{one}");
            prop_assert_eq!(one == other, a == b && x == y);
            prop_assert_ne!(one, scheduled_backup_name(&b, slot));
        }

        #[test]
        fn label_values_are_valid_and_differ(a in names(), b in names()) {
            prop_assert!(is_label_value(&label_value(&a)), "{}", label_value(&a));
            prop_assert_eq!(label_value(&a) == label_value(&b), a == b);
        }

        #[test]
        fn any_text_makes_a_valid_label(text in "\\PC{1,300}") {
            prop_assert!(is_label_value(&label_value(&text)), "{}", label_value(&text));
        }

        #[test]
        fn run_ids_sort_by_time_and_differ_by_backup(at in 0i64..4_000_000_000, later in 1i64..1_000_000, a in "[0-9a-f-]{36}", b in "[0-9a-f-]{36}") {
            let (t, u) = (Timestamp::from_second(at).unwrap(), Timestamp::from_second(at + later).unwrap());
            prop_assert!(run_id(t, &a) < run_id(u, &b));
        }
    }

    #[test]
    fn names_are_what_the_documents_say() {
        let slot: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        assert_eq!(scheduled_backup_name("shop", slot), "shop-20261121-020000");
        let id = run_id(slot, "7f1f1a0c-0000-4000-8000-000000000000");
        assert!(id.starts_with("20261121T020000Z-") && id.len() == 23, "{id}");
        assert_eq!(label_value("shop"), "shop");
        assert!(job_name("shop-20261121-020000", "u", "db").starts_with("shop-20261121-020000-db-"));
    }
}
