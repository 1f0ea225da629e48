//! Where a Pod with a claim runs, and as whom: what the cluster allows, and where the claim can be mounted. Pure.

use std::collections::BTreeMap;

use holdfast_crds::{JobSecurityContext, Reason, RunAs};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, NodeSelectorRequirement, PersistentVolumeClaim, Pod, PodSecurityContext, SeccompProfile,
    SecurityContext, Toleration,
};

use super::levels::united;
use super::mount::{Data, SourceMount};
use super::nodes;
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
    /// None: the platform's choice.
    user: Option<i64>,
    group: Option<i64>,
    /// Whether a source or a target says so itself.
    said: bool,
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
        Some(user) => Seat { user: Some(user.user), group: Some(user.group), said: true, ..Seat::default() },
        None if ground.enforced == Enforced::Restricted => Seat::of(USER),
        None => Seat::of(0),
    };
    if seat.user == Some(0) {
        // All of these `baseline` takes, so they are asked for in every namespace: a cluster may enforce it without a label.
        seat.capabilities = match purpose {
            // What it could write besides is mounted for reading only.
            Use::Read => vec!["DAC_OVERRIDE"],
            Use::Write { privileges: false } => vec!["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"],
            Use::Write { privileges: true } => vec!["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"],
        };
    }
    for holder in claims.into_iter().filter_map(|name| ground.claims.get(name)?.holder.as_ref()) {
        if !seat.nodes.contains(&holder.node) {
            seat.nodes.push(holder.node.clone());
        }
        seat.tolerations = united(std::mem::take(&mut seat.tolerations), holder.tolerations.clone());
    }
    Ok(Some(seat))
}

impl Seat {
    fn of(user: i64) -> Self {
        Self { user: Some(user), group: Some(user), ..Self::default() }
    }

    /// The seat with what a template says of users, where no source or target says it itself. `leave_out`: what nobody says is the
    /// platform's choice.
    pub(super) fn shaped(mut self, template: &JobSecurityContext, leave_out: bool) -> Self {
        if self.said {
            return self;
        }
        let own = if leave_out { None } else { Some(USER) };
        if template.run_as_user.is_some() || leave_out {
            self.user = template.run_as_user;
            self.group = template.run_as_group.or(own);
            self.capabilities.clear();
        } else if template.run_as_group.is_some() {
            self.group = template.run_as_group;
        }
        self
    }

    /// The Pod's side of it. No `fsGroup`: the kubelet would give it to every file of the claim.
    pub(super) fn of_pod(&self) -> PodSecurityContext {
        PodSecurityContext {
            run_as_non_root: Some(self.user != Some(0)),
            run_as_user: self.user,
            run_as_group: self.group,
            // Where the platform chooses a group all the same, as OpenShift does, files that have it stay as they are.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
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
    pub(super) fn tolerations(&self, said: Vec<Toleration>) -> Vec<Toleration> {
        united(said, self.tolerations.clone())
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
        Some(nodes::with_each_term(said, |term| term.match_fields.get_or_insert_default().extend(here.iter().cloned())))
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
        // A namespace without a label may still be one of a cluster that enforces `baseline` everywhere.
        for label in [None, Some("privileged"), Some("baseline")] {
            assert_eq!(reads(label, &[]), (Some(0), vec!["DAC_OVERRIDE"], Some(false)), "{label:?}");
        }
        assert_eq!(reads(Some("restricted"), &[]), (Some(USER), vec![], Some(true)));
        assert_eq!(reads(Some("something new"), &[]), (Some(USER), vec![], Some(true)));
        for label in [None, Some("restricted")] {
            assert_eq!(reads(label, &[RunAs { user: 1000, group: 1001 }]), (Some(1000), vec![], Some(true)));
        }
        let writes =
            seat(&[mount("u")], &[], Use::Write { privileges: true }, &Ground::of(None, &[], &[])).unwrap().unwrap();
        assert_eq!(writes.capabilities, ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"]);
        assert_eq!(writes.of_pod().fs_group, None);
    }

    #[test]
    fn no_capability_is_asked_for_that_baseline_refuses() {
        // <https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline>
        let baseline = [
            "AUDIT_WRITE",
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "MKNOD",
            "NET_BIND_SERVICE",
            "SETFCAP",
            "SETGID",
            "SETPCAP",
            "SETUID",
            "SYS_CHROOT",
        ];
        for purpose in [Use::Read, Use::Write { privileges: false }, Use::Write { privileges: true }] {
            for label in [None, Some("privileged"), Some("baseline"), Some("restricted")] {
                let seat = seat(&[mount("uploads")], &[], purpose, &Ground::of(label, &[], &[])).unwrap().unwrap();
                assert!(seat.capabilities.iter().all(|c| baseline.contains(c)), "{label:?} {:?}", seat.capabilities);
            }
        }
    }

    #[test]
    fn a_template_says_who_reads_where_the_source_does_not_and_ids_can_be_left_to_the_platform() {
        let shaped = |user: &[RunAs], said: (Option<i64>, Option<i64>), leave_out: bool| {
            let seat = seat(&[mount("uploads")], user, Use::Read, &Ground::of(None, &[], &[])).unwrap().unwrap();
            let template =
                JobSecurityContext { run_as_user: said.0, run_as_group: said.1, ..JobSecurityContext::default() };
            let seat = seat.shaped(&template, leave_out);
            (seat.user, seat.group, seat.capabilities.len(), seat.of_pod().run_as_non_root)
        };
        let mine = [RunAs { user: 7, group: 8 }];
        assert_eq!(shaped(&[], (None, None), false), (Some(0), Some(0), 1, Some(false)));
        assert_eq!(shaped(&[], (Some(1000), None), false), (Some(1000), Some(USER), 0, Some(true)));
        assert_eq!(shaped(&[], (Some(1000), Some(1001)), false), (Some(1000), Some(1001), 0, Some(true)));
        assert_eq!(shaped(&[], (None, None), true), (None, None, 0, Some(true)));
        assert_eq!(shaped(&[], (Some(1000), None), true), (Some(1000), None, 0, Some(true)));
        assert_eq!(shaped(&mine, (Some(1000), None), true), (Some(7), Some(8), 0, Some(true)));
    }

    #[test]
    fn a_pod_without_claims_has_no_seat_of_its_own_and_two_users_are_one_too_many() {
        assert_eq!(seat(&[SourceMount::default()], &[], Use::Read, &Ground::default()).unwrap(), None);
        let users = [RunAs { user: 1, group: 1 }, RunAs { user: 2, group: 1 }];
        assert!(seat(&[mount("a")], &users, Use::Read, &Ground::default()).is_err());
    }
}
