//! Mail, by SMTP.

use std::fmt;
use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use lettre::{Message, SmtpTransport, Transport as _};

use super::Failure;
use super::message::Body;
use crate::causes::with_causes;

/// The way to the mail server.
#[derive(Clone)]
pub struct Mail {
    /// With a password, perhaps: never shown.
    url: String,
    from: Mailbox,
}

/// Why mail cannot be sent with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The URL is not one of a mail server. It stays out of the message: it
    /// may hold a password.
    #[error(
        "AV_SMTP_URL is not valid: write it as smtp://HOST:25, smtp://USER:PASSWORD@HOST:587?tls=required or smtps://USER:PASSWORD@HOST:465"
    )]
    Url,
    /// The sender is not a mail address.
    #[error("AV_MAIL_FROM is not a mail address, such as AV monitoring <av@example.org>")]
    From,
}

impl Mail {
    /// Mail by the server of this URL, from this address.
    ///
    /// # Errors
    /// [`MailError`].
    pub fn new(url: &str, from: &str) -> Result<Self, MailError> {
        SmtpTransport::from_url(url).map_err(|_| MailError::Url)?;
        Ok(Self {
            url: url.to_owned(),
            from: from.parse().map_err(|_| MailError::From)?,
        })
    }

    /// Sends a message to these addresses, on a connection of its own.
    pub(super) fn send(
        &self,
        timeout: Duration,
        recipients: &[String],
        id: i64,
        body: &Body,
    ) -> Result<(), Failure> {
        let mail = self.write(recipients, id, body)?;
        let transport = SmtpTransport::from_url(&self.url)
            .map_err(|_| Failure {
                why: MailError::Url.to_string(),
                channel: true,
            })?
            .timeout(Some(timeout))
            .build();
        match transport.send(&mail) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure {
                why: format!("the mail server did not take it: {}", with_causes(&error)),
                // A 5xx may be of this mail alone.
                channel: !error.is_permanent(),
            }),
        }
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
                "<av-{id}-{}@{}>",
                body.written_at.as_microsecond(),
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
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mail({})", self.from)
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

    #[test]
    fn settings_are_checked_and_a_password_is_not_repeated() {
        for (url, from, error) in [
            ("http://u:hunter2@h", "a@b.org", MailError::Url),
            ("hunter2", "a@b.org", MailError::Url),
            ("smtp://h:25", "nobody", MailError::From),
        ] {
            let found = Mail::new(url, from).unwrap_err();
            assert_eq!(found, error, "{url}");
            assert!(!found.to_string().contains("hunter2"));
        }
        let mail = Mail::new("smtps://u:hunter2@h:465", "AV <av@example.org>").unwrap();
        assert!(!format!("{mail:?}").contains("hunter2"));
    }
}
