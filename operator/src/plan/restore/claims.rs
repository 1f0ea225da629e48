//! The claims that a restore writes into: which they are, as whom they are written, and which are made for it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_crds::{AccessMode, BackupPolicy, ClaimTemplate, RestoreInto, RestoreRequest, RunAs};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::plan::job::{Data, Ground, SourceMount, Use};
use crate::plan::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::task::{RestoreTarget, Target};

/// The names of all claims that a request may write into, to be looked up.
pub fn claims(request: &RestoreRequest, policy: Option<&BackupPolicy>) -> BTreeSet<String> {
    let wanted = |name: &String| request.spec.sources.as_ref().is_none_or(|sources| sources.contains(name));
    let of_policy = policy.into_iter().flat_map(|p| &p.spec.sources).filter(|s| wanted(&s.name));
    let of_request = request.spec.into.iter().filter_map(|i| {
        let volume = i.volume.as_ref().and_then(|v| v.claim_name.clone());
        volume.or_else(|| i.config.as_ref().map(|c| c.claim_name.clone()))
    });
    of_policy.filter_map(|s| s.volume.as_ref().map(|v| v.claim_name.clone())).chain(of_request).collect()
}

/// The users that the targets' claims are to be written as.
pub(super) fn users(request: &RestoreRequest, policy: Option<&BackupPolicy>, targets: &[RestoreTarget]) -> Vec<RunAs> {
    let users = targets.iter().filter_map(|target| {
        let into = into(request, &target.source);
        match &target.server {
            Target::Volume(_) => into.and_then(|i| i.volume.as_ref()?.run_as).or_else(|| {
                let sources = policy.into_iter().flat_map(|p| &p.spec.sources);
                sources.filter(|s| s.name == target.source).find_map(|s| s.volume.as_ref()?.run_as)
            }),
            Target::Config(_) => into.and_then(|i| i.config.as_ref()?.run_as),
            _ => None,
        }
    });
    users.collect()
}

/// What the Job does with its claims.
pub(super) fn purpose(targets: &[RestoreTarget]) -> Use {
    let keeps = targets.iter().any(|t| matches!(&t.server, Target::Volume(volume) if volume.keep_privileges));
    Use::Write { privileges: keeps }
}

/// The claims to make: those that the request says how to make, and that are not there.
pub(super) fn to_make(
    request: &RestoreRequest,
    targets: &[RestoreTarget],
    ground: &Ground,
) -> Vec<PersistentVolumeClaim> {
    let mut made = BTreeMap::new();
    for target in targets {
        let Target::Volume(volume) = &target.server else { continue };
        let template = into(request, &target.source).and_then(|i| i.volume.as_ref()?.create.as_ref());
        if let Some(template) = template.filter(|_| !ground.claims.contains_key(&volume.claim_name)) {
            let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
            made.insert(&volume.claim_name, claim(&volume.claim_name, namespace, template));
        }
    }
    made.into_values().collect()
}

/// Leaves out what mounts these claims: a Pod that mounts a claim which is not there never starts.
pub(super) fn unmount(targets: &mut [RestoreTarget], mounts: &mut [SourceMount], absent: &[String]) {
    for mount in mounts {
        let is_absent = matches!(&mount.data, Some(Data::Claim { name, .. }) if absent.contains(name));
        if is_absent {
            mount.data = None;
            targets.iter_mut().filter(|t| t.source == mount.source).for_each(|t| t.mounts.data = None);
        }
    }
}

/// A claim belongs to nobody: what was restored into it outlives the request.
fn claim(name: &str, namespace: &str, template: &ClaimTemplate) -> PersistentVolumeClaim {
    let usual = [AccessMode::ReadWriteOnce];
    let modes: &[AccessMode] = if template.access_modes.is_empty() { &usual } else { &template.access_modes };
    let modes = modes.iter().map(|mode| mode.as_str().to_owned()).collect();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes),
            storage_class_name: template.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(template.size.clone()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn into<'a>(request: &'a RestoreRequest, source: &str) -> Option<&'a RestoreInto> {
    request.spec.into.iter().find(|i| i.source == source)
}
