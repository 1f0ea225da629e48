//! What the controller knows of the cluster: one small copy of each object, found by name or by what it belongs to. Acts on nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupStore, RestoreRequest};
use kube::ResourceExt;

use crate::plan::observed::{ObservedJob, ObservedPod};
use crate::plan::suspicion;
use crate::plan::verify::VERIFY;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// Something that is cached.
pub trait Cached: Send + Sync + 'static {
    /// Its key.
    fn key(&self) -> Key;
    /// What it is found by, beside its key.
    fn belongs_to(&self) -> Vec<String>;
}

/// All objects of a kind.
pub struct Kind<K> {
    inner: RwLock<Inner<K>>,
}

/// A key is written once, whatever its object is found by.
struct Inner<K> {
    objects: HashMap<Arc<Key>, Arc<K>>,
    index: HashMap<String, BTreeSet<Arc<Key>>>,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self { inner: RwLock::new(Inner { objects: HashMap::new(), index: HashMap::new() }) }
    }
}

impl<K: Cached> Kind<K> {
    /// The object of a name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read(|inner| inner.objects.get(&Key::new(namespace, name)).cloned())
    }

    /// All objects that belong to something, by name.
    pub fn of(&self, what: &str) -> Vec<Arc<K>> {
        self.read(|inner| {
            let keys = inner.index.get(what).into_iter().flatten();
            keys.filter_map(|key| inner.objects.get(key).cloned()).collect()
        })
    }

    /// How many objects belong to something.
    pub fn count(&self, what: &str) -> usize {
        self.read(|inner| inner.index.get(what).map_or(0, BTreeSet::len))
    }

    /// How many objects there are.
    pub fn total(&self) -> usize {
        self.read(|inner| inner.objects.len())
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read(|inner| inner.objects.values().cloned().collect())
    }

    /// Takes in an object as it is now. Returns it, and what was there before.
    pub fn put(&self, object: K) -> (Arc<K>, Option<Arc<K>>) {
        let object = Arc::new(object);
        let before = self.write(|inner| {
            let key = Arc::new(object.key());
            let before = inner.forget(&key);
            for what in object.belongs_to() {
                inner.index.entry(what).or_default().insert(key.clone());
            }
            inner.objects.insert(key, object.clone());
            before
        });
        (object, before)
    }

    /// Forgets an object. Returns it if it was there.
    pub fn remove(&self, key: &Key) -> Option<Arc<K>> {
        self.write(|inner| inner.forget(key))
    }

    /// Forgets all objects of a namespace (none: of all) that are not among these. Returns them.
    pub fn keep(&self, namespace: Option<&str>, seen: &HashSet<Key>) -> Vec<Arc<K>> {
        self.write(|inner| {
            let gone: Vec<Arc<Key>> = inner
                .objects
                .keys()
                .filter(|key| namespace.is_none_or(|n| n == key.namespace) && !seen.contains(&***key))
                .cloned()
                .collect();
            gone.iter().filter_map(|key| inner.forget(key)).collect()
        })
    }

    // A panic while the lock is held cannot leave it half written: no caller's code runs under it.
    fn read<T>(&self, with: impl FnOnce(&Inner<K>) -> T) -> T {
        with(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, with: impl FnOnce(&mut Inner<K>) -> T) -> T {
        with(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Cached> Inner<K> {
    fn forget(&mut self, key: &Key) -> Option<Arc<K>> {
        let object = self.objects.remove(key)?;
        for what in object.belongs_to() {
            if let Some(keys) = self.index.get_mut(&what) {
                keys.remove(key);
                if keys.is_empty() {
                    self.index.remove(&what);
                }
            }
        }
        Some(object)
    }
}

/// Everything that is watched.
#[derive(Default)]
pub struct World {
    /// The stores.
    pub stores: Kind<BackupStore>,
    /// The policies.
    pub policies: Kind<BackupPolicy>,
    /// The backups.
    pub backups: Kind<Backup>,
    /// The restores.
    pub restores: Kind<RestoreRequest>,
    /// The Jobs that we made.
    pub jobs: Kind<ObservedJob>,
    /// Their Pods.
    pub pods: Kind<ObservedPod>,
}

/// What belongs to a store.
pub fn of_store(namespace: &str, store: &str) -> String {
    format!("store/{namespace}/{store}")
}

/// What belongs to a policy.
pub fn of_policy(namespace: &str, policy: &str) -> String {
    format!("policy/{namespace}/{policy}")
}

/// The policies of a store whose bucket was read at this place.
pub fn read_at(namespace: &str, store: &str, place: &str) -> String {
    format!("read/{namespace}/{store}/{place}")
}

/// What belongs to an object with this UID.
pub fn of_owner(uid: &str) -> String {
    format!("owner/{uid}")
}

/// The object with this UID.
pub fn with_uid(uid: &str) -> String {
    format!("uid/{uid}")
}

/// The restores whose Job is under way.
pub const RESTORING: &str = "restoring";

/// The Backups that are not over.
pub const NOT_OVER: &str = "not-over";

/// The Jobs that are reading what a bucket holds of a policy.
pub const READING: &str = "reading";

/// The Jobs that verify something and have not ended.
pub const VERIFYING: &str = "verifying";

/// What may cast doubt on a store of a namespace: failed runs, verifications and restores, and Jobs that failed in passing.
pub fn doubtful(namespace: &str) -> String {
    format!("doubtful/{namespace}")
}

/// Everything of a kind in a namespace.
pub fn in_namespace(namespace: &str) -> String {
    format!("namespace/{namespace}")
}

/// Whether a restore has work to do beside that of its controller. Of one that is being deleted the Job goes first.
pub fn is_under_way(restore: &RestoreRequest) -> bool {
    restore.metadata.deletion_timestamp.is_none()
        && restore.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Running)
}

fn key_of<K: ResourceExt>(object: &K) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}

impl Cached for BackupStore {
    fn key(&self) -> Key {
        key_of(self)
    }
    fn belongs_to(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Cached for BackupPolicy {
    fn key(&self) -> Key {
        key_of(self)
    }
    fn belongs_to(&self) -> Vec<String> {
        let (namespace, store) = (self.namespace().unwrap_or_default(), &self.spec.store_ref.name);
        let read = self.status.as_ref().and_then(|s| s.catalogue.as_ref());
        let read = read.map(|catalogue| read_at(&namespace, store, &catalogue.place));
        std::iter::once(of_store(&namespace, store)).chain(read).collect()
    }
}

impl Cached for Backup {
    fn key(&self) -> Key {
        key_of(self)
    }
    fn belongs_to(&self) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        let policy = of_policy(&namespace, &self.spec.policy_ref.name);
        let over = self.status.as_ref().is_some_and(|s| s.phase.is_terminal());
        let doubtful = suspicion::may_blame(self).then(|| doubtful(&namespace));
        std::iter::once(policy).chain((!over).then(|| NOT_OVER.to_owned())).chain(doubtful).collect()
    }
}

impl Cached for RestoreRequest {
    fn key(&self) -> Key {
        key_of(self)
    }
    fn belongs_to(&self) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        let running = is_under_way(self).then(|| RESTORING.to_owned());
        let failed = self.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Failed);
        let doubtful = failed.then(|| doubtful(&namespace));
        std::iter::once(in_namespace(&namespace)).chain(running).chain(doubtful).collect()
    }
}

