//! Labels and annotations of Pods: what keeps other people's controllers from adding to a worker's Pod or ending it, unless a template says
//! otherwise. Pure.

use std::collections::BTreeMap;

use holdfast_crds::JobTemplate;

/// No container is added: a proxy that is no native sidecar never ends, and one that is not ready yet breaks the first connections.
const LABELS: [(&str, &str); 2] = [("sidecar.istio.io/inject", "false"), ("kuma.io/sidecar-injection", "disabled")];

/// The same for those that look at annotations; and no autoscaler ends a worker in the middle to save a node.
const ANNOTATIONS: [(&str, &str); 7] = [
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("consul.hashicorp.com/connect-inject", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
    ("kuma.io/sidecar-injection", "disabled"),
    ("linkerd.io/inject", "disabled"),
    ("sidecar.istio.io/inject", "false"),
    ("sidecar.opentelemetry.io/inject", "false"),
];

/// The labels of a Pod, beside those that Holdfast finds it by.
pub(super) fn labels(template: &JobTemplate) -> BTreeMap<String, String> {
    over(&LABELS, &template.labels, &template.annotations)
}

/// The annotations of a Pod.
pub(super) fn annotations(template: &JobTemplate) -> BTreeMap<String, String> {
    over(&ANNOTATIONS, &template.annotations, &template.labels)
}

/// A template's value goes before the default of that name, also where it is a label and the default an annotation: an injector reads
/// both. An empty one takes the default away.
fn over(
    defaults: &[(&str, &str)],
    own: &BTreeMap<String, String>,
    elsewhere: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let is_default = |key: &str| LABELS.iter().chain(&ANNOTATIONS).any(|(name, _)| *name == key);
    let left = defaults.iter().filter(|(key, _)| !own.contains_key(*key) && !elsewhere.contains_key(*key));
    let set = own.iter().filter(|(key, value)| !(value.is_empty() && is_default(key)));
    left.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .chain(set.map(|(key, value)| (key.clone(), value.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn template(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> JobTemplate {
        JobTemplate { labels: of(labels), annotations: of(annotations), ..JobTemplate::default() }
    }

    #[test]
    fn no_mesh_adds_a_container_and_no_autoscaler_evicts_unless_the_template_says_so() {
        let without = JobTemplate::default();
        assert_eq!(labels(&without), of(&LABELS));
        assert_eq!(annotations(&without), of(&ANNOTATIONS));

        let own = template(&[("team", ""), ("a", "b")], &[("linkerd.io/inject", "enabled"), ("note", "")]);
        assert_eq!(labels(&own)["team"], "", "an empty label that is no default is a label");
        assert_eq!(annotations(&own)["linkerd.io/inject"], "enabled");
        assert_eq!(annotations(&own)["note"], "");
        assert_eq!(annotations(&own).len(), ANNOTATIONS.len() + 1);
    }

    #[test]
    fn what_a_template_sets_or_takes_away_is_gone_as_label_and_as_annotation() {
        let istio = "sidecar.istio.io/inject";
        for (labelled, annotated) in [(vec![(istio, "true")], vec![]), (vec![], vec![(istio, "true")])] {
            let own = template(&labelled, &annotated);
            let set = [labels(&own), annotations(&own)].into_iter().filter_map(|all| all.get(istio).cloned());
            assert_eq!(set.collect::<Vec<_>>(), ["true"], "one that says no would be heard first");
        }
        for own in [template(&[(istio, "")], &[]), template(&[], &[(istio, "")])] {
            assert!(!labels(&own).contains_key(istio) && !annotations(&own).contains_key(istio));
        }
        let evictable = template(&[], &[("karpenter.sh/do-not-disrupt", "")]);
        assert!(!annotations(&evictable).contains_key("karpenter.sh/do-not-disrupt"));
    }
}
