//! A certificate authority of the test's own.

#![allow(
    clippy::expect_used,
    reason = "a test harness fails loudly, with what it was doing"
)]

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;

/// An authority that nobody trusts who was not told to.
pub struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When its key cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority of a test");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, key }
    }

    /// Its certificate, as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for these names and addresses under this number, and its
    /// key; both as PEM.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn issue(&self, names: &[&str], number: u64) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names for a certificate");
        params.serial_number = Some(SerialNumber::from(number));
        let certificate = params
            .signed_by(&key, &self.certificate, &self.key)
            .expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A client certificate with this common name, under this number, and its
    /// key; both as PEM.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn issue_to(&self, common_name: &str, number: u64) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(number));
        let certificate = params
            .signed_by(&key, &self.certificate, &self.key)
            .expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// The list of revoked certificates, with these numbers in it, as PEM.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn revocations(&self, numbers: &[u64]) -> String {
        CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: numbers
                .iter()
                .map(|number| RevokedCertParams {
                    serial_number: SerialNumber::from(*number),
                    revocation_time: date_time_ymd(2024, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.certificate, &self.key)
        .expect("a list")
        .pem()
        .expect("a list as PEM")
    }

    /// What a server needs that is known by these names and addresses.
    ///
    /// # Panics
    /// When the certificate cannot be made.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let (certificate, key) = self.certify(names);
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a key that fits its certificate");
        Arc::new(config)
    }

    /// The same as PEM: the certificate, and its key.
    ///
    /// # Panics
    /// When the certificate cannot be made.
    #[must_use]
    pub fn server_pem(&self, names: &[&str]) -> (String, String) {
        let (certificate, key) = self.certify(names);
        (certificate.pem(), key.serialize_pem())
    }

    fn certify(&self, names: &[&str]) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)
            .expect("names for a certificate")
            .signed_by(&key, &self.certificate, &self.key)
            .expect("a certificate");
        (certificate, key)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
