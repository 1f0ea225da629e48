//! Encryption of a connection, by the modes that a policy knows. Reads the mounted certificates.

use std::path::Path;
use std::sync::Arc;

use holdfast_crds::{Reason, TlsMode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::task::{CA_BUNDLE, Failure};

/// The certificates of public authorities, as Debian installs them.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How a server is told from another.
#[derive(Debug)]
struct Verifier {
    /// None: whoever it is.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Its certificate must be for the name it was reached by.
    name: bool,
    provider: Arc<CryptoProvider>,
}

/// What a mode asks for; none where nothing is encrypted.
pub(super) fn config(mode: TlsMode, ca: Option<&Path>) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let unfit = |why: String| Failure::new(Reason::InvalidConfiguration, format!("TLS cannot be set up: {why}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let checked = matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    if mode == TlsMode::Disable {
        return Ok(None);
    }
    let chain = if checked {
        let file = ca.unwrap_or(Path::new(SYSTEM_CERTIFICATES));
        let about = |why: String| match ca {
            Some(_) => unfit(format!("{CA_BUNDLE}: {why}")),
            None => unfit(format!("{}: {why}: set {CA_BUNDLE}", file.display())),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| about(e.to_string()))? {
            let certificate = certificate.map_err(|e| about(e.to_string()))?;
            // Of the public ones a few may be of a kind that is not known; of one's own all must be.
            if let Err(error) = roots.add(certificate)
                && ca.is_some()
            {
                return Err(about(error.to_string()));
            }
        }
        if roots.is_empty() {
            return Err(about(
                "there is no certificate (PEM) in it: put that of the server's authority there".to_owned(),
            ));
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Some(builder.build().map_err(|e| about(e.to_string()))?)
    } else {
        None
    };
    let verifier = Verifier { chain, name: mode == TlsMode::VerifyFull, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unfit(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is found right before the name is looked at.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
