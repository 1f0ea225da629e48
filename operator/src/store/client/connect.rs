//! Makes the S3 client of a store: TLS, credentials, addressing. Talks to the file system and, for an ambient identity, to its service.

use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use holdfast_crds::Reason;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::clocks::Watch;
use super::credentials::CredentialFiles;
use super::genuine::Genuine;
use crate::task::{Failure, StoreTask};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn client(store: &StoreTask, clocks: Watch) -> Result<Client, Failure> {
    let http = http_client(store)?;
    let region = Region::new(store.s3.region.clone());
    let mut builder = if let Some(folder) = &store.credentials {
        let files = CredentialFiles::new(folder);
        if let Some(problem) = files.problem() {
            let secret = store.s3.credentials_secret.as_deref().unwrap_or("of its credentials");
            let message = format!("store {}: Secret {secret} (spec.s3.credentialsSecret): {problem}", store.name);
            return Err(Failure::new(Reason::InvalidConfiguration, message));
        }
        Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(region)
            .credentials_provider(files)
            .identity_cache(IdentityCache::no_cache())
    } else {
        let ambient = aws_config::defaults(BehaviorVersion::latest()).http_client(http).region(region).load().await;
        Builder::from(&ambient)
    };
    builder.set_endpoint_url(store.s3.endpoint.clone());
    let config = builder
        .interceptor(clocks)
        .interceptor(Genuine)
        .force_path_style(store.s3.uses_path_style())
        // We try again ourselves, by one rule for connections, answers and bodies.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // We send our own checksums; the SDK's come in trailers that many services refuse.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Ok(Client::from_conf(config))
}

fn http_client(store: &StoreTask) -> Result<SharedHttpClient, Failure> {
    let builder = aws_smithy_http_client::Builder::new();
    let proxied = is_proxied();
    let plain = store.s3.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if plain && store.credentials.is_some() {
        return Ok(if proxied {
            builder.build_with_connector_fn(|settings, components| {
                let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
                connector.set_connector_settings(settings.cloned());
                connector.set_sleep_impl(components.and_then(aws_sdk_s3::config::RuntimeComponents::sleep_impl));
                connector.build_http()
            })
        } else {
            builder.build_http()
        });
    }
    let trust = match &store.ca {
        Some(file) => TrustStore::empty().with_pem_certificate(certificates(file, store)?),
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trust).build().map_err(|e| {
        Failure::new(Reason::InvalidConfiguration, format!("store {}: TLS cannot be set up: {e}", store.name))
    })?;
    let provider = Provider::Rustls(CryptoMode::Ring);
    if !proxied {
        return Ok(builder.tls_provider(provider).tls_context(context).build_https());
    }
    Ok(builder.build_with_connector_fn(move |settings, components| {
        let connector = Connector::builder().tls_provider(provider.clone()).tls_context(context.clone());
        let mut connector = connector.proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(aws_sdk_s3::config::RuntimeComponents::sleep_impl));
        connector.build()
    }))
}

/// Whether the environment names a proxy, as a `jobTemplate` sets it. Which servers are reached without, `NO_PROXY` says.
fn is_proxied() -> bool {
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// The file's content, once it is known to hold certificates: the HTTP client would panic over any other.
fn certificates(file: &Path, store: &StoreTask) -> Result<Vec<u8>, Failure> {
    let unfit = |why: String| {
        let from = match &store.s3.ca_bundle {
            Some(ca) => format!("ConfigMap {}, key {}", ca.config_map, ca.key),
            None => file.display().to_string(),
        };
        let message = format!("store {}: {from} (spec.s3.caBundle): {why}", store.name);
        Failure::new(Reason::InvalidConfiguration, message)
    };
    let pem = std::fs::read(file).map_err(|e| unfit(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| unfit(format!("not PEM: {e}")))?;
        roots.add(certificate).map_err(|e| unfit(format!("not a certificate: {e}")))?;
    }
    if roots.is_empty() {
        return Err(unfit("it holds no certificate (PEM)".to_owned()));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let store: StoreTask = serde_json::from_value(serde_json::json!({
            "name": "main",
            "s3": {"bucket": "b", "caBundle": {"configMap": "authorities", "key": "ca.crt"}},
        }))
        .unwrap();
        for content in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&file, content).unwrap();
            let failure = certificates(&file, &store).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidConfiguration, "{content}");
            assert!(failure.message.starts_with("store main: ConfigMap authorities, key ca.crt (spec.s3.caBundle): "));
        }
    }
}
