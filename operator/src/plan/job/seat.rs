//! Where a Pod with a claim runs, and as whom: what the cluster allows, and where the claim can be mounted. Pure.

use std::collections::BTreeMap;

use holdfast_crds::{Reason, RunAs};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolumeClaim, Pod, PodSecurityContext, SeccompProfile, SecurityContext, Toleration,
};

use super::mount::{Data, SourceMount};
use crate::task::Failure;

/// The label by which a namespace says which Pods it takes
/// (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).
pub const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// The workers' own user.
pub(super) const USER: i64 = 65532;

/// Which Pods a namespace takes, by its label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforced {
    /// All: nothing is enforced.
    Privileged,
    /// Root with the usual capabilities.
    Baseline,
    /// No root. Also what is not known to be otherwise.
    #[default]
    Restricted,
}

impl Enforced {
    /// By the value of [`ENFORCE_LABEL`]; without one nothing is enforced.
    pub fn by_label(value: Option<&str>) -> Self {
        match value {
            None | Some("privileged") => Self::Privileged,
            Some("baseline") => Self::Baseline,
            Some(_) => Self::Restricted,
        }
    }
}

/// What is known around the claims of a Job, looked up when it is about to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ground {
    /// Which Pods the namespace takes.
    pub enforced: Enforced,
    /// The claims that are there, by name.
    pub claims: BTreeMap<String, ObservedClaim>,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedClaim {
    /// The Pod that has it, where only the Pods of one node can have it at a time.
    pub holder: Option<Holder>,
}

/// A Pod that has a claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holder {
    /// Its node.
    pub node: String,
    /// What it tolerates: its node may be one that others keep off.
    pub tolerations: Vec<Toleration>,
}

impl Ground {
    /// From the objects themselves: the value of the namespace's label, the claims, and the Pods of the namespace.
    pub fn of(label: Option<&str>, claims: &[PersistentVolumeClaim], pods: &[Pod]) -> Self {
        let claims = claims.iter().filter_map(|claim| {
            let name = claim.metadata.name.clone()?;
            let holder = if is_shared(claim) { None } else { pods.iter().find_map(|pod| holder(pod, &name)) };
            Some((name, ObservedClaim { holder }))
        });
        Self { enforced: Enforced::by_label(label), claims: claims.collect() }
    }
}

/// Whether Pods of several nodes can have it at a time.
fn is_shared(claim: &PersistentVolumeClaim) -> bool {
    let status = claim.status.as_ref().and_then(|s| s.access_modes.as_ref());
    let modes = status.or_else(|| claim.spec.as_ref().and_then(|s| s.access_modes.as_ref()));
    modes.into_iter().flatten().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

/// The Pod as a holder of the claim, if it is one: it has a node and has not ended.
fn holder(pod: &Pod, claim: &str) -> Option<Holder> {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let spec = pod.spec.as_ref()?;
    let uses = spec
        .volumes
        .iter()
        .flatten()
        .any(|v| v.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim));
    if !uses || !matches!(phase, Some("Running" | "Pending")) {
        return None;
    }
    let node = spec.node_name.clone().filter(|node| !node.is_empty())?;
    Some(Holder { node, tolerations: spec.tolerations.clone().unwrap_or_default() })
}

/// As whom and where a Pod with claims runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seat {
    user: i64,
    group: i64,
    capabilities: Vec<&'static str>,
    nodes: Vec<String>,
    tolerations: Vec<Toleration>,
}

/// What a Job does with its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It reads them.
    Read,
    /// It writes them.
    Write {
        /// And gives programs their rights back.
        privileges: bool,
    },
}

