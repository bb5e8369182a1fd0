//! Mail, by SMTP (RFC 5321), over TLS from the first byte (RFC 8314) or after
//! STARTTLS (RFC 3207), with a user name and password (RFC 4954) where the
//! server wants them.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use av_proto::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport as _};
use url::{Host, Url};

use super::Failure;
use super::message::Body;
use crate::causes::with_causes;

/// The way to the mail server.
#[derive(Clone)]
pub struct Mail {
    server: SmtpTransport,
    from: Mailbox,
    /// The password in every form in which it goes over the wire: a server may
    /// repeat what it was told, and its answers are shown.
    secrets: Vec<Secret>,
}

/// Why mail cannot be sent with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The URL is not one of a mail server. It stays out of the message: it
    /// may hold a password.
    #[error(
        "AV_SMTP_URL is not valid: write it as smtp://HOST:25, smtp://USER:PASSWORD@HOST:587?tls=required or smtps://USER:PASSWORD@HOST:465, with %XX for special characters of user and password"
    )]
    Url,
    /// A user name without a password, or the other way round.
    #[error("AV_SMTP_URL has a user name or a password, but not both")]
    HalfCredentials,
    /// The password would be there for everybody on the way to read.
    #[error(
        "AV_SMTP_URL would send the password in clear: write smtps://... or add ?tls=required (only a server on this machine may be without)"
    )]
    PasswordInClear,
    /// The sender is not a mail address.
    #[error("AV_MAIL_FROM is not a mail address, such as AV monitoring <av@example.org>")]
    From,
    /// The file of own authorities cannot be used.
    #[error("AV_SMTP_CA: {0}")]
    Authorities(String),
}

impl Mail {
    /// Mail by the server of this URL, from this address; a try may take so
    /// long. Over TLS the server's certificate must be of an authority that
    /// the system trusts, or of one in the PEM file `authorities`.
    ///
    /// # Errors
    /// [`MailError`].
    pub fn new(
        url: &str,
        from: &str,
        authorities: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, MailError> {
        let parsed = Url::parse(url).map_err(|_| MailError::Url)?;
        let builder = SmtpTransport::from_url(url).map_err(|_| MailError::Url)?;
        let tls = tls(&parsed, authorities)?;
        let secrets = secrets(&parsed)?;
        let encrypted = matches!(tls, Tls::Required(_) | Tls::Wrapper(_));
        if !secrets.is_empty() && !encrypted && !is_this_machine(&parsed) {
            return Err(MailError::PasswordInClear);
        }
        Ok(Self {
            server: builder.tls(tls).timeout(Some(timeout)).build(),
            from: from.parse().map_err(|_| MailError::From)?,
            secrets,
        })
    }

    /// Sends a message to these addresses, on a connection of its own.
    pub(super) fn send(&self, recipients: &[String], id: i64, body: &Body) -> Result<(), Failure> {
        let mail = self.write(recipients, id, body)?;
        self.server
            .send(&mail)
            .map(|_| ())
            .map_err(|error| Failure {
                why: self.hide(format!(
                    "the mail server did not take it: {}",
                    with_causes(&error)
                )),
                channel: !is_of_this_mail(&error),
            })
    }

    /// The Message-ID is the same at every try, so that a mail that arrives
    /// twice is known as one.
    fn write(&self, recipients: &[String], id: i64, body: &Body) -> Result<Message, Failure> {
        let bad = |why: String| Failure {
            why,
            channel: false,
        };
        let mut mail = Message::builder()
            .from(self.from.clone())
            .subject(format!(
                "[AV] {}",
                av_proto::text::excerpt(&body.title, 200)
            ))
            .message_id(Some(format!(
                "<{}@{}>",
                body.key(id),
                self.from.email.domain()
            )))
            .header(ContentType::TEXT_PLAIN);
        for recipient in recipients {
            mail = mail.to(recipient
                .parse()
                .map_err(|_| bad(format!("{recipient:?} is not a mail address")))?);
        }
        mail.body(body.text())
            .map_err(|error| bad(format!("the mail cannot be written: {error}")))
    }

    fn hide(&self, mut text: String) -> String {
        for secret in &self.secrets {
            text = text.replace(secret.expose(), "***");
        }
        text
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mail({})", self.from)
    }
}

/// A refusal for good (RFC 5321 section 4.2.1) may be of this mail alone; one
/// to talk to us or of the password (RFC 4954 section 6) is not.
fn is_of_this_mail(error: &SmtpError) -> bool {
    let code = error
        .status()
        .map_or_else(String::new, |code| code.to_string());
    error.is_permanent()
        && !matches!(
            code.as_str(),
            "500" | "502" | "504" | "521" | "530" | "534" | "535" | "538"
        )
}

/// How the connection is encrypted. The authorities of the system are read
/// here, once.
fn tls(url: &Url, authorities: Option<&Path>) -> Result<Tls, MailError> {
    let asked = url.query_pairs().find(|(key, _)| key == "tls");
    let asked = asked.as_ref().map(|(_, value)| value.as_ref());
    let kind: fn(TlsParameters) -> Tls = match (url.scheme(), asked) {
        ("smtp", None) => return Ok(Tls::None),
        ("smtp", Some("required")) => Tls::Required,
        ("smtp", Some("opportunistic")) => Tls::Opportunistic,
        ("smtps", _) => Tls::Wrapper,
        _ => return Err(MailError::Url),
    };
    // A certificate names a literal address without the brackets.
    let host = match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => url.host_str().ok_or(MailError::Url)?.to_owned(),
    };
    let mut parameters = TlsParameters::builder(host);
    if let Some(file) = authorities {
        let bad = |why: String| MailError::Authorities(format!("{}: {why}", file.display()));
        let pem = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
        let certificates = Certificate::from_pem(&pem)
            .map_err(|_| bad("the certificates in it cannot be read".to_owned()))?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(bad("there is no certificate in it (PEM)".to_owned()));
        }
        parameters = parameters.add_root_certificate(certificates);
    }
    parameters
        .build()
        .map(kind)
        .map_err(|error| MailError::Authorities(with_causes(&error)))
}

