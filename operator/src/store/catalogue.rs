//! What the bucket holds of a policy: one listing, and the manifests in it. Talks to the bucket.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use holdfast_crds::Reason;
use jiff::Timestamp;

use super::client::{Bucket, Got, ObjectInfo};
use super::keys::{PolicyFolder, RunFolder, slot_of_run};
use super::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::task::Failure;

/// Manifests that are read side by side.
const READERS: usize = 16;

/// The runs of a policy, as the bucket tells them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// The oldest first.
    pub runs: Vec<CatalogueRun>,
    /// What was listed as a manifest and is none that can be trusted, and objects that may hide manifests, with the reason: one line each,
    /// which begins with the key.
    pub in_doubt: Vec<String>,
    /// Everything else in the policy's folder, by key.
    pub objects: BTreeMap<String, ObjectInfo>,
}

/// A run, as its manifests tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogueRun {
    /// Its folder.
    pub run_id: String,
    /// The instant it stands for.
    pub slot: Timestamp,
    /// Names of all its sources.
    pub run_sources: BTreeSet<String>,
    /// The manifests that are there, by source.
    pub manifests: BTreeMap<String, Manifest>,
    /// When the newest of its manifests was stored, by the store's clock.
    pub stored: Option<Timestamp>,
}

impl Catalogue {
    /// What is in doubt of a run, whose folder this is, or of all that it is in.
    pub fn doubt_of(&self, run: &RunFolder) -> Option<&str> {
        let name = run.prefix().trim_end_matches('/');
        let is_below = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
        let is_of_it = |line: &&String| {
            let key = line.split_once(": ").map_or(line.as_str(), |(key, _)| key);
            key == name || is_below(key, name) || is_below(name, key)
        };
        self.in_doubt.iter().find(is_of_it).map(String::as_str)
    }
}

impl CatalogueRun {
    /// UID of the cluster that made it; all its manifests say the same.
    pub fn cluster(&self) -> &str {
        self.manifests.values().next().map(|m| m.cluster_uid.as_str()).unwrap_or_default()
    }

    /// Whether every source of the run has its manifest.
    pub fn is_complete(&self) -> bool {
        !self.run_sources.is_empty() && self.run_sources.iter().all(|s| self.manifests.contains_key(s))
    }

    /// Whether it was made of what a restore was about to replace: it is chosen by name only, and retention leaves it alone.
    pub fn is_safety(&self) -> bool {
        self.manifests.values().any(|manifest| manifest.safety_for.is_some())
    }
}

/// Reads all of a policy's folder.
///
/// # Errors
/// Where the listing or a manifest cannot be had. A manifest that can be had and not be trusted is no error: it is `in_doubt`.
pub async fn read(bucket: &Bucket, folder: &PolicyFolder) -> Result<Catalogue, Failure> {
    read_below(bucket, folder, folder.prefix()).await
}

/// Reads the runs of a policy that stand for one instant.
///
/// # Errors
/// As [`read`].
pub async fn read_slot(bucket: &Bucket, folder: &PolicyFolder, slot: Timestamp) -> Result<Catalogue, Failure> {
    read_below(bucket, folder, &folder.slot_prefix(slot)).await
}

