//! Keys of objects: `<prefix>/<namespace>/<policy>/<runId>/<source>/<artifact>`. Pure.
//!
//! Namespaces, policies and sources are Kubernetes names and run IDs are ours, so none of them holds a slash or is `.` or `..`: a key
//! never leaves the folder it was made for. docs/bucket.md tells it to users.

use holdfast_crds::S3Spec;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::task::Scope;

/// The object that makes a source of a run count.
pub const MANIFEST: &str = "manifest.json";

/// A policy's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFolder(String);

/// A run's folder in its policy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder(String);

/// A source's folder in its run's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFolder(String);

impl PolicyFolder {
    /// Where the policy's backups are in this bucket.
    pub fn new(s3: &S3Spec, scope: &Scope) -> Self {
        Self(below(s3, &format!("{}/{}/", scope.namespace, scope.policy)))
    }

    /// What the keys of all its objects begin with; it ends with a slash.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// What the folders of all runs of an instant begin with.
    pub fn slot_prefix(&self, slot: Timestamp) -> String {
        format!("{}{}-", self.0, slot.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ"))
    }

    /// The folder of one of its runs.
    pub fn run(&self, run_id: &str) -> RunFolder {
        RunFolder(format!("{}{run_id}/", self.0))
    }

    /// Run and source that the key is the manifest of, if it is one of this policy.
    pub fn manifest_of<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let mut names = key.strip_prefix(&self.0)?.split('/');
        let (run_id, source, file) = (names.next()?, names.next()?, names.next()?);
        let is_one = names.next().is_none() && file == MANIFEST && !source.is_empty() && slot_of_run(run_id).is_some();
        is_one.then_some((run_id, source))
    }
}

impl PolicyFolder {
    /// Run and source that the key is an artifact of, if it has a name that [`SourceFolder::artifact`] gives.
    pub fn artifact_of<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let mut names = key.strip_prefix(&self.0)?.split('/');
        let (run_id, source, file) = (names.next()?, names.next()?, names.next()?);
        let is_one = names.next().is_none() && !source.is_empty() && slot_of_run(run_id).is_some() && has_attempt(file);
        is_one.then_some((run_id, source))
    }
}

impl RunFolder {
    /// What the keys of all its objects begin with; it ends with a slash.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// The folder of one of its sources.
    pub fn source(&self, name: &str) -> SourceFolder {
        SourceFolder(format!("{}{name}/", self.0))
    }
}

impl SourceFolder {
    /// What the keys of all its objects begin with; it ends with a slash.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// Key of its manifest.
    pub fn manifest(&self) -> String {
        format!("{}{MANIFEST}", self.0)
    }

    /// Key of the artifact `name` (`shop.pgdump`) as this attempt stores it: `shop-3f9a1c.pgdump.zst`, encrypted `….zst.age`. No two names and no two attempts
    /// share a key.
    pub fn artifact(&self, name: &str, attempt: &str, level: i32, encrypted: bool) -> String {
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, "bin"));
        let compressed = if level == 0 { "" } else { ".zst" };
        let encrypted = if encrypted { ".age" } else { "" };
        format!("{}{}-{attempt}.{}{compressed}{encrypted}", self.0, encode(stem), encode(ending))
    }
}

/// Folder of everything in the bucket that is ours; empty where the store has no prefix.
pub fn root_folder(s3: &S3Spec) -> String {
    below(s3, "")
}

/// Folder of a namespace's policies.
pub fn namespace_folder(s3: &S3Spec, namespace: &str) -> String {
    below(s3, &format!("{namespace}/"))
}

/// Folder of the canary objects that prove a store.
pub fn canary_folder(s3: &S3Spec) -> String {
    below(s3, ".holdfast/")
}

/// Key of the canary object of a store that nothing is deleted from: one, however often the store is probed.
pub fn lasting_canary(s3: &S3Spec, namespace: &str, store: &str) -> String {
    format!("{}canary-{namespace}-{store}", canary_folder(s3))
}