/// The seat of a Pod; none for one without claims, which runs as any other.
///
/// # Errors
/// Where two of its volumes want another user each.
pub fn seat(mounts: &[SourceMount], run_as: &[RunAs], purpose: Use, ground: &Ground) -> Result<Option<Seat>, Failure> {
    let claims: Vec<&String> = mounts
        .iter()
        .filter_map(|mount| match &mount.data {
            Some(Data::Claim { name, .. }) => Some(name),
            _ => None,
        })
        .collect();
    if claims.is_empty() {
        return Ok(None);
    }
    if run_as.iter().any(|user| Some(user) != run_as.first()) {
        let message = "two volumes are to be written as another user each: restore them with a request each";
        return Err(Failure::new(Reason::InvalidConfiguration, message));
    }
    let mut seat = match run_as.first() {
        Some(user) => Seat { user: user.user, group: user.group, ..Seat::default() },
        None if ground.enforced == Enforced::Restricted => Seat { user: USER, group: USER, ..Seat::default() },
        None => Seat::default(),
    };
    if seat.user == 0 {
        seat.capabilities = match (purpose, ground.enforced) {
            // It lets read everything and write nothing; `baseline` does not know it.
            (Use::Read, Enforced::Privileged) => vec!["DAC_READ_SEARCH"],
            (Use::Read, _) => vec!["DAC_OVERRIDE"],
            (Use::Write { privileges: false }, _) => vec!["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"],
            (Use::Write { privileges: true }, _) => vec!["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"],
        };
    }
    for holder in claims.into_iter().filter_map(|name| ground.claims.get(name)?.holder.as_ref()) {
        if !seat.nodes.contains(&holder.node) {
            seat.nodes.push(holder.node.clone());
        }
        for toleration in &holder.tolerations {
            if !seat.tolerations.contains(toleration) {
                seat.tolerations.push(toleration.clone());
            }
        }
    }
    Ok(Some(seat))
}

impl Seat {
    /// The Pod's side of it. No `fsGroup`: the kubelet would give it to every file of the claim.
    pub(super) fn of_pod(&self) -> PodSecurityContext {
        PodSecurityContext {
            run_as_non_root: Some(self.user != 0),
            run_as_user: Some(self.user),
            run_as_group: Some(self.group),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }
    }

    /// The container's side of it.
    pub(super) fn of_container(&self, mut context: SecurityContext) -> SecurityContext {
        let add = self.capabilities.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let drop = Some(vec!["ALL".to_owned()]);
        context.capabilities = Some(Capabilities { drop, add: (!add.is_empty()).then_some(add) });
        context
    }

    /// What the Pod tolerates, beside what the policy says.
    pub(super) fn tolerations(&self, mut said: Vec<Toleration>) -> Vec<Toleration> {
        for toleration in &self.tolerations {
            if !said.contains(toleration) {
                said.push(toleration.clone());
            }
        }
        said
    }

