//! What a person should do about a store's error: the field, the object and the next step. Pure.

use super::trouble::Kind;
use crate::task::StoreTask;

/// The fields and objects that a store is made of, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    /// The Secret with its keys, in words.
    secret: String,
    /// The certificates to trust, in words.
    authorities: String,
    /// Whether the bucket is a part of the host's name.
    in_host: bool,
    region: String,
}

/// Words of the network and of TLS, with what they mean. The first that fits counts.
const WORDS: &[(&[&str], &str)] = &[
    (
        &["InvalidContentType"],
        "what answers there does not speak TLS: write http:// in spec.s3.endpoint, or name the port that does",
    ),
    (
        &["HTTP request to an HTTPS server", "HTTP request was sent to HTTPS port", "HTTP request was sent to a HTTPS"],
        "the service speaks TLS there: write https:// in spec.s3.endpoint",
    ),
    (
        &["invalid HTTP version", "invalid HTTP header", "connection closed before message completed", "invalid token"],
        "what answers there does not speak plain HTTP: it is the port of another service, or wants https:// in spec.s3.endpoint",
    ),
    (&["certificate expired", "Expired"], "the service's certificate has expired: renew it there"),
    (&["NotValidYet", "not valid yet"], "the service's certificate is not valid yet: look at its clock and the node's"),
    (
        &["NotValidForName", "not valid for name"],
        "the service's certificate is for another host: write a name that it has in spec.s3.endpoint",
    ),
];

impl Objects {
    pub(super) fn of(store: &StoreTask) -> Self {
        let secret = match &store.s3.credentials_secret {
            Some(name) => {
                format!(
                    "the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of Secret {name} (spec.s3.credentialsSecret)"
                )
            }
            None if store.credentials.is_some() => "the keys in the store's credentialsSecret".to_owned(),
            None => "the identity of the Job's service account (spec.s3.serviceAccountName)".to_owned(),
        };
        let authorities = match &store.s3.ca_bundle {
            Some(ca) => format!(
                "the service's certificate is not from an authority in ConfigMap {}, key {} (spec.s3.caBundle): put that of the service there",
                ca.config_map, ca.key
            ),
            None => "the service's certificate is not from a public authority: put the one that signed it into a ConfigMap, and name that in spec.s3.caBundle"
                .to_owned(),
        };
        Self { secret, authorities, in_host: !store.s3.uses_path_style(), region: store.s3.region.clone() }
    }

    /// What to do where `why` is what was said.
    pub(super) fn advice(&self, kind: Kind, why: &str) -> String {
        let known = WORDS.iter().find(|(all, _)| all.iter().any(|words| why.contains(words)));
        if let Some((_, advice)) = known.filter(|_| matches!(kind, Kind::Passing | Kind::Refused | Kind::Foreign)) {
            return (*advice).to_owned();
        }
        match kind {
            Kind::Passing if ["UnknownIssuer", "CaUsedAsEndEntity", "BadSignature"].iter().any(|w| why.contains(w)) => {
                self.authorities.clone()
            }
            Kind::Passing if why.contains("dns error") || why.contains("lookup address") => {
                let host = "the host of spec.s3.endpoint does not resolve: correct its name";
                if self.in_host {
                    format!("{host}, or set spec.s3.pathStyle: true, where <bucket>.<host> is no name of the service")
                } else {
                    host.to_owned()
                }
            }
            Kind::Passing if why.contains("Connection refused") => {
                "nothing listens there: check host and port of spec.s3.endpoint, and that the service runs".to_owned()
            }
            Kind::Passing => "check spec.s3.endpoint and whether the store is up and well".to_owned(),
            Kind::NoBucket => "create the bucket, or correct spec.s3.bucket, spec.s3.region or spec.s3.endpoint".to_owned(),
            Kind::BadCredentials => format!("check {}", self.secret),
            Kind::NoIdentity => format!(
                "what hands out {} does not answer, or not well: see that it runs and that the Job may reach it, or name a Secret in spec.s3.credentialsSecret",
                self.secret
            ),
            Kind::Forbidden if why.to_lowercase().contains("kms:") => format!(
                "give {} the rights kms:GenerateDataKey, to write, and kms:Decrypt, to read, on the key that the objects are encrypted with",
                self.secret
            ),
            Kind::Forbidden => format!("check {}, and what they may do with the bucket", self.secret),
            Kind::WrongRegion => {
                let asked = format!("the bucket is in another region than spec.s3.region ({})", self.region);
                match region(why) {
                    Some(region) => format!("{asked}: write {region} there"),
                    None => format!("{asked}: write the one that it is in"),
                }
            }
            Kind::Skewed => "set the clock that is wrong: that of the node, or that of the store".to_owned(),
            Kind::Full => "the store is full".to_owned(),
            Kind::Damaged => "take another backup".to_owned(),
            Kind::Archived => "have the service bring it back, as with aws s3api restore-object, and leave backups out of the lifecycle rule that archives".to_owned(),
            Kind::NoUpload => "the store was restarted in the middle, or ends uploads some time after their beginning: MinIO does after 24 h (api stale_uploads_expiry)".to_owned(),
            Kind::NotFound => "look who deletes in the bucket".to_owned(),
            Kind::Foreign => {
                "what answers there does not answer as an S3 service: check that spec.s3.endpoint is that of one, without the bucket in it, and what stands before it: a proxy, an ingress, a login".to_owned()
            }
            Kind::Exists | Kind::Refused => {
                "the store does not accept the request: check spec.s3.endpoint, spec.s3.region and spec.s3.bucket".to_owned()
            }
        }
    }
}

/// The region that a service says it is in.
fn region(why: &str) -> Option<&str> {
    let quoted = |after: &str| {
        let rest = why.split_once(after)?.1.trim_start();
        let end = |c: char| matches!(c, '\'' | '`' | '"' | ' ' | ';' | ',' | ')' | '…');
        let word = rest.trim_start_matches(['\'', '`', '"']).split(end).next()?;
        (!word.is_empty()).then_some(word)
    };
    // AWS names the region, Garage all that a signature is for: date, region and service.
    let scope = || quoted("expected:")?.split('/').nth(1);
    quoted("the bucket is in ").or_else(|| quoted("expecting ")).or_else(scope).filter(|region| !region.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_from_each_services_words() {
        for (why, named) in [
            ("the region 'us-east-1' is wrong; expecting 'eu-central-1'", Some("eu-central-1")),
            ("the store answers 301 PermanentRedirect; the bucket is in eu-west-3", Some("eu-west-3")),
            (
                "unexpected scope: '20261130/us-east-1/s3/aws4_request', expected: '20261130/garage/s3/aws4_request'",
                Some("garage"),
            ),
            (
                "unexpected scope: `20261130/us-east-1/s3/aws4_request`, expected: `20261130/garage/s3/aws4_request`",
                Some("garage"),
            ),
            ("the region is wrong", None),
            ("unexpected scope, expected: something", None),
        ] {
            assert_eq!(region(why), named, "{why}");
        }
    }
}
