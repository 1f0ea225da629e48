//! What casts doubt on a store. Reads only: the cache, and the last words of a Pod where the cache lags.

use holdfast_crds::{BackupStore, RestoreRequest};
use jiff::Timestamp;
use kube::ResourceExt;

use super::Observer;
use crate::controller::apply::Error;
use crate::controller::cache::{World, doubtful};
use crate::plan::observed::ObservedJob;
use crate::plan::suspicion::{of_attempt, of_backup, of_restore, store_of_restore};

impl Observer {
    /// When something last failed on a store, if that was after its last probe.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub(super) async fn suspected(&self, store: &BackupStore, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let Some(since) = store.status.as_ref().and_then(|s| s.last_probe_time.as_ref()).map(|t| t.0) else {
            return Ok(None);
        };
        let world = &self.world;
        let (namespace, name) = (store.namespace().unwrap_or_default(), store.name_any());
        let what = doubtful(&namespace);
        // From the objects themselves, not from what a policy says of them: that is written later.
        let mut newest = world.backups.of(&what).iter().filter_map(|backup| of_backup(backup, store)).max();
        for restore in world.restores.of(&what) {
            if store_read_by(world, &restore).as_deref() == Some(&name) {
                newest = newest.max(of_restore(&restore, store));
            }
        }
        for job in world.jobs.of(&what) {
            let is_new = job.end.as_ref().is_some_and(|end| end.at > since);
            if is_new && store_of_job(world, &job).as_deref() == Some(&name) {
                let attempt = self.attempt((*job).clone(), now).await?;
                newest = newest.max(of_attempt(&attempt, store, now));
            }
        }
        Ok(newest.filter(|at| *at > since))
    }
}

/// The store that a restore reads from.
pub(in crate::controller) fn store_read_by(world: &World, restore: &RestoreRequest) -> Option<String> {
    let named = restore.status.as_ref().and_then(|s| s.backup.as_ref()).or(restore.spec.from.backup.as_ref());
    let backup = named.and_then(|name| world.backups.get(&restore.namespace().unwrap_or_default(), name));
    store_of_restore(restore, backup.as_deref()).map(str::to_owned)
}

/// The store that a Job of a Backup or of a policy works on.
pub(in crate::controller) fn store_of_job(world: &World, job: &ObservedJob) -> Option<String> {
    let owner = job.owner.as_ref()?;
    match owner.kind.as_str() {
        "Backup" => world.backups.get(&job.namespace, &owner.name)?.status.as_ref()?.store.clone(),
        "BackupPolicy" => Some(world.policies.get(&job.namespace, &owner.name)?.spec.store_ref.name.clone()),
        _ => None,
    }
}
