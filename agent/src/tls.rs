//! Whom the agent trusts over TLS, and how it shows who it is.
//!
//! The backend's certificate is verified always, against the system's
//! authorities or, where `AV_CA_FILE` names some, against those alone. There
//! is no way to trust any certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use av_proto::FieldError;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// The files of an agent's TLS. None of them is read until it is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `AV_CA_FILE`: authorities in PEM, in place of the system's.
    pub authorities: Option<PathBuf>,
    /// `AV_CLIENT_CERT` and `AV_CLIENT_KEY`: a certificate with its chain, and
    /// its key, both in PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why the files cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{variable}: {path}: {problem}")]
    File {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system has no authorities.
    #[error(
        "this machine knows no certificate authorities: apt install ca-certificates, or name a \
         file of them with AV_CA_FILE"
    )]
    NoAuthorities,
}

/// When the files were last changed: a renewed certificate is taken into use
/// without a restart.
pub type Stamp = Vec<Option<(SystemTime, u64)>>;

impl TlsFiles {
    const AUTHORITIES: &str = "AV_CA_FILE";
    const CERTIFICATE: &str = "AV_CLIENT_CERT";
    const KEY: &str = "AV_CLIENT_KEY";

    /// The files that the environment names.
    ///
    /// # Errors
    /// Where there is a certificate without its key, or a key without its
    /// certificate.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, FieldError> {
        let path = |name: &str| lookup(name).map(PathBuf::from);
        let client = match (path(Self::CERTIFICATE), path(Self::KEY)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(FieldError::new(
                    Self::KEY,
                    "is missing beside AV_CLIENT_CERT",
                ));
            }
            (None, Some(_)) => {
                return Err(FieldError::new(
                    Self::CERTIFICATE,
                    "is missing beside AV_CLIENT_KEY",
                ));
            }
        };
        Ok(Self {
            authorities: path(Self::AUTHORITIES),
            client,
        })
    }

    /// How the files stand now.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let client = self.client.iter().flat_map(|(cert, key)| [cert, key]);
        self.authorities
            .iter()
            .chain(client)
            .map(|path| {
                let metadata = fs::metadata(path).ok()?;
                Some((metadata.modified().ok()?, metadata.len()))
            })
            .collect()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(&self) -> Result<TlsConfig, TlsError> {
        let authorities = match &self.authorities {
            Some(path) => certificates(Self::AUTHORITIES, path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        if authorities.is_empty() {
            return Err(TlsError::NoAuthorities);
        }
        let client = match &self.client {
            Some((certificate, key)) => Some(client(certificate, key)?),
            None => None,
        };
        let roots = authorities.iter().map(shared).collect();
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(client)
            .build())
    }
}