/// The password as it is, and as AUTH PLAIN (RFC 4616) and AUTH LOGIN send it;
/// nothing where the URL has none.
fn secrets(url: &Url) -> Result<Vec<Secret>, MailError> {
    let decoded = |text: &str| crate::url::decode(text, false).ok_or(MailError::Url);
    let user = decoded(url.username())?;
    let password = decoded(url.password().unwrap_or_default())?;
    match (user.is_empty(), password.is_empty()) {
        (true, true) => return Ok(Vec::new()),
        (false, false) => {}
        _ => return Err(MailError::HalfCredentials),
    }
    let plain = BASE64.encode(format!("\0{user}\0{password}"));
    let login = BASE64.encode(&password);
    Ok([plain, login, password].map(Secret::new).to_vec())
}

fn is_this_machine(url: &Url) -> bool {
    // Under "smtp" an address of version 4 is a name like any other.
    let name = url.host_str().unwrap_or_default();
    match url.host() {
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => {
            name.eq_ignore_ascii_case("localhost")
                || name
                    .parse::<std::net::Ipv4Addr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    }
}

/// Whether this is an address that mail can be sent to.
#[must_use]
pub(crate) fn is_address(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(url: &str, from: &str, authorities: Option<&Path>) -> Result<Mail, MailError> {
        Mail::new(url, from, authorities, Duration::from_secs(1))
    }

    #[test]
    fn settings_are_checked_and_a_password_is_not_repeated() {
        for (url, from, error) in [
            ("http://u:hunter2@h", "a@b.org", MailError::Url),
            ("hunter2", "a@b.org", MailError::Url),
            ("smtp://u:hunter2@h?tls=maybe", "a@b.org", MailError::Url),
            ("smtp://h:25", "nobody", MailError::From),
            ("smtps://u@h", "a@b.org", MailError::HalfCredentials),
            ("smtps://:hunter2@h", "a@b.org", MailError::HalfCredentials),
            ("smtp://u:hunter2@h", "a@b.org", MailError::PasswordInClear),
            (
                "smtp://u:hunter2@h?tls=opportunistic",
                "a@b.org",
                MailError::PasswordInClear,
            ),
            (
                "smtp://u:hunter2@127.example.org",
                "a@b.org",
                MailError::PasswordInClear,
            ),
        ] {
            let found = mail(url, from, None).unwrap_err();
            assert_eq!(found, error, "{url}");
            assert!(!found.to_string().contains("hunter2"));
        }
        for url in [
            "smtp://h",
            "smtps://u:hunter2@h:465",
            "smtp://u:hunter2@h:587?tls=required",
            "smtp://u:hunter2@localhost",
            "smtp://u:hunter2@127.0.0.1",
            "smtp://u:hunter2@[::1]:25",
        ] {
            let mail = mail(url, "AV <av@example.org>", None).unwrap();
            assert!(!format!("{mail:?}").contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn authorities_that_cannot_be_used_are_said() {
        let dir = std::env::temp_dir();
        for file in [
            dir.join("there is no such file"),
            Path::new("/dev/null").to_owned(),
        ] {
            let found = mail("smtps://h", "a@b.org", Some(&file)).unwrap_err();
            assert!(matches!(found, MailError::Authorities(_)), "{found}");
            assert!(
                found.to_string().contains(&file.display().to_string()),
                "{found}"
            );
        }
    }

    #[test]
    fn what_a_server_repeats_of_the_password_is_not_shown() {
        let mail = mail("smtps://av:hunter%202@h", "a@b.org", None).unwrap();
        // printf '\0av\0hunter 2' | base64; printf 'hunter 2' | base64
        let said = "535 AUTH PLAIN AGF2AGh1bnRlciAy: not hunter 2, aHVudGVyIDI=".to_owned();
        assert_eq!(mail.hide(said), "535 AUTH PLAIN ***: not ***, ***");
    }
}
