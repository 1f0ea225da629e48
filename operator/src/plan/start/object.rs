//! Which object a Pod misses, which key of it, and which field of the user's asked for it: the platform names some of that at best. Pure.

use holdfast_crds::Reason;

use crate::plan::observed::{CLAIM, CONFIG_MAP, ObservedJob, ObservedPod, ObservedVolume, SECRET, Words};
use crate::task::Failure;

use super::sentence;

/// What is said of a claim that is there. Since 1.35 the scheduler ends whatever it says before it looks at a node with "not found".
const LEAVES_IT_THERE: [&str; 3] = ["bound to non-existent", "is being deleted", "unbound immediate"];

/// What is missing, where the platform says that of an object of the Pod: a Secret, a ConfigMap, a claim or one of their keys.
pub(super) fn missing(job: &ObservedJob, pod: &ObservedPod, words: &Words) -> Option<Failure> {
    let text = words.message.as_str();
    let lower = text.to_ascii_lowercase();
    let is_missing = lower.contains("not found") || lower.contains("non-existent");
    if !is_missing || LEAVES_IT_THERE.iter().any(|text| lower.contains(text)) {
        return None;
    }
    let (kind, reason) = if lower.contains("configmap") || lower.contains("config key") {
        (CONFIG_MAP, Reason::ConfigMapNotFound)
    } else if lower.contains("secret") {
        (SECRET, Reason::SecretNotFound)
    } else if lower.contains("persistentvolumeclaim") {
        (CLAIM, Reason::ClaimNotFound)
    } else {
        return None;
    };
    let key = after(text, "secret key: ").or_else(|| after(text, "config key: "));
    let volume = quoted(text, "volume ").unwrap_or_default();
    let word = match kind {
        SECRET => "secret ",
        CONFIG_MAP => "configmap ",
        _ => "persistentvolumeclaim ",
    };
    let named = quoted(&lower, word).or_else(|| quoted(&lower, "persistentvolumeclaims "));
    let of_volume = |v: &&ObservedVolume| {
        let here = volume.is_empty() || v.name == volume;
        let it = named.as_ref().is_none_or(|named| v.object.eq_ignore_ascii_case(named));
        here && it && key.is_none_or(|key| v.keys.is_empty() || v.keys.iter().any(|(k, _)| k == key))
    };
    let found = pod.volumes.iter().filter(|v| v.kind == kind).find(of_volume);
    let object = found.map(|v| v.object.clone()).or(named);
    let field = found.and_then(|v| field(job, v, key)).map(|field| format!(" ({field})")).unwrap_or_default();
    let said = sentence(words);
    let message = match (object, key) {
        (Some(object), Some(key)) => {
            format!("{kind} {object} has no key {key}{field}: add it, or name the key that holds it; {said}")
        }
        (Some(object), None) => {
            format!("{kind} {object} is not there{field}: create it in this namespace, or correct the name; {said}")
        }
        (None, _) => said,
    };
    Some(Failure::new(reason, message))
}

/// The field that names an object, or a key of it.
fn field(job: &ObservedJob, volume: &ObservedVolume, key: Option<&str>) -> Option<String> {
    let file = key.and_then(|key| volume.keys.iter().find(|(k, _)| k == key)).map(|(_, file)| file.as_str());
    if let Some(of_store) = volume.name.strip_prefix("store-") {
        let field = match of_store {
            "credentials" => "s3.credentialsSecret",
            "ca" => "s3.caBundle",
            "identity" => "encryption.identitySecret",
            _ => return None,
        };
        let key = if file.is_some() && of_store != "credentials" { ".key" } else { "" };
        return Some(format!("spec.{field}{key} of the BackupStore"));
    }
    let source = volume.source.as_deref()?;
    let (_, engine) = job.sources.iter().find(|(name, _)| name == source)?;
    let what = volume.name.splitn(3, '-').nth(2)?;
    let field = match (what, file) {
        ("credentials", Some("username")) => "credentialsSecret.usernameKey",
        ("credentials", Some(_)) => "credentialsSecret.passwordKey",
        ("credentials", None) => "credentialsSecret",
        ("uri", Some(_)) => "uriSecret.key",
        ("uri", None) => "uriSecret",
        ("ca", Some(_)) => "tls.caBundle.key",
        ("ca", None) => "tls.caBundle",
        ("data", _) => "claimName",
        (what, _) if what.starts_with("configmaps") => "configMaps",
        (what, _) if what.starts_with("secrets") => "secrets",
        _ => return None,
    };
    let of_policy = format!("spec.sources[{source}].{engine}.{field} of BackupPolicy {}", job.policy);
    Some(if job.task == "restore" {
        format!("spec.into[{source}].{engine}.{field} of the RestoreRequest, or {of_policy}")
    } else {
        of_policy
    })
}

/// What stands in quotes after a word.
fn quoted(text: &str, word: &str) -> Option<String> {
    text.match_indices(word).find_map(|(at, _)| {
        let rest = text[at + word.len()..].strip_prefix('"')?;
        rest.split_once('"').map(|(name, _)| name.to_owned())
    })
}

/// The word that follows a text.
fn after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split([' ', ',', ';']).next().filter(|word| !word.is_empty())
}