async fn read_below(bucket: &Bucket, folder: &PolicyFolder, prefix: &str) -> Result<Catalogue, Failure> {
    let listed = bucket.list(prefix).await?;
    let over_all = if listed.is_empty() { hidden_by(bucket, folder.prefix()).await } else { None };
    let (manifests, objects): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|object| folder.manifest_of(&object.key).is_some());
    let got: Vec<(ObjectInfo, Got)> = futures::stream::iter(manifests)
        .map(|object| async move {
            let got = bucket.try_get(&object.key, MAX_MANIFEST_BYTES).await?;
            Ok::<_, Failure>((object, got))
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await?;
    let read = understood(got)?;
    let objects = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
    let mut catalogue = Catalogue { objects, ..assemble(folder, read) };
    catalogue.in_doubt.extend(over_all);
    catalogue.in_doubt.extend(over_runs(folder, &catalogue));
    catalogue.in_doubt.sort();
    Ok(catalogue)
}

/// An object that is listed as a manifest, and what it says.
type Read = (ObjectInfo, Result<Manifest, Failure>);

/// What each manifest says, or why it says nothing. One that cannot be read stands for itself alone.
///
/// # Errors
/// Where none of them may be read: that is about the credentials.
fn understood(got: Vec<(ObjectInfo, Got)>) -> Result<Vec<Read>, Failure> {
    let is_refused = |got: &Got| matches!(got, Got::Forbidden(_));
    let all_refused = got.iter().all(|(_, got)| is_refused(got));
    let understand = |(object, got): (ObjectInfo, Got)| {
        let manifest = match got {
            Got::Content(bytes) => Manifest::parse(&bytes),
            Got::Absent => Err(Failure::new(Reason::ListIncomplete, "it is listed and not there")),
            Got::Forbidden(failure) if all_refused => return Err(failure),
            Got::Unreadable(failure) | Got::Forbidden(failure) => Err(failure),
        };
        // Everybody has this one, and it says nothing.
        let class = object.storage_class.as_deref().filter(|class| *class != "STANDARD");
        let manifest = manifest.map_err(|failure| match class {
            Some(class) if !failure.message.contains(class) => {
                Failure::new(failure.reason, format!("{} (storage class {class})", failure.message))
            }
            _ => failure,
        });
        Ok((object, manifest))
    };
    got.into_iter().map(understand).collect()
}

/// The object that has the name of one of the folders that `key` is in, in words: some services list nothing below such an object, though what
/// is there can be read and written.
pub async fn hidden_by(bucket: &Bucket, key: &str) -> Option<String> {
    let folders = key.match_indices('/').map(|(at, _)| &key[..at]).filter(|folder| !folder.is_empty());
    for folder in folders {
        if matches!(bucket.head(folder).await, Ok(Some(_))) {
            return Some(over(folder));
        }
    }
    None
}

/// Objects that have the name of a run's folder, or of that of a source whose manifest is not to be seen.
fn over_runs(folder: &PolicyFolder, catalogue: &Catalogue) -> Vec<String> {
    let is_folder = |key: &&String| {
        let Some(rest) = key.strip_prefix(folder.prefix()) else { return false };
        match rest.split_once('/') {
            None => slot_of_run(rest).is_some(),
            Some((run_id, source)) => catalogue.runs.iter().any(|run| {
                run.run_id == run_id && run.run_sources.contains(source) && !run.manifests.contains_key(source)
            }),
        }
    };
    catalogue.objects.keys().filter(is_folder).map(|key| over(key)).collect()
}

fn over(folder: &str) -> String {
    format!(
        "{folder}: an object has the name of this folder, and some services (MinIO) list nothing below such an object: move it elsewhere"
    )
}

/// Sorts manifests into runs. A manifest must say the same as its key, and name objects of its own folder only. Pure.
fn assemble(folder: &PolicyFolder, read: Vec<Read>) -> Catalogue {
    let mut catalogue = Catalogue::default();
    let mut runs: BTreeMap<String, CatalogueRun> = BTreeMap::new();
    for (object, manifest) in read {
        match manifest.map_err(|f| f.message).and_then(|m| trusted(folder, &object.key, m)) {
            Ok(manifest) => {
                let run = runs.entry(manifest.run_id.clone()).or_insert_with(|| CatalogueRun {
                    run_id: manifest.run_id.clone(),
                    slot: manifest.slot,
                    run_sources: BTreeSet::new(),
                    manifests: BTreeMap::new(),
                    stored: None,
                });
                run.run_sources.extend(manifest.run_sources.iter().cloned());
                run.stored = run.stored.max(object.modified);
                run.manifests.insert(manifest.source.clone(), manifest);
            }
            Err(why) => catalogue.in_doubt.push(format!("{}: {why}", object.key)),
        }
    }
    let (agreed, contradictory): (Vec<_>, Vec<_>) = runs.into_values().partition(|run| {
        let cluster = run.cluster();
        run.manifests.values().all(|m| m.cluster_uid == cluster)
    });
    // A run has one Backup, and a Backup has one cluster.
    let told = |run: CatalogueRun| format!("{}{}: its manifests name several clusters", folder.prefix(), run.run_id);
    catalogue.in_doubt.extend(contradictory.into_iter().map(told));
    catalogue.runs = agreed;
    catalogue.runs.sort_by(|a, b| (a.slot, &a.run_id).cmp(&(b.slot, &b.run_id)));
    catalogue
}

/// A manifest that says the same as its key, and names objects of its own folder only.
///
/// # Errors
/// What it says instead.
pub fn trusted(folder: &PolicyFolder, key: &str, manifest: Manifest) -> Result<Manifest, String> {
    let (run_id, source) = folder.manifest_of(key).ok_or("not a manifest's key")?;
    if manifest.run_id != run_id || manifest.source != source {
        return Err(format!("says it is source {} of run {}", manifest.source, manifest.run_id));
    }
    if slot_of_run(run_id) != Some(manifest.slot) {
        return Err(format!("says its slot is {}", manifest.slot));
    }
    let own = folder.run(run_id).source(source);
    if let Some(stranger) = manifest.artifacts.iter().find(|a| !a.key.starts_with(own.prefix()) || a.key == key) {
        return Err(format!("names {}, which is not in its own folder", stranger.key));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use holdfast_crds::S3Spec;
    use serde_json::json;

    use super::*;
    use crate::task::Scope;

    const RUN: &str = "20261121T020000Z-3f9a1c";

    fn folder() -> PolicyFolder {
        let scope =
            Scope { cluster_uid: "c".into(), namespace: "shop".into(), policy: "daily".into(), policy_uid: "p".into() };
        PolicyFolder::new(&S3Spec::default(), &scope)
    }

    fn manifest(source: &str, changes: &serde_json::Value) -> Result<Manifest, Failure> {
        let mut json = json!({
            "formatVersion": 1, "runId": RUN, "clusterUid": "c", "namespace": "shop", "policy": "daily", "policyUid": "p",
            "source": source, "engine": "postgres", "runSources": ["db", "files"], "slot": "2026-11-21T02:00:00Z",
            "startTime": "2026-11-21T02:00:01Z", "endTime": "2026-11-21T02:00:02Z", "items": 1, "consistency": "snapshot",
            "serverVersion": "15", "toolVersion": "15", "holdfastVersion": "0", "later": {"kept": true},
            "artifacts": [{
                "key": format!("shop/daily/{RUN}/{source}/a-000000.pgdump"), "name": "a.pgdump", "format": "sql", "storedBytes": 1,
                "sourceBytes": 1, "storedSha256": "", "compression": "none", "items": 1}],
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            json[key] = value.clone();
        }
        Manifest::parse(&serde_json::to_vec(&json).unwrap())
    }

    fn of(manifests: Vec<(&str, Result<Manifest, Failure>)>) -> Catalogue {
        let read = manifests.into_iter().map(|(source, manifest)| {
            let key = folder().run(RUN).source(source).manifest();
            (ObjectInfo { key, size: 1, modified: None, storage_class: None }, manifest)
        });
        assemble(&folder(), read.collect())
    }

    #[test]
    fn a_run_is_complete_when_each_of_its_sources_has_a_manifest() {
        let partial = of(vec![("db", manifest("db", &json!({})))]);
        assert!(!partial.runs[0].is_complete() && partial.in_doubt.is_empty());
        let whole = of(vec![("db", manifest("db", &json!({}))), ("files", manifest("files", &json!({})))]);
        assert!(whole.runs.len() == 1 && whole.runs[0].is_complete());
    }

    #[test]
    fn a_manifest_that_cannot_be_trusted_is_in_doubt_and_no_run() {
        let artifact_elsewhere = json!({"artifacts": [{
            "key": "shop/daily/20261121T020000Z-3f9a1c/dbx/a", "name": "a", "format": "sql", "storedBytes": 1, "sourceBytes": 1,
            "storedSha256": "", "compression": "none", "items": 1}]});
        for changes in [
            json!({"source": "files"}),
            json!({"runId": "20261121T030000Z-3f9a1c"}),
            json!({"slot": "2027-11-21T02:00:00Z"}),
            json!({"formatVersion": 2}),
            json!({"artifacts": 7}),
            artifact_elsewhere,
        ] {
            let catalogue = of(vec![("db", manifest("db", &changes))]);
            assert!(catalogue.runs.is_empty() && catalogue.in_doubt.len() == 1, "{changes}");
        }
    }

    #[test]
    fn one_manifest_that_may_not_be_read_is_in_doubt_and_where_none_may_be_it_is_the_credentials() {
        let object = |source: &str, class: &str| {
            let key = folder().run(RUN).source(source).manifest();
            ObjectInfo { key, size: 1, modified: None, storage_class: Some(class.to_owned()) }
        };
        let refused = || Got::Forbidden(Failure::new(Reason::CredentialsRejected, "AccessDenied"));
        let whole = || Got::Content(manifest("db", &json!({})).unwrap().to_bytes().unwrap());
        let read = understood(vec![(object("db", "STANDARD"), whole()), (object("files", "X"), refused())]).unwrap();
        let doubt = assemble(&folder(), read).in_doubt;
        assert_eq!(doubt, [format!("shop/daily/{RUN}/files/manifest.json: AccessDenied (storage class X)")]);
        let none = understood(vec![(object("db", "STANDARD"), refused()), (object("files", "X"), refused())]);
        assert_eq!(none.unwrap_err().reason, Reason::CredentialsRejected);
    }

    #[test]
    fn objects_that_have_the_name_of_a_runs_folder_are_in_doubt_and_what_people_put_beside_it_is_not() {
        let mut catalogue = of(vec![("db", manifest("db", &json!({})))]);
        for name in [RUN, &format!("{RUN}/files"), &format!("{RUN}/db"), &format!("{RUN}/notes.txt"), "notes.txt"] {
            let key = format!("{}{name}", folder().prefix());
            let object = ObjectInfo { key: key.clone(), size: 1, modified: None, storage_class: None };
            catalogue.objects.insert(key, object);
        }
        catalogue.in_doubt = over_runs(&folder(), &catalogue);
        assert_eq!(catalogue.in_doubt.len(), 2, "{:?}", catalogue.in_doubt);
        assert!(catalogue.doubt_of(&folder().run(RUN)).is_some());
        let other = folder().run("20261121T020000Z-aaaaaa");
        assert!(catalogue.doubt_of(&other).is_none());
        catalogue.in_doubt.push(over("shop/daily"));
        assert!(catalogue.doubt_of(&other).is_some(), "it may hide all of the policy");
    }

    #[test]
    fn a_run_whose_manifests_name_two_clusters_is_in_doubt() {
        let (one, other) = (manifest("db", &json!({})), manifest("files", &json!({"clusterUid": "other"})));
        let catalogue = of(vec![("db", one), ("files", other)]);
        assert!(catalogue.runs.is_empty() && catalogue.in_doubt.len() == 1, "{catalogue:?}");
    }

    #[test]
    fn fields_of_later_versions_are_kept() {
        let manifest = manifest("db", &json!({})).unwrap();
        let again = Manifest::parse(&manifest.to_bytes().unwrap()).unwrap();
        assert_eq!(again, manifest);
        assert_eq!(again.unknown["later"], json!({"kept": true}));
    }
}
