//! Which nodes a Pod can run on: those with the image's operating system and architecture, beside what a template asks for. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

const OS_LABEL: &str = "kubernetes.io/os";
const ARCHITECTURE_LABEL: &str = "kubernetes.io/arch";

/// The labels that nodes must have: what the template says, and Linux.
pub(super) fn selector(mut said: BTreeMap<String, String>) -> BTreeMap<String, String> {
    said.entry(OS_LABEL.to_owned()).or_insert_with(|| "linux".to_owned());
    said
}

/// What the template says of nodes, and that theirs is one of the image's architectures. None: any.
pub(super) fn affinity(said: Option<Affinity>, architectures: &[String]) -> Option<Affinity> {
    if architectures.is_empty() {
        return said;
    }
    let requirement = NodeSelectorRequirement {
        key: ARCHITECTURE_LABEL.to_owned(),
        operator: "In".to_owned(),
        values: Some(architectures.to_vec()),
    };
    Some(with_each_term(said, |term| term.match_expressions.get_or_insert_default().push(requirement.clone())))
}

/// Has something hold of nodes beside what is said: one of the terms has to hold, so each gets it.
pub(super) fn with_each_term(said: Option<Affinity>, add: impl Fn(&mut NodeSelectorTerm)) -> Affinity {
    let mut affinity = said.unwrap_or_default();
    let of_node = affinity.node_affinity.get_or_insert_default();
    let required =
        of_node.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
    // A term that says nothing matches no node, and neither does a list of none.
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    required.node_selector_terms.iter_mut().for_each(add);
    affinity
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_images_architectures_hold_beside_each_term_of_the_template() {
        let terms = |said: serde_json::Value, architectures: &[&str]| {
            let architectures: Vec<String> = architectures.iter().map(|&a| a.to_owned()).collect();
            let affinity = affinity(serde_json::from_value(said).unwrap(), &architectures);
            serde_json::to_value(affinity).unwrap()["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
                ["nodeSelectorTerms"]
                .clone()
        };
        let ours = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]});
        assert_eq!(terms(json!(null), &["amd64", "arm64"]), json!([{"matchExpressions": [ours]}]));
        let a = json!({"key": "a", "operator": "Exists"});
        let said = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [a]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
        ]}}});
        let both = terms(said.clone(), &["amd64", "arm64"]);
        assert_eq!(both[0]["matchExpressions"], json!([a, ours]));
        assert_eq!(both[1]["matchExpressions"], json!([ours]), "the fields of a term stay beside it");
        assert_eq!(both[1]["matchFields"][0]["values"], json!(["n1"]));
        assert_eq!(
            terms(said.clone(), &[])[0]["matchExpressions"],
            json!([a]),
            "without architectures it stays as it is"
        );
        assert_eq!(affinity(None, &[]), None);
    }

    #[test]
    fn nodes_run_linux_unless_the_template_says_otherwise() {
        let linux = [("kubernetes.io/os".to_owned(), "linux".to_owned())];
        assert_eq!(selector(BTreeMap::new()), linux.clone().into());
        let said = BTreeMap::from([("disk".to_owned(), "fast".to_owned())]);
        assert_eq!(selector(said.clone()), said.into_iter().chain(linux).collect());
    }
}