fn shared(der: &CertificateDer<'_>) -> Certificate<'static> {
    Certificate::from_der(der).to_owned()
}

fn problem(variable: &'static str, path: &Path, problem: impl ToString) -> TlsError {
    TlsError::File {
        variable,
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

fn certificates(
    variable: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = fs::read(path).map_err(|error| problem(variable, path, error))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<_, _>>()
        .map_err(|_| problem(variable, path, "is not PEM"))?;
    if certificates.is_empty() {
        return Err(problem(variable, path, "has no certificate"));
    }
    Ok(certificates)
}

fn client(certificate: &Path, key: &Path) -> Result<ClientCert, TlsError> {
    let chain = certificates(TlsFiles::CERTIFICATE, certificate)?;
    let content = fs::read(key).map_err(|error| problem(TlsFiles::KEY, key, error))?;
    // The error must not quote the file.
    let none = || {
        problem(
            TlsFiles::KEY,
            key,
            "has no private key in PEM without a password",
        )
    };
    let der = PrivateKeyDer::from_pem_slice(&content).map_err(|_| none())?;
    let parsed = PrivateKey::from_pem(&content).map_err(|_| none())?;
    CertifiedKey::from_der(chain.clone(), der, &default_provider()).map_err(
        |error| match error {
            rustls::Error::InconsistentKeys(_) => problem(
                TlsFiles::KEY,
                key,
                format!("is not the key of {}", certificate.display()),
            ),
            rustls::Error::InvalidCertificate(why) => {
                problem(TlsFiles::CERTIFICATE, certificate, unusable(&why))
            }
            error => problem(TlsFiles::KEY, key, format!("cannot be used: {error}")),
        },
    )?;
    let chain: Vec<_> = chain.iter().map(shared).collect();
    Ok(ClientCert::new_with_certs(&chain, parsed))
}

/// Why a certificate cannot be shown to anybody.
fn unusable(why: &rustls::CertificateError) -> String {
    // The library of certificates has no public name for it.
    if format!("{why:?}").contains("UnsupportedCertVersion") {
        return "is of another version of X.509 than 3, such as openssl makes without extensions: \
                issue it again with extendedKeyUsage=clientAuth in the file of its -extfile"
            .to_owned();
    }
    format!("cannot be used: {why}")
}

/// What went wrong in a handshake, in words that say what to do; `None` for
/// what is not of TLS. `text` is the library's.
#[must_use]
pub fn explain(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    [
        (
            "unknownissuer",
            "the backend's certificate is of an authority that is not trusted here; AV_CA_FILE \
             names one",
        ),
        // Another authority of the same name.
        (
            "badsignature",
            "the backend's certificate is of an authority that is not trusted here; AV_CA_FILE \
             names one",
        ),
        (
            "not valid for name",
            "the backend's certificate is that of another name",
        ),
        (
            "expired",
            "the backend's certificate has expired, or this machine's clock is wrong",
        ),
        (
            "not valid yet",
            "the backend's certificate is not valid yet, or this machine's clock is wrong",
        ),
        (
            "certificaterequired",
            "the backend demands a client certificate: AV_CLIENT_CERT and AV_CLIENT_KEY name it",
        ),
        (
            "unknownca",
            "the backend does not trust the authority of this agent's client certificate",
        ),
        (
            "certificaterevoked",
            "the backend says that this agent's client certificate is revoked",
        ),
        (
            "certificateexpired",
            "the backend says that this agent's client certificate has expired",
        ),
        (
            "invalidcontenttype",
            "what answers speaks no TLS: look whether backend_url should begin with http://",
        ),
    ]
    .into_iter()
    // `received fatal alert: CertificateExpired` is of the other side's words.
    .rev()
    .find(|(word, _)| text.contains(word))
    .map(|(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(variables: &[(&str, &str)]) -> Result<TlsFiles, String> {
        TlsFiles::from_lookup(|name| {
            let found = variables.iter().find(|(key, _)| *key == name)?;
            Some(found.1.to_owned())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        assert_eq!(files(&[]).unwrap(), TlsFiles::default());
        let both = files(&[("AV_CLIENT_CERT", "/c"), ("AV_CLIENT_KEY", "/k")]).unwrap();
        assert_eq!(both.client, Some(("/c".into(), "/k".into())));
        for (name, said) in [
            ("AV_CLIENT_CERT", "AV_CLIENT_KEY: is missing"),
            ("AV_CLIENT_KEY", "AV_CLIENT_CERT: is missing"),
        ] {
            assert!(files(&[(name, "/x")]).unwrap_err().starts_with(said));
        }
    }

    #[test]
    fn a_file_that_cannot_serve_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let load = || {
            let files = TlsFiles {
                authorities: Some(path.clone()),
                client: None,
            };
            files.load().err().unwrap().to_string()
        };
        for (content, said) in [
            (None, "No such file"),
            (Some("nothing"), "has no certificate"),
            (
                Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
                "is not PEM",
            ),
        ] {
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            let error = load();
            assert!(error.starts_with("AV_CA_FILE: "), "{error}");
            assert!(error.contains("ca.pem") && error.contains(said), "{error}");
        }
    }

    /// CN=Paris, without extensions, as `openssl x509 -req` of OpenSSL 3.0
    /// makes it.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBGzCBwwIUa6vMoPNdTcTKl7cxz8esIeg8uGEwCgYIKoZIzj0EAwIwEDEOMAwG
A1UEAwwFUGFyaXMwIBcNMjYxMTMwMTIyNjE4WhgPMjEyNjExMDYxMjI2MThaMBAx
DjAMBgNVBAMMBVBhcmlzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAERtiGowqh
K2Jj9fVJqPDjp0K4der7AfmRpLV0VMoCuDMeSPieXzp60TK1p8xTGW1Ww0Va8T8j
G5ijjDxGPfdrXjAKBggqhkjOPQQDAgNHADBEAiBA2sQDfsuI7NnY7RiqXHGLo7iB
0ji5j0clgk+3pvteUwIgP26fmBL6aZpMbelipt5Q5MS7bSdcLinFAVtH2HNWjs8=
-----END CERTIFICATE-----
";

    #[test]
    fn a_client_certificate_that_cannot_serve_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let files = TlsFiles {
            authorities: None,
            client: Some((certificate.clone(), key.clone())),
        };
        let pair = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::new(Vec::new())
            .and_then(|params| params.self_signed(&pair))
            .unwrap()
            .pem();
        fs::write(&key, pair.serialize_pem()).unwrap();
        fs::write(&certificate, &good).unwrap();
        assert!(files.load().is_ok());

        fs::write(&certificate, VERSION_1).unwrap();
        let error = files.load().err().unwrap().to_string();
        assert!(
            error.starts_with("AV_CLIENT_CERT: ")
                && error.contains("another version of X.509 than 3"),
            "{error}"
        );

        fs::write(&certificate, &good).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        fs::write(&key, other.serialize_pem()).unwrap();
        let error = files.load().err().unwrap().to_string();
        assert!(
            error.starts_with("AV_CLIENT_KEY: ") && error.contains("is not the key of "),
            "{error}"
        );
    }

    #[test]
    fn handshakes_that_fail_say_what_to_do() {
        for (text, said) in [
            ("io: invalid peer certificate: UnknownIssuer", "AV_CA_FILE"),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is",
                "another name",
            ),
            (
                "invalid peer certificate: certificate expired: verification time",
                "the backend's certificate has expired",
            ),
            (
                "received fatal alert: CertificateExpired",
                "this agent's client certificate has expired",
            ),
            (
                "received fatal alert: CertificateRequired",
                "AV_CLIENT_CERT",
            ),
            ("received fatal alert: UnknownCA", "does not trust"),
            ("invalid peer certificate: BadSignature", "not trusted here"),
        ] {
            assert!(explain(text).unwrap().contains(said), "{text}");
        }
        assert_eq!(explain("connection refused"), None);
    }
}
