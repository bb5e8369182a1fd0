//! The TLS session of a conversation, without a socket, and the end of the
//! server's certificate (RFC 5280, section 4.1.2.5).

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// Makes sessions.
#[derive(Debug, Clone)]
pub(super) struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Whoever(provider)))
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// A session with the server at `ip`, called `host` where it has a name.
    pub(super) fn session(&self, ip: IpAddr, host: Option<&str>) -> Result<Session, rustls::Error> {
        let name = host
            .and_then(|host| ServerName::try_from(host.to_owned()).ok())
            .unwrap_or_else(|| ServerName::from(ip));
        Ok(Session(Box::new(ClientConnection::new(
            Arc::clone(&self.0),
            name,
        )?)))
    }
}

/// One session.
#[derive(Debug)]
pub(super) struct Session(Box<ClientConnection>);

impl Session {
    /// Sends `plain` once the handshake is through.
    pub(super) fn say(&mut self, plain: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(plain)
    }

    /// Takes what came over the wire; what it says goes to `plain`.
    pub(super) fn take(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        while !wire.is_empty() {
            self.0.read_tls(&mut wire)?;
            self.0.process_new_packets().map_err(io::Error::other)?;
            match self.0.reader().read_to_end(plain) {
                Ok(_) => {}
                // Nothing more to read now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts what is to go over the wire into `out`.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        while self.0.wants_write() {
            // A vector takes everything.
            if self.0.write_tls(out).is_err() {
                return;
            }
        }
    }

    /// Whether the handshake is through.
    pub(super) fn established(&self) -> bool {
        !self.0.is_handshaking()
    }

    /// Until when the server's certificate holds; `None` before it came, and
    /// where it is none that can be read.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        not_after(self.0.peer_certificates()?.first()?)
    }
}

fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let end = validity_end(certificate).ok()?;
    let seconds = i64::try_from(end.as_secs()).ok()?;
    Timestamp::from_second(seconds).ok()
}

/// `notAfter` as time since 1970. What is around it is stepped over: to
/// decode a whole certificate for one date takes 40 KB of program.
fn validity_end(certificate: &[u8]) -> der::Result<Duration> {
    let inside = |bytes| AnyRef::from_der(bytes).map(AnyRef::value);
    let certificate = inside(certificate)?;
    let to_be_signed = AnyRef::decode(&mut SliceReader::new(certificate)?)?;
    let mut fields = SliceReader::new(to_be_signed.value())?;
    // A version, where there is one, then serialNumber, signature and issuer.
    let version = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber::N0,
    };
    let before_validity = if fields.peek_tag()? == version { 4 } else { 3 };
    for _ in 0..before_validity {
        AnyRef::decode(&mut fields)?;
    }
    let validity = AnyRef::decode(&mut fields)?;
    let mut times = SliceReader::new(validity.value())?;
    AnyRef::decode(&mut times)?;
    let not_after = AnyRef::decode(&mut times)?;
    // UTCTime until 2049 (RFC 5280, section 4.1.2.5.1).
    match not_after.tag() {
        Tag::UtcTime => not_after
            .decode_as::<UtcTime>()
            .map(|time| time.to_unix_duration()),
        _ => not_after
            .decode_as::<GeneralizedTime>()
            .map(|time| time.to_unix_duration()),
    }
}

/// Takes every certificate: see the driver's word on that. The handshake's
/// signature is checked all the same.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (end, seconds) in [
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((2001, 2, 3), 981_158_400),
        ] {
            let mut params = rcgen::CertificateParams::new(vec!["room.test".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let der = certificate.der();
            assert_eq!(
                not_after(der),
                Some(Timestamp::from_second(seconds).unwrap())
            );
            for length in 0..der.len().min(200) {
                assert_eq!(not_after(&der[..length]), None, "{length}");
            }
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for bytes in [
            &b""[..],
            b"\x30\x00",
            b"\x30\x02\x30\x00",
            b"\x30\x80\x30\x80",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(not_after(bytes), None);
        }
    }
}
