//! TLS to PostgreSQL: what `sslmode` and `sslrootcert` of a connection string
//! mean, as libpq has them ("SSL Support" of PostgreSQL's libpq chapter).

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How much a server has to prove before it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// `require`: nothing; only who listens on the way is kept out.
    Nothing,
    /// `verify-ca`, and `require` beside a `sslrootcert`, as in libpq: a
    /// certificate of a known authority, in whosever name.
    Authority,
    /// `verify-full`: such a certificate in the host's name.
    Name,
}

/// What a connection string demands of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    /// What the server has to prove.
    pub(super) proof: Proof,
    /// The authorities' PEM file; `None`: those of the system.
    pub(super) authorities: Option<PathBuf>,
}

/// Why there is no TLS as demanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct TlsError(String);

impl Demand {
    /// What makes the TLS of each connection. The file is read now.
    pub(super) fn connect(&self) -> Result<MakeRustlsConnect, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError(format!("no TLS: {error}")))?;
        let lenient = |authorities| {
            Arc::new(Lenient {
                authorities,
                provider: provider.clone(),
            })
        };
        let verifier: Arc<dyn ServerCertVerifier> = match self.proof {
            Proof::Nothing => lenient(None),
            Proof::Authority => lenient(Some(self.verifier(provider.clone())?)),
            Proof::Name => self.verifier(provider)?,
        };
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        let whose = match &self.authorities {
            Some(file) => {
                let whose = format!("sslrootcert {}", file.display());
                let said = |error: &dyn std::fmt::Display| TlsError(format!("{whose}: {error}"));
                for certificate in
                    CertificateDer::pem_file_iter(file).map_err(|error| said(&error))?
                {
                    let certificate = certificate.map_err(|error| said(&error))?;
                    roots.add(certificate).map_err(|error| said(&error))?;
                }
                whose
            }
            None => {
                // Stores of systems hold some that nobody can parse.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                "the system".to_owned()
            }
        };
        if roots.is_empty() {
            return Err(TlsError(format!(
                "{whose} has no certificate of an authority"
            )));
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsError(format!("{whose}: {error}")))
    }
}

/// Asks for no name, and for an authority only where there are some: without
/// them it believes everybody, as `sslmode=require` does.
#[derive(Debug)]
struct Lenient {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is what is looked at last.
        match authorities.verify_server_cert(certificate, chain, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