/// Key of one probe's canary object.
pub fn canary(s3: &S3Spec, attempt: &str) -> String {
    format!("{}canary-{attempt}", canary_folder(s3))
}

/// What the keys of all objects begin with that say that a RestoreRequest is carried out. No policy's name begins with a dot, so the folder
/// is none of a policy's.
pub fn restore_markers(s3: &S3Spec, namespace: &str, request_uid: &str) -> String {
    below(s3, &format!("{namespace}/.restores/{}.", encode(request_uid)))
}

/// Key of what one attempt says of it: no two share one.
pub fn restore_marker(s3: &S3Spec, namespace: &str, request_uid: &str, attempt: &str) -> String {
    format!("{}{}.json", restore_markers(s3, namespace, request_uid), encode(attempt))
}

/// The instant that a run ID (`20261121T020000Z-3f9a1c`) stands for; none where it is not one.
pub fn slot_of_run(run_id: &str) -> Option<Timestamp> {
    let (time, hash) = run_id.split_once('-')?;
    let is_hash = hash.len() == 6 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hash || time.len() != 16 {
        return None;
    }
    let local = DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// Whether a file's name is `<stem>-<attempt>.<endings>`.
fn has_attempt(file: &str) -> bool {
    let is_hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    file.match_indices('-').any(|(at, _)| {
        let rest = &file.as_bytes()[at + 1..];
        rest.len() > 7 && rest[..6].iter().all(is_hex) && rest[6] == b'.'
    })
}

fn below(s3: &S3Spec, path: &str) -> String {
    match s3.prefix() {
        "" => path.to_owned(),
        prefix => format!("{prefix}/{path}"),
    }
}

/// Percent-encodes what is not a letter, a digit or one of `._-`, so that any database name makes a plain key.
pub(super) fn encode(name: &str) -> String {
    use std::fmt::Write as _;
    name.bytes().fold(String::with_capacity(name.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folder(prefix: &str) -> PolicyFolder {
        let s3 = S3Spec { bucket: "b".into(), prefix: Some(prefix.into()), ..S3Spec::default() };
        let scope =
            Scope { cluster_uid: "c".into(), namespace: "shop".into(), policy: "daily".into(), policy_uid: "p".into() };
        PolicyFolder::new(&s3, &scope)
    }

    #[test]
    fn keys_are_those_of_the_documentation() {
        let source = folder("prod").run("20261121T020000Z-3f9a1c").source("db");
        assert_eq!(source.manifest(), "prod/shop/daily/20261121T020000Z-3f9a1c/db/manifest.json");
        assert_eq!(
            source.artifact("shop.pgdump", "4be1c2", 3, false),
            "prod/shop/daily/20261121T020000Z-3f9a1c/db/shop-4be1c2.pgdump.zst"
        );
        assert!(source.artifact("shop.pgdump", "4be1c2", 3, true).ends_with("/shop-4be1c2.pgdump.zst.age"));
        assert!(source.artifact("shop.sql", "4be1c2", 0, false).ends_with("/shop-4be1c2.sql"));
        assert_eq!(folder("").prefix(), "shop/daily/");
        let s3 = S3Spec { prefix: Some("prod".into()), ..S3Spec::default() };
        assert_eq!(restore_marker(&s3, "shop", "7f1f-1a0c", "5b2e90"), "prod/shop/.restores/7f1f-1a0c.5b2e90.json");
        // What older versions wrote has the same beginning: `7f1f-1a0c.json`.
        assert_eq!(restore_markers(&s3, "shop", "7f1f-1a0c"), "prod/shop/.restores/7f1f-1a0c.");
        assert_eq!(restore_marker(&s3, "shop", "../x", "a"), "prod/shop/.restores/..%2Fx.a.json");
    }

    #[test]
    fn only_a_manifest_of_this_policy_is_one() {
        let folder = folder("prod");
        let of = |key: &str| folder.manifest_of(key).map(|(run, source)| format!("{run} {source}"));
        let key = "prod/shop/daily/20261121T020000Z-3f9a1c/db/manifest.json";
        assert_eq!(of(key).as_deref(), Some("20261121T020000Z-3f9a1c db"));
        for other in [
            "prod/shop/daily2/20261121T020000Z-3f9a1c/db/manifest.json",
            "other/prod/shop/daily/20261121T020000Z-3f9a1c/db/manifest.json",
            "prod/shop/daily/20261121T020000Z-3f9a1c/manifest.json",
            "prod/shop/daily/20261121T020000Z-3f9a1c/db/x/manifest.json",
            "prod/shop/daily/20261121T020000Z-3f9a1c/db/manifest.json.bak",
            "prod/shop/daily/20261121T020000Z-3F9A1C/db/manifest.json",
            "prod/shop/daily/latest/db/manifest.json",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn what_people_put_beside_them_is_no_artifact() {
        let folder = folder("prod");
        for file in [
            "manifest.json",
            "notes.txt",
            "by-hand.txt",
            "shop-3f9a1.pgdump",
            "shop-3F9A1C.pgdump",
            "shop-3f9a1c",
            "a/b-3f9a1c.tar",
        ] {
            assert_eq!(
                folder.artifact_of(&format!("prod/shop/daily/20261121T020000Z-3f9a1c/db/{file}")),
                None,
                "{file}"
            );
        }
        assert_eq!(folder.artifact_of("prod/shop/daily/20261121T020000Z-3f9a1c/shop-3f9a1c.pgdump"), None);
        assert_eq!(folder.artifact_of("prod/shop/daily2/20261121T020000Z-3f9a1c/db/shop-3f9a1c.pgdump"), None);
    }

    #[test]
    fn a_run_id_tells_its_slot() {
        assert_eq!(slot_of_run("20261121T020000Z-3f9a1c"), "2026-11-21T02:00:00Z".parse().ok());
        for other in
            ["20261321T020000Z-3f9a1c", "20261121T020000Z", "20261121T020000Z-3f9a1", "", "../20261121T020000Z-3f9a1c"]
        {
            assert_eq!(slot_of_run(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_two_artifacts_have_two_keys_in_the_folder(a in ".{0,63}", b in ".{0,63}", x in "[0-9a-f]{6}", y in "[0-9a-f]{6}") {
            let source = folder("prod").run("20261121T020000Z-3f9a1c").source("db");
            let (first, second) = (source.artifact(&format!("{a}.pgdump"), &x, 3, false), source.artifact(&format!("{b}.pgdump"), &y, 3, false));
            prop_assert_eq!(first == second, a == b && x == y);
            let rest = first.strip_prefix(source.prefix()).unwrap();
            prop_assert!(!rest.contains('/') && rest != MANIFEST && !rest.is_empty());
            prop_assert!(rest.bytes().all(|c| c.is_ascii_graphic()));
            prop_assert_eq!(folder("prod").artifact_of(&first), Some(("20261121T020000Z-3f9a1c", "db")));
            prop_assert_eq!(folder("prod").manifest_of(&first), None);
        }

        #[test]
        fn no_text_makes_the_reader_of_keys_panic(key in ".*") {
            let s3 = S3Spec { prefix: Some("prod".into()), ..S3Spec::default() };
            let marker = restore_marker(&s3, "shop", &key, "abc123");
            prop_assert_eq!(folder("prod").manifest_of(&marker), None);
            let _ = (folder("prod").manifest_of(&key), folder("prod").artifact_of(&key), slot_of_run(&key));
            let _ = folder("prod").artifact_of(&format!("prod/shop/daily/20261121T020000Z-3f9a1c/db/{key}"));
        }
    }
}