    /// The node, beside what the policy says: a claim that one node has cannot be had on another one.
    pub(super) fn affinity(&self, said: Option<Affinity>) -> Option<Affinity> {
        if self.nodes.is_empty() {
            return said;
        }
        let here: Vec<NodeSelectorRequirement> = self
            .nodes
            .iter()
            .map(|node| NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.clone()]),
            })
            .collect();
        let mut affinity = said.unwrap_or_default();
        let of_node = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
        let required =
            of_node.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
        if required.node_selector_terms.is_empty() {
            required.node_selector_terms.push(NodeSelectorTerm::default());
        }
        // One of the terms has to hold, so each gets the node.
        for term in &mut required.node_selector_terms {
            term.match_fields.get_or_insert_with(Vec::new).extend(here.iter().cloned());
        }
        Some(affinity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(name: &str, mode: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"accessModes": [mode]}})).unwrap()
    }

    fn pod(claim: &str, node: Option<&str>, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "spec": {
                "nodeName": node,
                "containers": [],
                "tolerations": [{"key": "disk", "operator": "Exists"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            },
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn mount(claim: &str) -> SourceMount {
        SourceMount { data: Some(Data::Claim { name: claim.into(), read_only: true }), ..SourceMount::default() }
    }

    fn node_of(ground: &Ground) -> Vec<String> {
        seat(&[mount("uploads")], &[], Use::Read, ground).unwrap().unwrap().nodes
    }

    #[test]
    fn a_claim_of_one_node_is_read_on_the_node_of_the_pod_that_has_it() {
        let claims = [claim("uploads", "ReadWriteOnce")];
        let ground =
            Ground::of(None, &claims, &[pod("other", Some("n1"), "Running"), pod("uploads", Some("n2"), "Running")]);
        assert_eq!(node_of(&ground), ["n2"]);
        let seat = seat(&[mount("uploads")], &[], Use::Read, &ground).unwrap().unwrap();
        assert_eq!(seat.tolerations(vec![]).len(), 1);
        let affinity = serde_json::to_value(seat.affinity(None)).unwrap();
        assert_eq!(
            affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"],
            json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}])
        );
        // What the policy wants of a node must hold too, whichever of its terms does.
        let said = serde_json::from_value(json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchExpressions": [{"key": "b", "operator": "Exists"}]}]
        }}}))
        .unwrap();
        let both = serde_json::to_value(seat.affinity(Some(said))).unwrap();
        let terms = &both["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        assert!(terms.as_array().unwrap().iter().all(|t| t["matchFields"][0]["values"] == json!(["n2"])));
    }

    #[test]
    fn a_claim_that_nobody_has_or_that_all_can_have_ties_to_no_node() {
        let holder = [pod("uploads", Some("n1"), "Running")];
        for (mode, pods) in [
            ("ReadWriteMany", &holder[..]),
            ("ReadOnlyMany", &holder[..]),
            ("ReadWriteOnce", &[]),
            ("ReadWriteOnce", &[pod("uploads", Some("n1"), "Succeeded"), pod("uploads", Some("n1"), "Failed")]),
            ("ReadWriteOnce", &[pod("uploads", None, "Pending")]),
        ] {
            assert_eq!(node_of(&Ground::of(None, &[claim("uploads", mode)], pods)), [""; 0], "{mode}");
        }
    }

    #[test]
    fn root_is_used_only_where_the_namespace_takes_it_and_with_no_more_than_it_needs() {
        let reads = |label: Option<&str>, user: &[RunAs]| {
            let seat = seat(&[mount("uploads")], user, Use::Read, &Ground::of(label, &[], &[])).unwrap().unwrap();
            (seat.user, seat.capabilities.clone(), seat.of_pod().run_as_non_root)
        };
        assert_eq!(reads(None, &[]), (0, vec!["DAC_READ_SEARCH"], Some(false)));
        assert_eq!(reads(Some("privileged"), &[]), (0, vec!["DAC_READ_SEARCH"], Some(false)));
        assert_eq!(reads(Some("baseline"), &[]), (0, vec!["DAC_OVERRIDE"], Some(false)));
        assert_eq!(reads(Some("restricted"), &[]), (USER, vec![], Some(true)));
        assert_eq!(reads(Some("something new"), &[]), (USER, vec![], Some(true)));
        for label in [None, Some("restricted")] {
            assert_eq!(reads(label, &[RunAs { user: 1000, group: 1001 }]), (1000, vec![], Some(true)));
        }
        let writes =
            seat(&[mount("u")], &[], Use::Write { privileges: true }, &Ground::of(None, &[], &[])).unwrap().unwrap();
        assert_eq!(writes.capabilities, ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"]);
        assert_eq!(writes.of_pod().fs_group, None);
    }

    #[test]
    fn a_pod_without_claims_has_no_seat_of_its_own_and_two_users_are_one_too_many() {
        assert_eq!(seat(&[SourceMount::default()], &[], Use::Read, &Ground::default()).unwrap(), None);
        let users = [RunAs { user: 1, group: 1 }, RunAs { user: 2, group: 1 }];
        assert!(seat(&[mount("a")], &users, Use::Read, &Ground::default()).is_err());
    }
}