impl Cached for ObservedJob {
    fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
    fn belongs_to(&self) -> Vec<String> {
        let owner = self.owner.iter().map(|o| of_owner(&o.uid));
        let itself = std::iter::once(with_uid(&self.uid));
        // The label may be a shortened name: whoever looks by it compares owners too.
        let of_policies = matches!(self.task.as_str(), "retain" | "delete" | VERIFY);
        let policy = of_policies.then(|| of_policy(&self.namespace, &self.policy));
        let under_way = self.end.is_none();
        let reading = (self.task == "catalogue" && under_way).then(|| READING.to_owned());
        let verifying = (self.task == VERIFY && under_way).then(|| VERIFYING.to_owned());
        let doubtful = suspicion::may_blame_in_passing(self).then(|| doubtful(&self.namespace));
        owner.chain(policy).chain(itself).chain(reading).chain(verifying).chain(doubtful).collect()
    }
}

impl Cached for ObservedPod {
    fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
    fn belongs_to(&self) -> Vec<String> {
        vec![of_owner(&self.job_uid)]
    }
}

#[cfg(test)]
mod tests {
    use holdfast_crds::BackupStatus;

    use super::*;
    use crate::plan::fixture::{backup, backup_with, policy};

    #[test]
    fn objects_are_found_by_name_and_by_what_they_belong_to() {
        let world = World::default();
        world.backups.put(backup("one", 1));
        world.backups.put(backup("two", 2));
        let mut other = backup("three", 3);
        other.spec.policy_ref.name = "else".into();
        world.backups.put(other.clone());
        assert_eq!(world.backups.of(&of_policy("shop", "shop")).len(), 2);
        assert!(world.backups.get("shop", "three").is_some());
        // An object that changes what it belongs to is found there alone.
        other.spec.policy_ref.name = "shop".into();
        world.backups.put(other);
        assert_eq!(world.backups.of(&of_policy("shop", "shop")).len(), 3);
        assert!(world.backups.of(&of_policy("shop", "else")).is_empty());
        world.backups.remove(&Key::new("shop", "one"));
        assert_eq!(world.backups.of(&of_policy("shop", "shop")).len(), 2);
        assert_eq!(world.backups.of(NOT_OVER).len(), 2);
        let over = BackupStatus { phase: BackupPhase::Failed, ..BackupStatus::default() };
        world.backups.put(backup_with("two", 2, over));
        assert_eq!(world.backups.of(NOT_OVER).len(), 1);
    }

    #[test]
    fn a_new_listing_forgets_what_is_gone_in_its_own_namespace_only() {
        let world = World::default();
        world.policies.put(policy());
        let mut far = policy();
        far.metadata.namespace = Some("far".into());
        world.policies.put(far);
        let gone = world.policies.keep(Some("shop"), &HashSet::new());
        assert_eq!(gone.len(), 1);
        assert!(world.policies.get("far", "shop").is_some());
        assert!(world.policies.of(&of_store("shop", "main")).is_empty());
    }
}
